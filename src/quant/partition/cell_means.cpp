#include "cell_means.hpp"

namespace lmq {

void cell_means(std::span<const double> values, std::span<const double> weights, std::span<const std::uint32_t> ends,
                std::ptrdiff_t zero_cell, std::vector<double>& levels) {
  levels.clear();
  for (std::size_t t = 0; t + 1 < ends.size(); ++t) {
    const std::size_t begin = ends[t], end = ends[t + 1];
    if (static_cast<std::ptrdiff_t>(t) == zero_cell) {
      levels.push_back(0);
      continue;
    }
    const double near = values[begin + (end - begin) / 2];
    double weight = 0, sum = 0;
    for (std::size_t k = begin; k < end; ++k) weight += weights[k], sum += weights[k] * (values[k] - near);
    levels.push_back(sum / weight + near);
  }
}

}  // namespace lmq
