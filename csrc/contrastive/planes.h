// What the numbers are that the kernels of tiles leave to those that merge them.
#pragma once

namespace vlmk {

// Of a strip's rows and columns, for InfoNCE.
enum StatisticsPlane : int { kMaximum, kExponentials, kTotal, kTarget, kPositives, kStatisticsPlanes };

// Sums over a strip of a row: G <x, y>, G, and the loss.
enum RowPlane : int { kDot, kGradient, kLoss, kRowPlanes };

}  // namespace vlmk
