#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/hard_concrete.hpp"

namespace lmq {

// The categorical model of cluster-promoting quantization: a weight x with logistic noise of scale sigma falls into the
// cell of a grid point. Grid: point of code k is alpha * c_k, c_k = first + k, k < levels. Source: Louizos et al. 2019,
// Relaxed Quantization, section 2 (probabilities); Lee et al. 2021, Cluster-Promoting Quantization with Bit-Drop
// (arXiv 2109.02100), sections 3.1 (multi-class straight-through) and 3.2 (DropBits).

struct GridPoints {
  std::size_t levels = 0;
  double first = 0;  ///< c_0
  [[nodiscard]] double point(std::size_t code) const noexcept { return first + static_cast<double>(code); }
  [[nodiscard]] double last() const noexcept { return first + static_cast<double>(levels) - 1; }
};

/// What lies between two bounds under the noise; plus, minus: bounds less the weight, in units of sigma; minus < plus.
struct LogisticCell {
  double mass = 0;  ///< S(plus) - S(minus) > 0
  /// s(plus) / mass and s(minus) / mass, s = S (1 - S), and their difference without cancellation.
  double plus_density = 0, minus_density = 0, lean = 0;
};
[[nodiscard]] LogisticCell logistic_cell(double plus, double minus) noexcept;

/// pi_k of a weight, and its derivatives.
struct Categorical {
  double pi = 0, dx = 0, dalpha = 0, dsigma = 0;
};
/// alpha, sigma > 0; |bounds - x| up to 700 sigma exact, beyond that derivatives are those of 700.
[[nodiscard]] Categorical categorical(double x, double alpha, double sigma, const GridPoints& grid,
                                      std::size_t code) noexcept;

/// The code of largest pi, which is the nearest point; of two the even code.
[[nodiscard]] std::size_t nearest_code(double x, double alpha, const GridPoints& grid) noexcept;

/// Straight-through derivatives of a weight's quantized value at alpha = 1 (v = x / alpha) with sigma = noise * alpha:
/// d value / d x = slope, d value / d ln alpha = alpha * (point - v * slope), by offset 1 - slope.
struct Through {
  double slope = 0, point = 0;
};
/// The paper's rule: value = c_k pi_k with k held fast. slope is 0 at the grid point and for c_k = 0.
[[nodiscard]] Through through_class(double v, double noise, const GridPoints& grid, std::size_t code) noexcept;
/// Of the mean sum_k c_k pi_k; above 8 levels of the five points about the nearest, as if there were no others.
[[nodiscard]] Through through_mean(double v, double noise, const GridPoints& grid, std::size_t code) noexcept;
/// Learned step size: 1 inside the range, 0 outside (Esser et al. 2020).
[[nodiscard]] Through through_step(double v, const GridPoints& grid, std::size_t code) noexcept;

/// DropBits: which codes a mask serves. Ring r of a grid: the two codes (one in the middle of an odd number) r steps out
/// from the middle. ends: every ring beyond the inner has a gate; bits: all rings that a bit more adds share one.
enum class MaskScheme : std::uint8_t { ends, bits };
/// Masks of rings, [rings of the grid] in [0, 1], descending from 1: products of gates from the middle outwards.
struct Masks {
  std::vector<double> ring;
  std::vector<std::uint32_t> gate_of;  ///< [rings] gates whose product the ring's mask is: the first so many
  std::size_t gates = 0;
};
/// Masks of a grid with all gates 1. least_levels: what is never dropped (2 ..).
[[nodiscard]] Masks open_masks(std::size_t levels, std::size_t least_levels, MaskScheme scheme);
/// Sets the masks from gates [masks.gates] in [0, 1].
void set_gates(Masks& masks, std::span<const double> gates) noexcept;
[[nodiscard]] std::size_t ring_of(std::size_t code, std::size_t levels) noexcept;
/// Levels that remain when the first `open` gates are.
[[nodiscard]] std::size_t levels_of_gates(const Masks& masks, std::size_t levels, std::size_t open) noexcept;

/// pi under masks: mask of its ring * mass / N, N = sum of all such; with its derivative by x at alpha = 1.
struct MaskedCategorical {
  double pi = 0, dv = 0, total = 0;  ///< total: N / mass of the whole range
};
[[nodiscard]] MaskedCategorical masked_categorical(double v, double noise, const GridPoints& grid, const Masks& masks,
                                                   std::size_t code) noexcept;
/// The code of largest masked pi, the smallest among equals.
[[nodiscard]] std::size_t masked_code(double v, double noise, const GridPoints& grid, const Masks& masks) noexcept;
/// d pi / d mask of every ring, into by_ring [rings].
void masked_gradient(double v, double noise, const GridPoints& grid, const Masks& masks, std::size_t code,
                     std::span<double> by_ring) noexcept;
/// d loss / d gate [gates] from d loss / d mask [rings].
void gate_gradient(const Masks& masks, std::span<const double> gates, std::span<const double> by_ring,
                   std::span<double> by_gate) noexcept;

}  // namespace lmq
