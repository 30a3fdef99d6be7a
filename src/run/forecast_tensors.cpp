#include <algorithm>
#include <cmath>
#include <map>
#include <optional>

#include "lmq/base/bytes.hpp"
#include "lmq/base/math.hpp"
#include "lmq/quant/level_curve.hpp"
#include "lmq/run/forecast.hpp"
#include "scope_statistics.hpp"
#include "tasks/unit_tasks.hpp"
#include "trial.hpp"

namespace lmq {
namespace {

constexpr double kTrialSeconds = 2;  // on one core, as the plan counts them
constexpr std::uint64_t kLeastTried = 2048, kMostTried = std::uint64_t{1} << 20, kMostTensors = 1024;
constexpr double kMaxMeasured = 0x1p28;

bool is_tried(const TensorPlan& tensor) {
  return tensor.treatment == Treatment::quantize && !tensor.spec.budgeted && tensor.units > 0;
}

double weights_of(const TensorPlan& tensor) {
  return static_cast<double>(tensor.rows) * static_cast<double>(tensor.cols);
}

/// Tries tensors one after the other.
class TensorTrials {
 public:
  explicit TensorTrials(const RunContext& context) : context_(context) {
    for (const TensorPlan& tensor : context.plan.tensors) {
      if (!is_tried(tensor)) continue;
      all_weights_ += weights_of(tensor);
      for (std::uint64_t u = 0; u < tensor.units; ++u) seconds_ += context.plan.units[tensor.first_unit + u].seconds;
    }
  }

  /// Nothing where a weight is not finite.
  std::optional<ScopeForecast> run(std::uint32_t index) {
    const TensorPlan& tensor = context_.plan.tensors[index];
    const double weights = weights_of(tensor), part = std::min(1.0, kTrialSeconds / seconds_);
    const auto most = std::clamp(static_cast<std::uint64_t>(std::ceil(part * weights)), kLeastTried, kMostTried);
    const TrialWindows windows(context_, tensor, most);
    if (!windows.finite()) return std::nullopt;
    const bool shares = tensor.lane_rows == 0 && tensor.spec.granularity <= Granularity::tensor;
    const Codebook* shared = nullptr;
    if (shares && (tensor.scope >= 0 || !windows.whole())) {
      shared = codebook_of(index);
      if (shared == nullptr) return std::nullopt;
    }
    const Trial trial = windows.run(tensor.spec, shared);
    const double all = weights / trial.weights;
    return ScopeForecast{
        .levels = trial.levels,
        .numbers = trial.numbers,
        .bits = all * trial.bits + 8 * static_cast<double>(tensor.units) * trial.overhead / trial.records,
        .distortion = all * trial.squared_error,
        .energy = all * trial.energy,
        .weights = weights};
  }

 private:
  /// The codebook that a tensor's scope shares, or that of the tensor; nullptr where a weight is not finite.
  const Codebook* codebook_of(std::uint32_t index) {
    const TensorPlan& tensor = context_.plan.tensors[index];
    const std::int64_t key = tensor.scope >= 0 ? tensor.scope : -1 - std::int64_t{index};
    if (const auto known = books_.find(key); known != books_.end()) return known->second ? &*known->second : nullptr;
    if (tensor.scope < 0) books_.clear();  // of scopes there are few that more than one tensor asks for
    auto& book = books_[key];
    ValueHistogram histogram;
    double quantum = 1;
    if (tensor.scope < 0) {
      quantum = importance_quantum_of(context_.plan, context_.plan.units[tensor.first_unit]);
      if (!measure(tensor, histogram)) return nullptr;
    } else {
      const Scope& scope = context_.plan.scopes[static_cast<std::size_t>(tensor.scope)];
      quantum = scope.quantum;
      for (const std::uint32_t one : scope.tensors)
        if (!measure(context_.plan.tensors[one], histogram)) return nullptr;
    }
    const auto quantizer = find_quantizer(tensor.spec.method)->make(tensor.spec.options);
    book = quantizer->approximate_fit(bins_as_values(histogram.group(quantum)))
               .stored_as(tensor.spec.level_type, quantizer->traits().rounding == Rounding::stochastic);
    return &*book;
  }

  bool measure(const TensorPlan& tensor, ValueHistogram& histogram) {
    const auto stride = static_cast<std::uint64_t>(std::ceil(std::max(1.0, all_weights_ / kMaxMeasured)));
    const TensorInfo& info = context_.reader.catalogue().tensors[tensor.tensor];
    for (std::uint64_t u = 0; u < tensor.units; u += stride) {
      const WorkUnit& unit = context_.plan.units[tensor.first_unit + u];
      const TensorView view = context_.reader.view(info, unit.begin, unit.count, bytes_);
      const Importance importance = load_importance(context_, unit, window_, Curvature::no);
      const auto found = window_values({view, importance, tensor.cols}, tensor.spec);
      if (!found) return false;
      histogram.merge(*found);
    }
    return true;
  }

  const RunContext& context_;
  double seconds_ = 0, all_weights_ = 0;
  std::map<std::int64_t, std::optional<Codebook>> books_;  // by scope, or -1 - tensor
  std::vector<std::byte> bytes_;
  ImportanceWindow window_;
};

void write(ByteWriter& out, std::uint32_t index, const ScopeForecast& forecast) {
  out.le(index);
  for (const std::size_t value : {forecast.levels, forecast.numbers}) out.le(static_cast<std::uint64_t>(value));
  for (const double value : {forecast.bits, forecast.distortion, forecast.energy, forecast.weights}) out.le(value);
}

/// Tensors that were not tried are as those that were, under the same rule, are together.
void fill_untried(const Plan& plan, const std::vector<std::uint32_t>& untried, std::vector<ScopeForecast>& tensors) {
  std::map<std::int64_t, ScopeForecast> rules;
  for (std::size_t t = 0; t < tensors.size(); ++t) {
    ScopeForecast& sum = rules[plan.tensors[t].rule];
    sum.levels = std::max(sum.levels, tensors[t].levels), sum.numbers = std::max(sum.numbers, tensors[t].numbers);
    sum.bits += tensors[t].bits, sum.distortion += tensors[t].distortion;
    sum.energy += tensors[t].energy, sum.weights += tensors[t].weights;
  }
  for (const std::uint32_t index : untried) {
    const ScopeForecast& rule = rules[plan.tensors[index].rule];
    if (!(rule.weights > 0)) continue;
    const double weights = weights_of(plan.tensors[index]), part = weights / rule.weights;
    tensors[index] = {rule.levels, rule.numbers, part * rule.bits, part * rule.distortion, part * rule.energy, weights};
  }
}

}  // namespace

std::vector<ScopeForecast> forecast_tensors(Comm& comm, const RunContext& context) {
  std::vector<std::uint32_t> all, tried, untried;
  for (std::uint32_t t = 0; t < context.plan.tensors.size(); ++t)
    if (is_tried(context.plan.tensors[t])) all.push_back(t);
  const std::uint64_t stride = std::max<std::uint64_t>(1, ceil_div(all.size(), kMostTensors));
  for (std::size_t i = 0; i < all.size(); ++i) (i % stride == 0 ? tried : untried).push_back(all[i]);
  std::vector<std::byte> share;
  run_agreed(comm, [&] {
    TensorTrials trials(context);
    ByteWriter out;
    for (std::size_t i = static_cast<std::size_t>(comm.rank()); i < tried.size();
         i += static_cast<std::size_t>(comm.size()))
      if (const auto found =
              tasks::for_tensor(context.reader.catalogue().tensors[context.plan.tensors[tried[i]].tensor],
                                [&] { return trials.run(tried[i]); }))
        write(out, tried[i], *found);
    share = out.take();
  });
  std::vector<ScopeForecast> tensors(context.plan.tensors.size());
  for (const auto& bytes : comm.gather(std::move(share))) {
    ByteReader in(bytes, "message of another rank");
    while (in.left() > 0) {
      ScopeForecast& tensor = tensors.at(in.le<std::uint32_t>("tensor"));
      for (std::size_t* value : {&tensor.levels, &tensor.numbers})
        *value = static_cast<std::size_t>(in.le<std::uint64_t>("levels"));
      for (double* value : {&tensor.bits, &tensor.distortion, &tensor.energy, &tensor.weights})
        *value = in.le<double>("forecast");
    }
  }
  fill_untried(context.plan, untried, tensors);
  return tensors;
}

Plan with_expected_levels(const Plan& plan, const std::vector<ScopeForecast>& tensors) {
  Plan expected = plan;
  for (std::size_t t = 0; t < tensors.size(); ++t) {
    TensorPlan& tensor = expected.tensors[t];
    const std::size_t numbers = tensors[t].numbers;
    if (numbers == 0 || numbers > tensor.spec.options.levels) continue;
    tensor.spec.options.levels = numbers;
    if (tensor.scope >= 0) expected.scopes[static_cast<std::size_t>(tensor.scope)].spec.options.levels = numbers;
  }
  return expected;
}

}  // namespace lmq
