#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "lmq/base/tensor.hpp"
#include "lmq/kernels/error.hpp"
#include "lmq/quant/importance.hpp"

namespace lmq {

/// Errors of one unit against its source; deterministic (16 lanes of doubles per fixed block, blocks in order).
struct UnitStats {
  double squared_error = 0;    ///< sum (w - q)^2
  double weighted_error = 0;   ///< sum importance * (w - q)^2; equals squared_error without importance
  double energy = 0;           ///< sum w^2
  double largest_error = 0;    ///< max |w - q|
  double weighted_energy = 0;  ///< sum importance * w^2; equals energy without importance
  /// Sum over rows of e H e^T where a Gram matrix H decided codes (damping included); measure_error does not know it.
  std::optional<double> layer_loss = {};
  /// What the method made small.
  [[nodiscard]] double loss() const noexcept { return layer_loss.value_or(weighted_error); }
};

/// Errors of decoded values against a window of the source: exactly what quantize_unit recorded for the same values.
[[nodiscard]] UnitStats measure_error(const TensorView& view, std::span<const float> decoded,
                                      const Importance& importance);

/// The same, from values that come in blocks of 4096, in any order and from several threads. View and importance outlive
/// it; it holds 40 bytes a block.
class ErrorMeter {
 public:
  ErrorMeter(const TensorView& view, const Importance& importance);
  /// begin: a multiple of 4096; blocks are whole but the last.
  void add(std::uint64_t begin, std::span<const float> decoded);
  [[nodiscard]] UnitStats stats() const;

 private:
  const TensorView& view_;
  const Importance& importance_;
  std::vector<ErrorSums> blocks_;
};

/// Index in the window of the first NaN or infinity of a float type, or nothing.
[[nodiscard]] std::optional<std::uint64_t> first_nonfinite(const TensorView& view);

}  // namespace lmq
