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

struct QuantizerOptions {
  std::size_t levels = 16;   ///< wanted levels, 2..256
};

/// A codebook, or the ranges that must be measured more finely before it can be certified (never for a resolved group).
struct Fit {
  Codebook codebook;
  std::vector<KeyRange> look_closer;   ///< empty: the codebook is final
};

class PartitionSolver;

/// Buffers one thread keeps between fits, so that rows and small groups allocate nothing. Never shared between threads;
/// results do not depend on what it was used for before.
class FitScratch {
 public:
  FitScratch();
  FitScratch(FitScratch&&) noexcept;
  FitScratch& operator=(FitScratch&&) noexcept;
  ~FitScratch();
  [[nodiscard]] PartitionSolver& partition() noexcept { return *partition_; }

 private:
  std::unique_ptr<PartitionSolver> partition_;   // never null, except in a moved-from object
};

/// Which levels? Methods answer for a group; which level for each weight is nearest level unless a method says otherwise.
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
};

struct QuantizerEntry {
  std::uint16_t id;             ///< written to files: never reused, never renumbered
  std::string_view name;        ///< as on the command line
  std::string_view summary;     ///< one line for `lmq methods`
  std::string_view source;      ///< paper and section
  std::unique_ptr<Quantizer> (*make)(const QuantizerOptions&);
};

/// The table of methods, in the order of `lmq methods`.
[[nodiscard]] std::span<const QuantizerEntry> quantizers() noexcept;
/// Errc::usage names the known methods when there is none of that name.
[[nodiscard]] const QuantizerEntry& find_quantizer(std::string_view name);
/// nullptr when no method has that id.
[[nodiscard]] const QuantizerEntry* find_quantizer(std::uint16_t id) noexcept;

}  // namespace lmq
