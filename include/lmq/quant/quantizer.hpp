#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "lmq/quant/codebook.hpp"
#include "lmq/quant/group.hpp"

namespace lmq {

/// An option of a method beside the number of levels: `--name VALUE` on the command line, "name": VALUE in a rule of a
/// recipe. Its value is a number; that of a word is its index.
struct MethodOption {
  std::string_view name;     ///< lower case, words joined by '-'; one meaning for all methods that have it
  std::string_view help;     ///< one line
  double low = 0, high = 0;  ///< a number lies in [low, high]
  double fallback = 0;       ///< the value when it is not given; NaN: the method decides
  bool whole = false;        ///< whole numbers only, below 2^53
  std::span<const std::string_view> words = {};  ///< not empty: the words that are allowed
  bool sets_rate = false;  ///< says how many bits are spent: where it is given, a budget over all tensors does not
};

struct QuantizerOptions {
  std::size_t levels = 16;          ///< wanted levels, 2..256; where an option implies the number: at most so many
  std::vector<double> values = {};  ///< of the method's options, in their order; empty: the fallbacks
};
/// Value of the method's option `index`; NaN when it is not given and has no fallback.
[[nodiscard]] double option(const QuantizerOptions& options, std::span<const MethodOption> known, std::size_t index);

/// A codebook, or the ranges that must be measured more finely before it can be certified (never for a resolved group).
struct Fit {
  Codebook codebook;
  std::vector<KeyRange> look_closer;  ///< empty: the codebook is final
};

/// Which of a codebook's levels a weight gets.
enum class Rounding : std::uint8_t {
  nearest,     ///< the nearest one, the smaller of two
  cuts,        ///< as the codebook's cuts say, where it has some; else the nearest
  stochastic,  ///< one of the two neighbours at random, so that the mean is the weight
};

/// How the codebooks of a method with few numbers each are stored: all of one kind (bases, centred), all as wide.
struct NumberedBooks {
  CodebookKind kind = CodebookKind::table;
  std::size_t levels = 0, numbers = 0;  ///< of each; numbers 0: codebooks are tables or grids of their own
  SignRule rule = SignRule::nearest;
};

/// What scales the codes of rows and groups.
enum class Scaling : std::uint8_t {
  group,     ///< the numbers of their own codebooks
  rank1,     ///< a factor per row and per column of the record
  cheapest,  ///< record by record the better buy of the two: bits against error at 6 dB a bit
};

class PartitionSolver;
struct SparseScratch;
struct MagnitudeScratch;

/// Buffers one thread keeps between fits, so that rows and small groups allocate nothing. Never shared between threads;
/// results do not depend on what it was used for before.
class FitScratch {
 public:
  FitScratch();
  FitScratch(FitScratch&&) noexcept;
  FitScratch& operator=(FitScratch&&) noexcept;
  ~FitScratch();
  [[nodiscard]] PartitionSolver& partition() noexcept { return *partition_; }
  [[nodiscard]] SparseScratch& sparse();  ///< made at its first use
  [[nodiscard]] MagnitudeScratch& magnitudes() noexcept { return *magnitudes_; }

 private:
  std::unique_ptr<PartitionSolver> partition_;  // these two are never null, except in a moved-from object
  std::unique_ptr<MagnitudeScratch> magnitudes_;
  std::unique_ptr<SparseScratch> sparse_;
};

/// Which levels? Methods answer for a group; which level for each weight is nearest level unless a method says
/// otherwise.
class Quantizer {
 public:
  virtual ~Quantizer() = default;
  /// group: not empty. The result does not depend on threads or instruction set.
  [[nodiscard]] virtual Fit fit(const Group& group) const = 0;
  /// The same for values in hand (a row, a group of g): at once, and final.
  /// values      [n] finite, any order, n >= 1
  /// importance  [n] finite, >= 0, or empty: all ones. All zero counts as all ones; weights below 2^-30 of the largest
  ///             count as that (so every value is near a level).
  /// Unless overridden: builds the resolved Group of the values and calls fit.
  [[nodiscard]] virtual Codebook fit_values(std::span<const float> values, std::span<const float> importance,
                                            FitScratch& scratch) const;
  /// What every codebook of the method is made of. With numbers > 0 rows and groups call fit_numbers, not fit_values.
  [[nodiscard]] virtual NumberedBooks numbered() const noexcept { return {}; }
  /// The numbers of the codebook that fit_values gives, [numbered().numbers]; the same arguments. Allocates nothing.
  virtual void fit_numbers(std::span<const float> values, std::span<const float> importance, FitScratch& scratch,
                           std::span<float> numbers) const;
  /// Levels for the bins as they are, without a proof and without a closer look: what an estimate needs.
  [[nodiscard]] virtual Codebook rough_fit(const Group& group) const { return fit(group).codebook; }
  /// Not group: only for granularity row and group.
  [[nodiscard]] virtual Scaling scaling() const noexcept { return Scaling::group; }
  /// Windows of F32 or F64 with at most so many weights are fitted by fit_values; larger ones by bins that are refined.
  [[nodiscard]] virtual std::uint64_t few_weights() const noexcept { return std::uint64_t{1} << 16; }
  [[nodiscard]] virtual Rounding rounding() const noexcept { return Rounding::nearest; }
  /// False: levels are the same with and without importance (it still weighs the errors that are reported).
  [[nodiscard]] virtual bool uses_importance() const noexcept { return true; }
  /// True: fit wants the layers of the group where importance differs (granularity model and tensor).
  [[nodiscard]] virtual bool by_importance() const noexcept { return false; }
  /// Of stochastic rounding: draws are a function of (seed, tensor, element).
  [[nodiscard]] virtual std::uint64_t seed() const noexcept { return 0; }
};

struct QuantizerEntry {
  std::uint16_t id;          ///< written to files: never reused, never renumbered
  std::string_view name;     ///< as on the command line
  std::string_view summary;  ///< one line for `lmq methods`
  std::string_view source;   ///< paper and section
  std::unique_ptr<Quantizer> (*make)(const QuantizerOptions&);
  std::span<const MethodOption> options = {};
  /// Completes and checks the options of a rule before anything is read: sets the levels that other options imply,
  /// refuses what contradicts itself (Errc::usage, one line). Settled options stay as they are.
  void (*settle)(QuantizerOptions& options, bool levels_given) = nullptr;
  /// Optional: codebooks [K] of K levels, K = 0 (empty) .. most_levels or all distinct values, in one pass and with
  /// options by default. The group is resolved.
  std::vector<Codebook> (*all)(const Group& group, std::size_t most_levels) = nullptr;
  /// Sets the options so that the method spends bits at a slope: squared error (weighted as its Group's mass) that one
  /// bit more is to save. Absent: the method has a fixed number of levels, and a budget chooses that.
  void (*at_slope)(QuantizerOptions& options, double slope) = nullptr;
};

/// Options of a method with `levels` and all else by default, settled.
[[nodiscard]] QuantizerOptions default_options(const QuantizerEntry& entry, std::size_t levels);

/// The table of methods, in the order of `lmq methods`.
[[nodiscard]] std::span<const QuantizerEntry> quantizers() noexcept;
/// Errc::usage names the known methods when there is none of that name.
[[nodiscard]] const QuantizerEntry& find_quantizer(std::string_view name);
/// nullptr when no method has that id.
[[nodiscard]] const QuantizerEntry* find_quantizer(std::uint16_t id) noexcept;

}  // namespace lmq
