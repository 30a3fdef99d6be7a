#include "importance_curvature.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "importance_numbers.hpp"
#include "lmq/base/error.hpp"
#include "lmq/base/math.hpp"

namespace lmq {
namespace {

/// Weights of a row, the first axis counting rows.
std::uint64_t row_length(std::span<const std::uint64_t> weight) {
  const auto inner = weight.subspan(weight.size() < 2 ? 0 : 1);
  return std::accumulate(inner.begin(), inner.end(), std::uint64_t{1}, std::multiplies<>());
}

}  // namespace

std::optional<ImportanceMatrices> gram_of_shape(std::span<const std::uint64_t> shape,
                                                std::span<const std::uint64_t> weight) {
  const std::uint64_t size = shape.empty() ? 0 : shape.back(), last = weight.back();
  const bool stack = weight.size() == 3;
  if (size == 0 || shape.size() < 2 || shape[shape.size() - 2] != size) return std::nullopt;
  if (shape.size() == 2 && (size == row_length(weight) || (stack && size == last)))
    return ImportanceMatrices{-1, size, size, 1};
  if (shape.size() == 3 && stack && shape[0] == weight[0] && size == last)
    return ImportanceMatrices{-1, size, size, weight[0], weight[1]};
  return std::nullopt;
}

std::optional<ImportanceMatrices> outer_of_shape(std::span<const std::uint64_t> shape,
                                                 std::span<const std::uint64_t> weight, std::uint64_t length) {
  const std::size_t axes = shape.size();
  if (weight.size() < 2 || (axes != 3 && axes != 4)) return std::nullopt;
  const std::uint64_t r = shape[axes - 1], blocks = axes == 4 ? shape[0] * shape[1] : shape[0];
  if (r == 0 || r > kMaxOuterRows || shape[axes - 2] != r) return std::nullopt;
  const bool whole = length == 0 || length == row_length(weight);
  if (axes == 3 && whole && blocks == ceil_div(weight[0], r)) return ImportanceMatrices{-1, r, weight[0], 1};
  const bool stack = weight.size() == 3 && (length == 0 || length == weight[2]) && (axes == 3 || shape[0] == weight[0]);
  if (stack && blocks == weight[0] * ceil_div(weight[1], r)) return ImportanceMatrices{-1, r, weight[1], weight[0]};
  return std::nullopt;
}

std::string gram_shapes(std::span<const std::uint64_t> weight) {
  const std::uint64_t whole = row_length(weight), last = weight.back();
  const std::string stack =
      weight.size() == 3 ? fmt::format(", [{0}, {0}] or [{1}, {0}, {0}]", last, weight[0]) : std::string();
  return fmt::format("[{0}, {0}]{1} (the Gram matrix of the inputs)", whole, stack);
}

std::string outer_shapes(std::span<const std::uint64_t> weight) {
  if (weight.size() < 2) return "none: it has no rows";
  return fmt::format("[ceil({} / r), r, r] (curvature of the outputs in blocks of r rows, r at most {})", weight[0],
                     kMaxOuterRows);
}

ImportancePart diagonal_of(const ImportanceMatrices& matrices) {
  ImportancePart part;
  part.tensor = matrices.tensor;
  part.count = matrices.run * matrices.blocks;
  part.matrix = matrices.size, part.matrix_run = matrices.run;
  return part;
}

std::uint64_t diagonal_place(const ImportancePart& part, std::uint64_t index) noexcept {
  const std::uint64_t block = index / part.matrix_run, within = index % part.matrix_run;
  const std::uint64_t matrix = block * ceil_div(part.matrix_run, part.matrix) + within / part.matrix;
  return matrix * part.matrix * part.matrix + within % part.matrix * (part.matrix + 1);
}

void check_symmetric(std::span<const float> matrix, std::uint64_t size, std::int64_t number, const std::string& place) {
  constexpr double kTolerance = 1e-5;
  constexpr std::uint64_t kTile = 64;  // so that rows and columns stay in the cache
  const std::string which = number < 0 ? "" : fmt::format("{}, ", number);
  const auto at = [&](std::uint64_t i, std::uint64_t j) { return double{matrix[i * size + j]}; };
  for (std::uint64_t i = 0; i < size; ++i)
    if (at(i, i) < 0)
      fail(Errc::malformed,
           fmt::format("{}: number [{}{}, {}] is {}, expected a diagonal >= 0", place, which, i, i, at(i, i)));
  std::vector<double> root(size);
  for (std::uint64_t i = 0; i < size; ++i) root[i] = std::sqrt(at(i, i));
  for (std::uint64_t top = 0; top < size; top += kTile)
    for (std::uint64_t left = 0; left <= top; left += kTile)
      for (std::uint64_t i = top; i < std::min(size, top + kTile); ++i)
        for (std::uint64_t j = left; j < std::min(i, left + kTile); ++j)
          if (!(std::abs(at(i, j) - at(j, i)) <= kTolerance * root[i] * root[j]))
            fail(Errc::malformed,
                 fmt::format("{}: number [{}{}, {}] is {} and [{}{}, {}] is {}, expected a symmetric matrix", place,
                             which, i, j, at(i, j), which, j, i, at(j, i)));
}

void ImportanceFile::read_curvature(const ImportanceEntry& entry, std::uint64_t begin, std::uint64_t count,
                                    ImportanceWindow& window) const {
  if (entry.info.length == 0 || begin % entry.info.length != 0 || count % entry.info.length != 0)
    fail(Errc::internal, fmt::format("importance: curvature of no whole rows, {} + {}", begin, count));
  const std::uint64_t row = begin / entry.info.length, rows = count / entry.info.length;
  Importance& made = window.importance;
  made.gram = made.outer = {};
  made.gram_key = made.outer_rows = 0, made.outer_mean = 0;
  read_gram(entry.gram, entry.gram.blocks > 1 ? row / entry.gram.rows : 0, window);
  const ImportanceMatrices& outer = entry.outer;
  if (outer.tensor < 0 || rows == 0) return;
  const std::uint64_t within = row % outer.run;
  if (within % outer.size != 0 || within + rows > outer.run)
    fail(Errc::internal,
         fmt::format("importance: rows {} + {} in blocks of {} of {}", row, rows, outer.size, outer.run));
  const std::uint64_t first = row / outer.run * ceil_div(outer.run, outer.size) + within / outer.size;
  const std::uint64_t numbers = outer.size * outer.size;
  window.outer.resize(static_cast<std::size_t>(ceil_div(rows, outer.size) * numbers));
  const auto tensor = static_cast<std::uint32_t>(outer.tensor);
  read_numbers(*reader_, tensor, first * numbers, window.outer, true);
  for (std::uint64_t block = 0; block * numbers < window.outer.size(); ++block)
    check_symmetric(
        std::span(window.outer).subspan(static_cast<std::size_t>(block * numbers), static_cast<std::size_t>(numbers)),
        outer.size, static_cast<std::int64_t>(first + block), place_of(catalogue(), catalogue().tensors[tensor]));
  made.outer = window.outer;
  made.outer_rows = outer.size;
  made.outer_mean = entry.outer_mean;
}

void ImportanceFile::read_gram(const ImportanceMatrices& gram, std::uint64_t block, ImportanceWindow& window) const {
  if (gram.tensor < 0) return;
  const std::uint64_t key = (static_cast<std::uint64_t>(gram.tensor) + 1) << 32 | block;
  if (window.gram_held != key) {
    window.gram_held = 0;
    const std::uint64_t numbers = gram.size * gram.size;
    window.gram.resize(static_cast<std::size_t>(numbers));
    const auto tensor = static_cast<std::uint32_t>(gram.tensor);
    read_numbers(*reader_, tensor, block * numbers, window.gram, true);
    check_symmetric(window.gram, gram.size, gram.blocks > 1 ? static_cast<std::int64_t>(block) : -1,
                    place_of(catalogue(), catalogue().tensors[tensor]));
    window.gram_held = key;
  }
  window.importance.gram = window.gram;
  window.importance.gram_key = key;
}

}  // namespace lmq
