// Division by a number that stays the same for many.
#pragma once
#include "gpu/device.cuh"

namespace vlmk::gpu {

// Exact where x d < 2^30.
class Divisor {
  public:
    VLMK_DEVICE explicit Divisor(int d) : d_(d), factor_((0x80000000u - 1) / static_cast<uint32_t>(d) + 1) {}

    VLMK_DEVICE int operator()(int x) const {
        return static_cast<int>(__umulhi(2 * static_cast<uint32_t>(x) + 1, factor_));
    }
    VLMK_DEVICE int value() const { return d_; }

  private:
    int d_;
    uint32_t factor_;
};

}  // namespace vlmk::gpu
