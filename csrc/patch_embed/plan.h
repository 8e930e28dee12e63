// Launches that embed patches on a GPU.
#pragma once
#include <vector>

#include "gpu/launch.h"
#include "patch_embed/problem.h"

namespace vlmk {

// One launch, or none for problems without tokens.
std::vector<gpu::LaunchPlan> plan_patch_embed_forward(const PatchEmbedProblem& problem);

// How many fp32 numbers of workspace the backward plan of a problem needs.
int64_t patch_embed_backward_workspace(const PatchEmbedProblem& problem);

// To be run one after the other: those that the gradients asked for need.
std::vector<gpu::LaunchPlan> plan_patch_embed_backward(const PatchEmbedProblem& problem);

}  // namespace vlmk
