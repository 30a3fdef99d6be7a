#include "lmq/quant/unit.hpp"

#include <algorithm>
#include <array>
#include <string>

#include "assigner.hpp"
#include "core/priced_levels.hpp"
#include "core/steps.hpp"
#include "lmq/base/error.hpp"
#include "lmq/base/parallel.hpp"
#include "lmq/base/random.hpp"
#include "lmq/kernels/widen.hpp"
#include "lmq/quant/tally.hpp"
#include "methods.hpp"
#include "methods/ecsq/entropy_wish.hpp"
#include "unit_errors.hpp"
#include "unit_rank1.hpp"
#include "unit_rows.hpp"

namespace lmq {
namespace {
std::unique_ptr<Quantizer> make_quantizer(const QuantSpec& spec) {
  const QuantizerEntry* entry = find_quantizer(spec.method);
  if (entry == nullptr) fail(Errc::internal, "method id " + std::to_string(spec.method) + " is not in the registry");
  return entry->make(spec.options);
}

void check_window(const TensorView& view, std::uint64_t cols, const Importance& importance, const QuantSpec& spec) {
  const auto refuse = [](const char* what) { fail(Errc::internal, std::string("quantize_unit: ") + what); };
  if (!is_float(view.dtype)) refuse("the type cannot be quantized");
  if (view.bytes.size() != view.count * (bits(view.dtype) / 8)) refuse("the view's bytes and count differ");
  if (!covers(importance, view.count)) refuse("the importance does not cover the window");
  if (spec.options.levels < 1 || spec.options.levels > 256) refuse("levels are outside 1..256");
  if (spec.granularity == Granularity::row || spec.granularity == Granularity::group) {
    if (view.count > 0 && (cols == 0 || view.count % cols != 0)) refuse("the window is not whole rows");
    if (spec.granularity == Granularity::group && spec.group == 0) refuse("a group of no weights");
  }
}

Codebook fit_few(const TensorView& view, const Quantizer& quantizer, const Importance& importance) {
  std::vector<float> values(view.count), weights(importance.kind == Importance::Kind::none ? 0 : view.count);
  widen(view.dtype, view.bytes, values);
  if (!weights.empty()) importance_at(importance, 0, weights);
  FitScratch scratch;
  return quantizer.fit_values(values, weights, scratch);
}

/// The codebook of a window that shares it with no other.
Codebook fit_window(const TensorView& view, const Quantizer& quantizer, const Importance& given) {
  if (view.count == 0) return Codebook::table({0.0f});
  const Importance importance = quantizer.uses_importance() ? given : Importance{};
  const bool layered = quantizer.by_importance() && importance.kind != Importance::Kind::none;
  const bool few = bits(view.dtype) > 16 && view.count <= quantizer.few_weights();
  if (few && !layered) return fit_few(view, quantizer, importance);
  static constexpr KeyRange kAllKeys{kLowestKey, kHighestKey, 0};
  Tally tally = Tally::of(view, importance, std::span(&kAllKeys, few ? 1 : 0), layered);
  if (tally.nonfinite() > 0) fail(Errc::internal, "quantize_unit: the window holds values that are not finite");
  for (;;) {
    Fit fit = quantizer.fit(tally.group(importance.quantum));
    if (fit.look_closer.empty()) return std::move(fit.codebook);
    tally.refine(Tally::of(view, importance, fit.look_closer, layered), fit.look_closer);
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
UnitStats assign_priced(const TensorView& view, const Importance& importance, const Codebook& stored,
                        std::span<Code> codes) {
  const PricedLevels levels(stored.levels(), stored.prices(), importance.quantum);
  const LevelTable table(stored.levels());
  return sum_errors(view.count, importance, nullptr,
                    [&](std::uint64_t begin, std::size_t count, std::span<const float> scale, std::size_t) {
                      const auto weights = bytes_of(view, begin, count);
                      const auto block = codes.subspan(static_cast<std::size_t>(begin), count);
                      std::array<float, kErrorBlock> values;
                      widen(view.dtype, weights, std::span(values).first(count));
                      levels.assign(std::span(values).first(count), scale, block);
                      return error_of_codes(view.dtype, weights, block, table, scale);
                    });
}

UnitStats assign_shared(const TensorView& view, const Importance& importance, const Codebook& stored,
                        const Quantizer& quantizer, const Draws& draws, std::span<Code> codes) {
  if (!stored.prices().empty()) return assign_priced(view, importance, stored, codes);
  Assigner assigner;
  assigner.prepare(stored.levels(), stored.cuts(), quantizer.rounding(), draw_key(quantizer.seed(), draws.tensor),
                   view.dtype, view.count, stored.order());
  const LevelTable table(stored.levels());
  return sum_errors(view.count, importance, nullptr,
                    [&](std::uint64_t begin, std::size_t count, std::span<const float> scale, std::size_t) {
                      const auto weights = bytes_of(view, begin, count);
                      const auto block = codes.subspan(static_cast<std::size_t>(begin), count);
                      assigner.assign(weights, draws.first + begin, block);
                      return error_of_codes(view.dtype, weights, block, table, scale);
                    });
}
/// By rows: with numbers per codebook, factors of rows and columns, or the better buy of the two.
UnitOutcome quantize_scaled(const TensorView& view, const QuantSpec& spec, const Quantizer& quantizer,
                            const Importance& importance, const Draws& draws, UnitOutcome&& outcome) {
  const Scaling scaling = quantizer.scaling();
  if (scaling == Scaling::rank1) {
    outcome.stats = quantize_rank1(view, quantizer, importance, outcome.unit);
    return std::move(outcome);
  }
  UnitOutcome other;
  if (scaling == Scaling::cheapest) {
    other.unit = outcome.unit;
    other.stats = quantize_rank1(view, quantizer, importance, other.unit);
  }
  outcome.stats = quantize_rows(view, spec.options.levels, quantizer, importance, draws, outcome.unit);
  if (scaling == Scaling::cheapest &&
      better_buy(other.unit, other.stats.weighted_error, outcome.unit, outcome.stats.weighted_error))
    return other;
  return std::move(outcome);
}
}  // namespace

UnitOutcome quantize_unit(const TensorView& view, const QuantSpec& spec, std::uint64_t cols,
                          const Importance& importance, const Codebook* shared, QuantizedUnit&& recycle,
                          const Draws& draws) {
  check_window(view, cols, importance, spec);
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
    unit.cols = cols;
    unit.group = spec.granularity == Granularity::row ? cols : std::min(spec.group, cols);
    if (view.count > 0) {
      return quantize_scaled(view, spec, *quantizer, importance, draws, std::move(outcome));
    }
  }
  unit.cols = 0;
  unit.group = 0;
  Importance scaled = importance;
  if (shared == nullptr) scaled.quantum = importance_quantum(largest_importance(importance), view.count);
  const Codebook stored = (shared ? *shared : fit_window(view, *quantizer, scaled))
                              .stored_as(spec.level_type, quantizer->rounding() == Rounding::stochastic);
  store_codebook(stored, unit);
  outcome.stats = assign_shared(view, scaled, stored, *quantizer, draws, unit.codes);
  return outcome;
}

namespace {
constexpr std::uint64_t kLayeredBins = std::uint64_t{1} << 18;  // that layers make of importance spread over 2^15

std::uint64_t few_weights(const QuantSpec& spec) noexcept {
  try {
    return make_quantizer(spec)->few_weights();
  } catch (...) {  // no such method, or no memory: an estimate all the same
    return 0;
  }
}
bool wants_layers(const QuantSpec& spec) noexcept {
  try {
    return make_quantizer(spec)->by_importance();
  } catch (...) {
    return false;
  }
}
}  // namespace

std::uint64_t quantize_scratch_bytes(DType dtype, const QuantSpec& spec, std::uint64_t count, std::uint64_t cols,
                                     std::size_t threads, bool weighted) noexcept {
  const std::uint64_t error_sums = (count / kErrorBlock + 1) * sizeof(ErrorSums);
  if (spec.granularity == Granularity::row || spec.granularity == Granularity::group) {
    const std::uint64_t group = spec.granularity == Granularity::row ? cols : std::min(spec.group, cols);
    const std::uint64_t rank1 =
        make_quantizer(spec)->scaling() == Scaling::group ? 0 : rank1_scratch_bytes(count, cols);
    return error_sums + rank1 + rows_scratch_bytes(group, count, spec.options.levels, threads);
  }
  constexpr std::uint64_t kBins = 65536;
  const std::uint64_t bins = std::min(count, expected_bins(dtype, spec, weighted));
  const bool wide = bits(dtype) > 16, layered = weighted && wants_layers(spec);
  // Value by value: the values and their sorting, distinct values, and the columns of a solver.
  constexpr std::uint64_t kFewBytes = 180;
  if (wide && !layered && count <= few_weights(spec)) return error_sums + count * kFewBytes;
  // Counters of a worker: 16-bit histogram or moments, weighted cells and moments; sums of slots. Then bins and their
  // merge, or a solver: bins, the group's columns and its own.
  const std::uint64_t pages = layered ? std::min(count, kLayeredBins) * (wide ? 48 : 16) + kLayers * 256 * 8 : 0;
  const std::uint64_t counters = kBins * (16 + 16 + (wide ? 32 : 0)) + (wide ? bins * 24 : 0) + pages;
  const std::uint64_t solver = bins * (sizeof(Tally::Bin) + 40 + 110);
  return error_sums + pages + threads * counters + std::max(bins * 2 * sizeof(Tally::Bin), solver);
}

std::uint64_t expected_bins(DType dtype, const QuantSpec& spec, bool weighted) noexcept {
  const std::uint64_t layers = weighted && bits(dtype) > 8 && wants_layers(spec) ? kLayeredBins : 0;
  if (spec.method == kUniform.id) return expected_bins(dtype, 2);
  // Cells that are wide beside a bin need no closer look; others than k-means look finely everywhere.
  if (bits(dtype) > 16 && entropy_way(spec.method)) return (std::uint64_t{1} << 16) + layers;
  return expected_bins(dtype, spec.method == kKmeans.id ? spec.options.levels : 256) + layers;
}

}  // namespace lmq
