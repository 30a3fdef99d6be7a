#include "chunks.hpp"

#include <algorithm>
#include <numeric>

#include "lmq/base/math.hpp"
#include "lmq/plan/plan.hpp"

namespace lmq {
namespace {

std::uint64_t product(std::span<const std::uint64_t> dims) noexcept {
  return std::accumulate(dims.begin(), dims.end(), std::uint64_t{1}, std::multiplies<>());
}

}  // namespace

std::uint64_t even_piece(std::uint64_t n, std::uint64_t most) {
  const auto last = [n](std::uint64_t piece) { return n - (ceil_div(n, piece) - 1) * piece; };
  const std::uint64_t longest = ceil_div(n, ceil_div(n, most));
  std::uint64_t best = longest;
  // With p pieces the last one lacks less than p entries, so the first try serves unless pieces are short.
  for (std::uint64_t piece = longest; piece > 0 && piece >= longest / 2; --piece) {
    if (2 * last(piece) >= piece) return piece;
    if (last(piece) * best > last(best) * piece) best = piece;
  }
  return best;
}

std::vector<std::uint64_t> chunk_dims(std::span<const std::uint64_t> shape, std::size_t cuttable) {
  std::vector<std::uint64_t> chunk(shape.begin(), shape.end());
  std::uint64_t inner = product(shape);  // elements of one entry of the axis before `axis`
  for (std::size_t axis = 0; axis < cuttable && inner > kUnitWeights; ++axis) {
    inner /= shape[axis];
    if (inner <= kUnitWeights || axis + 1 == cuttable) {
      chunk[axis] = even_piece(shape[axis], std::max<std::uint64_t>(1, kUnitWeights / inner));
      break;
    }
    chunk[axis] = 1;
  }
  return chunk;
}

std::vector<std::uint64_t> lane_chunk_dims(std::span<const std::uint64_t> shape, std::size_t row_axes,
                                           std::uint64_t lane_rows, std::uint64_t most_lanes) {
  std::vector<std::uint64_t> chunk(shape.begin(), shape.end());
  if (row_axes == 0) return chunk;
  for (std::size_t axis = 0; axis + 1 < row_axes; ++axis) chunk[axis] = 1;
  const std::uint64_t rows = shape[row_axes - 1], cols = std::max<std::uint64_t>(1, product(shape.subspan(row_axes)));
  const std::uint64_t most = std::clamp<std::uint64_t>(kUnitWeights / cols / lane_rows, 1, most_lanes);
  const std::uint64_t lanes = ceil_div(rows, lane_rows);
  chunk[row_axes - 1] = std::min(rows, ceil_div(lanes, ceil_div(lanes, most)) * lane_rows);
  return chunk;
}

void for_each_chunk(std::span<const std::uint64_t> shape, std::span<const std::uint64_t> chunk,
                    const std::function<void(std::uint64_t, std::uint64_t)>& run) {
  std::size_t axis = 0;  // the one that is cut: all before it are cut to 1, all after it are whole
  while (axis < shape.size() && chunk[axis] == 1) ++axis;
  const std::uint64_t line = product(shape.subspan(axis)), piece = product(chunk);
  const std::uint64_t lines = product(shape.first(axis));
  for (std::uint64_t i = 0; i < lines; ++i)
    for (std::uint64_t begin = 0; begin < line; begin += piece) run(i * line + begin, std::min(piece, line - begin));
}

}  // namespace lmq
