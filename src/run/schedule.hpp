#pragma once
#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <vector>

#include "lmq/plan/plan.hpp"
#include "lmq/quant/spread_histogram.hpp"
#include "lmq/quant/value_histogram.hpp"
#include "lmq/run/task.hpp"

namespace lmq {

/// What is to be done next: pure bookkeeping, no communication, no files. Rank 0 owns one.
/// Every unit that is to be quantized gets one record; every scope one codebook. Results may come in any order, twice,
/// or from an earlier run; the set of results is the same in any case. Histograms are held from the first measurement of a
/// scope until it is solved; at most `most_open` scopes are open at a time. Order:
/// solve, or, where a budget is to choose, find what bits would buy; measure again where a solver wants to look closer
/// (both free histograms); quantize what has its codebook, on the rank that measured it where it can be (its bytes are
/// likely still in memory); open the next scope, costliest first, neighbours in a row; last, by descending cost, the
/// units that wait for nobody. Cost: O(1) amortised per call, but for the histograms; about 40 bytes per unit.
class Schedule {
 public:
  /// most_open: >= 1; each open scope holds a histogram.
  explicit Schedule(const Plan& plan, std::uint64_t most_open = 8);

  /// The next task for a rank, or nothing: all is dealt (results may bring more).
  [[nodiscard]] std::optional<Task> next(int rank);

  /// Results. Those that are not awaited (done already, another round) change nothing.
  void measured(std::uint64_t unit, std::uint32_t round, const ValueHistogram& histogram, int rank = -1);
  void measured(std::uint64_t unit, std::uint32_t round, const SpreadHistogram& histogram,
                int rank = -1);  ///< of layers
  void solved(std::uint64_t scope, std::uint32_t round, const Fit& fit);
  void quantized(std::uint64_t unit);
  /// What bits would buy in a scope is known, and its histogram lies at `place`: a budget can choose its options.
  void curved(std::uint64_t scope, const SpoolPlace& place);
  /// A budget's choice for a budgeted scope whose curve is known: it is solved and its units are quantized (again) with
  /// these options; the version is one more.
  void begin(std::uint64_t scope, const QuantizerOptions& options);
  /// The statistics of a scope whose solver wants to look closer; before solved() says so.
  void supply(std::uint64_t scope, ValueHistogram histogram);
  [[nodiscard]] bool lacks_histogram(std::uint64_t scope) const;
  /// The histogram of a scope whose curve is known is not at its place any more: its units are measured once more, then it
  /// is solved.
  void histogram_lost(std::uint64_t scope);
  [[nodiscard]] bool all_curved() const noexcept { return uncurved_ == 0; }
  [[nodiscard]] bool is_curved(std::uint64_t scope) const { return scopes_[scope].curved; }
  [[nodiscard]] const SpoolPlace& histogram_place(std::uint64_t scope) const { return scopes_[scope].place; }
  /// Version of the options a unit is quantized with now, 0: the plan's.
  [[nodiscard]] std::uint32_t version(std::uint64_t unit) const;
  /// The unit's record is lost: quantize it once more.
  void lost(std::uint64_t unit);

  /// The tasks of a unit as they are dealt now: measure in the scope's round, quantize with its codebook.
  [[nodiscard]] Task measure_task(std::uint64_t unit) const;
  [[nodiscard]] Task quantize_task(std::uint64_t unit) const;
  /// Units of a scope in element order.
  [[nodiscard]] std::span<const std::uint64_t> units_of(std::uint64_t scope) const { return scopes_[scope].units; }
  /// Options of a scope's version, nothing: the plan's.
  [[nodiscard]] std::optional<QuantizerOptions> options_of(std::uint64_t scope) const;

  [[nodiscard]] bool is_quantized(std::uint64_t unit) const { return units_[unit].quantized; }
  [[nodiscard]] bool awaits_measure(std::uint64_t unit, std::uint32_t round) const;
  [[nodiscard]] bool finished() const noexcept { return unsolved_ == 0 && unquantized_ == 0; }
  /// Whether every unit of a scope's current round is measured (then it waits for its solve).
  [[nodiscard]] bool complete(std::uint64_t scope) const { return scopes_[scope].missing == 0; }
  [[nodiscard]] bool is_solved(std::uint64_t scope) const { return scopes_[scope].solved; }
  [[nodiscard]] std::uint32_t round(std::uint64_t scope) const { return scopes_[scope].round; }
  /// Errc::internal before it is solved.
  [[nodiscard]] const Codebook& codebook(std::uint64_t scope) const;

  [[nodiscard]] std::uint64_t weights_to_measure() const noexcept {
    return weights_to_measure_;
  }  ///< of the first rounds
  [[nodiscard]] std::uint64_t weights_measured() const noexcept { return weights_measured_; }
  [[nodiscard]] std::uint64_t weights_to_quantize() const noexcept { return weights_to_quantize_; }
  [[nodiscard]] std::uint64_t weights_quantized() const noexcept { return weights_quantized_; }

 private:
  struct ScopeState {
    std::vector<std::uint64_t> units;  // in element order
    std::vector<bool> measured;        // [units] in this round
    std::size_t missing = 0;           // units not yet measured in this round
    std::uint32_t round = 0;
    ValueHistogram base, finer;    // finer: of this round, when round > 0
    SpreadHistogram spreads;       // of layers, instead of histograms
    std::vector<KeyRange> ranges;  // of this round
    bool open = false, solved = false;
    Codebook codebook;
    bool budgeted = false, curved = false, supplied = false;
    bool measured_again = false;  // its histogram was lost; `base` is filled once more
    std::uint32_t version = 0;
    QuantizerOptions options;  // of the version
    SpoolPlace place;          // of the histogram, once curved
  };
  struct UnitState {
    std::int64_t scope = -1;
    std::uint32_t position = 0;  // among the scope's units
    std::int32_t measured_by = -1;
    bool to_quantize = false, quantized = false;
  };

  template <class Merge>
  void note_measured(std::uint64_t unit, std::uint32_t round, int rank, const Merge& merge);
  void collect_scopes();
  void collect_free_units();
  [[nodiscard]] std::optional<Task> next_solve();
  [[nodiscard]] std::optional<Task> next_again();
  [[nodiscard]] std::optional<Task> next_ready(int rank);
  [[nodiscard]] std::optional<Task> next_opening();
  [[nodiscard]] std::optional<Task> next_free();
  void close_round(std::uint64_t scope);
  void open(ScopeState& scope) noexcept;
  void close(ScopeState& scope) noexcept;
  void mark_solved(ScopeState& scope);

  const Plan& plan_;
  std::uint64_t most_open_;
  std::vector<ScopeState> scopes_;
  std::vector<UnitState> units_;
  std::deque<std::uint64_t> solves_;   // scopes whose histogram is complete
  std::deque<std::uint64_t> again_;    // units to be measured in a later round
  std::deque<std::uint64_t> ready_;    // units whose codebook is there
  std::deque<std::uint64_t> opening_;  // scopes not yet measured, costliest first
  std::size_t opening_position_ = 0;   // in the first of them
  std::deque<std::uint64_t> free_;     // units without a scope, costliest first
  std::uint64_t open_scopes_ = 0;
  bool restored_ = false;  // a scope was opened by a result that nobody had been asked for
  std::uint64_t unsolved_ = 0, unquantized_ = 0, uncurved_ = 0;
  std::uint64_t weights_to_measure_ = 0, weights_measured_ = 0, weights_to_quantize_ = 0, weights_quantized_ = 0;
};

}  // namespace lmq
