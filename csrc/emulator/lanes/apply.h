// The loops over lanes. Included only by sources compiled per instruction set.
#pragma once
#include <type_traits>

#include "core/half.h"
#include "emulator/handlers.h"

namespace vlmk::emulator::VLMK_EMULATOR_ISA {

// F is a function object without state: D(A), D(A, B), D(A, B, C).
template <class F, class D, class A>
void unary(Warp& w, const Op& op) {
    D* d = result_row<D>(w, op.d);
    const A* a = row<A>(w, op.a);
    each_lane(w.active, [d, a](uint32_t i) { d[i] = static_cast<D>(F()(a[i])); });
}
template <class F, class D, class A, class B>
void binary(Warp& w, const Op& op) {
    D* d = result_row<D>(w, op.d);
    const A* a = row<A>(w, op.a);
    const B* b = row<B>(w, op.b);
    each_lane(w.active, [d, a, b](uint32_t i) { d[i] = static_cast<D>(F()(a[i], b[i])); });
}
template <class F, class D, class A, class B, class C>
void ternary(Warp& w, const Op& op) {
    D* d = result_row<D>(w, op.d);
    const A* a = row<A>(w, op.a);
    const B* b = row<B>(w, op.b);
    const C* c = row<C>(w, op.c);
    each_lane(w.active, [d, a, b, c](uint32_t i) { d[i] = static_cast<D>(F()(a[i], b[i], c[i])); });
}

inline float flushed(float x) {
    const uint32_t bits = float_to_bits(x);
    return (bits & 0x7f800000U) == 0 ? bits_to_float(bits & 0x80000000U) : x;
}

}  // namespace vlmk::emulator::VLMK_EMULATOR_ISA
