#include <catch2/catch.hpp>

#include "lmq/quant/quantizer.hpp"

using namespace lmq;

TEST_CASE("quantile: cells hold equally many values, and levels are their means", "[quant][example]") {
  const QuantizerEntry& entry = find_quantizer("quantile");
  Workspace workspace;
  const std::vector<float> values{9, 1, 2, 3, 10, 20, 30, 100};
  const Codebook book = entry.make({4})->fit_values(values, {}, workspace);
  const std::vector<float> expected{1.5f, 6, 15, 65};
  REQUIRE(std::ranges::equal(book.levels(), expected));
  const std::vector<float> importance{0, 1, 1, 0, 0, 0, 0, 0};
  REQUIRE(entry.make({2})->fit_values(values, importance, workspace).levels()[0] == 1);
}

TEST_CASE("quantile: what others must know of it comes from its traits", "[quant][example]") {
  const Traits traits = find_quantizer("quantile").make({4})->traits();
  CHECK(traits.sees == Sees::values);
  CHECK(traits.importance);
  CHECK(traits.cost.row_weight == 40);
}
