#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <vector>

#include "lmq/quant/quantizer.hpp"

using namespace lmq;

namespace {
std::vector<float> levels_of(std::vector<float> values, std::size_t count) {
  Workspace scratch;
  const auto method = find_quantizer("uniform").make({count});
  const Codebook book = method->fit_values(values, {}, scratch);
  Group group;
  group.minimum = *std::min_element(values.begin(), values.end());
  group.maximum = *std::max_element(values.begin(), values.end());
  const Fit fit = method->fit(group);
  REQUIRE(fit.refine.empty());
  REQUIRE(std::vector<float>(fit.codebook.levels().begin(), fit.codebook.levels().end()) ==
          std::vector<float>(book.levels().begin(), book.levels().end()));
  return {book.levels().begin(), book.levels().end()};
}
using Floats = std::vector<float>;
}  // namespace

TEST_CASE("uniform: equally spaced from the least to the greatest value", "[quant][uniform]") {
  REQUIRE(levels_of({3, -1, 0, 2}, 5) == Floats{-1, 0, 1, 2, 3});
  REQUIRE(levels_of({1, 2}, 2) == Floats{1, 2});
  for (const std::size_t count : {2, 3, 16, 255, 256}) {
    const auto levels = levels_of({-0.7f, 0.1f, 1.3f}, count);
    REQUIRE(levels.size() == count);
    REQUIRE(levels.front() == -0.7f);
    REQUIRE(levels.back() == Approx(1.3f).epsilon(1e-5));
  }
}

TEST_CASE("uniform: a constant is one level; extremes and subnormals stay finite, ascending and in range",
          "[quant][uniform]") {
  REQUIRE(levels_of({2.5f, 2.5f}, 16) == Floats{2.5f});
  REQUIRE(levels_of({-0.0f, 0.0f}, 16) == Floats{0.0f});
  const float most = std::numeric_limits<float>::max(), least = std::numeric_limits<float>::denorm_min();
  for (const auto& [low, high] :
       {std::pair{-most, most}, {0.0f, most}, {0.0f, least}, {-least, 3 * least}, {1.0f, std::nextafter(1.0f, 2.0f)}})
    for (const std::size_t count : {2, 3, 16, 256}) {
      const auto levels = levels_of({low, high}, count);
      CAPTURE(low, high, count);
      REQUIRE(levels.size() >= 2);
      REQUIRE(levels.front() == low);
      REQUIRE(levels.back() <= high + (high - low > 0 && std::isfinite(high - low) ? (high - low) * 1e-4f : 0.0f));
      for (std::size_t k = 1; k < levels.size(); ++k) REQUIRE(levels[k] > levels[k - 1]);
    }
}
