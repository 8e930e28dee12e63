// Goes through the pixels of a tile in the order they lie in memory: neighbouring lanes have neighbouring accesses,
// also from the last of a patch to the first of the next one. Warps take turns; a turn is 32 accesses in one run of 32
// lanes' patches.
#pragma once
#include "gpu/divisor.cuh"
#include "patch_embed/patch_rows.cuh"

namespace vlmk::gpu {

// An access: a row of the block, and kVector numbers from `number` of a run on (position by position).
struct PixelPlace {
    int row, run, number;
    int channel;    // of all its numbers, where positions have only one
    int64_t bytes;  // from the first pixel of the tensor
};

template <int kVector, int kElementBytes>
class PixelWalk {
  public:
    // `rows` is a multiple of 32.
    VLMK_DEVICE PixelWalk(const PatchTiling& t, const TileSpan& span, int rows, const PatchRow* infos)
        : t_(t),
          span_(span),
          infos_(infos),
          accesses_(span.length * t.channels / kVector),
          turns_(rows * accesses_.value() / kWarpLanes),
          inner_runs_(t.frames * t.rows),
          inner_rows_(t.rows) {}

    VLMK_DEVICE int turns() const { return span_.runs * turns_.value(); }

    // The lane's access in a turn.
    VLMK_DEVICE PixelPlace place(int turn) const {
        PixelPlace at;
        at.run = turns_(turn);
        const int number = (turn - at.run * turns_.value()) * kWarpLanes + lane_index();
        at.row = accesses_(number);
        const int access = number - at.row * accesses_.value();
        at.number = access * kVector;

        const int run = span_.run + at.run;
        at.channel = inner_runs_(run);
        const int inner = run - at.channel * inner_runs_.value(), frame = inner_rows_(inner);
        const int64_t run_bytes = at.channel * t_.channel_bytes + frame * t_.frame_bytes +
                                  (inner - frame * inner_rows_.value()) * t_.row_bytes;
        // Accesses of several numbers are dense; single numbers go from position to position.
        const int64_t along = kVector > 1 || t_.channels > 1
                                  ? int64_t{span_.begin * t_.channels + at.number} * kElementBytes
                                  : (span_.begin + at.number) * t_.position_bytes;
        at.bytes = infos_[at.row].pixels + run_bytes + along;
        return at;
    }

    // Position in the tile of a position of a run.
    VLMK_DEVICE int position(int run, int along) const { return run * span_.length + along; }

  private:
    const PatchTiling& t_;
    const TileSpan span_;
    const PatchRow* const infos_;
    const Divisor accesses_, turns_, inner_runs_, inner_rows_;
};

// Calls function(constants) for the tiling's vector and its channels: 1, 3, or 0 for another number of them, which goes
// number by number.
template <int kNumber>
struct Constant {
    static constexpr int value = kNumber;
};
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
