#include "lmq/quant/unit.hpp"

#include <catch2/catch.hpp>
#include <limits>

#include "lmq/base/error.hpp"
#include "lmq/base/parallel.hpp"
#include "lmq/kernels/error.hpp"
#include "quant_samples.hpp"

using lmq::Codebook;
using lmq::DType;
using lmq::Granularity;
using lmq::Importance;
using lmq::LevelType;
using lmq::QuantSpec;
using lmq::UnitOutcome;

namespace {
QuantSpec spec_of(std::string_view method, std::size_t levels, Granularity granularity, std::uint64_t group = 0,
                  LevelType type = LevelType::f32) {
  return {lmq::find_quantizer(method).id, {levels}, granularity, group, type, lmq::CoderChoice::cheapest};
}

/// Levels of the codebook of weight `index`, as a reader derives them.
std::vector<float> levels_at(const lmq::QuantizedUnit& unit, std::size_t index) {
  std::size_t book = 0;
  if (unit.group > 0) {
    const std::size_t groups = (unit.cols + unit.group - 1) / unit.group;
    book = index / unit.cols * groups + index % unit.cols / unit.group;
  }
  std::vector<float> levels(unit.levels);
  for (std::size_t k = 0; k < levels.size(); ++k)
    levels[k] = unit.kind == lmq::CodebookKind::table
                    ? unit.book[book * unit.levels + k]
                    : unit.book[2 * book] + static_cast<float>(k) * unit.book[2 * book + 1];
  return levels;
}

std::vector<float> decoded(const lmq::QuantizedUnit& unit) {
  std::vector<float> values(unit.codes.size());
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = levels_at(unit, i).at(unit.codes[i]);
  return values;
}

double importance_of(const Importance& importance, std::size_t index) { return samples::weight_of(importance, index); }

bool same(const lmq::UnitStats& a, const lmq::UnitStats& b) {
  return a.squared_error == b.squared_error && a.weighted_error == b.weighted_error && a.energy == b.energy &&
         a.largest_error == b.largest_error && a.weighted_energy == b.weighted_energy;
}
bool same(const lmq::QuantizedUnit& a, const lmq::QuantizedUnit& b) {
  return a.method == b.method && a.source == b.source && a.count == b.count && a.cols == b.cols && a.group == b.group &&
         a.kind == b.kind && a.level_type == b.level_type && a.levels == b.levels && a.book == b.book &&
         a.codes == b.codes;
}

/// Everything a unit promises about a window.
void check_outcome(const UnitOutcome& outcome, const lmq::TensorView& view, const QuantSpec& spec,
                   const Importance& importance) {
  const auto& unit = outcome.unit;
  REQUIRE(unit.codes.size() == view.count);
  REQUIRE(unit.count == view.count);
  REQUIRE((unit.levels >= 1 && unit.levels <= spec.options.levels));
  REQUIRE(unit.book.size() == unit.codebooks() * (unit.kind == lmq::CodebookKind::table ? unit.levels : 2));
  auto stored = unit.book;
  lmq::round_levels(stored, unit.level_type);
  REQUIRE((stored == unit.book));
  const auto values = samples::widened(view);
  long double squared = 0, weighted = 0, energy = 0;
  double largest = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto levels = levels_at(unit, i);
    if (unit.codes[i] >= levels.size()) FAIL("code " << int{unit.codes[i]} << " of " << levels.size() << " levels");
    const double error = std::fabs(double{values[i]} - levels[unit.codes[i]]);
    for (std::size_t k = 0; k < levels.size(); ++k) {
      const double other = std::fabs(double{values[i]} - levels[k]);
      if (other < error || (other == error && k < unit.codes[i] && levels[k] != levels[unit.codes[i]] &&
                            std::fabs(values[i]) < 1e6f && std::fabs(levels[k]) < 1e6f && std::fabs(values[i]) > 1e-6f))
        FAIL("weight " << values[i] << " got " << levels[unit.codes[i]] << ", but " << levels[k] << " is nearer");
    }
    const long double e = static_cast<long double>(values[i]) - levels[unit.codes[i]];
    squared += e * e, weighted += importance_of(importance, i) * (e * e);
    energy += static_cast<long double>(values[i]) * values[i];
    largest = std::max(largest, error);
  }
  REQUIRE(outcome.stats.squared_error == Approx(static_cast<double>(squared)).epsilon(1e-11));
  REQUIRE(outcome.stats.weighted_error == Approx(static_cast<double>(weighted)).epsilon(1e-11));
  REQUIRE(outcome.stats.energy == Approx(static_cast<double>(energy)).epsilon(1e-11));
  REQUIRE(outcome.stats.largest_error == largest);
  REQUIRE(same(lmq::measure_error(view, decoded(unit), importance), outcome.stats));
}

struct Case {
  Granularity granularity;
  std::uint64_t group;
};
constexpr Case kCases[] = {{Granularity::tensor, 0},
                           {Granularity::row, 0},
                           {Granularity::group, 32},
                           {Granularity::group, 7},
                           {Granularity::group, 1000}};
}  // namespace

TEST_CASE("units of every type, granularity, method and importance keep their promises for any number of threads",
          "[slow]") {
  constexpr std::size_t kCols = 129, kRows = 40;
  for (const DType type : samples::kAllTypes)
    for (const int kind : {0, 1, 3, 4}) {
      const auto bytes = samples::bytes(type, kCols * kRows, kind, 41);
      const auto view = samples::view_of(type, bytes);
      const auto weights = samples::importance(kCols * kRows, 42), columns = samples::importance(kCols, 43);
      const Importance kinds[] = {{},
                                  {Importance::Kind::weights, weights, 0, 1},
                                  {Importance::Kind::columns, columns, 0, 1},
                                  samples::outer(weights, kCols * kRows, kCols, 16, 0, 3, 1)};
      for (const std::string_view method : {"uniform", "kmeans"})
        for (const Case& one : kCases)
          for (const Importance& importance : kinds)
            for (const LevelType level_type : {LevelType::f32, LevelType::f16}) {
              const QuantSpec spec = spec_of(method, kind == 1 ? 5 : 16, one.granularity, one.group, level_type);
              if (level_type == LevelType::f16 && importance.kind == Importance::Kind::weights) continue;
              INFO(lmq::name(type) << " kind " << kind << " " << method << " granularity " << int(one.granularity)
                                   << " group " << one.group << " importance " << int(importance.kind));
              lmq::set_thread_count(1);
              const UnitOutcome outcome = lmq::quantize_unit({view, importance, kCols}, spec, nullptr);
              check_outcome(outcome, view, spec, importance);
              for (const std::size_t threads : {2, 3, 7}) {
                const samples::Threads set(threads);
                const UnitOutcome again = lmq::quantize_unit({view, importance, kCols}, spec, nullptr);
                REQUIRE(same(again.unit, outcome.unit));
                REQUIRE(same(again.stats, outcome.stats));
              }
            }
    }
}

TEST_CASE("a shared codebook serves windows of any length, and buffers are recycled") {
  lmq::QuantizedUnit recycle;
  for (const DType type : samples::kAllTypes)
    for (const std::size_t length : {0, 1, 63, 64, 65, 4095, 4096, 4097, 70000})
      for (const std::size_t count : {1, 2, 16, 100, 256}) {
        if (length > 5000 && count != 16) continue;
        const auto bytes = samples::bytes(type, length, 0, 51);
        const auto view = samples::view_of(type, bytes);
        const Codebook book =
            count == 16 ? Codebook::grid(-0.05f, 0.0066f, 16) : Codebook::table(samples::levels(count, 0, 6));
        const auto columns = samples::importance(33, 43);
        const Importance by_column{Importance::Kind::columns, columns, 5, 1};
        const Importance importance = length % 2 == 0 ? by_column : samples::outer(columns, length, 33, 0, 5, 0, 1);
        const QuantSpec spec = spec_of("kmeans", count, Granularity::model);
        const UnitOutcome fresh = lmq::quantize_unit({view, importance, 33}, spec, &book);
        const samples::Threads set(3);
        UnitOutcome outcome = lmq::quantize_unit({view, importance, 33}, spec, &book, std::move(recycle));
        check_outcome(outcome, view, spec, importance);
        REQUIRE(same(outcome.unit, fresh.unit));
        REQUIRE(same(outcome.stats, fresh.stats));
        REQUIRE(outcome.unit.kind == book.kind());
        recycle = std::move(outcome.unit);
      }
}

TEST_CASE("large windows: many tasks, long rows, one task of error sums over many codebooks", "[slow]") {
  for (const DType type : {DType::bf16, DType::f32}) {
    const auto bytes = samples::bytes(type, 300000, 0, 61);
    const auto view = samples::view_of(type, bytes);
    for (const auto& [cols, one] : {std::pair<std::uint64_t, Case>{300000, {Granularity::row, 0}},
                                    {100000, {Granularity::group, 70000}},
                                    {3000, {Granularity::row, 0}},
                                    {3000, {Granularity::group, 128}},
                                    {3000, {Granularity::tensor, 0}}})
      for (const std::string_view method : {"uniform", "kmeans"}) {
        if (one.granularity == Granularity::tensor && type == DType::f32 && method == "kmeans")
          continue;  // tested below
        const QuantSpec spec = spec_of(method, 64, one.granularity, one.group);
        lmq::set_thread_count(1);
        const UnitOutcome outcome = lmq::quantize_unit({view, {}, cols}, spec, nullptr);
        const samples::Threads set(2);
        const UnitOutcome again = lmq::quantize_unit({view, {}, cols}, spec, nullptr);
        REQUIRE(same(again.unit, outcome.unit));
        REQUIRE(same(again.stats, outcome.stats));
        std::vector<float> values(view.count);
        const auto levels = lmq::LevelTable(outcome.unit.group == 0 && outcome.unit.kind == lmq::CodebookKind::table
                                                ? std::span<const float>(outcome.unit.book)
                                                : std::span<const float>{});
        if (outcome.unit.group == 0 && outcome.unit.kind == lmq::CodebookKind::table) {
          for (std::size_t i = 0; i < values.size(); ++i) values[i] = levels.levels[outcome.unit.codes[i]];
          REQUIRE(same(lmq::measure_error(view, values, {}), outcome.stats));
        }
      }
  }
}

TEST_CASE("exact k-means of a window beats any other codebook of as many levels that is tried") {
  const auto bytes = samples::bytes(DType::f32, 20000, 1, 71);
  const auto view = samples::view_of(DType::f32, bytes);
  const auto best = lmq::quantize_unit({view, {}, 100}, spec_of("kmeans", 8, Granularity::tensor), nullptr);
  for (unsigned seed = 0; seed < 50; ++seed) {
    const auto values = samples::widened(view);
    std::mt19937 random(seed);
    std::vector<float> levels(8);
    for (float& level : levels) level = values[random() % values.size()];
    const Codebook book = Codebook::table(levels);
    const auto other = lmq::quantize_unit({view, {}, 100}, spec_of("kmeans", 8, Granularity::tensor), &book);
    CHECK(best.stats.squared_error <= other.stats.squared_error);
  }
  // The centroid condition: each level is the mean of the weights it serves.
  const auto values = samples::widened(view);
  std::vector<long double> sum(8), count(8);
  for (std::size_t i = 0; i < values.size(); ++i) sum[best.unit.codes[i]] += values[i], count[best.unit.codes[i]] += 1;
  for (std::size_t k = 0; k < 8; ++k)
    CHECK(best.unit.book[k] == Approx(static_cast<double>(sum[k] / count[k])).epsilon(1e-6));
}

TEST_CASE("windows without weights give empty units") {
  for (const Case& one : kCases)
    for (const DType type : {DType::bf16, DType::f32}) {
      const auto outcome = lmq::quantize_unit({samples::view_of(type, {}), {}, 10},
                                              spec_of("kmeans", 16, one.granularity, one.group), nullptr);
      CHECK(outcome.unit.count == 0);
      CHECK(outcome.unit.codes.empty());
      CHECK((outcome.unit.levels >= 1 && outcome.unit.book.size() == outcome.unit.levels));
      CHECK(outcome.stats.squared_error == 0);
    }
}

TEST_CASE("short codebooks repeat their last level, and a unit is as wide as its widest") {
  std::vector<float> values(3 * 8, 1.0f);
  for (std::size_t i = 8; i < 16; ++i) values[i] = i % 2 ? 2.0f : 3.0f;
  for (std::size_t i = 16; i < 24; ++i) values[i] = static_cast<float>(i % 3);
  const auto view = samples::view_of(DType::f32, std::as_bytes(std::span(values)));
  const auto table = lmq::quantize_unit({view, {}, 8}, spec_of("kmeans", 16, Granularity::row), nullptr);
  CHECK(table.unit.levels == 3);
  CHECK(table.unit.book == std::vector<float>{1, 1, 1, 2, 3, 3, 0, 1, 2});
  CHECK(table.stats.squared_error == 0);
  const auto grid = lmq::quantize_unit({view, {}, 8}, spec_of("uniform", 4, Granularity::row), nullptr);
  CHECK(grid.unit.kind == lmq::CodebookKind::grid);
  CHECK(grid.unit.levels == 4);
  CHECK(grid.unit.book.size() == 6);
  CHECK((grid.unit.book[0] == 1.0f && grid.unit.book[1] == 0.0f));
  for (std::size_t i = 0; i < 8; ++i) CHECK(grid.unit.codes[i] == 0);
}

TEST_CASE("huge, subnormal and mixed magnitudes") {
  const std::vector<float> values{3e38f, -3e38f, 0x1p-149f, -0x1p-149f, 0.0f, -0.0f, 1.0f, 2.9e38f, 1e-30f, -1.0f};
  const auto view = samples::view_of(DType::f32, std::as_bytes(std::span(values)));
  for (const std::string_view method : {"uniform", "kmeans"})
    for (const Case& one : {Case{Granularity::tensor, 0}, Case{Granularity::row, 0}, Case{Granularity::group, 3}})
      for (const std::size_t levels : {2, 4, 16}) {
        const QuantSpec spec = spec_of(method, levels, one.granularity, one.group);
        const auto outcome = lmq::quantize_unit({view, {}, 10}, spec, nullptr);
        check_outcome(outcome, view, spec, {});
        CHECK(std::isfinite(outcome.stats.squared_error));
      }
}

TEST_CASE("the first value that is not finite is found for any number of threads") {
  std::vector<float> values(1000003, 0.5f);
  const auto view = samples::view_of(DType::f32, std::as_bytes(std::span(values)));
  for (const std::size_t threads : {1, 2, 7}) {
    const samples::Threads set(threads);
    CHECK_FALSE(lmq::first_nonfinite(view));
    for (const std::size_t at : {std::size_t{0}, std::size_t{77777}, std::size_t{262144}, std::size_t{1000002}}) {
      values[at] = -std::numeric_limits<float>::infinity();
      values[1000002] = std::nanf("");
      CHECK(lmq::first_nonfinite(view) == at);
      values[at] = values[1000002] = 0.5f;
    }
  }
  CHECK_FALSE(lmq::first_nonfinite(samples::view_of(DType::bf16, {})));
}

TEST_CASE("importance of rows and columns equals the same importance weight by weight, wherever the window begins") {
  constexpr std::size_t kCount = 5000;
  const auto factors = samples::importance(300, 71);
  for (const DType type : {DType::bf16, DType::f32})
    for (const std::size_t length : {1, 2, 50, 4999, 5000, 7000})
      for (const std::size_t block_rows : {0, 1, 3})
        for (const std::size_t first_column : {std::size_t{0}, length / 2, length - 1}) {
          const auto bytes = samples::bytes(type, kCount, 0, 72);
          const auto view = samples::view_of(type, bytes);
          Importance outer = samples::outer(factors, kCount, length, block_rows, first_column, block_rows / 2, 1);
          for (const bool with_rows : {true, false}) {
            INFO(length << " " << block_rows << " " << first_column << " " << with_rows);
            if (!with_rows) outer.rows = {};
            std::vector<float> each(kCount);
            for (std::size_t i = 0; i < kCount; ++i) each[i] = samples::weight_of(outer, i);
            const Importance weights{Importance::Kind::weights, each, 0, 1};
            REQUIRE(lmq::covers(outer, kCount));
            CHECK(lmq::largest_importance(outer) >= lmq::largest_importance(weights));
            for (const Case& one : {Case{Granularity::tensor, 0}, Case{Granularity::group, 96}}) {
              const QuantSpec spec = spec_of("kmeans", 8, one.granularity, one.group);
              const UnitOutcome a = lmq::quantize_unit({view, outer, 500}, spec, nullptr);
              check_outcome(a, view, spec, outer);
              if (one.granularity == Granularity::tensor) continue;  // another quantum: another rounding of the sums
              const UnitOutcome b = lmq::quantize_unit({view, weights, 500}, spec, nullptr);
              REQUIRE(same(a.unit, b.unit));
              REQUIRE(same(a.stats, b.stats));
            }
          }
        }
}

TEST_CASE("importance that does not cover its window is refused") {
  const std::vector<float> values(12, 1.0f);
  const auto view = samples::view_of(DType::f32, std::as_bytes(std::span(values)));
  Importance outer{Importance::Kind::outer, std::span(values).first(4), 0, 1};
  outer.length = 4, outer.rows = std::span(values).first(3);
  const auto refused = [&] {
    try {
      (void)lmq::quantize_unit({view, outer, 4}, spec_of("kmeans", 4, Granularity::tensor), nullptr);
    } catch (const lmq::Error& error) {
      return error.code == lmq::Errc::internal;
    }
    return false;
  };
  CHECK_FALSE(refused());
  outer.first_column = 1;  // four rows
  CHECK(refused());
  outer.rows = {};
  CHECK_FALSE(refused());
  outer.block_rows = 3;  // the fourth row is of another block
  CHECK(refused());
  outer.values = std::span(values).first(8);
  CHECK_FALSE(refused());
  outer.values = std::span(values).first(7);
  CHECK(refused());
  outer.length = 0;
  CHECK(refused());
}

TEST_CASE("errors are the same, bit for bit, from blocks in any order and from several threads") {
  for (const DType type : {DType::f32, DType::bf16, DType::f16})
    for (const std::size_t count : {0, 1, 4095, 4096, 4097, 70001}) {
      const auto bytes = samples::bytes(type, count, 1, 5);
      const auto view = samples::view_of(type, bytes);
      const auto decoded = samples::floats(count, 0, 6);
      const auto weights = samples::importance(count, 9);
      for (const bool weighted : {false, true}) {
        CAPTURE(int(type), count, weighted);
        const Importance importance = weighted ? Importance{Importance::Kind::weights, weights, 0, 1.0} : Importance{};
        const lmq::UnitStats expected = lmq::measure_error(view, decoded, importance);
        const std::size_t blocks = (count + 4095) / 4096;
        const auto add = [&](lmq::ErrorMeter& meter, std::size_t block) {
          meter.add(block * 4096,
                    std::span(decoded).subspan(block * 4096, std::min<std::size_t>(4096, count - block * 4096)));
        };
        lmq::ErrorMeter backwards(view, importance), parallel(view, importance);
        for (std::size_t block = blocks; block-- > 0;) add(backwards, block);
        const samples::Threads set(3);
        lmq::parallel_for(blocks, [&](std::size_t block) { add(parallel, block); });
        REQUIRE(same(backwards.stats(), expected));
        REQUIRE(same(parallel.stats(), expected));
      }
    }
}

TEST_CASE("contradictions are refused") {
  const std::vector<float> values(12, 1.0f);
  const auto view = samples::view_of(DType::f32, std::as_bytes(std::span(values)));
  CHECK_THROWS_AS(lmq::quantize_unit({view, {}, 5}, spec_of("kmeans", 4, Granularity::row), nullptr), lmq::Error);
  CHECK_THROWS_AS(lmq::quantize_unit({view, {}, 4}, spec_of("kmeans", 4, Granularity::group, 0), nullptr), lmq::Error);
  const Importance weights{Importance::Kind::weights, std::span(values).first(3), 0, 1};
  CHECK_THROWS_AS(lmq::quantize_unit({view, weights, 4}, spec_of("kmeans", 4, Granularity::row), nullptr), lmq::Error);
  CHECK_THROWS_AS(lmq::measure_error(view, std::span(values).first(3), {}), lmq::Error);
}

TEST_CASE("scratch grows with what it depends on") {
  const QuantSpec tensor = spec_of("kmeans", 16, Granularity::tensor), row = spec_of("kmeans", 16, Granularity::row);
  for (const QuantSpec& spec : {tensor, row}) {
    const auto bytes = [&](std::uint64_t count, std::size_t threads) {
      return lmq::quantize_scratch_bytes(DType::f32, spec, count, 4096, threads);
    };
    CHECK(bytes(1 << 22, 1) > 0);
    CHECK(bytes(1 << 23, 1) >= bytes(1 << 22, 1));
    CHECK(bytes(1 << 22, 8) > bytes(1 << 22, 1));
  }
}
