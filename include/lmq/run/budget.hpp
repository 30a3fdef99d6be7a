#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "lmq/io/layout.hpp"
#include "lmq/io/reader.hpp"
#include "lmq/plan/plan.hpp"
#include "lmq/run/task.hpp"
#include "lmq/run/width_budget.hpp"

namespace lmq {

/// Shares a file size out among the budgeted scopes of a plan: one slope for all (Lagrangian), the largest size that is
/// not above the target. Rank 0 owns one; no communication, no files. Deterministic: a function of the plan, the curves
/// and the sizes that came of earlier choices, in doubles by + - * /, square roots and plain_log2 alone.
/// Distortions of scopes with importance compare as they are (the importance is absolute), but none counts less than a
/// quarter of the usual; importance of columns alone weighs a scope's weights against each other and counts 1 on the
/// average. Where nothing compares a scope, squared errors count the less the larger its weights are, in the unit of those
/// that compare (measured: docs/quality.md). Of methods that see layers, where importance compares them, D / (1 - D / E)
/// takes the place of the distortion D (E: that of zeros; src/run/common_slope.hpp). First all scopes get the slope
/// at which the curves predict the target. What they weigh then corrects the curves; the rest of the gap goes to as few
/// scopes as can bear it at nearly the same slope, so that little is done again. With another Plan::allocation scopes
/// get whole widths (width_budget.hpp), by what they weigh and lose as soon as that is known. Source: Shoham & Gersho
/// 1988, Efficient bit allocation for an arbitrary set of quantizers, section III.
class Budget {
 public:
  using Choice = std::pair<std::uint64_t, QuantizerOptions>;  ///< scope and its options

  explicit Budget(const Plan& plan);
  /// Of every budgeted scope, before choose.
  void take_curve(std::uint64_t scope, ScopeCurve curve);
  /// Options of every budgeted scope. other_bytes: expected size of all but their records.
  [[nodiscard]] std::vector<Choice> choose(std::uint64_t other_bytes);
  /// After a choice was carried out: file_bytes the file would have; [plan.scopes] record_bytes of the scopes' records
  /// and their losses (UnitStats::loss; looked at where widths are shared out).
  /// Scopes to do again with other options; empty: the file is as it shall be. Where nothing that was tried fits, the
  /// fewest levels of all; Errc::usage when those are too large.
  [[nodiscard]] std::vector<Choice> correct(std::uint64_t file_bytes, const std::vector<std::uint64_t>& record_bytes,
                                            const std::vector<double>& losses);
  /// What the curve of a budgeted scope promises for what was chosen last (of widths: what curves alone choose): bits,
  /// distortion, levels (of methods with slopes those of the nearest point).
  [[nodiscard]] RatePoint expected(std::uint64_t scope) const;
  /// The sum of their distortions as they compare: what the choice makes small.
  [[nodiscard]] double expected_loss() const;
  [[nodiscard]] const std::vector<std::uint64_t>& scopes() const noexcept { return scopes_; }

 private:
  struct State {
    ScopeCurve curve;
    std::vector<double> kept;  // [curve.points] own slope over slope in common units, slopes_kept
    QuantSpec spec;
    double mean = 1;        // of the weights' importance; 1: it has none
    double prior = 1;       // what a weight's squared error counts where nothing but the weights is known
    bool compares = false;  // with those of other tensors, by its importance
    double scale = 1;       // distortion times this compares with other scopes
    double factor = 1;      // bytes stored over bytes predicted, at the slope of the last choice
    double slope = 0;       // of the last choice, common units
    std::size_t table = 0;  // of widths_
  };
  [[nodiscard]] double weights_of(std::uint64_t scope) const;
  void compare_tensors();
  [[nodiscard]] double predicted(const State& state, double slope) const;
  [[nodiscard]] double predicted(const std::vector<std::uint64_t>& scopes, double slope) const;
  [[nodiscard]] double slope_for(const std::vector<std::uint64_t>& scopes, double bytes) const;
  [[nodiscard]] QuantizerOptions options_at(const State& state) const;
  [[nodiscard]] std::vector<Choice> set_slope(const std::vector<std::uint64_t>& scopes, double slope);
  [[nodiscard]] std::vector<std::uint64_t> scopes_to_adjust(double gap,
                                                            const std::vector<std::uint64_t>& record_bytes) const;
  [[nodiscard]] std::vector<Choice> width_choices(const std::vector<std::size_t>& before) const;
  [[nodiscard]] std::vector<Choice> choose_widths(double room);
  [[nodiscard]] std::vector<Choice> correct_widths(double file, const std::vector<std::uint64_t>& record_bytes,
                                                   const std::vector<double>& losses);
  [[nodiscard]] std::vector<Choice> set_fewest(std::uint64_t file_bytes);
  [[nodiscard]] std::vector<Choice> halve(bool too_large);
  [[nodiscard]] std::vector<Choice> close_gap(double gap, const std::vector<std::uint64_t>& record_bytes);

  const Plan& plan_;
  std::vector<std::uint64_t> scopes_;  // budgeted, ascending
  std::vector<State> states_;          // [plan.scopes]
  std::optional<WidthBudget> widths_;  // where the plan asks for widths, once chosen
  struct Halving {
    double slope = 0;             // last tried for all scopes, 0: none
    double fine = 0, coarse = 0;  // the files were too large, were not; 0: not known
    double stride = 2;
    int tries = 0;
  } halving_;
  int corrections_ = 0;
  std::uint64_t best_bytes_ = 0;     // largest size so far that was not above the target
  std::vector<double> best_slopes_;  // [plan.scopes]
  bool final_ = false;               // the best is being made again
  bool fewest_ = false;              // nothing fitted: the least of all is made
};

/// All but the records of budgeted scopes, before anything is laid out: what is kept, a bound of what other rules
/// store, and all that surrounds records.
[[nodiscard]] std::uint64_t bytes_beside(const Catalogue& catalogue, const Plan& plan, const std::string& recipe_json,
                                         const std::string& provenance_json, const LayoutFormat& format);
/// A size of the file that is sure to be reached, known before a weight is read: bounds of records of the fewest levels
/// each method takes (one where it has a slope). The same for every target.
[[nodiscard]] std::uint64_t sure_bytes(const Catalogue& catalogue, const Plan& plan, const std::string& recipe_json,
                                       const std::string& provenance_json, const LayoutFormat& format);
/// Errc::usage when the plan's target is less than sure_bytes, which it names.
void check_target(const Catalogue& catalogue, const Plan& plan, const std::string& recipe_json,
                  const std::string& provenance_json, const LayoutFormat& format);

}  // namespace lmq
