#include <algorithm>
#include <array>
#include <cmath>

#include "core/hard_concrete.hpp"
#include "lmq/base/random.hpp"
#include "width_search.hpp"

namespace lmq {
namespace {

constexpr std::size_t kMaxGates = 8, kSteps = 100;
constexpr double kFirstPhi = 2, kRate = 0.1;  // a gate is open with probability .97 at first
constexpr int kPrices = 12;                   // tries of a price
constexpr double kOpen = 0.5;

/// Gates of one scope under a price of bytes: the widths that a gate opens are those of its hull, so that more bytes
/// are less loss.
class Gates {
 public:
  Gates(const WidthTable& table, std::uint64_t scope) : table_(table), hull_(width_hull(table)) {
    if (hull_.size() > kMaxGates) hull_.resize(kMaxGates);
    for (std::size_t step = 0; step < kSteps; ++step) {
      const std::uint64_t key = draw_key(scope, step);
      for (std::size_t g = 0; g < kMaxGates; ++g)
        logits_.push_back(logit_of((static_cast<double>(draw32(key, g)) + 0.5) * 0x1p-32));
    }
  }

  /// The point that is left at a price (loss per byte).
  [[nodiscard]] std::size_t width_at(double price) const {
    const std::size_t gates = hull_.size() - 1;
    std::array<double, kMaxGates> phi{}, first{}, second{};
    phi.fill(kFirstPhi);
    double beta1 = 1, beta2 = 1;
    for (std::size_t step = 0; step < kSteps; ++step) {
      beta1 *= 0.9, beta2 *= 0.999;
      const std::array<double, kMaxGates> slope = slopes(phi, price, logits_.data() + step * kMaxGates);
      for (std::size_t g = 0; g < gates; ++g) {
        first[g] += 0.1 * (slope[g] - first[g]);
        second[g] += 0.001 * (slope[g] * slope[g] - second[g]);
        if (!(second[g] > 0)) continue;
        phi[g] -= kRate * first[g] / (1 - beta1) / std::sqrt(second[g] / (1 - beta2));
      }
    }
    std::size_t open = 0;
    while (open < gates && final_gate(phi[open]) > kOpen) ++open;
    return hull_[open];
  }

 private:
  [[nodiscard]] const WidthPoint& at(std::size_t place) const noexcept { return table_[hull_[place]]; }

  /// d (loss of the drawn gates + price * expected bytes) / d phi. Both are sums over gates of what the gate's step
  /// changes times the product of the gates up to it; so is the derivative by one of them, from that gate on.
  [[nodiscard]] std::array<double, kMaxGates> slopes(const std::array<double, kMaxGates>& phi, double price,
                                                     const double* logits) const {
    const std::size_t gates = hull_.size() - 1;
    std::array<Gate, kMaxGates> gate{}, open{};
    std::array<double, kMaxGates> out{};
    for (std::size_t g = 0; g < gates; ++g) {
      gate[g] = hard_concrete_of(phi[g], logits[g]);
      open[g] = open_probability(phi[g]);
    }
    for (std::size_t g = 0; g < gates; ++g) {
      double others = 1, chances = 1;  // products of all but gate g
      for (std::size_t i = 0; i < gates; ++i) {
        if (i != g) others *= gate[i].value, chances *= open[i].value;
        if (i < g) continue;
        out[g] += gate[g].dphi * others * (at(i + 1).loss - at(i).loss);
        out[g] += price * open[g].dphi * chances * (at(i + 1).bytes - at(i).bytes);
      }
    }
    return out;
  }

  const WidthTable& table_;
  std::vector<std::size_t> hull_;
  std::vector<double> logits_;  // [steps][kMaxGates] of the draws, the same at every price
};

}  // namespace

WidthChoice choose_by_gates(WidthTables tables, double room) {
  std::vector<Gates> gates;
  std::vector<std::size_t> smallest;
  double low = 0, high = 0;  // exponents of the price, in octaves
  bool any = false;
  for (std::size_t s = 0; s < tables.size(); ++s) {
    gates.emplace_back(tables[s], s);
    const std::vector<std::size_t> hull = width_hull(tables[s]);
    smallest.push_back(hull.front());
    for (std::size_t i = 1; i < hull.size(); ++i) {
      const WidthPoint &a = tables[s][hull[i - 1]], &b = tables[s][hull[i]];
      const double octave = std::ilogb((a.loss - b.loss) / (b.bytes - a.bytes));
      low = any ? std::min(low, octave) : octave, high = any ? std::max(high, octave + 1) : octave + 1;
      any = true;
    }
  }
  WidthChoice best = choice_of(tables, smallest);
  for (int look = 0; any && look < kPrices; ++look) {
    const double middle = (low + high) / 2, whole = std::floor(middle);
    const double price = std::ldexp(1 + (middle - whole), static_cast<int>(whole));  // straight between octaves
    std::vector<std::size_t> points;
    for (const Gates& one : gates) points.push_back(one.width_at(price));
    const WidthChoice choice = choice_of(tables, std::move(points));
    const bool fits = choice.bytes <= room;
    if (fits && choice.bytes > best.bytes) best = choice;
    (fits ? high : low) = middle;
  }
  fill_room(tables, room, best);
  return best;
}

}  // namespace lmq
