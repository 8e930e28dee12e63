// Rows of the output: a sum or a prefix token, plus bias, plus position, rounded to the output's type.
#pragma once
#include "gpu/vector.cuh"
#include "patch_embed/launch.h"

namespace vlmk::gpu {

constexpr int kWideNumbers = 8;  // 16 bytes of 16-bit numbers, 32 of fp32

// Calls function(out type, numbers at once).
template <class Out_, int kCount_>
struct OutAccess {
    using Out = Out_;
    static constexpr int kCount = kCount_;
};
template <class Function>
VLMK_DEVICE void with_out(const PatchLaunch& launch, const Function& function) {
    const auto with_type = [&](auto type) {
        using Out = decltype(type);
        if (launch.wide_out)
            function(OutAccess<Out, kWideNumbers>{});
        else
            function(OutAccess<Out, 1>{});
    };
    switch (launch.problem.out_dtype) {
        case DType::f32:
            return with_type(float{});
        case DType::bf16:
            return with_type(bf16{});
        default:
            return with_type(f16{});
    }
}

template <class T, class Access>
class TokenWriter {
  public:
    static constexpr int kCount = Access::kCount;

    VLMK_DEVICE explicit TokenWriter(const PatchEmbedProblem& p) : p_(p) {}

    VLMK_DEVICE void add_bias(float (&values)[kCount], int column) const {
        if (p_.bias != nullptr) add(values, static_cast<const T*>(p_.bias) + column);
    }

    // The end of a row: position `row` (none: -1), and out.
    VLMK_DEVICE void write(float (&values)[kCount], int64_t token, int position, int column) const {
        if (p_.position != nullptr && position >= 0)
            add(values, static_cast<const T*>(p_.position) + position * p_.embed + column);
        store(static_cast<typename Access::Out*>(p_.out) + token * p_.embed + column, values);
    }

  private:
    VLMK_DEVICE static void add(float (&values)[kCount], const T* from) {
        float addend[kCount];
        load(from, addend);
#pragma unroll
        for (int i = 0; i < kCount; ++i) values[i] += addend[i];
    }

    const PatchEmbedProblem& p_;
};

}  // namespace vlmk::gpu
