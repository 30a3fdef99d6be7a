#include "categorical.hpp"

#include <algorithm>
#include <array>
#include <bit>

#include "core/plain_exp.hpp"
#include "lmq/kernels/rate_cells.hpp"

namespace lmq {
namespace {
constexpr std::size_t kWholeMean = 8;  // levels of which the mean takes all

/// Points code - 2 .. code + 2 within the grid.
GridPoints about(const GridPoints& grid, std::size_t code) noexcept {
  if (grid.levels <= kWholeMean) return grid;
  const std::size_t low = code < 2 ? 0 : code - 2, high = std::min(code + 2, grid.levels - 1);
  return {high - low + 1, grid.point(low)};
}

/// Cell of the codes low .. high at alpha = 1.
LogisticCell cell_of(double v, double noise, const GridPoints& grid, std::size_t low, std::size_t high) noexcept {
  return logistic_cell((grid.point(high) + 0.5 - v) / noise, (grid.point(low) - 0.5 - v) / noise);
}

std::size_t rings_of(std::size_t levels) noexcept { return (levels + 1) / 2; }
std::size_t ring_low(std::size_t ring, std::size_t levels) noexcept { return (levels - 1) / 2 - ring; }
std::size_t ring_high(std::size_t ring, std::size_t levels) noexcept { return levels / 2 + ring; }

/// Calls visit(ring, mass of the ring, d mass / d v) from the middle outwards.
template <class Visit>
void each_ring(double v, double noise, const GridPoints& grid, const Visit& visit) noexcept {
  double inner = 0, inner_slope = 0;
  for (std::size_t ring = 0; ring < rings_of(grid.levels); ++ring) {
    const LogisticCell cell = cell_of(v, noise, grid, ring_low(ring, grid.levels), ring_high(ring, grid.levels));
    const double slope = -cell.mass * cell.lean / noise;
    visit(ring, cell.mass - inner, slope - inner_slope);
    inner = cell.mass, inner_slope = slope;
  }
}
}  // namespace

LogisticCell logistic_cell(double plus, double minus) noexcept {
  const double a = plain_exp(-plus), b = plain_exp(minus), within = 1 - plain_exp(minus - plus);
  const double up = 1 / (1 + a), down = 1 / (1 + b);  // S(plus), S(-minus)
  LogisticCell cell;
  cell.mass = up * down * within;
  cell.plus_density = a * up * (1 + b) / within;
  cell.minus_density = b * down * (1 + a) / within;
  cell.lean = (a - b) * up * down;
  return cell;
}

Categorical categorical(double x, double alpha, double sigma, const GridPoints& grid, std::size_t code) noexcept {
  const double c = grid.point(code), low = grid.first - 0.5, high = grid.last() + 0.5;
  const double plus = ((c + 0.5) * alpha - x) / sigma, minus = ((c - 0.5) * alpha - x) / sigma;
  const double far_plus = (high * alpha - x) / sigma, far_minus = (low * alpha - x) / sigma;
  const LogisticCell cell = logistic_cell(plus, minus), all = logistic_cell(far_plus, far_minus);
  Categorical result;
  result.pi = cell.mass / all.mass;
  const double scale = result.pi / sigma;
  result.dx = scale * (all.lean - cell.lean);
  result.dalpha = scale * ((c + 0.5) * cell.plus_density - (c - 0.5) * cell.minus_density -
                           (high * all.plus_density - low * all.minus_density));
  result.dsigma = scale * (far_plus * all.plus_density - far_minus * all.minus_density -
                           (plus * cell.plus_density - minus * cell.minus_density));
  return result;
}

std::size_t nearest_code(double x, double alpha, const GridPoints& grid) noexcept {
  constexpr double kRound = 0x1.8p52;
  const double place = std::min(std::max(x / alpha - grid.first, 0.0), static_cast<double>(grid.levels - 1));
  return static_cast<std::size_t>((place + kRound) - kRound);
}

Through through_class(double v, double noise, const GridPoints& grid, std::size_t code) noexcept {
  const double c = grid.point(code);
  const LogisticCell cell = cell_of(v, noise, grid, code, code), all = cell_of(v, noise, grid, 0, grid.levels - 1);
  return {c * cell.mass / all.mass * (all.lean - cell.lean) / noise, c};
}

Through through_mean(double v, double noise, const GridPoints& grid, std::size_t code) noexcept {
  const GridPoints near = about(grid, code);
  const LogisticCell all = cell_of(v, noise, near, 0, near.levels - 1);
  Through through;
  for (std::size_t k = 0; k < near.levels; ++k) {
    const LogisticCell cell = cell_of(v, noise, near, k, k);
    const double pi = cell.mass / all.mass;
    through.point += near.point(k) * pi;
    through.slope += near.point(k) * pi * (all.lean - cell.lean) / noise;
  }
  return through;
}

Through through_step(double v, const GridPoints& grid, std::size_t code) noexcept {
  const bool inside = v >= grid.first - 0.5 && v <= grid.last() + 0.5;
  return {inside ? 1.0 : 0.0, grid.point(code)};
}

std::size_t ring_of(std::size_t code, std::size_t levels) noexcept {
  return code >= levels / 2 ? code - levels / 2 : (levels - 1) / 2 - code;
}

Masks open_masks(std::size_t levels, std::size_t least_levels, MaskScheme scheme) {
  Masks masks;
  const std::size_t kept = rings_of(std::min(least_levels, levels));
  for (std::size_t ring = 0; ring < rings_of(levels); ++ring) {
    std::size_t gates = ring < kept ? 0 : ring - kept + 1;
    if (scheme == MaskScheme::bits && gates > 0) gates = std::bit_width(ring / kept);
    masks.gate_of.push_back(static_cast<std::uint32_t>(gates));
    masks.gates = std::max(masks.gates, gates);
  }
  masks.ring.assign(rings_of(levels), 1.0);
  return masks;
}

void set_gates(Masks& masks, std::span<const double> gates) noexcept {
  double product = 1;
  std::size_t taken = 0;
  for (std::size_t ring = 0; ring < masks.ring.size(); ++ring) {
    for (; taken < masks.gate_of[ring]; ++taken) product *= gates[taken];
    masks.ring[ring] = product;
  }
}

std::size_t levels_of_gates(const Masks& masks, std::size_t levels, std::size_t open) noexcept {
  std::size_t rings = 0;
  while (rings < masks.gate_of.size() && masks.gate_of[rings] <= open) ++rings;
  return std::min(levels, ring_high(rings - 1, levels) - ring_low(rings - 1, levels) + 1);
}

MaskedCategorical masked_categorical(double v, double noise, const GridPoints& grid, const Masks& masks,
                                     std::size_t code) noexcept {
  double total = 0, slope = 0;
  each_ring(v, noise, grid, [&](std::size_t ring, double mass, double dv) {
    total += masks.ring[ring] * mass;
    slope += masks.ring[ring] * dv;
  });
  const LogisticCell cell = cell_of(v, noise, grid, code, code), all = cell_of(v, noise, grid, 0, grid.levels - 1);
  MaskedCategorical result;
  result.pi = masks.ring[ring_of(code, grid.levels)] * cell.mass / total;
  result.dv = result.pi * (-cell.lean / noise - slope / total);
  result.total = total / all.mass;
  return result;
}

std::size_t masked_code(double v, double noise, const GridPoints& grid, const Masks& masks) noexcept {
  std::size_t best = 0;
  double most = -1;
  for (std::size_t ring = 0; ring < masks.ring.size(); ++ring) {
    if (ring + 1 < masks.ring.size() && masks.gate_of[ring + 1] == masks.gate_of[ring])
      continue;  // a wider one follows
    const std::size_t low = ring_low(ring, grid.levels);
    const GridPoints inner{ring_high(ring, grid.levels) - low + 1, grid.point(low)};
    const std::size_t code = low + nearest_code(v, 1, inner);
    const double weight = masks.ring[ring_of(code, grid.levels)] * cell_of(v, noise, grid, code, code).mass;
    if (weight > most || (weight == most && code < best)) most = weight, best = code;
  }
  return best;
}

// More than 5 parameters: a weight, its grid and gates, and the result.
void masked_gradient(double v, double noise, const GridPoints& grid, const Masks& masks, std::size_t code,
                     std::span<double> by_ring) noexcept {
  double total = 0;
  each_ring(v, noise, grid, [&](std::size_t ring, double mass, double) {
    by_ring[ring] = mass;
    total += masks.ring[ring] * mass;
  });
  const std::size_t mine = ring_of(code, grid.levels);
  const double mass = cell_of(v, noise, grid, code, code).mass, pi = masks.ring[mine] * mass / total;
  for (std::size_t ring = 0; ring < masks.ring.size(); ++ring) by_ring[ring] *= -pi / total;
  by_ring[mine] += mass / total;
}

void gate_gradient(const Masks& masks, std::span<const double> gates, std::span<const double> by_ring,
                   std::span<double> by_gate) noexcept {
  std::ranges::fill(by_gate, 0.0);
  for (std::size_t ring = 0; ring < masks.ring.size(); ++ring)
    for (std::size_t gate = 0; gate < masks.gate_of[ring]; ++gate) {
      double others = 1;
      for (std::size_t other = 0; other < masks.gate_of[ring]; ++other) others *= other == gate ? 1.0 : gates[other];
      by_gate[gate] += by_ring[ring] * others;
    }
}

}  // namespace lmq
