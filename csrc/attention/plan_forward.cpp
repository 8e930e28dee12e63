#include "attention/plan.h"
#include "core/error.h"

namespace vlmk {

std::vector<gpu::LaunchPlan> plan_attention_forward(const AttentionProblem&) {
    throw NotImplemented("attention has no forward kernel for GPUs");
}

}  // namespace vlmk
