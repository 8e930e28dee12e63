// Launches that compute the contrastive losses on a GPU, to be run one after the other, and how many fp32 numbers of
// workspace they need. NotImplemented for what kernels, whose positions have 32 bits, cannot take.
#pragma once
#include <vector>

#include "contrastive/problem.h"
#include "gpu/launch.h"

namespace vlmk {

int64_t info_nce_forward_workspace(const InfoNceProblem& problem);
std::vector<gpu::LaunchPlan> plan_info_nce_forward(const InfoNceProblem& problem);

int64_t info_nce_backward_workspace(const InfoNceProblem& problem);
std::vector<gpu::LaunchPlan> plan_info_nce_backward(const InfoNceProblem& problem);

// The loss, its gradients, or both.
int64_t sigmoid_workspace(const SigmoidProblem& problem);
std::vector<gpu::LaunchPlan> plan_sigmoid(const SigmoidProblem& problem);

}  // namespace vlmk
