#include "lmq/quant/unit.hpp"

#include <algorithm>
#include <string>

#include "lmq/base/error.hpp"
#include "lmq/base/parallel.hpp"
#include "lmq/kernels/assign.hpp"
#include "lmq/kernels/widen.hpp"
#include "lmq/quant/tally.hpp"
#include "steps.hpp"
#include "unit_errors.hpp"
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

/// Few weights of a wide type are fitted value by value: their bins would be nearly empty, and asked for again and
/// again.
constexpr std::uint64_t kFewWeights = std::uint64_t{1} << 16;

Codebook fit_few(const TensorView& view, const Quantizer& quantizer, const Importance& importance) {
  std::vector<float> values(view.count), weights(importance.kind == Importance::Kind::none ? 0 : view.count);
  widen(view.dtype, view.bytes, values);
  if (!weights.empty()) importance_at(importance, 0, weights);
  FitScratch scratch;
  return quantizer.fit_values(values, weights, scratch);
}

/// The codebook of a window that shares it with no other.
Codebook fit_window(const TensorView& view, const QuantSpec& spec, const Importance& importance) {
  if (view.count == 0) return Codebook::table({0.0f});
  const auto quantizer = make_quantizer(spec);
  if (bits(view.dtype) > 16 && view.count <= kFewWeights) return fit_few(view, *quantizer, importance);
  Importance scaled = importance;
  scaled.quantum = importance_quantum(largest_importance(importance), view.count);
  Tally tally = Tally::of(view, scaled, {});
  if (tally.nonfinite() > 0) fail(Errc::internal, "quantize_unit: the window holds values that are not finite");
  for (;;) {
    Fit fit = quantizer->fit(tally.group(scaled.quantum));
    if (fit.look_closer.empty()) return std::move(fit.codebook);
    tally.refine(Tally::of(view, scaled, fit.look_closer), fit.look_closer);
  }
}

/// Puts a shared codebook's numbers, as they will be stored, into the unit; returns its levels as they will be read.
std::vector<float> store_codebook(const Codebook& codebook, LevelType type, QuantizedUnit& unit) {
  unit.kind = codebook.kind();
  if (codebook.kind() == CodebookKind::table) {
    unit.book.assign(codebook.levels().begin(), codebook.levels().end());
    round_levels(unit.book, type);
    for (float& level : unit.book) level += 0.0f;  // -0 becomes +0
    unit.book.erase(std::unique(unit.book.begin(), unit.book.end()), unit.book.end());
    unit.levels = static_cast<std::uint32_t>(unit.book.size());
    return unit.book;
  }
  unit.book.assign({codebook.low(), codebook.step()});
  round_levels(unit.book, type);
  unit.levels = unit.book[1] > 0 ? static_cast<std::uint32_t>(codebook.levels().size()) : 1;
  std::vector<float> levels(unit.levels);
  grid_levels(unit.book[0], unit.book[1], levels);
  return levels;
}

UnitStats assign_shared(const TensorView& view, const Importance& importance, std::span<const float> levels,
                        std::span<Code> codes) {
  NearestLevel nearest;
  nearest.prepare(levels, view.dtype, view.count);
  const LevelTable table(levels);
  return sum_errors(view.count, importance, nullptr,
                    [&](std::uint64_t begin, std::size_t count, std::span<const float> scale, std::size_t) {
                      const auto weights = bytes_of(view, begin, count);
                      const auto block = codes.subspan(static_cast<std::size_t>(begin), count);
                      nearest.assign(weights, block);
                      return error_of_codes(view.dtype, weights, block, table, scale);
                    });
}
}  // namespace

UnitOutcome quantize_unit(const TensorView& view, const QuantSpec& spec, std::uint64_t cols,
                          const Importance& importance, const Codebook* shared, QuantizedUnit&& recycle) {
  check_window(view, cols, importance, spec);
  UnitOutcome outcome{std::move(recycle), {}};
  QuantizedUnit& unit = outcome.unit;
  unit.method = spec.method;
  unit.source = view.dtype;
  unit.count = view.count;
  unit.level_type = spec.level_type;
  if (unit.codes.size() != view.count) unit.codes.resize(view.count);
  const bool by_rows = spec.granularity == Granularity::row || spec.granularity == Granularity::group;
  if (by_rows) {
    unit.cols = cols;
    unit.group = spec.granularity == Granularity::row ? cols : std::min(spec.group, cols);
    if (view.count > 0) {
      outcome.stats = quantize_rows(view, spec.options.levels, *make_quantizer(spec), importance, unit);
      return outcome;
    }
  }
  unit.cols = 0;
  unit.group = 0;
  const Codebook own = shared ? Codebook() : fit_window(view, spec, importance);
  const auto levels = store_codebook(shared ? *shared : own, spec.level_type, unit);
  outcome.stats = assign_shared(view, importance, levels, unit.codes);
  return outcome;
}

std::uint64_t quantize_scratch_bytes(DType dtype, const QuantSpec& spec, std::uint64_t count, std::uint64_t cols,
                                     std::size_t threads) noexcept {
  const std::uint64_t error_sums = (count / kErrorBlock + 1) * sizeof(ErrorSums);
  if (spec.granularity == Granularity::row || spec.granularity == Granularity::group) {
    const std::uint64_t group = spec.granularity == Granularity::row ? cols : std::min(spec.group, cols);
    return error_sums + rows_scratch_bytes(group, count, spec.options.levels, threads);
  }
  constexpr std::uint64_t kBins = 65536;
  const std::uint64_t most_bins = std::min(count, expected_bins(dtype));
  const bool wide = bits(dtype) > 16;
  // Counters of a worker: 16-bit histogram or moments, weighted cells and moments; hits of ranges, twice (the worst
  // case: every weight is looked at again). Then bins and their merge, the group's columns, and a solver's columns.
  const std::uint64_t counters = kBins * (16 + 16 + (wide ? 32 : 0));
  const std::uint64_t hits = wide ? count * 2 * sizeof(std::uint32_t) : 0;
  return error_sums + threads * counters + hits + most_bins * (2 * sizeof(Tally::Bin) + 40 + 120);
}

}  // namespace lmq
