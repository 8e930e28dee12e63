// Launches that compute attention on a GPU.
#pragma once
#include <vector>

#include "attention/problem.h"
#include "gpu/launch.h"

namespace vlmk {

// The problem as kernels take it, whose positions have 32 bits and whose loads 16 bytes. NotImplemented or
// std::invalid_argument for what they cannot take.
AttentionProblem prepare_for_gpu(const AttentionProblem& problem);

// Every query sees every key, and scores are multiples of products.
bool is_plain(const AttentionProblem& p);

// How many fp32 numbers of workspace the forward plan of a problem needs.
int64_t attention_workspace(const AttentionProblem& problem);

// To be run one after the other; none for problems without rows.
std::vector<gpu::LaunchPlan> plan_attention_forward(const AttentionProblem& problem, const gpu::GpuLimits& gpu);

// How many fp32 numbers of workspace the backward plan of a problem needs.
int64_t attention_backward_workspace(const AttentionProblem& problem);

// `shared_bytes` is what a block of the GPU can have.
std::vector<gpu::LaunchPlan> plan_attention_backward(const AttentionProblem& problem, int shared_bytes);

}  // namespace vlmk
