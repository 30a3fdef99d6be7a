#pragma once
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "lmq/plan/plan.hpp"
#include "lmq/run/task.hpp"

namespace lmq {

/// Shares a file size out among the floating scopes of a plan: one slope for all (Lagrangian), the largest size that is
/// not above the target. Rank 0 owns one; no communication, no files. Deterministic: a function of the plan, the curves
/// and the sizes that came of earlier choices, in doubles by + - * / alone.
/// Distortions of scopes with importance compare as they are (the importance is absolute), but for that of columns
/// alone, which weighs a scope's weights against each other and counts 1 on the average. A scope without importance
/// counts as if all its weights had the mean importance of those that have some; where none has any, squared errors
/// count the less the larger the weights of the tensor are (measured: docs/quality.md). First all scopes get the slope
/// at which the curves predict the target. What they weigh then corrects the curves; the rest of the gap goes to as few
/// scopes as can bear it at nearly the same slope, so that little is done again. Source: Shoham & Gersho 1988,
/// Efficient bit allocation for an arbitrary set of quantizers, section III.
class Budget {
 public:
  using Choice = std::pair<std::uint64_t, QuantizerOptions>;  ///< scope and its options

  /// raw_bytes: tensors that are kept. Errc::usage when they alone exceed the target.
  Budget(const Plan& plan, std::uint64_t raw_bytes);
  /// Of every floating scope, before choose.
  void take_curve(std::uint64_t scope, ScopeCurve curve);
  /// Options of every floating scope. other_bytes: expected size of all but their records. Errc::usage when even the
  /// fewest bits are too many.
  [[nodiscard]] std::vector<Choice> choose(std::uint64_t other_bytes);
  /// After a choice was carried out: file_bytes the file would have, record_bytes [scopes] of the scopes' records.
  /// Scopes to do again with other options; empty: the file is as it shall be.
  [[nodiscard]] std::vector<Choice> correct(std::uint64_t file_bytes, const std::vector<std::uint64_t>& record_bytes);
  [[nodiscard]] const std::vector<std::uint64_t>& scopes() const noexcept { return scopes_; }

 private:
  struct State {
    ScopeCurve curve;
    QuantSpec spec;
    double scale = 1;   // distortion times this compares with other scopes
    double factor = 1;  // bytes stored over bytes predicted, at the slope of the last choice
    double slope = 0;   // of the last choice, common units
  };
  [[nodiscard]] double predicted(const State& state, double slope) const;
  [[nodiscard]] double predicted(const std::vector<std::uint64_t>& scopes, double slope) const;
  [[nodiscard]] double slope_for(const std::vector<std::uint64_t>& scopes, double bytes) const;
  [[nodiscard]] QuantizerOptions options_at(const State& state) const;
  [[nodiscard]] std::vector<Choice> set_slope(const std::vector<std::uint64_t>& scopes, double slope);
  [[nodiscard]] std::vector<std::uint64_t> bearers(double gap, const std::vector<std::uint64_t>& record_bytes) const;
  [[noreturn]] void refuse(double least) const;

  const Plan& plan_;
  double raw_bytes_;
  std::vector<std::uint64_t> scopes_;  // floating, ascending
  std::vector<State> states_;          // [plan.scopes]
  double usual_importance_ = 0;        // mean of the importance that compares tensors, 0: there is none
  int corrections_ = 0;
  std::uint64_t best_bytes_ = 0;     // largest size so far that was not above the target
  std::vector<double> best_slopes_;  // [plan.scopes]
  bool settled_ = false;             // the best is being made again
};

}  // namespace lmq
