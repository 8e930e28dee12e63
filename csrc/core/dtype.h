// Element types of tensors and the names kernels use for them.
#pragma once
#include <cstdint>

namespace vlmk {

enum class DType : uint8_t { f32, f16, bf16, f64, u8, boolean, i32, i64, other };

struct bf16 {
    uint16_t bits;
};
struct f16 {
    uint16_t bits;
};

inline const char* name(DType dtype) {
    switch (dtype) {
        case DType::f32:
            return "float32";
        case DType::f16:
            return "float16";
        case DType::bf16:
            return "bfloat16";
        case DType::f64:
            return "float64";
        case DType::u8:
            return "uint8";
        case DType::boolean:
            return "bool";
        case DType::i32:
            return "int32";
        case DType::i64:
            return "int64";
        case DType::other:
            break;
    }
    return "unsupported dtype";
}

}  // namespace vlmk
