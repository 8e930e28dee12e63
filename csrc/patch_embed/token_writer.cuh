// Rows of the output: a sum or a prefix token, plus bias, plus position, rounded to the output's type.
#pragma once
#include "gpu/packed.cuh"
#include "patch_embed/launch.h"

namespace vlmk::gpu {

// How rows of the output are written: kCount numbers of type Out at once.
template <class Out_, int kCount_>
struct OutAccess {
    using Out = Out_;
    static constexpr int kCount = kCount_;
};

// Calls function(access): 16 bytes of the wider of T and the output's type, or single numbers.
template <class T, class Function>
VLMK_DEVICE void with_out(const PatchLaunch& launch, const Function& function) {
    const auto with_type = [&](auto type) {
        using Out = decltype(type);
        constexpr int kWidest = sizeof(T) > sizeof(Out) ? sizeof(T) : sizeof(Out);
        if (launch.wide_out)
            function(OutAccess<Out, 16 / kWidest>{});
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

    VLMK_DEVICE void add_bias(float (&values)[kCount], int column) const { add(values, p_.bias, column); }
    VLMK_DEVICE void add_prefix(float (&values)[kCount], int prefix, int column) const {
        add(values, p_.prefix, prefix * p_.embed + column);
    }

    // The end of a row: its position (none: -1), and out.
    VLMK_DEVICE void write(float (&values)[kCount], int64_t token, int position, int column) const {
        if (position >= 0) add(values, p_.position, position * p_.embed + column);
        using Out = typename Access::Out;
        Packed<Out, kCount>::from_floats(values).store(static_cast<Out*>(p_.out) + token * p_.embed + column);
    }

  private:
    VLMK_DEVICE static void add(float (&values)[kCount], const void* from, int64_t at) {
        if (from == nullptr) return;
        const auto addend = Packed<T, kCount>::load(static_cast<const T*>(from) + at);
#pragma unroll
        for (int i = 0; i < kCount; ++i) values[i] += addend[i];
    }

    const PatchEmbedProblem& p_;
};

}  // namespace vlmk::gpu
