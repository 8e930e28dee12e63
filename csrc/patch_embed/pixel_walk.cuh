// Goes through the pixels of a tile in the order they lie in memory: neighbouring lanes have neighbouring accesses,
// also from the last of a patch to the first of the next one. 32 accesses to one run of some patches are a turn. Each
// warp takes some turns, and stays with them from run to run; where a run has fewer turns than there are warps, they
// share the runs.
#pragma once
#include "gpu/divisor.cuh"
#include "patch_embed/patch_rows.cuh"

namespace vlmk::gpu {

// A row of the block, and kVector numbers of each run, from `number` on (position by position).
struct PixelPlace {
    int row, number;
};

template <int kVector>
class PixelWalk {
  public:
    // `rows` is a multiple of 32.
    VLMK_DEVICE PixelWalk(const PatchTiling& t, const TileSpan& span, int rows)
        : accesses_(span.length * t.channels / kVector), turns_(rows / kWarpLanes * accesses_.value()) {
        const int warps = static_cast<int>(blockDim.x) / kWarpLanes, warp = static_cast<int>(threadIdx.x) / kWarpLanes;
        // Where a run of a patch is 2 or 4 accesses, the lanes of a turn are dealt to eight patches first: eight lanes
        // write to a tile together, whose rows are an odd number of 16 bytes apart.
        const int each = accesses_.value(), lane = lane_index();
        lane_ = each == 2 || each == 4 ? (lane / (8 * each) * 8 + lane % 8) * each + lane / 8 % each : lane;
        turn_step_ = min(warps, turns_);
        run_step_ = warps / turn_step_;
        first_run_ = warp / turn_step_;
        first_turn_ = first_run_ < run_step_ ? warp - first_run_ * turn_step_ : turns_;  // none
    }

    VLMK_DEVICE int turns() const { return turns_; }
    VLMK_DEVICE int first_turn() const { return first_turn_; }
    VLMK_DEVICE int turn_step() const { return turn_step_; }
    VLMK_DEVICE int first_run() const { return first_run_; }
    VLMK_DEVICE int run_step() const { return run_step_; }

    VLMK_DEVICE PixelPlace place(int turn) const {
        const int access = turn * kWarpLanes + lane_, row = accesses_(access);
        return {row, (access - row * accesses_.value()) * kVector};
    }

    // Bytes from the first pixel of a run to that of a place. Accesses of several numbers are dense; single ones go
    // from position to position.
    VLMK_DEVICE static int64_t along(const PatchTiling& t, const PixelPlace& at, int element_bytes) {
        return kVector > 1 || t.channels > 1 ? int64_t{at.number * element_bytes} : at.number * t.position_bytes;
    }

  private:
    const Divisor accesses_;
    const int turns_;
    int lane_, first_turn_, turn_step_, first_run_, run_step_;
};

template <int kNumber>
struct Constant {
    static constexpr int value = kNumber;
};

// Calls function(vector, channels) with constants for those of the tiling: channels are 1, 3, or 0 for another number
// of them, which goes number by number.
template <int kElementBytes, class Function>
VLMK_DEVICE void with_access(const PatchTiling& t, const Function& function) {
    const auto with_channels = [&](auto vector) {
        if (t.channels == 1)
            function(vector, Constant<1>{});
        else
            function(vector, Constant<3>{});
    };
    if (t.channels != 1 && t.channels != 3) return function(Constant<1>{}, Constant<0>{});
    switch (t.vector) {
        case 1:
            return with_channels(Constant<1>{});
        case 2:
            return with_channels(Constant<2>{});
        case 4:
            return with_channels(Constant<4>{});
        case 8:
            if constexpr (kElementBytes <= 2) return with_channels(Constant<8>{});
            break;
        case 16:
            if constexpr (kElementBytes == 1) return with_channels(Constant<16>{});
            break;
    }
}

}  // namespace vlmk::gpu
