#include "lmq/run/forecast.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "lmq/base/bytes.hpp"
#include "lmq/base/error.hpp"
#include "lmq/base/text.hpp"
#include "lmq/quant/level_curve.hpp"
#include "lmq/run/budget.hpp"
#include "scope_curve.hpp"
#include "scope_statistics.hpp"
#include "trial.hpp"

namespace lmq {
namespace {

/// Weights that are looked at, at most about: of larger models only every n-th unit of each tensor.
constexpr double kMaxWeights = 0x1p31;

/// A layer's step has an end where no weight is more than 2^18 steps from 0: where less than this part of a layer's energy
/// is left (84 dB), its curve promises bits that are never spent.
constexpr double kNearlyExact = 0x1p-28;
/// Weights that are tried for one choice of a budget, of all its scopes together, and of a tensor.
constexpr std::uint64_t kTriedWeights = std::uint64_t{1} << 22, kMinTried = std::uint64_t{1} << 14,
                        kMaxTried = std::uint64_t{1} << 20;

struct Measured {
  ScopeCurve curve;
  double energy = 0;
};

/// One scope of a plan, to be measured by every `stride`-th unit of its tensors.
class Measurement {
 public:
  Measurement(const RunContext& context, const Scope& scope, std::uint64_t stride)
      : context_(context), scope_(scope), stride_(stride) {}

  /// For all its weights; `done` is told of every unit.
  Measured run(const std::function<void(std::uint64_t)>& done) {
    double weights = 0;
    for (const std::uint32_t index : scope_.tensors) {
      const TensorPlan& tensor = context_.plan.tensors[index];
      for (std::uint64_t u = 0; u < tensor.units; u += stride_) {
        const WorkUnit& unit = context_.plan.units[tensor.first_unit + u];
        measure(unit, tensor);
        weights += static_cast<double>(unit.count);
        done(unit.count);
      }
    }
    const double all = static_cast<double>(scope_.weights) / weights;
    Measured out = found();
    out.energy *= all;
    for (RatePoint& point : out.curve.points) point.bits *= all, point.distortion *= all;
    return out;
  }

 private:
  [[nodiscard]] Measured found() const {
    if (scope_.layers)
      return {curve_of(spreads_, context_.plan, scope_),
              spreads_.mean_square() * static_cast<double>(spreads_.weights())};
    const Group group = histogram_.group(scope_.quantum);
    return {curve_of(group, context_, scope_), group_energy(group)};
  }

  void measure(const WorkUnit& unit, const TensorPlan& tensor) {
    const TensorInfo& info = context_.reader.catalogue().tensors[tensor.tensor];
    const TensorView view = context_.reader.view(info, unit.begin, unit.count, bytes_);
    const Importance importance = load_importance(context_, unit, window_);
    const RowWindow window = row_window(context_.plan, unit, view, importance, &workspace_);
    if (scope_.layers) {
      const auto spreads = window_spreads(window, scope_.spec);
      if (!spreads) refuse(info, unit);
      spreads_.merge(*spreads);
    } else {
      const auto histogram = window_values(window, scope_.spec);
      if (!histogram) refuse(info, unit);
      histogram_.merge(*histogram);
    }
  }

  [[noreturn]] void refuse(const TensorInfo& info, const WorkUnit& unit) const {
    refuse_first_nonfinite(context_.reader, info, unit.begin + unit.count, context_.plan.target_bytes);
    fail(Errc::io, fmt::format("tensor '{}': its values changed while they were read", printable(info.name)));
  }

  const RunContext& context_;
  const Scope& scope_;
  std::uint64_t stride_;
  ValueHistogram histogram_;
  SpreadHistogram spreads_;
  std::vector<std::byte> bytes_;
  ImportanceWindow window_;
  Workspace workspace_;
};

/// A run's choices and corrections, with trials in place of records.
class BudgetTrials {
 public:
  /// energies: [plan.scopes]
  BudgetTrials(const RunContext& context, Budget& budget, std::vector<ScopeForecast>& scopes)
      : context_(context), budget_(budget), scopes_(scopes), bytes_(scopes.size()), losses_(scopes.size()) {}

  /// True where the budget's curves promise a layer so little error that its step may have come to its end.
  [[nodiscard]] bool needed() const {
    return std::ranges::any_of(budget_.scopes(), [&](std::uint64_t s) {
      return context_.plan.scopes[s].layers && budget_.expected(s).distortion < kNearlyExact * scopes_[s].energy;
    });
  }
  /// Until the budget has nothing to correct.
  void run(std::vector<Budget::Choice> choices, std::uint64_t other_bytes) {
    while (!choices.empty()) {
      for (const auto& [scope, options] : choices) take(scope, options);
      std::uint64_t file = other_bytes;
      for (const std::uint64_t s : budget_.scopes()) file += bytes_[s];
      choices = budget_.correct(file, bytes_, losses_);
    }
  }

 private:
  void take(std::uint64_t s, const QuantizerOptions& options) {
    const Scope& scope = context_.plan.scopes[s];
    ScopeForecast& forecast = scopes_[s];
    if (scope.layers) {
      forecast.bits = forecast.distortion = forecast.energy = 0;
      for (const std::uint32_t tensor : scope.tensors) add_trial(tensor, scope.spec, options, forecast);
    } else {
      forecast.bits = budget_.expected(s).bits;
    }
    bytes_[s] = static_cast<std::uint64_t>(std::ceil(forecast.bits / 8));
  }

  void add_trial(std::uint32_t index, QuantSpec spec, const QuantizerOptions& options, ScopeForecast& forecast) const {
    const TensorPlan& tensor = context_.plan.tensors[index];
    const std::uint64_t most = std::clamp(kTriedWeights / budget_.scopes().size(), kMinTried, kMaxTried);
    spec.options = options;
    const Trial trial = TrialWindows(context_, tensor, most).run(spec, nullptr);
    const double all = static_cast<double>(tensor.rows * tensor.cols) / trial.weights;
    forecast.bits += all * trial.bits + 8 * static_cast<double>(tensor.units) * trial.overhead / trial.records;
    forecast.distortion += all * trial.squared_error;
    forecast.energy += all * trial.energy;
  }

  const RunContext& context_;
  Budget& budget_;
  std::vector<ScopeForecast>& scopes_;
  std::vector<std::uint64_t> bytes_;  // [plan.scopes]
  std::vector<double> losses_;
};

/// The curves and energies of this rank's scopes.
std::vector<std::byte> measure_share(const Comm& comm, const RunContext& context, std::uint64_t stride,
                                     const std::function<void(double, double)>& progress) {
  const auto ranks = static_cast<std::uint64_t>(comm.size()), rank = static_cast<std::uint64_t>(comm.rank());
  std::vector<std::uint64_t> mine;
  double all = 0, done = 0;
  for (std::uint64_t s = 0, nth = 0; s < context.plan.scopes.size(); ++s)
    if (context.plan.scopes[s].spec.budgeted && nth++ % ranks == rank)
      mine.push_back(s), all += static_cast<double>(context.plan.scopes[s].weights);
  ByteWriter out;
  out.le(static_cast<std::uint64_t>(mine.size()));
  for (const std::uint64_t s : mine) {
    const Scope& scope = context.plan.scopes[s];
    const Measured measured = Measurement(context, scope, stride).run([&](std::uint64_t weights) {
      done += static_cast<double>(weights * stride);
      progress(std::min(done, all), all);
    });
    const std::vector<std::byte> curve = curve_to_bytes(measured.curve);
    out.le(s);
    out.le(measured.energy);
    out.le(static_cast<std::uint64_t>(curve.size()));
    out.raw(curve);
  }
  return out.take();
}

}  // namespace

Forecast forecast_budget(Comm& comm, const RunContext& context, std::uint64_t other_bytes,
                         const std::function<void(double, double)>& progress) {
  double weights = 0;
  for (const Scope& scope : context.plan.scopes)
    if (scope.spec.budgeted) weights += static_cast<double>(scope.weights);
  const auto stride = static_cast<std::uint64_t>(std::ceil(std::max(1.0, weights / kMaxWeights)));
  std::vector<std::byte> share;
  run_agreed(comm, [&] { share = measure_share(comm, context, stride, progress); });
  const auto shares = comm.gather(std::move(share));
  Forecast forecast;
  forecast.sampled = stride > 1;
  run_agreed(comm, [&] {
    if (comm.rank() != 0) return;
    Budget budget(context.plan);
    forecast.scopes.resize(context.plan.scopes.size());
    for (const auto& bytes : shares) {
      ByteReader in(bytes, "message of another rank");
      for (auto left = in.le<std::uint64_t>("scopes"); left > 0; --left) {
        const auto s = in.le<std::uint64_t>("scope");
        forecast.scopes.at(s).energy = in.le<double>("energy");
        budget.take_curve(s, curve_from_bytes(in.raw(in.le<std::uint64_t>("curve"), "curve"), "curve of another rank"));
      }
    }
    const std::vector<Budget::Choice> choices = budget.choose(other_bytes);
    forecast.loss = budget.expected_loss();
    for (const std::uint64_t s : budget.scopes()) {
      const RatePoint point = budget.expected(s);
      forecast.scopes[s].levels = point.levels;
      forecast.scopes[s].weights = static_cast<double>(context.plan.scopes[s].weights);
      forecast.scopes[s].bits = point.bits;
      forecast.scopes[s].distortion = point.distortion;
    }
    if (BudgetTrials trials(context, budget, forecast.scopes); trials.needed()) trials.run(choices, other_bytes);
    forecast.bytes = static_cast<double>(other_bytes);
    for (const std::uint64_t s : budget.scopes()) forecast.bytes += forecast.scopes[s].bits / 8;
  });
  return forecast;
}

}  // namespace lmq
