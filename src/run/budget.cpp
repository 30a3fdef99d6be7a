#include "lmq/run/budget.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "common_slope.hpp"
#include "lmq/base/error.hpp"
#include "lmq/base/text.hpp"
#include "lmq/container/size.hpp"
#include "scope_curve.hpp"

namespace lmq {
namespace {

// How far below the target the file may stay, what is aimed at, and how often it is tried.
constexpr double kSlack = 0.001, kAim = 0.0004;
constexpr int kMaxCorrections = 12;
// Curves that are off by more than kFarOff after kTrustedCorrections, or gave nothing nearer below the target after
// kPatience, are no longer asked: one slope for all scopes is halved in.
constexpr int kTrustedCorrections = 3, kPatience = 7, kMaxHalvings = 32;
constexpr double kFarOff = 0.01;
// A scope bears a change of up to an eighth of its bytes; a gap of more than kLargeGap of all bytes goes to all scopes.
constexpr double kBearable = 8, kLargeGap = 0.03;
// How much more than estimated the tables of a file may take: their numbers are invented, and deflate as they do.
constexpr std::uint64_t kTablesShare = 64, kTablesMore = 128;
constexpr double kLowestSlope = 0x1p-200, kHighestSlope = 0x1p200;

double as_double(std::uint64_t value) { return static_cast<double>(value); }

/// Importance that compares tensors: that of columns alone says nothing of how the loss depends on a tensor.
bool compares(const ImportanceInfo& importance) {
  return importance.present() && importance.kind != ImportanceKind::columns;
}

/// What a weight's squared error counts where nothing but the weights is known: (mean square of its tensor) ^ -3/8,
/// between equal squared (0) and equal relative errors (1). Measured: docs/quality.md.
double prior_importance(double mean_square) {
  if (!(mean_square > 0)) return 1;
  const double root = std::sqrt(std::sqrt(mean_square));
  return 1 / (root * std::sqrt(root));
}

/// Mean importance says how the loss depends on small errors. Those of few bits are not small: a tensor that it holds for
/// all but indifferent would be coded to nothing. None counts less than this part of the usual, in units of its prior.
/// Measured: docs/quality.md.
constexpr double kLeastImportance = 0.25;

/// The value below which half of the weight lies; 0 where there is none. values: (value, weight).
double weighted_median(std::vector<std::pair<double, double>> values) {
  std::ranges::sort(values);
  double all = 0, below = 0;
  for (const auto& [value, weight] : values) all += weight;
  for (const auto& [value, weight] : values)
    if ((below += weight) >= all / 2) return value;
  return 0;
}

[[noreturn]] void refuse(std::uint64_t target, std::uint64_t least) {
  fail(Errc::usage, fmt::format("a file of {} bytes ({}) cannot be reached with this recipe: at least {} ({})", target,
                                format_bytes(target), least, format_bytes(least)));
}

}  // namespace

Budget::Budget(const Plan& plan) : plan_(plan), states_(plan.scopes.size()), best_slopes_(plan.scopes.size()) {
  for (std::uint64_t s = 0; s < plan.scopes.size(); ++s) {
    if (!plan.scopes[s].spec.budgeted) continue;
    scopes_.push_back(s);
    states_[s].spec = plan.scopes[s].spec;
  }
}

RatePoint Budget::expected(std::uint64_t scope) const {
  const State& state = states_[scope];
  if (widths_) return state.curve.points[widths_->expected_points()[state.table]];
  return at_slope(state.curve, state.kept, state.slope / state.scale);
}

double Budget::expected_loss() const {
  double loss = 0;
  for (const std::uint64_t s : scopes_) loss += states_[s].scale * expected(s).distortion;
  return loss;
}

double Budget::weights_of(std::uint64_t scope) const {
  double weights = 0;
  for (const std::uint64_t tensor : plan_.scopes[scope].tensors)
    weights += as_double(plan_.tensors[tensor].rows) * as_double(plan_.tensors[tensor].cols);
  return weights;
}

void Budget::take_curve(std::uint64_t scope, ScopeCurve curve) {
  State& state = states_[scope];
  const ImportanceInfo& importance = plan_.tensors[plan_.scopes[scope].tensors.front()].importance;
  state.prior = prior_importance(curve.mean_square);
  state.mean = importance.present() && importance.mean > 0 ? importance.mean : 1;
  state.compares = compares(importance) && importance.mean > 0;
  const bool shrinks = state.compares && plan_.scopes[scope].layers;
  state.kept = slopes_kept(curve, shrinks ? curve.mean_square * state.mean * weights_of(scope) : 0);
  state.curve = std::move(curve);
}

/// Scales of all scopes: importance where it compares tensors, else what weights alone say, in the same unit.
void Budget::compare_tensors() {
  std::vector<std::pair<double, double>> ratios;
  for (const std::uint64_t s : scopes_) {
    if (!states_[s].compares) continue;
    ratios.emplace_back(states_[s].mean / states_[s].prior, weights_of(s));
  }
  const double usual = ratios.empty() ? 1 : weighted_median(std::move(ratios));
  for (const std::uint64_t s : scopes_) {
    State& state = states_[s];
    const double alone = usual * state.prior;
    state.scale = (state.compares ? std::max(state.mean, kLeastImportance * alone) : alone) / state.mean;
  }
}

double Budget::predicted(const State& state, double slope) const {
  return state.factor * at_slope(state.curve, state.kept, slope / state.scale).bits / 8;
}

double Budget::predicted(const std::vector<std::uint64_t>& scopes, double slope) const {
  double bytes = 0;
  for (const std::uint64_t s : scopes) bytes += predicted(states_[s], slope);
  return bytes;
}

/// The least slope (to 2^-40) whose predicted bytes are not above `bytes`; the highest when there is none.
double Budget::slope_for(const std::vector<std::uint64_t>& scopes, double bytes) const {
  double low = kLowestSlope, high = kHighestSlope;
  while (high / low > 2) {
    const double middle = std::ldexp(1.0, (std::ilogb(low) + std::ilogb(high)) / 2);
    (predicted(scopes, middle) > bytes ? low : high) = middle;
  }
  for (int i = 0; i < 40; ++i) {
    const double middle = low + (high - low) / 2;
    (predicted(scopes, middle) > bytes ? low : high) = middle;
  }
  return high;
}

QuantizerOptions Budget::options_at(const State& state) const {
  QuantizerOptions options = state.spec.options;
  const double slope = state.slope / state.scale;
  const QuantizerEntry& method = *find_quantizer(state.spec.method);
  if (method.at_slope && has_slopes(state.curve))
    method.at_slope(options, at_slope(state.curve, state.kept, slope).lambda);
  else
    options.levels = fewest_ ? state.curve.points.front().levels : point_at(state.curve, slope).levels;
  return options;
}

std::vector<Budget::Choice> Budget::set_slope(const std::vector<std::uint64_t>& scopes, double slope) {
  std::vector<Choice> choices;
  for (const std::uint64_t s : scopes) {
    State& state = states_[s];
    const bool first = state.slope == 0;
    const QuantizerOptions before = first ? QuantizerOptions() : options_at(state);
    state.slope = slope;
    QuantizerOptions options = options_at(state);
    if (first || options != before) choices.emplace_back(s, std::move(options));
  }
  return choices;
}

/// All scopes as small as they can be: for a target that is hardly more.
std::vector<Budget::Choice> Budget::set_fewest(std::uint64_t file_bytes) {
  std::vector<QuantizerOptions> before;
  for (const std::uint64_t s : scopes_) before.push_back(options_at(states_[s]));
  fewest_ = true;
  std::vector<Choice> choices;
  for (std::size_t i = 0; i < scopes_.size(); ++i) {
    State& state = states_[scopes_[i]];
    state.slope = kHighestSlope;
    QuantizerOptions options = options_at(state);
    if (options.levels != before[i].levels || options.values != before[i].values)
      choices.emplace_back(scopes_[i], std::move(options));
  }
  if (choices.empty()) refuse(plan_.target_bytes, file_bytes);
  return choices;
}

std::vector<Budget::Choice> Budget::choose(std::uint64_t other_bytes) {
  compare_tensors();
  const double room = (1 - kAim) * as_double(plan_.target_bytes) - as_double(other_bytes);
  return plan_.allocation == Allocation::slope ? set_slope(scopes_, slope_for(scopes_, room)) : choose_widths(room);
}

/// Scopes whose width is another than before (empty: all).
std::vector<Budget::Choice> Budget::width_choices(const std::vector<std::size_t>& before) const {
  std::vector<Choice> choices;
  for (const std::uint64_t s : scopes_) {
    const State& state = states_[s];
    const std::size_t point = widths_->points()[state.table];
    if (!before.empty() && before[state.table] == point) continue;
    choices.emplace_back(s, state.spec.options);
    choices.back().second.levels = std::bit_ceil(state.curve.points[point].levels);
  }
  return choices;
}

std::vector<Budget::Choice> Budget::choose_widths(double room) {
  std::vector<WidthTable> tables;
  for (const std::uint64_t s : scopes_) {
    State& state = states_[s];
    state.table = tables.size();
    WidthTable& table = tables.emplace_back();
    for (const RatePoint& point : state.curve.points)
      table.push_back({static_cast<std::size_t>(std::bit_width(point.levels - 1)), std::ceil(point.bits / 8),
                       state.scale * point.distortion});
  }
  widths_.emplace(plan_.allocation, std::move(tables), room);
  return width_choices({});
}

std::vector<Budget::Choice> Budget::correct_widths(double file, const std::vector<std::uint64_t>& record_bytes,
                                                   const std::vector<double>& losses) {
  std::vector<WidthResult> results;
  double all = 0;
  for (const std::uint64_t s : scopes_) {
    results.push_back({as_double(record_bytes[s]), states_[s].scale * losses[s]});
    all += results.back().bytes;
  }
  const std::vector<std::size_t> before = widths_->points();
  if (!widths_->correct(as_double(plan_.target_bytes) - (file - all), results))
    refuse(plan_.target_bytes, static_cast<std::uint64_t>(file));
  return before == widths_->points() ? std::vector<Choice>() : width_choices(before);
}

std::vector<std::uint64_t> Budget::scopes_to_adjust(double gap, const std::vector<std::uint64_t>& record_bytes) const {
  double all = 0, some = 0;
  for (const std::uint64_t s : scopes_) all += as_double(record_bytes[s]);
  if (std::abs(gap) > kLargeGap * all) return scopes_;
  std::vector<std::uint64_t> chosen;
  for (const std::uint64_t s : scopes_) {
    if (some >= kBearable * std::abs(gap)) break;
    chosen.push_back(s);
    some += as_double(record_bytes[s]);
  }
  return chosen;
}

namespace {
/// The recipe with a target of as many digits as any, and one way to share it out: what surrounds the records is as
/// large for every size and allocation.
std::string whatever_the_target(const std::string& recipe_json) {
  nlohmann::json recipe = nlohmann::json::parse(recipe_json, nullptr, false);
  if (!recipe.is_object()) return recipe_json;
  recipe.erase("target_bits");
  if (recipe.contains("bit_allocation")) recipe["bit_allocation"] = name(Allocation::lagrangian);
  recipe["target_bytes"] = std::numeric_limits<std::uint64_t>::max();
  return recipe.dump();
}

/// The plan with the fewest levels wherever a budget chooses them, and a digest that is as long for every size.
Plan with_fewest_levels(const Plan& plan) {
  Plan least = plan;
  least.digest.assign(plan.digest.size(), '0');
  const auto take_fewest = [](QuantSpec& spec) {
    if (spec.budgeted) spec.options.levels = fewest_levels(spec.method, spec.options, rate_count(spec));
  };
  for (TensorPlan& tensor : least.tensors) take_fewest(tensor.spec);
  for (Scope& scope : least.scopes) take_fewest(scope.spec);
  return least;
}
}  // namespace

std::uint64_t bytes_beside(const Catalogue& catalogue, const Plan& plan, const std::string& recipe_json,
                           const std::string& provenance_json, const LayoutFormat& format) {
  const auto bytes_of_fixed = [&](std::uint64_t unit) {
    return plan.tensors[plan.units[unit].tensor].spec.budgeted ? 0 : record_bound(plan, unit);
  };
  return estimate_size(catalogue, with_fewest_levels(plan), whatever_the_target(recipe_json), provenance_json, format,
                       bytes_of_fixed)
      .total();
}

std::uint64_t sure_bytes(const Catalogue& catalogue, const Plan& plan, const std::string& recipe_json,
                         const std::string& provenance_json, const LayoutFormat& format) {
  const Plan least = with_fewest_levels(plan);
  const SizeEstimate size = estimate_size(catalogue, least, whatever_the_target(recipe_json), provenance_json, format,
                                          [&](std::uint64_t unit) { return record_bound(least, unit); });
  return size.total() + size.container / kTablesShare + kTablesMore;
}

void check_target(const Catalogue& catalogue, const Plan& plan, const std::string& recipe_json,
                  const std::string& provenance_json, const LayoutFormat& format) {
  if (plan.target_bytes == 0) return;
  const std::uint64_t least = sure_bytes(catalogue, plan, recipe_json, provenance_json, format);
  if (plan.target_bytes < least) refuse(plan.target_bytes, least);
}

/// The next slope for all scopes, between one whose file was too large and one whose file was not. Nothing: no other is
/// left to be tried. too_large: the file of the last choice.
std::vector<Budget::Choice> Budget::halve(bool too_large) {
  for (; halving_.tries < kMaxHalvings; ++halving_.tries) {
    if (halving_.slope > 0) (too_large ? halving_.fine : halving_.coarse) = halving_.slope;
    const double fine = halving_.fine, coarse = halving_.coarse;
    if (fine > 0 && coarse > 0) {
      halving_.slope = std::sqrt(fine * coarse);
    } else if (fine > 0 || coarse > 0) {
      halving_.stride *= 2;
      halving_.slope = fine > 0 ? fine * halving_.stride : coarse / halving_.stride;
    } else {
      for (const std::uint64_t s : scopes_) halving_.slope = std::max(halving_.slope, states_[s].slope);
    }
    if (!(halving_.slope >= kLowestSlope && halving_.slope <= kHighestSlope)) return {};
    std::vector<Choice> choices = set_slope(scopes_, halving_.slope);
    if (!choices.empty()) return choices;
  }
  return {};
}

/// Another slope for as few scopes as can bear the gap; what does not help with few is tried with more. Nothing: none
/// would change, or there were enough corrections.
std::vector<Budget::Choice> Budget::close_gap(double gap, const std::vector<std::uint64_t>& record_bytes) {
  for (double share = std::ldexp(gap, std::min(corrections_ - 1, 8)); corrections_ <= kMaxCorrections; share *= 2) {
    const auto chosen = scopes_to_adjust(share, record_bytes);
    double bytes = gap;
    for (const std::uint64_t s : chosen) bytes += as_double(record_bytes[s]);
    std::vector<Choice> choices = set_slope(chosen, slope_for(chosen, bytes));
    if (!choices.empty() || chosen.size() == scopes_.size() || share == 0) return choices;
  }
  return {};
}

std::vector<Budget::Choice> Budget::correct(std::uint64_t file_bytes, const std::vector<std::uint64_t>& record_bytes,
                                            const std::vector<double>& losses) {
  const double target = as_double(plan_.target_bytes), file = as_double(file_bytes);
  if (widths_) return correct_widths(file, record_bytes, losses);
  if (fewest_) {
    if (file_bytes > plan_.target_bytes) refuse(plan_.target_bytes, file_bytes);
    return {};
  }
  if (final_ || (file <= target && file >= (1 - kSlack) * target)) return {};
  if (file_bytes <= plan_.target_bytes && file_bytes > best_bytes_) {
    best_bytes_ = file_bytes;
    for (const std::uint64_t s : scopes_) best_slopes_[s] = states_[s].slope;
  }
  for (const std::uint64_t s : scopes_) {
    State& state = states_[s];
    const double predicted_now = predicted(state, state.slope) / state.factor;
    if (predicted_now > 0) state.factor = as_double(record_bytes[s]) / predicted_now;
  }
  ++corrections_;
  const double gap = (1 - kAim) * target - file;
  const bool far = corrections_ > kTrustedCorrections && std::abs(gap) > kFarOff * target;
  const bool stuck = corrections_ > kPatience && as_double(best_bytes_) < (1 - kFarOff) * target;
  if (halving_.slope > 0 || far || stuck) {
    std::vector<Choice> halved = halve(file > target);
    if (!halved.empty()) return halved;
    corrections_ = kMaxCorrections + 1;
  }
  std::vector<Choice> choices = close_gap(gap, record_bytes);
  if (!choices.empty() || file_bytes == best_bytes_) return choices;
  if (best_bytes_ == 0) return set_fewest(file_bytes);
  final_ = true;  // nothing better came: what was best is made again
  for (const std::uint64_t s : scopes_)
    for (auto& choice : set_slope({s}, best_slopes_[s])) choices.push_back(std::move(choice));
  return choices;
}

}  // namespace lmq
