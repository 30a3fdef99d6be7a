#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace lmq {

/// How an axis of `n` > 0 entries is cut: the length of every piece but the last, which may be shorter. At most `most`
/// (>= 1) entries; as few pieces as possible among the lengths whose last piece is at least half a piece.
[[nodiscard]] std::uint64_t even_piece(std::uint64_t n, std::uint64_t most);

/// HDF5 chunk dimensions of a tensor without a zero dimension. Only the first `cuttable` axes may be cut: leading ones
/// to 1, then one into even pieces, so that a chunk is a contiguous run of at most kUnitWeights elements where that
/// many axes suffice, and one entry of the last cuttable axis where not. Dimensions <= shape.
[[nodiscard]] std::vector<std::uint64_t> chunk_dims(std::span<const std::uint64_t> shape, std::size_t cuttable);

/// The same for methods that see layers: the first `row_axes` axes count rows, the last of them those of one layer (of
/// an expert), which is cut into runs of whole lanes, as equal as may be: at most kUnitWeights weights, or one lane, and
/// `most_lanes`. A chunk is of one layer.
[[nodiscard]] std::vector<std::uint64_t> lane_chunk_dims(std::span<const std::uint64_t> shape, std::size_t row_axes,
                                                         std::uint64_t lane_rows, std::uint64_t most_lanes);

/// Calls run(begin, count) for each chunk of the grid, in element order.
void for_each_chunk(std::span<const std::uint64_t> shape, std::span<const std::uint64_t> chunk,
                    const std::function<void(std::uint64_t begin, std::uint64_t count)>& run);

}  // namespace lmq
