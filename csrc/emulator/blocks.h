#pragma once
#include <cstdint>
#include <vector>

namespace vlmk::emulator {

// An order of the blocks reachable from block 0: topological but for back edges, every loop in one piece, its header
// first. Ties keep the given order.
std::vector<uint32_t> order_blocks(const std::vector<std::vector<uint32_t>>& successors);

}  // namespace vlmk::emulator
