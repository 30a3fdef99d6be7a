#pragma once
#include <cmath>
#include <cstdint>
#include <vector>

#include "lmq/quant/group.hpp"

namespace rate_samples {

/// Points with counts as a resolved group; unweighted where mass is empty.
inline lmq::Group group_of(const std::vector<float>& values, const std::vector<double>& counts,
                           const std::vector<double>& mass = {}) {
  lmq::Group group;
  group.low = group.high = values;
  group.count = counts;
  group.mass = mass.empty() ? counts : mass;
  group.mean.assign(values.begin(), values.end());
  group.scatter.assign(values.size(), 0.0);
  group.minimum = values.front(), group.maximum = values.back();
  return group;
}

/// 2^log_weights BF16 weights of N(0, .02^2) as they come out on average: count(v) = floor(N pdf(v) 2^(E - 134) + 1/2),
/// E the exponent field of v (0 and subnormals get none). 4,766 values for 2^24.
inline lmq::Group bf16_normal(int log_weights) {
  const double sigma = 0.02, total = std::ldexp(1.0, log_weights);
  std::vector<float> values;
  std::vector<double> counts;
  const auto add = [&](std::uint32_t pattern, double sign) {
    const int field = static_cast<int>(pattern >> 7);
    if (field == 0) return;
    const double v = std::ldexp(128.0 + (pattern & 127), field - 134);
    const double pdf = std::exp(-v * v / (2 * sigma * sigma)) / (sigma * std::sqrt(2 * 3.14159265358979323846));
    const double count = std::floor(total * pdf * std::ldexp(1.0, field - 134) + 0.5);
    if (count > 0) values.push_back(static_cast<float>(sign * v)), counts.push_back(count);
  };
  for (std::uint32_t p = 0x7F80; p-- > 0;) add(p, -1);
  for (std::uint32_t p = 0; p < 0x7F80; ++p) add(p, 1);
  return group_of(values, counts);
}

}  // namespace rate_samples
