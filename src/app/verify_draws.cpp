#include "verify_draws.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "lmq/base/digest.hpp"
#include "lmq/base/error.hpp"
#include "lmq/base/math.hpp"
#include "lmq/base/parallel.hpp"
#include "lmq/base/random.hpp"
#include "lmq/base/text.hpp"
#include "lmq/codec/record.hpp"
#include "lmq/kernels/stochastic.hpp"
#include "lmq/kernels/widen.hpp"
#include "lmq/plan/plan.hpp"
#include "table.hpp"
#include "terminal.hpp"

namespace lmq::app {
namespace {

constexpr double kSigmas = 5;

/// The file's tensors whose codes were drawn: their methods.
std::map<std::uint32_t, std::unique_ptr<Quantizer>> drawn_tensors(const QuantizedFile& file, const Original& original) {
  const Recipe recipe = Recipe::parse(file.recipe().dump(), file.name() + ", /lmq/recipe");
  const Plan plan = make_plan(original.reader->catalogue().tensors, "", recipe, {}, original.reader->catalogue().notes);
  std::map<std::uint32_t, std::unique_ptr<Quantizer>> methods;
  for (std::uint32_t t = 0; t < file.tensors().size(); ++t) {
    if (original.tensor_of[t] < 0 || file.tensors()[t].treatment != Treatment::quantize) continue;
    const QuantSpec& spec = plan.tensors[static_cast<std::size_t>(original.tensor_of[t])].spec;
    const QuantizerEntry* entry = find_quantizer(spec.method);
    if (entry == nullptr || entry->name != file.tensors()[t].line.method) continue;
    auto method = entry->make(spec.options);
    if (method->traits().rounding == Rounding::stochastic) methods.emplace(t, std::move(method));
  }
  return methods;
}

/// Weights [begin, end) of a unit, which share a codebook.
struct Stretch {
  std::size_t begin, end;
  std::uint64_t book;
};

std::vector<Stretch> stretches(const QuantizedUnit& unit) {
  const auto count = static_cast<std::size_t>(unit.count);
  if (unit.group == 0) return {{0, count, 0}};
  std::vector<Stretch> all;
  const auto cols = static_cast<std::size_t>(unit.cols), group = static_cast<std::size_t>(unit.group);
  for (std::size_t row = 0; row < count; row += cols)
    for (std::size_t at = 0; at < cols; at += group)
      all.push_back({row + at, row + std::min(at + group, cols), all.size()});
  return all;
}

DrawSums sums_of(std::span<const float> weights, std::span<const float> levels, std::span<const Code> stored,
                 std::span<const double> errors, double repeat) {
  DrawSums sums;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const double w = weights[i], one = levels[stored[i]] - w, mean = errors[i] / repeat;
    const auto above = std::ranges::upper_bound(levels, weights[i]);
    const bool inside = above != levels.begin() && above != levels.end();
    const double length = inside ? double{*above} - above[-1] : 0, v = inside ? (*above - w) * (w - above[-1]) : 0;
    // Fourth moment of the mean of R draws: (3 (R - 1) V^2 + V^2 + V (L^2 - 4 V)) / R^3.
    const double fourth =
        (3 * (repeat - 1) * v * v + v * v + v * (length * length - 4 * v)) / (repeat * repeat * repeat);
    sums += {1, one * one, v, mean * mean, v / repeat, fourth - v * v / (repeat * repeat), mean};
  }
  return sums;
}

// More than 5 parameters: file, original and unit are told apart by the caller, once for all draws.
DrawSums draw_unit(const QuantizedFile& file, const Original& original, const StoredUnit& stored,
                   const Quantizer& method, std::uint64_t repeat, std::string& difference) {
  std::vector<std::byte> bytes, source;
  file.read(stored, bytes);
  if (stored.digest && digest64(bytes) != *stored.digest) return {};
  const QuantizedUnit unit = decode_record(bytes, file.place(stored));
  const auto index = static_cast<std::size_t>(original.tensor_of[stored.tensor]);
  const TensorInfo& listed = original.reader->catalogue().tensors[index];
  const TensorView view = original.reader->view(as_stored(listed, file.tensors()[stored.tensor].treatment),
                                                stored.begin, stored.count, source);
  if (digest64(view.bytes) != stored.source_digest || unit.count != view.count) return {};
  std::vector<float> weights(view.count);
  widen(view.dtype, view.bytes, weights);
  const std::size_t size = bits(view.dtype) / 8;
  const std::uint64_t subject = digest64(std::string_view(listed.name));
  DrawSums sums;
  std::vector<double> errors;
  std::vector<Code> codes;
  std::size_t other = 0;
  for (const Stretch& part : stretches(unit)) {
    const std::vector<float> levels = levels_of(unit, part.book);
    const std::size_t count = part.end - part.begin;
    errors.assign(count, 0.0), codes.resize(count);
    const auto values = std::span(weights).subspan(part.begin, count);
    const auto kept = std::span(unit.codes).subspan(part.begin, count);
    for (std::uint64_t r = 0; r < repeat; ++r) {
      StochasticLevel level;
      level.prepare(levels, view.dtype, draw_key(method.traits().seed + r, subject), count);
      level.assign(view.bytes.subspan(part.begin * size, count * size), stored.begin + part.begin, codes);
      for (std::size_t i = 0; i < count; ++i) {
        errors[i] += double{levels[codes[i]]} - values[i];
        other += r == 0 && levels[codes[i]] != levels[kept[i]];
      }
    }
    sums += sums_of(values, levels, kept, errors, static_cast<double>(repeat));
  }
  if (other > 0)
    difference = fmt::format("{}: {} of {} codes are not those that seed {} draws", file.place(stored), other,
                             stored.count, method.traits().seed);
  return sums;
}

}  // namespace

DrawSums& DrawSums::operator+=(const DrawSums& other) noexcept {
  weights += other.weights;
  one += other.one, one_expected += other.one_expected;
  mean += other.mean, mean_expected += other.mean_expected, mean_variance += other.mean_variance;
  bias += other.bias;
  return *this;
}

// More than 5 parameters: first and stride are a share of the units, as ranks have it.
std::vector<UnitDraws> repeat_draws(const QuantizedFile& file, const Original& original, std::uint64_t repeat,
                                    std::uint64_t first, std::uint64_t stride, std::vector<Difference>& differences) {
  const auto methods = drawn_tensors(file, original);
  std::vector<UnitDraws> draws;
  for (std::uint64_t u = first; u < file.units().size(); u += stride)
    if (file.units()[u].offset != 0 && methods.contains(static_cast<std::uint32_t>(file.units()[u].tensor)))
      draws.push_back({u, {}});
  std::vector<std::string> found(draws.size());
  parallel_for(draws.size(), [&](std::size_t k) {
    const StoredUnit& unit = file.units()[draws[k].unit];
    try {
      draws[k].sums =
          draw_unit(file, original, unit, *methods.at(static_cast<std::uint32_t>(unit.tensor)), repeat, found[k]);
    } catch (const Error&) {  // a difference of check_units
    }
  });
  for (std::size_t k = 0; k < draws.size(); ++k)
    if (!found[k].empty()) differences.push_back({draws[k].unit, std::move(found[k])});
  return draws;
}

std::string say_draws(const QuantizedFile& file, std::vector<UnitDraws> draws, std::uint64_t repeat,
                      std::vector<std::string>& differences) {
  std::ranges::sort(draws, {}, &UnitDraws::unit);
  std::map<std::uint32_t, DrawSums> tensors;
  for (const UnitDraws& one : draws) tensors[static_cast<std::uint32_t>(file.units()[one.unit].tensor)] += one.sums;
  using Align = Table::Align;
  Table table({{"tensor", Align::left},
               {"one draw", Align::right},
               {"expected", Align::right},
               {fmt::format("mean of {}", repeat), Align::right},
               {"expected", Align::right},
               {"sigmas", Align::right},
               {"bias", Align::right}});
  for (const auto& [t, sums] : tensors) {
    const auto sigmas = [](double off, double variance) {
      return variance > 0 ? off / std::sqrt(variance) : off == 0 ? 0.0 : std::copysign(HUGE_VAL, off);
    };
    const double error = sigmas(sums.mean - sums.mean_expected, sums.mean_variance);
    const double bias = sigmas(sums.bias, sums.mean_expected);
    const std::string& name = file.tensors()[t].line.name;
    table.row({printable(name), fmt::format("{:.5g}", sums.one), fmt::format("{:.5g}", sums.one_expected),
               fmt::format("{:.5g}", sums.mean), fmt::format("{:.5g}", sums.mean_expected),
               fmt::format("{:+.2f}", error), fmt::format("{:+.2f}", bias)});
    if (!(std::abs(error) <= kSigmas) || !(std::abs(bias) <= kSigmas))
      differences.push_back(
          fmt::format("{}, tensor '{}': the mean of {} draws has error {} and bias {}, in sigmas; at "
                      "most {} are expected",
                      file.name(), printable(name), repeat, error, bias, kSigmas));
  }
  return tensors.empty()
             ? fmt::format("{}: no tensor was rounded at random\n", file.name())
             : wrap(fmt::format("squared errors of one draw and of the mean of {}, as found and as expected; "
                                "by how many sigmas the mean and its bias are off",
                                repeat),
                    output_width(), 0) +
                   table.text(output_width());
}

}  // namespace lmq::app
