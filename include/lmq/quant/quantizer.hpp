#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "lmq/base/tensor.hpp"
#include "lmq/base/trellis_unit.hpp"
#include "lmq/quant/codebook.hpp"
#include "lmq/quant/group.hpp"
#include "lmq/quant/importance.hpp"
#include "lmq/quant/method_options.hpp"
#include "lmq/quant/spread_histogram.hpp"
#include "lmq/quant/unit_stats.hpp"
#include "lmq/quant/workspace.hpp"

namespace lmq {

/// A codebook, or the ranges that must be measured more finely before it can be certified (never for a resolved group).
struct Fit {
  Codebook codebook;
  std::vector<KeyRange> refine;  ///< empty: the codebook is final
};

/// Which of a codebook's levels a weight gets.
enum class Rounding : std::uint8_t {
  nearest,     ///< the nearest one, the smaller of two
  cuts,        ///< as the codebook's cuts say, where it has some; else the nearest
  stochastic,  ///< one of the two neighbours at random, so that the mean is the weight
};

/// How the codebooks of a method with few numbers each are stored: all of one kind (bases, centred), all as wide.
struct ParametricCodebook {
  CodebookKind kind = CodebookKind::table;
  std::size_t levels = 0, numbers = 0;  ///< of each; numbers 0: codebooks are tables or grids of their own
  SignRule rule = SignRule::nearest;
};

/// What a method has to see of the weights before it can say their codes.
enum class Sees : std::uint8_t {
  values,  ///< values in any order: a histogram, or a row or a group in hand
  rows,    ///< a window of whole rows at once (granularity row and group): codes depend on where weights lie
  either,  ///< both, record by record the one of lower Lagrangian: bits against error at 6 dB a bit
  layer,   ///< a window of whole rows and the curvature of their layer; units are of a trellis (TrellisUnit)
};

/// How finely a histogram of F32 weights is measured in the end.
enum class Detail : std::uint8_t {
  extremes,    ///< the first look does: levels follow from the extremes
  cells,       ///< first bins where cells are wide beside them
  levels,      ///< finely about each of the levels
  everywhere,  ///< as finely everywhere as a budget of bins allows
};

/// Nanoseconds on one core and bytes that a method takes, measured: what `lmq plan` reckons with, never part of the
/// output.
struct MethodCost {
  double row_weight = 0;     ///< per weight, codebooks per row or group whatever the levels; 0: by row_level
  double row_level = 30;     ///< per weight and power of two of the levels
  double row_each = 0;       ///< per weight and level more
  double row_few = 0;        ///< per weight instead where a level has at most 32 (2.5 times that in long rows); 0: none
  double solve_bin = 200;    ///< per bin of a shared codebook of 8- and 16-bit weights: one fit
  double solve_level = 2e6;  ///< per level of a shared codebook of F32 weights: all its fits
  double curve_bin = 2500;   ///< per bin of a shared codebook: what bits would buy, at all slopes or numbers of levels
  std::uint64_t value_bytes = 140;  ///< of a solver, per value of a row or group
  std::uint64_t level_bytes = 0;    ///< and per value and level more, in rows of at most 512 values, or 24 a level
};

/// What others must know of a method with its options. They ask this, never its name.
struct Traits {
  Sees sees = Sees::values;
  Rounding rounding = Rounding::nearest;
  Detail detail = Detail::everywhere;
  /// False: levels are the same without it (it still weighs the errors that are reported).
  bool importance = true;
  /// Fit wants the layers of the group where importance differs (granularity model and tensor).
  bool by_importance = false;
  bool grid = false;                 ///< codebooks are stored as two numbers, low and step
  ParametricCodebook numbered = {};  ///< with numbers > 0 rows and groups call fit_numbers, not fit_values
  /// Windows of F32 or F64 of at most so many weights are fitted by fit_values, larger ones by bins that are refined.
  std::uint64_t few_weights = 1u << 16;
  std::uint64_t seed = 0;  ///< of stochastic rounding: draws are a function of (seed, tensor, element)
  /// Of methods that see layers: rows of a lane. A window is a multiple of that (lane_rows_of), but for a layer's last.
  std::uint64_t lane_rows = 0;
  MethodCost cost = {};
};

/// A window of weights with their importance; of whole rows where a method sees rows or layers.
struct RowWindow {
  const TensorView& view;  ///< finite values
  const Importance& importance;
  std::uint64_t cols = 0;       ///< of a row; 0: methods that see rows have it in their unit
  std::uint64_t lane_rows = 0;  ///< for methods that see layers
  /// The same; of the rank: what was made of a layer's curvature serves its next windows (Importance::gram_key).
  Workspace* workspace = nullptr;
  /// Of layers whose rows are tokens of a vocabulary, the most frequent first: how many there are (0: they are not), and
  /// the window's first.
  std::uint64_t vocabulary = 0, first_row = 0;
};

/// Rows of a lane for a method that wants so many, where F comes in blocks of outer_rows (0: does not): a multiple of
/// the blocks.
[[nodiscard]] std::uint64_t lane_rows_of(std::uint64_t wanted, std::uint64_t outer_rows) noexcept;

/// What is known of a window of a layer before it is read.
struct LayerShape {
  std::uint64_t rows = 0, cols = 0, lane_rows = 0;
  bool gram = false;             ///< Importance::gram is there
  std::uint64_t outer_rows = 0;  ///< that of Importance
};
/// What a window of a layer takes.
struct LayerNeeds {
  std::uint64_t scratch_bytes = 0;  ///< held beside the window, its importance and its unit, all threads together
  double factor_seconds = 0;        ///< on one core, once for windows with the same gram
  double seconds = 0;               ///< on one core, for the window
};

struct RowNeeds {
  std::uint64_t scratch_bytes = 0, numbers = 0;
};

/// A point of a rate-distortion curve: what a codebook costs and gains on a group, all its weights together.
struct RatePoint {
  double lambda = 0;      ///< slope it belongs to (importance * squared error per bit); NaN: none, a number of levels
  double bits = 0;        ///< of the codes: their entropy, or count * fixed width; codebooks and headers left out
  double distortion = 0;  ///< sum of importance * error^2
  std::size_t levels = 0;
};

/// Which levels? Methods answer for a group; which level for each weight is nearest level unless a method says
/// otherwise.
class Quantizer {
 public:
  explicit Quantizer(const Traits& traits = {}) : traits_(traits) {}
  virtual ~Quantizer() = default;
  [[nodiscard]] const Traits& traits() const noexcept { return traits_; }
  /// group: not empty. The result does not depend on threads or instruction set. Methods that see layers have none.
  [[nodiscard]] virtual Fit fit(const Group& group) const;
  /// The same for values in hand (a row, a group of g): at once, and final.
  /// values      [n] finite, any order, n >= 1
  /// importance  [n] finite, >= 0, or empty: all ones. All zero counts as all ones; weights below 2^-30 of the largest
  ///             count as that (so every value is near a level).
  /// Unless overridden: builds the resolved Group of the values and calls fit.
  [[nodiscard]] virtual Codebook fit_values(std::span<const float> values, std::span<const float> importance,
                                            Workspace& scratch) const;
  /// The numbers of the codebook that fit_values gives, [traits().numbered.numbers]; the same arguments. Allocates
  /// nothing.
  virtual void fit_numbers(std::span<const float> values, std::span<const float> importance, Workspace& scratch,
                           std::span<float> numbers) const;
  /// Levels for the bins as they are, without a proof and without a closer look: what an estimate needs.
  [[nodiscard]] virtual Codebook approximate_fit(const Group& group) const { return fit(group).codebook; }
  /// Of methods with a slope: a point of the rate-distortion curve for each lambda, in that order, by a quick search.
  [[nodiscard]] virtual std::vector<RatePoint> curve(const Group& group, std::span<const double> lambdas) const;
  /// Of methods that see rows: quantizes a window. In: unit.count > 0, cols, level_type, codes of the right size. Out:
  /// kind, group, levels, book, codes.
  [[nodiscard]] virtual UnitStats quantize_rows(const RowWindow& window, QuantizedUnit& unit) const;
  /// Bytes quantize_rows holds beside window, unit and error sums, and the numbers it stores, for so many weights.
  [[nodiscard]] virtual RowNeeds row_needs(std::uint64_t count, std::uint64_t cols) const;
  /// Of methods that see layers: the codes of a window, and the errors of what decoders make of them (measure_error).
  /// In: unit.source, method. Out: all else. Same bits for any threads and instruction set; what the workspace holds
  /// changes nothing.
  [[nodiscard]] virtual UnitStats quantize_layer(const RowWindow& window, TrellisUnit& unit) const;
  /// Of methods that see layers: what a budget needs to know of a window. Added over the windows of a layer.
  [[nodiscard]] virtual SpreadHistogram spreads(const RowWindow& window) const;
  /// Bits and distortion of that for each lambda (importance * squared error per bit), in that order.
  [[nodiscard]] virtual std::vector<RatePoint> spread_curve(const SpreadHistogram& histogram,
                                                            std::span<const double> lambdas) const;
  [[nodiscard]] virtual LayerNeeds layer_needs(const LayerShape& shape) const;

 private:
  Traits traits_;
};

struct QuantizerEntry {
  std::uint16_t id;                                             ///< written to files: never reused, never renumbered
  std::string_view name;                                        ///< as on the command line
  std::string_view summary;                                     ///< one line for `lmq methods`
  std::string_view source;                                      ///< paper and section
  std::unique_ptr<Quantizer> (*make)(const QuantizerOptions&);  ///< make_with, of a method with options
  std::span<const MethodOption> options = {};
  /// Completes and checks the options of a rule before anything is read: sets the levels that other options imply,
  /// refuses what contradicts itself (Errc::usage, one line). Complete options stay as they are. change_with makes it.
  void (*complete)(QuantizerOptions& options, bool levels_given) = nullptr;
  /// Optional: codebooks [K] of K levels, K = 0 (empty) .. most_levels or all distinct values, in one pass and with
  /// options by default. The group is resolved.
  std::vector<Codebook> (*all)(const Group& group, std::size_t most_levels) = nullptr;
  /// Sets the options so that the method spends bits at a slope: squared error (weighted as its Group's mass) that one
  /// bit more is to save. Absent: the method has a fixed number of levels, and a budget chooses that.
  void (*at_slope)(QuantizerOptions& options, double slope) = nullptr;
};

/// Options of a method with `levels` and all else by default, complete.
[[nodiscard]] QuantizerOptions default_options(const QuantizerEntry& entry, std::size_t levels);

/// The table of methods, in the order of `lmq methods`.
[[nodiscard]] std::span<const QuantizerEntry> quantizers() noexcept;
/// Errc::usage names the known methods when there is none of that name.
[[nodiscard]] const QuantizerEntry& find_quantizer(std::string_view name);
/// nullptr when no method has that id.
[[nodiscard]] const QuantizerEntry* find_quantizer(std::uint16_t id) noexcept;

}  // namespace lmq
