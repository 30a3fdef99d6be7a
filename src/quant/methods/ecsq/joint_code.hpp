#pragma once
#include <cstddef>
#include <span>
#include <vector>

#include "interval_lloyd.hpp"
#include "rate_sums.hpp"

namespace lmq {

/// A code whose labels depend on value and importance: weights that matter little take levels that are cheap.
struct JointCode {
  std::vector<double> levels;   ///< ascending, no two the same float
  std::vector<double> lengths;  ///< [levels] bits of each
  double distortion = 0;        ///< sum of importance * error^2
  double bits = 0;              ///< entropy of the codes, all weights together
  double length = 0;            ///< bits of all codes in the form that was asked for
  [[nodiscard]] double price(double lambda) const noexcept { return distortion + lambda * length; }
};

/// The two-dimensional histogram (value, importance) of a group with running sums over the values of each layer.
class JointSums {
 public:
  /// whole: the line of the group, which outlives this.
  JointSums(const Group& group, const RateSums& whole);
  /// True when importance is alike everywhere: there is nothing to gain.
  [[nodiscard]] bool empty() const noexcept { return layers_.empty(); }
  [[nodiscard]] JointCode start(const IntervalCode& code, LengthForm form) const;
  /// The paper's iteration: every cell (value, layer) to the level of least importance * (v - level)^2 +
  /// lambda * length, levels nobody takes dropped, means and lengths anew, while the price falls. Never dearer than the
  /// start counted cell by cell; a local optimum. O(layers * levels * log values) a round.
  /// Source: Choi, El-Khamy & Lee 2017, section 4.3, on a two-dimensional histogram.
  [[nodiscard]] JointCode improve(JointCode code, double lambda, LengthForm form) const;

 private:
  struct Layer {
    double importance;
    RateSums line;  // about the whole's centre
  };
  struct Sums {
    double n = 0, a = 0, b = 0, c = 0;
  };
  [[nodiscard]] std::vector<Sums> assign(const JointCode& code, double lambda) const;
  [[nodiscard]] JointCode code_of(std::vector<double> levels, std::vector<Sums> sums, LengthForm form) const;

  const RateSums& whole_;
  std::vector<Layer> layers_;
};

}  // namespace lmq
