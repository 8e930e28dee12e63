// From a dtype at run time to an element type at compile time.
#pragma once
#include "core/dtype.h"
#include "core/inline.h"

namespace vlmk {

// run(number) with a number of the kernels' element types; anything but bf16 and fp16 is fp32.
template <class Run>
VLMK_INLINE void with_float_type(DType dtype, const Run& run) {
    switch (dtype) {
        case DType::bf16:
            return run(bf16{});
        case DType::f16:
            return run(f16{});
        default:
            return run(float{});
    }
}

}  // namespace vlmk
