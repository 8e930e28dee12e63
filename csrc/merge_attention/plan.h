// Launches that merge split attention on a GPU.
#pragma once
#include "gpu/launch.h"
#include "merge_attention/problem.h"

namespace vlmk {

// For problems with rows.
gpu::LaunchPlan plan_merge_attention(const MergeProblem& problem, bool backward);

}  // namespace vlmk
