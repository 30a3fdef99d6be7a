#include <catch2/catch.hpp>

#include "apply/assigner.hpp"
#include "lmq/base/error.hpp"
#include "quant_samples.hpp"

using lmq::Code;
using lmq::Codebook;
using lmq::DType;
using lmq::LevelType;

TEST_CASE("a codebook with cuts gives each weight the level whose index is the number of cuts <= it") {
  for (const DType type : samples::kAllTypes)
    for (const std::size_t levels : {1, 2, 5, 30, 256})
      for (const std::size_t count : {0, 1, 77, 40000}) {
        const auto bytes = samples::bytes(type, count, 0, 5);
        const auto view = samples::view_of(type, bytes);
        auto cuts = samples::floats(levels - 1, 0, 6);
        std::ranges::sort(cuts);
        if (cuts.size() > 3) cuts[1] = cuts[2], cuts.back() = std::numeric_limits<float>::infinity(), cuts[3] = -0.0f;
        std::ranges::sort(cuts);
        std::vector<float> names(levels);
        for (std::size_t k = 0; k < levels; ++k) names[k] = static_cast<float>(k);
        lmq::Assigner assigner;
        assigner.prepare({names, cuts, lmq::Rounding::cuts}, type, count);
        std::vector<Code> codes(count);
        assigner.assign(bytes, 0, codes);
        const auto values = samples::widened(view);
        std::size_t wrong = 0;
        for (std::size_t i = 0; i < count; ++i)
          wrong += codes[i] != static_cast<Code>(std::ranges::count_if(cuts, [&](float c) { return c <= values[i]; }));
        CHECK((levels > 1 ? wrong : 0) == 0);
      }
}

TEST_CASE("levels that storing makes equal lose the cut between them") {
  const Codebook book = Codebook::table({0.0f, 1.0f, 1.0f + 0x1p-20f, 3.0f}).with_cuts({0.2f, 1.0f, 1.7f});
  const Codebook stored = book.stored_as(LevelType::f16);
  REQUIRE(stored.levels().size() == 3);
  CHECK((std::vector<float>(stored.cuts().begin(), stored.cuts().end()) == std::vector<float>{0.2f, 1.7f}));
  CHECK(book.stored_as(LevelType::f32).cuts().size() == 3);
  CHECK_THROWS_AS(book.with_cuts({0.0f}), lmq::Error);
  CHECK_THROWS_AS(book.with_cuts({1.0f, 0.0f, 2.0f}), lmq::Error);
  CHECK_THROWS_AS(book.with_cuts({0.0f, std::nanf(""), 2.0f}), lmq::Error);
}

TEST_CASE("refine_all: asked until it is content, every bin is a value or the budget is used") {
  const auto values = samples::floats(5000, 0, 3);
  const auto view = samples::view_of(DType::f32, std::as_bytes(std::span(values)));
  std::vector<float> sorted(values);
  std::ranges::sort(sorted);
  const auto distinct = static_cast<std::size_t>(std::unique(sorted.begin(), sorted.end()) - sorted.begin());
  for (const std::size_t budget : {10, 3000, 100000}) {
    lmq::ValueHistogram histogram = lmq::ValueHistogram::of(view, {}, {});
    const std::size_t before = histogram.bins().size();
    for (int round = 0;; ++round) {
      REQUIRE(round < 20);
      const auto ranges = lmq::refine_all(histogram.group(1), budget);
      if (ranges.empty()) break;
      histogram.refine(lmq::ValueHistogram::of(view, {}, ranges), ranges);
    }
    CHECK(histogram.count() == values.size());
    CHECK(histogram.bins().size() <= std::max(before, budget));
    if (budget == 100000) {
      CHECK(histogram.bins().size() == distinct);
      CHECK(histogram.group(1).resolved());
    }
  }
}
