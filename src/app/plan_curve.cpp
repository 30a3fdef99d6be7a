// lmq plan --curve TENSOR: what every method makes of one tensor, by the number of levels.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>

#include "commands.hpp"
#include "job.hpp"
#include "lmq/base/math.hpp"
#include "lmq/base/parallel.hpp"
#include "lmq/base/text.hpp"
#include "lmq/base/words.hpp"
#include "lmq/quant/layer_methods.hpp"
#include "lmq/quant/level_curve.hpp"
#include "lmq/quant/value_histogram.hpp"
#include "lmq/run/executor.hpp"
#include "table.hpp"
#include "terminal.hpp"

namespace lmq::app {
namespace {

constexpr std::size_t kMaxPoints = std::size_t{1} << 17;  // distinct values, or bins of wide types
constexpr std::size_t kMaxLevels = 256;
constexpr std::size_t kShown[] = {2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256};

struct Curve {
  const QuantizerEntry* method = nullptr;
  std::vector<LevelPoint> points;
};

/// The tensor as the methods see it.
struct LevelCurves {
  const TensorInfo* tensor = nullptr;
  Group group;
  bool exact = false;  ///< points are distinct values, not bins
  double energy = 0;
  std::vector<Curve> methods;
  std::vector<std::size_t> shown;  ///< columns of the tables
};

const TensorInfo& find_tensor(const Job& job, const std::string& wanted) {
  const Catalogue& catalogue = job.reader->catalogue();
  const std::int64_t at = catalogue.find(wanted);
  if (at < 0) {
    std::vector<std::string_view> names;
    for (const TensorInfo& tensor : catalogue.tensors) names.push_back(tensor.name);
    const std::string near = nearest(wanted, names);
    fail(Errc::usage, fmt::format("--curve {}: there is no tensor of that name{}", printable(wanted),
                                  near.empty() ? "; lmq inspect lists them" : fmt::format("; did you mean {}?", near)));
  }
  const TensorInfo& tensor = catalogue.tensors[static_cast<std::size_t>(at)];
  if (!is_float(tensor.value_type()))
    fail(Errc::unsupported,
         fmt::format("tensor '{}': type {} cannot be quantized", printable(tensor.name), name(tensor.value_type())));
  if (tensor.count() == 0) fail(Errc::usage, fmt::format("tensor '{}' has no weights", printable(tensor.name)));
  return tensor;
}

/// What the importance file has for the tensor, or nullptr.
const ImportanceEntry* importance_of(const Job& job, const TensorInfo& tensor) {
  return job.importance ? job.importance->find(tensor.name) : nullptr;
}

double quantum_of(const Job& job, const TensorInfo& tensor) {
  const ImportanceEntry* const entry = importance_of(job, tensor);
  return entry == nullptr ? 1 : importance_quantum(entry->info.largest, tensor.count());
}

/// Measures the tensor, all of it or the keys in `ranges`, window by window.
ValueHistogram measure(const Job& job, const TensorInfo& tensor, std::span<const KeyRange> ranges) {
  const ImportanceEntry* const entry = importance_of(job, tensor);
  const double quantum = quantum_of(job, tensor);
  ValueHistogram histogram;
  std::vector<std::byte> bytes;
  ImportanceWindow window;
  for (std::uint64_t begin = 0; begin < tensor.count(); begin += kUnitWeights) {
    const std::uint64_t count = std::min(kUnitWeights, tensor.count() - begin);
    const TensorView view = job.reader->view(tensor, begin, count, bytes);
    if (entry != nullptr) job.importance->read(*entry, begin, count, window);
    window.importance.quantum = quantum;
    histogram.merge(ValueHistogram::of(view, window.importance, ranges));
  }
  if (histogram.nonfinite() > 0) refuse_first_nonfinite(*job.reader, tensor, tensor.count());
  return histogram;
}

Group group_of(const Job& job, const TensorInfo& tensor) {
  ValueHistogram histogram = measure(job, tensor, {});
  for (;;) {
    Group group = histogram.group(quantum_of(job, tensor));
    const auto ranges = refine_all(group, kMaxPoints);
    if (ranges.empty()) return group;
    histogram.refine(measure(job, tensor, ranges), ranges);
  }
}

std::vector<std::size_t> counts_for(const QuantizerEntry& method, std::optional<std::size_t> asked, bool all) {
  if (asked) return {*asked};
  if (!method.all) return {2, 4, 8, 16, 32, 64, 128, 256};
  if (!all) return {std::begin(kShown), std::end(kShown)};
  std::vector<std::size_t> counts(kMaxLevels - 1);
  std::iota(counts.begin(), counts.end(), std::size_t{2});
  return counts;
}

LevelCurves find_curves(const Job& job, const Options& options) {
  LevelCurves curves;
  curves.tensor = &find_tensor(job, options.curve_tensor);
  curves.group = group_of(job, *curves.tensor);
  curves.exact = curves.group.resolved();
  curves.energy = group_energy(curves.group);
  curves.shown.assign(std::begin(kShown), std::end(kShown));
  if (options.rule.levels) curves.shown = {*options.rule.levels};
  std::vector<OptionValue> values;
  if (options.method_given) {
    curves.methods.push_back({&find_quantizer(*options.rule.method), {}});
    if (!options.rule.options.empty()) values = resolve(options.rule).options.values;
  } else {
    for (const QuantizerEntry& method : quantizers())
      if (!sees_layers(method)) curves.methods.push_back({&method, {}});
  }
  parallel_for(curves.methods.size(), [&](std::size_t i) {
    Curve& curve = curves.methods[i];
    curve.points = level_curve(curves.group, *curve.method, values,
                               counts_for(*curve.method, options.rule.levels, options.json.has_value()));
  });
  return curves;
}

nlohmann::json curves_json(const LevelCurves& curves) {
  nlohmann::json methods = nlohmann::json::array();
  for (const Curve& curve : curves.methods) {
    nlohmann::json points = nlohmann::json::array();
    for (const LevelPoint& point : curve.points) {
      nlohmann::json item{{"levels", point.wanted},
                          {"codebook_levels", point.levels},
                          {"squared_error", point.squared_error},
                          {"entropy_bits", point.entropy_bits}};
      if (curves.energy > 0) item["relative_squared_error"] = point.squared_error / curves.energy;
      if (curves.energy > 0 && point.squared_error > 0)
        item["snr_db"] = 10 * std::log10(curves.energy / point.squared_error);
      points.push_back(std::move(item));
    }
    methods.push_back({{"method", curve.method->name}, {"points", std::move(points)}});
  }
  return {{"tensor", curves.tensor->name},
          {"dtype", name(curves.tensor->dtype)},
          {"shape", curves.tensor->shape},
          {"weights", curves.tensor->count()},
          {"distinct_values_or_bins", curves.group.size()},
          {"exact", curves.exact},
          {"energy", curves.energy},
          {"methods", std::move(methods)}};
}

/// Methods by lines, some numbers of levels by columns.
template <class Cell>
std::string curves_table(const LevelCurves& curves, const char* title, std::span<const std::size_t> shown,
                         const Cell& cell) {
  using enum Table::Align;
  std::vector<std::pair<std::string, Table::Align>> columns{{title, left}};
  for (const std::size_t levels : shown) columns.emplace_back(fmt::format("{}", levels), right);
  Table table(std::move(columns));
  for (const Curve& curve : curves.methods) {
    std::vector<std::string> cells{std::string(curve.method->name)};
    for (const std::size_t levels : shown) {
      const auto point = std::ranges::find(curve.points, levels, &LevelPoint::wanted);
      cells.push_back(point == curve.points.end() ? "" : cell(*point));
    }
    table.row(std::move(cells));
  }
  return table.text(output_width());
}

/// All numbers of levels, in as many tables one below the other as the width asks for; `cell_width` columns a number.
template <class Cell>
std::string curves_tables(const LevelCurves& curves, const char* title, std::size_t cell_width, const Cell& cell) {
  std::size_t names = columns_of(title);
  for (const Curve& curve : curves.methods) names = std::max(names, curve.method->name.size());
  const std::size_t width = std::max(output_width(), names + cell_width + 2);
  const std::size_t most = (width - names) / (cell_width + 2);
  const std::size_t tables = ceil_div(curves.shown.size(), most);
  std::string text;
  for (std::size_t t = 0; t < tables; ++t) {
    const std::size_t begin = curves.shown.size() * t / tables, end = curves.shown.size() * (t + 1) / tables;
    text += curves_table(curves, title, std::span(curves.shown).subspan(begin, end - begin), cell);
  }
  return text;
}

std::string curves_text(const LevelCurves& curves) {
  const auto decibels = [&](const LevelPoint& p) { return decibel_text(p.squared_error, curves.energy); };
  const auto relative = [&](const LevelPoint& p) {
    return curves.energy > 0 ? fmt::format("{:.2e}", p.squared_error / curves.energy) : std::string("-");
  };
  const auto entropy = [](const LevelPoint& p) { return fmt::format("{:.3f}", p.entropy_bits); };
  return fmt::format(
      "{}: {} {}, {}, {} {}\n\nSNR: signal to noise, dB\n{}\nerror: squared error / squares\n{}\nentropy: of the "
      "codes, bits\n{}",
      printable(curves.tensor->name), name(curves.tensor->dtype), shape_text(curves.tensor->shape),
      counted(curves.tensor->count(), "weight"), with_commas(curves.group.size()),
      curves.exact ? "distinct values" : "bins of values: the methods see their means",
      curves_tables(curves, "SNR", 6, decibels), curves_tables(curves, "error", 8, relative),
      curves_tables(curves, "entropy", 5, entropy));
}

}  // namespace

int plan_curve(const Options& options) {
  const std::unique_ptr<Comm> comm = make_self_comm();
  const Job job = open_job(*comm, options, false, {});
  const LevelCurves curves = find_curves(job, options);
  if (options.json) print_json(*options.json, curves_json(curves));
  if (options.json != "-" && !options.quiet) print(curves_text(curves));
  return 0;
}

}  // namespace lmq::app
