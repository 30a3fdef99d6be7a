#include "binary_method.hpp"

#include <algorithm>
#include <array>

#include "rank1.hpp"

namespace lmq {
namespace {

Codebook codebook_of(const ParametricCodebook& books, std::span<const float> numbers) {
  if (books.kind == CodebookKind::centred) return Codebook::centred(numbers[0], books.levels);
  return Codebook::bases({numbers.begin(), numbers.end()}, books.rule);
}

}  // namespace

std::vector<std::uint32_t> members_of(const Group& group, const FoldedGroup& folded,
                                      std::span<const std::uint32_t> points) {
  std::vector<std::uint32_t> bins;
  for (const std::uint32_t point : points)
    for (std::uint32_t m = folded.members[point]; m < folded.members[point + 1]; ++m)
      if (span_bits(group, folded.bins[m]) > 0) bins.push_back(folded.bins[m]);
  std::ranges::sort(bins);
  return bins;
}

Fit SignQuantizer::fit(const Group& group) const {
  const ParametricCodebook books = traits().numbered;
  const FoldedGroup folded = fold(group);
  std::array<float, kMaxBases> room{};
  const auto numbers = std::span(room).first(books.numbers);
  const auto open = fit_folded(folded.magnitudes, numbers);
  return {codebook_of(books, numbers), refine_at(group, members_of(group, folded, open), kMaxFolded)};
}

Codebook SignQuantizer::fit_values(std::span<const float> values, std::span<const float> importance,
                                   Workspace& scratch) const {
  const ParametricCodebook books = traits().numbered;
  std::array<float, kMaxBases> room{};
  const auto numbers = std::span(room).first(books.numbers);
  fit_numbers(values, importance, scratch, numbers);
  return codebook_of(books, numbers);
}

UnitStats SignQuantizer::quantize_rows(const RowWindow& window, QuantizedUnit& unit) const {
  return quantize_rank1(window.view, *this, window.importance, unit);
}

RowNeeds SignQuantizer::row_needs(std::uint64_t count, std::uint64_t cols) const {
  const std::uint64_t rows = cols > 0 ? count / cols : 0;
  return {rank1_scratch_bytes(count, cols), rows + cols + traits().numbered.levels};
}

}  // namespace lmq
