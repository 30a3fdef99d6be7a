#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lmq/io/importance_file.hpp"

namespace lmq {

/// Rows of a block of the outputs' curvature, at most: a lane of the record holds whole blocks.
inline constexpr std::uint64_t kMaxOuterRows = 4096;

/// What a tensor of that shape is as the Gram matrix of a weight's inputs: [length, length], or [experts, length,
/// length] for a stack of experts; nothing when it cannot be one. `tensor` is left open, here and below.
[[nodiscard]] std::optional<ImportanceMatrices> gram_of_shape(std::span<const std::uint64_t> shape,
                                                              std::span<const std::uint64_t> weight);
/// As the curvature of a weight's outputs in diagonal blocks of r rows: [blocks, r, r], or [experts, blocks, r, r].
/// length: weights of a row as the inputs' importance sees it, 0: nothing is known of them.
[[nodiscard]] std::optional<ImportanceMatrices> outer_of_shape(std::span<const std::uint64_t> shape,
                                                               std::span<const std::uint64_t> weight,
                                                               std::uint64_t length);
/// The shapes that are expected, for messages.
[[nodiscard]] std::string gram_shapes(std::span<const std::uint64_t> weight);
[[nodiscard]] std::string outer_shapes(std::span<const std::uint64_t> weight);

/// The numbers on the diagonals.
[[nodiscard]] ImportancePart diagonal_of(const ImportanceMatrices& matrices);
/// Place in the tensor of number `index` of a part that is the diagonals of matrices.
[[nodiscard]] std::uint64_t diagonal_place(const ImportancePart& part, std::uint64_t index) noexcept;

/// Errc::malformed unless the matrix [size, size] is symmetric to 1e-5 of the root of its diagonals' product, with a
/// diagonal >= 0; `place` names it, `number` is its place among several (-1: it is alone). Numbers are finite.
void check_symmetric(std::span<const float> matrix, std::uint64_t size, std::int64_t number, const std::string& place);

}  // namespace lmq
