#include "lmq/quant/unit.hpp"

#include <algorithm>
#include <array>
#include <string>

#include "assigner.hpp"
#include "core/priced_levels.hpp"
#include "core/steps.hpp"
#include "core/unit_errors.hpp"
#include "lmq/base/error.hpp"
#include "lmq/base/math.hpp"
#include "lmq/base/parallel.hpp"
#include "lmq/base/random.hpp"
#include "lmq/kernels/widen.hpp"
#include "lmq/quant/value_histogram.hpp"
#include "lower_lagrangian.hpp"
#include "make_quantizer.hpp"
#include "unit_rows.hpp"

namespace lmq {
namespace {
void check_window(const RowWindow& window, const QuantSpec& spec) {
  const TensorView& view = window.view;
  const auto refuse = [](const char* what) { fail(Errc::internal, std::string("quantize_unit: ") + what); };
  if (!is_float(view.dtype)) refuse("the type cannot be quantized");
  if (view.bytes.size() != view.count * (bits(view.dtype) / 8)) refuse("the view's bytes and count differ");
  if (!covers(window.importance, view.count)) refuse("the importance does not cover the window");
  if (spec.options.levels < 1 || spec.options.levels > 256) refuse("levels are outside 1..256");
  if (spec.granularity == Granularity::row || spec.granularity == Granularity::group) {
    if (view.count > 0 && (window.cols == 0 || view.count % window.cols != 0)) refuse("the window is not whole rows");
    if (spec.granularity == Granularity::group && spec.group == 0) refuse("a group of no weights");
  }
}

Codebook fit_few(const TensorView& view, const Quantizer& quantizer, const Importance& importance) {
  std::vector<float> values(view.count), weights(importance.kind == Importance::Kind::none ? 0 : view.count);
  widen(view.dtype, view.bytes, values);
  if (!weights.empty()) importance_at(importance, 0, weights);
  Workspace scratch;
  return quantizer.fit_values(values, weights, scratch);
}

/// The codebook of a window that shares it with no other.
Codebook fit_window(const TensorView& view, const Quantizer& quantizer, const Importance& given) {
  if (view.count == 0) return Codebook::table({0.0f});
  const Importance importance = quantizer.traits().importance ? given : Importance{};
  const bool layered = quantizer.traits().by_importance && importance.kind != Importance::Kind::none;
  const bool few = bits(view.dtype) > 16 && view.count <= quantizer.traits().few_weights;
  if (few && !layered) return fit_few(view, quantizer, importance);
  static constexpr KeyRange kAllKeys{kLowestKey, kHighestKey, 0};
  ValueHistogram histogram = ValueHistogram::of(view, importance, std::span(&kAllKeys, few ? 1 : 0), layered);
  if (histogram.nonfinite() > 0) fail(Errc::internal, "quantize_unit: the window holds values that are not finite");
  for (;;) {
    Fit fit = quantizer.fit(histogram.group(importance.quantum));
    if (fit.refine.empty()) return std::move(fit.codebook);
    histogram.refine(ValueHistogram::of(view, importance, fit.refine, layered), fit.refine);
  }
}

/// Puts a shared codebook's numbers, as they will be stored, into the unit.
void store_codebook(const Codebook& stored, QuantizedUnit& unit) {
  unit.kind = stored.kind();
  unit.levels = static_cast<std::uint32_t>(stored.levels().size());
  if (stored.kind() == CodebookKind::table)
    unit.book.assign(stored.levels().begin(), stored.levels().end());
  else if (!stored.numbers().empty())
    unit.book.assign(stored.numbers().begin(), stored.numbers().end());
  else
    unit.book.assign({stored.low(), stored.step()});
}

/// Codes by value and importance.
UnitStats assign_priced(const RowWindow& window, const Codebook& stored, std::span<Code> codes) {
  const TensorView& view = window.view;
  const PricedLevels levels(stored.levels(), stored.prices(), window.importance.quantum);
  const LevelTable table(stored.levels());
  return sum_errors(view.count, window.importance, nullptr,
                    [&](std::uint64_t begin, std::size_t count, std::span<const float> scale, std::size_t) {
                      const auto weights = bytes_of(view, begin, count);
                      const auto block = codes.subspan(static_cast<std::size_t>(begin), count);
                      std::array<float, kErrorBlock> values;
                      widen(view.dtype, weights, std::span(values).first(count));
                      levels.assign(std::span(values).first(count), scale, block);
                      return error_of_codes(view.dtype, weights, block, table, scale);
                    });
}

UnitStats assign_shared(const RowWindow& window, const Codebook& stored, const Quantizer& quantizer, const Draws& draws,
                        std::span<Code> codes) {
  if (!stored.prices().empty()) return assign_priced(window, stored, codes);
  const TensorView& view = window.view;
  Assigner assigner;
  assigner.prepare({stored.levels(), stored.cuts(), quantizer.traits().rounding,
                    draw_key(quantizer.traits().seed, draws.tensor), stored.order()},
                   view.dtype, view.count);
  const LevelTable table(stored.levels());
  return sum_errors(view.count, window.importance, nullptr,
                    [&](std::uint64_t begin, std::size_t count, std::span<const float> scale, std::size_t) {
                      const auto weights = bytes_of(view, begin, count);
                      const auto block = codes.subspan(static_cast<std::size_t>(begin), count);
                      assigner.assign(weights, draws.first + begin, block);
                      return error_of_codes(view.dtype, weights, block, table, scale);
                    });
}

/// By rows: a codebook for each run of weights, the method's own way with whole rows, or what has the lower Lagrangian.
UnitOutcome quantize_by_rows(const RowWindow& window, std::size_t levels, const Quantizer& quantizer,
                             const Draws& draws, UnitOutcome&& outcome) {
  const Sees sees = quantizer.traits().sees;
  const RowWindow rows{window.view, window.importance};
  if (sees == Sees::rows) {
    outcome.stats = quantizer.quantize_rows(rows, outcome.unit);
    return std::move(outcome);
  }
  UnitOutcome other;
  if (sees == Sees::either) {
    other.unit = outcome.unit;
    other.stats = quantizer.quantize_rows(rows, other.unit);
  }
  outcome.stats = quantize_rows(window, levels, quantizer, draws, outcome.unit);
  if (sees == Sees::either &&
      lower_lagrangian(other.unit, other.stats.weighted_error, outcome.unit, outcome.stats.weighted_error))
    return other;
  return std::move(outcome);
}
}  // namespace

UnitOutcome quantize_unit(const RowWindow& window, const QuantSpec& spec, const Codebook* shared,
                          QuantizedUnit&& recycle, const Draws& draws) {
  check_window(window, spec);
  const TensorView& view = window.view;
  UnitOutcome outcome{std::move(recycle), {}};
  QuantizedUnit& unit = outcome.unit;
  unit.method = spec.method;
  unit.source = view.dtype;
  unit.count = view.count;
  unit.level_type = spec.level_type;
  if (unit.codes.size() != view.count) unit.codes.resize(view.count);
  const auto quantizer = make_quantizer(spec);
  const bool by_rows = spec.granularity == Granularity::row || spec.granularity == Granularity::group;
  if (by_rows) {
    unit.cols = window.cols;
    unit.group = spec.granularity == Granularity::row ? window.cols : std::min(spec.group, window.cols);
    if (view.count > 0) return quantize_by_rows(window, spec.options.levels, *quantizer, draws, std::move(outcome));
  }
  unit.cols = 0;
  unit.group = 0;
  Importance scaled = window.importance;
  if (shared == nullptr) scaled.quantum = importance_quantum(largest_importance(scaled), view.count);
  const Codebook stored = (shared ? *shared : fit_window(view, *quantizer, scaled))
                              .stored_as(spec.level_type, quantizer->traits().rounding == Rounding::stochastic);
  store_codebook(stored, unit);
  outcome.stats = assign_shared({view, scaled}, stored, *quantizer, draws, unit.codes);
  return outcome;
}

Traits traits_of(const QuantSpec& spec) { return make_quantizer(spec)->traits(); }

namespace {
constexpr std::uint64_t kLayeredBins = std::uint64_t{1} << 18;  // that layers make of importance spread over 2^15

bool is_by_rows(const QuantSpec& spec) {
  return spec.granularity == Granularity::row || spec.granularity == Granularity::group;
}

constexpr std::uint64_t kPatterns = 65536;

/// Bytes of statistics with importance, and of a solver.
std::uint64_t weighted_scratch_bytes(DType dtype, std::uint64_t count, std::uint64_t bins, bool layered,
                                     std::size_t threads) {
  const bool wide = bits(dtype) > 16;
  // Counters of a worker: 16-bit histogram or moments, weighted cells and moments; sums of slots. Then bins and their
  // merge, or a solver: bins, the group's columns and its own.
  const std::uint64_t pages = layered ? std::min(count, kLayeredBins) * (wide ? 48 : 16) + kLayers * 256 * 8 : 0;
  const std::uint64_t counters = kPatterns * (16 + 16 + (wide ? 32 : 0)) + (wide ? bins * 24 : 0) + pages;
  const std::uint64_t solver = bins * (sizeof(ValueHistogram::Bin) + 40 + 110);
  return pages + threads * counters + std::max(bins * 2 * sizeof(ValueHistogram::Bin), solver);
}

bool looks_closely(const Traits& traits) {
  return traits.detail == Detail::levels || traits.detail == Detail::everywhere;
}

/// The same without importance. A worker counts 2^16 patterns (16 bytes each) or upper halves of floats (16 more, since
/// it keeps both), and what is looked at closely in at most 2^19 slots of 16; then a solver, with at least its columns of
/// rows and 25 bytes. Measured with F32 of 2^20 and 2^22 weights: k-means 92 to 108 bytes a bin, asq 130 to 175.
std::uint64_t plain_scratch_bytes(DType dtype, std::uint64_t count, std::uint64_t bins, const Traits& traits,
                                  std::size_t threads) {
  constexpr std::uint64_t kTask = 65536, kSlots = std::uint64_t{1} << 23, kLeast = 140, kNarrowSolver = 214;
  const std::uint64_t solver = std::max(kLeast, traits.cost.value_bytes + 25);
  const bool closely = looks_closely(traits);
  const bool wide = bits(dtype) > 16;
  const std::uint64_t workers = std::min<std::uint64_t>(threads, ceil_div(count, kTask) + 1);
  const std::uint64_t counters = kPatterns * (wide ? 32 : 16) + (wide && closely ? kSlots : 0);
  return workers * counters + kPatterns * sizeof(std::uint64_t) + bins * (wide ? solver : kNarrowSolver);
}
}  // namespace

// More than 5 parameters: plain facts of a window that is not read yet.
std::uint64_t quantize_scratch_bytes(DType dtype, const QuantSpec& spec, std::uint64_t count, std::uint64_t cols,
                                     std::size_t threads, bool weighted) {
  const std::uint64_t error_sums = (count / kErrorBlock + 1) * sizeof(ErrorSums);
  const auto quantizer = make_quantizer(spec);
  const Traits& traits = quantizer->traits();
  if (is_by_rows(spec)) {
    const std::uint64_t group = spec.granularity == Granularity::row ? cols : std::min(spec.group, cols);
    return error_sums + (traits.sees == Sees::values ? 0 : quantizer->row_needs(count, cols).scratch_bytes) +
           rows_scratch_bytes({group, count, spec.options.levels, threads, bits(dtype) <= 16, weighted}, traits.cost);
  }
  const bool layered = weighted && traits.by_importance;
  // Value by value: the values and their sorting, distinct values, and the columns of a solver.
  const std::uint64_t few_bytes = weighted ? 180 : 150;
  if (bits(dtype) > 16 && !layered && count <= traits.few_weights) return error_sums + count * few_bytes;
  const std::uint64_t bins = std::min(count, expected_bins(dtype, spec, weighted));
  if (weighted) return error_sums + weighted_scratch_bytes(dtype, count, bins, layered, threads);
  const bool closely = looks_closely(traits);
  return error_sums + plain_scratch_bytes(dtype, count, closely ? std::min(bins, std::max(kPatterns, count / 4)) : bins,
                                          traits, threads);
}

std::uint64_t expected_bins(DType dtype, const QuantSpec& spec, bool weighted) {
  const Traits traits = traits_of(spec);
  const std::uint64_t layers = weighted && bits(dtype) > 8 && traits.by_importance ? kLayeredBins : 0;
  if (traits.detail == Detail::extremes) return expected_bins(dtype, 2);
  if (traits.detail == Detail::cells && bits(dtype) > 16) return (std::uint64_t{1} << 14) + layers;
  return expected_bins(dtype, traits.detail == Detail::levels ? spec.options.levels : 256) + layers;
}

std::uint64_t stored_numbers(const QuantSpec& spec, std::uint64_t count, std::uint64_t cols) {
  const auto quantizer = make_quantizer(spec);
  const Traits& traits = quantizer->traits();
  if (traits.sees == Sees::layer) return 0;  // steps and classes take .02 bit a weight at most in large matrices
  const std::uint64_t each = traits.grid                   ? 2
                             : traits.numbered.numbers > 0 ? traits.numbered.numbers
                                                           : spec.options.levels;
  if (!is_by_rows(spec)) return each;
  const std::uint64_t row = std::max<std::uint64_t>(1, cols);
  const std::uint64_t group =
      spec.granularity == Granularity::row ? row : std::clamp<std::uint64_t>(spec.group, 1, row);
  const std::uint64_t books = ceil_div(count, row) * ceil_div(row, group) * each;
  if (traits.sees == Sees::values) return books;
  const std::uint64_t whole = quantizer->row_needs(count, cols).numbers;
  if (whole == 0) return books;
  return traits.sees == Sees::rows ? whole : std::max(books, whole);
}

}  // namespace lmq
