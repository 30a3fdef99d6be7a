#include "lmq/quant/quantizer.hpp"

#include <algorithm>

#include "lmq/base/error.hpp"
#include "lmq/kernels/sort_floats.hpp"

namespace lmq {

QuantizerOptions default_options(const QuantizerEntry& entry, std::size_t levels) {
  QuantizerOptions options{levels};
  for (const MethodOption& known : entry.options) options.values.push_back(known.fallback);
  if (entry.complete) entry.complete(options, false);
  return options;
}

void Quantizer::fit_numbers(std::span<const float>, std::span<const float>, Workspace&, std::span<float>) const {
  fail(Errc::internal, "a method whose codebooks are not numbered was asked for numbers");
}

std::vector<RatePoint> Quantizer::curve(const Group&, std::span<const double>) const {
  fail(Errc::internal, "a method without a slope was asked for its curve");
}

UnitStats Quantizer::quantize_rows(const RowWindow&, QuantizedUnit&) const {
  fail(Errc::internal, "a method that sees values was asked for whole rows");
}

RowNeeds Quantizer::row_needs(std::uint64_t, std::uint64_t) const { return {}; }

std::uint64_t lane_rows_of(std::uint64_t wanted, std::uint64_t outer_rows) noexcept {
  if (outer_rows == 0) return std::max<std::uint64_t>(1, wanted);
  return std::max<std::uint64_t>(1, wanted / outer_rows) * outer_rows;
}

namespace {
[[noreturn]] void refuse_layer() { fail(Errc::internal, "a method that sees no layers was asked for one"); }
}  // namespace

Fit Quantizer::fit(const Group&) const { fail(Errc::internal, "a method that sees layers was asked for levels"); }
UnitStats Quantizer::quantize_layer(const RowWindow&, TrellisUnit&) const { refuse_layer(); }
SpreadHistogram Quantizer::spreads(const RowWindow&) const { refuse_layer(); }
std::vector<RatePoint> Quantizer::spread_curve(const SpreadHistogram&, std::span<const double>) const {
  refuse_layer();
}
LayerNeeds Quantizer::layer_needs(const LayerShape&) const { refuse_layer(); }

Codebook Quantizer::fit_values(std::span<const float> values, std::span<const float> importance, Workspace&) const {
  std::vector<float> sorted(values.size()), weights(importance.size());
  SortScratch scratch;
  sort_floats(values, importance, sorted, weights, scratch);
  const float largest = weights.empty() ? 0.0f : *std::ranges::max_element(weights);
  Group group;
  for (std::size_t i = 0; i < sorted.size(); ++i) {
    const double mass = largest > 0 ? std::max(double{weights[i]}, double{largest} * kMinWeight) : 1.0;
    if (i > 0 && sorted[i] == sorted[i - 1]) {
      group.count.back() += 1;
      group.mass.back() += mass;
      continue;
    }
    group.low.push_back(sorted[i]);
    group.high.push_back(sorted[i]);
    group.count.push_back(1);
    group.mass.push_back(mass);
    group.mean.push_back(sorted[i]);
    group.scatter.push_back(0);
  }
  if (!sorted.empty()) group.minimum = sorted.front(), group.maximum = sorted.back();
  Fit result = fit(group);
  if (!result.refine.empty()) fail(Errc::internal, "a method asks to look closer at a group of single values");
  return std::move(result.codebook);
}

}  // namespace lmq
