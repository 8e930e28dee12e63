#include "attention/plan.h"
#include "core/error.h"

namespace vlmk {

std::vector<gpu::LaunchPlan> plan_attention_backward(const AttentionProblem&) {
    throw NotImplemented("attention has no backward kernel for GPUs");
}

}  // namespace vlmk
