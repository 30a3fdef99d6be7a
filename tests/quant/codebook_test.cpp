#include "lmq/quant/codebook.hpp"

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "lmq/base/error.hpp"
#include "lmq/quant/quantizer.hpp"

using lmq::Codebook;
using lmq::CodebookKind;
using lmq::LevelType;

TEST_CASE("a table is sorted, distinct and has one zero") {
  const Codebook book = Codebook::table({3.0f, -0.0f, 1.0f, 0.0f, 3.0f});
  CHECK(std::vector<float>(book.levels().begin(), book.levels().end()) == std::vector<float>{0.0f, 1.0f, 3.0f});
  CHECK_FALSE(std::signbit(book.levels()[0]));
  CHECK(book.kind() == CodebookKind::table);
  CHECK_THROWS_AS(Codebook::table({}), lmq::Error);
  CHECK_THROWS_AS(Codebook::table({std::numeric_limits<float>::infinity()}), lmq::Error);
  CHECK_THROWS_AS(Codebook::table({std::nanf("")}), lmq::Error);
  std::vector<float> many(257);
  for (std::size_t k = 0; k < many.size(); ++k) many[k] = static_cast<float>(k);
  CHECK_THROWS_AS(Codebook::table(many), lmq::Error);
}

TEST_CASE("a grid has levels low + k * step, or becomes a table where floats cannot tell them apart") {
  const Codebook grid = Codebook::grid(-1.0f, 0.25f, 9);
  CHECK(grid.kind() == CodebookKind::grid);
  CHECK(grid.levels().size() == 9);
  CHECK(grid.levels()[8] == 1.0f);
  CHECK((grid.low() == -1.0f && grid.step() == 0.25f));
  const Codebook tight = Codebook::grid(1.0f, 0x1p-25f, 16);
  CHECK(tight.kind() == CodebookKind::table);
  CHECK(tight.levels().size() < 16);
  CHECK(tight.step() == 0x1p-25f);
  const Codebook one = Codebook::grid(-0.0f, 0, 1);
  CHECK(one.levels().size() == 1);
  CHECK_FALSE(std::signbit(one.levels()[0]));
  CHECK_THROWS_AS(Codebook::grid(0, 0, 2), lmq::Error);
  CHECK_THROWS_AS(Codebook::grid(0, -1, 2), lmq::Error);
  CHECK_THROWS_AS(Codebook::grid(0, 3e38f, 3), lmq::Error);
}

TEST_CASE("a stored codebook is what rounding leaves, and storing again changes nothing") {
  const Codebook table = Codebook::table({-1.0f, -0.99999f, 0.1f, 0.3f, 1.0f});
  CHECK(table.stored_as(LevelType::f32).levels().size() == 5);
  const Codebook half = table.stored_as(LevelType::f16);
  CHECK(half.levels().size() == 4);
  for (const Codebook& book : {table, Codebook::grid(-1.0f, 0.13f, 16), Codebook::grid(3.0f, 0, 1)})
    for (const LevelType type : {LevelType::f32, LevelType::f16}) {
      const Codebook once = book.stored_as(type), twice = once.stored_as(type);
      CHECK(once.kind() == book.kind());
      CHECK(std::ranges::equal(once.levels(), twice.levels()));
      CHECK(once.step() == twice.step());
    }
  const Codebook vanished = Codebook::grid(1.0f, 1e-20f, 1).stored_as(LevelType::f16);
  CHECK(vanished.levels().size() == 1);
}

TEST_CASE("the registry finds methods by name and id, and names what there is") {
  for (const lmq::QuantizerEntry& entry : lmq::quantizers()) {
    CHECK(&lmq::find_quantizer(entry.name) == &entry);
    CHECK(lmq::find_quantizer(entry.id) == &entry);
    CHECK_FALSE(entry.summary.empty());
    CHECK_FALSE(entry.source.empty());
    for (const lmq::QuantizerEntry& other : lmq::quantizers())
      if (&other != &entry) CHECK((other.id != entry.id && other.name != entry.name));
  }
  CHECK(lmq::find_quantizer(std::uint16_t{60000}) == nullptr);
  try {
    static_cast<void>(lmq::find_quantizer("k-means"));
    FAIL("found a method that is not there");
  } catch (const lmq::Error& error) {
    CHECK(error.code == lmq::Errc::usage);
    CHECK_THAT(error.what(), Catch::Contains("kmeans"));
  }
}
