// The binary methods as quantizers: codes by signs, histograms and values in hand, units by rows and groups.
#include <array>
#include <catch2/catch.hpp>
#include <cmath>

#include "apply/lower_lagrangian.hpp"
#include "lmq/base/error.hpp"
#include "lmq/quant/sign_code.hpp"
#include "methods/binary/rank1.hpp"
#include "quant_samples.hpp"

using namespace lmq;

namespace {

struct Method {
  const char* name;
  std::size_t levels;
  std::vector<std::uint8_t> words;  ///< all options of the family are words
};
std::vector<Method> methods() {
  std::vector<Method> all{{"binary-1", 2, {0}}, {"ternary", 3, {0, 0}}, {"ternary", 3, {1, 0}}, {"binary-2", 4, {}}};
  for (std::size_t levels = 2; levels <= 256; levels *= 2)
    for (const std::uint8_t mode : std::initializer_list<std::uint8_t>{0, 1})
      all.push_back({"binary-k", levels, {mode}});
  all.push_back({"binary-k", 4, {2}});
  return all;
}
QuantizerOptions options_of(const Method& method) {
  QuantizerOptions options{method.levels};
  for (const std::uint8_t word : method.words) options.values.emplace_back(OptionWord{word});
  return options;
}
std::unique_ptr<Quantizer> make(const Method& method) { return find_quantizer(method.name).make(options_of(method)); }
QuantSpec spec_of(const Method& method, Granularity granularity, std::uint64_t group, LevelType type) {
  return {find_quantizer(method.name).id, options_of(method), granularity, group, type, CoderChoice::cheapest};
}

Codebook fit_histogram(const Quantizer& quantizer, const TensorView& view, const Importance& importance) {
  ValueHistogram histogram = ValueHistogram::of(view, importance, {});
  for (int round = 0;; ++round) {
    REQUIRE(round < 12);
    Fit fit = quantizer.fit(histogram.group(importance.quantum));
    if (fit.refine.empty()) return std::move(fit.codebook);
    histogram.refine(ValueHistogram::of(view, importance, fit.refine), fit.refine);
  }
}

/// Loss of values by the codebook's own decisions, and by the nearest level.
struct Losses {
  double coded = 0, nearest = 0, energy = 0;
};
Losses losses(const Codebook& book, std::span<const float> values) {
  Losses sum;
  for (const float value : values) {
    const auto interval = static_cast<std::size_t>(std::ranges::upper_bound(book.cuts(), value) - book.cuts().begin());
    const std::size_t code = book.order().empty() ? interval : book.order()[interval];
    double least = INFINITY;
    for (const float level : book.levels()) least = std::min(least, std::pow(double{value} - double{level}, 2));
    sum.nearest += least;
    sum.coded += book.cuts().empty() && book.order().empty() ? least : std::pow(double{value} - book.levels()[code], 2);
    sum.energy += double{value} * value;
  }
  return sum;
}
}  // namespace

TEST_CASE("sign codes: nearest sums, found by decisions, for any bases") {
  unsigned seed = 0;
  for (std::size_t k = 1; k <= 8; ++k)
    for (int trial = 0; trial < 20; ++trial) {
      auto bases = samples::floats(k, 0, ++seed);
      for (float& base : bases) base = trial % 4 == 3 ? std::round(4 * std::fabs(base)) : std::fabs(base);
      const SignCode signs(CodebookKind::bases, bases, std::size_t{1} << k, SignRule::nearest);
      const auto levels = std::span(signs.levels).first(signs.level_count);
      const auto cuts = std::span(signs.cuts).first(signs.intervals - 1);
      REQUIRE(std::ranges::is_sorted(cuts, std::less_equal<>()));
      auto values = samples::floats(400, 0, seed + 1000);
      for (const float level : levels) values.push_back(level);
      for (const float value : values) {
        const Code code = signs.codes[static_cast<std::size_t>(std::ranges::upper_bound(cuts, value) - cuts.begin())];
        double least = INFINITY;
        for (const float level : levels) least = std::min(least, std::fabs(double{value} - double{level}));
        REQUIRE(std::fabs(double{value} - double{levels[code]}) == least);
      }
      const Code zero = signs.codes[static_cast<std::size_t>(std::ranges::upper_bound(cuts, 0.0f) - cuts.begin())];
      REQUIRE(levels[zero] >= 0);  // sign(0) = +
    }
}

TEST_CASE("sign codes: greedy signs, found by decisions, for any bases") {
  unsigned seed = 50;
  for (std::size_t k = 1; k <= 8; ++k)
    for (int trial = 0; trial < 20; ++trial) {
      auto bases = samples::floats(k, 0, ++seed);
      for (float& base : bases) base = std::fabs(base);
      const SignCode signs(CodebookKind::bases, bases, std::size_t{1} << k, SignRule::greedy);
      const auto cuts = std::span(signs.cuts).first(signs.intervals - 1);
      auto values = samples::floats(400, 0, seed + 1000);
      values.insert(values.end(), {0.0f, -0.0f, 3e38f, -3e38f});
      for (const float value : values) {
        unsigned code = 0;
        double rest = value;
        for (const float base : bases) code = 2 * code + (rest >= 0), rest += rest >= 0 ? -double{base} : double{base};
        REQUIRE(signs.codes[static_cast<std::size_t>(std::ranges::upper_bound(cuts, value) - cuts.begin())] == code);
      }
    }
}

TEST_CASE("sign codes: all bases 0 give all signs +, a centred step of 0 its middle level") {
  const std::array<float, 3> none{};
  const SignCode bases(CodebookKind::bases, none, 8, SignRule::nearest);
  REQUIRE(bases.intervals == 1);
  REQUIRE(bases.codes[0] == 7);
  const SignCode greedy(CodebookKind::bases, none, 8, SignRule::greedy);
  REQUIRE(greedy.codes[greedy.intervals - 1] == 7);
  const SignCode centred(CodebookKind::centred, std::span(none).first(1), 3, SignRule::nearest);
  REQUIRE(centred.intervals == 1);
  REQUIRE(centred.codes[0] == 1);
}

TEST_CASE("binary methods: a histogram of every type gives what the values in hand give") {
  for (const Method& method : methods()) {
    if (method.levels > 16) continue;
    for (const DType type : {DType::bf16, DType::f32})
      for (const int kind : {0, 1})
        for (const bool weighted : {false, true}) {
          const auto bytes = samples::bytes(type, 40'000, kind, 3);
          const auto view = samples::view_of(type, bytes);
          const auto wide = samples::widened(view);
          auto weights = samples::importance(wide.size(), 4);
          for (float& weight : weights) weight = std::max(weight, 0.001f);
          Importance importance;
          if (weighted)
            importance = {Importance::Kind::weights, weights, 0,
                          importance_quantum(std::ranges::max(weights), wide.size())};
          const auto quantizer = make(method);
          Workspace scratch;
          CAPTURE(method.name, method.levels, method.words.size(), int(type), kind, weighted);
          const Codebook counted = fit_histogram(*quantizer, view, importance);
          const Codebook direct = quantizer->fit_values(
              wide, weighted ? std::span<const float>(weights) : std::span<const float>{}, scratch);
          REQUIRE(counted.levels().size() == direct.levels().size());
          if (method.levels > 4) continue;  // refinement may end in other bases by rounding: its loss is tested
          for (std::size_t i = 0; i < direct.levels().size(); ++i)
            CHECK(counted.levels()[i] == Approx(direct.levels()[i]).epsilon(2e-6));
        }
  }
}

TEST_CASE("binary methods: refined bases never lose to greedy ones, and codes of exact methods are nearest") {
  Workspace scratch;
  for (const std::size_t n : {1, 31, 32, 128, 4096})
    for (const int kind : {0, 1, 2}) {
      const auto values = samples::floats(n, kind, static_cast<unsigned>(n));
      double before = INFINITY;
      for (std::size_t levels = 2; levels <= 64; levels *= 2) {
        const Losses greedy = losses(make({"binary-k", levels, {0}})->fit_values(values, {}, scratch), values);
        const Losses refined = losses(make({"binary-k", levels, {1}})->fit_values(values, {}, scratch), values);
        const double e = 1e-6 * greedy.energy;
        CHECK(refined.coded <= greedy.coded + e);
        CHECK(refined.coded == refined.nearest);
        CHECK(greedy.coded <= before + e);
        before = greedy.coded;
      }
      const auto loss = [&](const Method& method) {
        return losses(make(method)->fit_values(values, {}, scratch), values);
      };
      const double e = 1e-6 * loss({"binary-1", 2, {}}).energy;
      CHECK(loss({"binary-2", 4, {}}).coded <= loss({"ternary", 3, {0}}).coded + e);
      CHECK(loss({"ternary", 3, {0}}).coded <= loss({"binary-1", 2, {}}).coded + e);
      CHECK(loss({"ternary", 3, {1}}).coded <= loss({"ternary", 3, {0}}).coded + e);
      CHECK(loss({"binary-2", 4, {}}).coded == Approx(loss({"binary-k", 4, {2}}).coded).margin(e));
    }
}

TEST_CASE("binary methods: units by rows and groups decode to what they report, in every type, width and level type") {
  for (const Method& method : methods())
    for (const DType type : {DType::bf16, DType::f32, DType::f16})
      for (const LevelType level_type : {LevelType::f32, LevelType::f16})
        for (const std::uint64_t group : {0, 32, 50, 128}) {  // 0: rows; 300 = 2 * 128 + 44
          const std::uint64_t rows = 5, cols = 300;
          auto bytes = samples::bytes(type, rows * cols, 0, 8);
          const std::size_t size = bits(type) / 8;  // a row of zeros:
          std::fill_n(bytes.begin() + static_cast<std::ptrdiff_t>(cols * size), cols * size, std::byte{0});
          const auto view = samples::view_of(type, bytes);
          const auto granularity = group == 0 ? Granularity::row : Granularity::group;
          CAPTURE(method.name, method.levels, int(type), int(level_type), group);
          const UnitOutcome outcome =
              quantize_unit({view, {}, cols}, spec_of(method, granularity, group, level_type), nullptr);
          const QuantizedUnit& unit = outcome.unit;
          REQUIRE(unit.book.size() == unit.book_numbers());
          const auto wide = samples::widened(view);
          double loss = 0;
          for (std::size_t i = 0; i < wide.size(); ++i) {
            const std::uint64_t book = i / cols * ((cols + unit.group - 1) / unit.group) + i % cols / unit.group;
            const auto levels = levels_of(unit, book);
            loss += std::pow(double{wide[i]} - double{levels.at(unit.codes[i])}, 2);
            if (i >= 300 && i < 600) REQUIRE(levels[unit.codes[i]] == 0);
          }
          REQUIRE(loss == Approx(outcome.stats.squared_error).epsilon(1e-9));
          const samples::Threads three(3);
          REQUIRE(
              quantize_unit({view, {}, cols}, spec_of(method, granularity, group, level_type), nullptr).unit.codes ==
              unit.codes);
        }
}

TEST_CASE("rank-1 scaling: beats a scale per row, decodes to what it reports, and is bought where it pays") {
  const std::uint64_t rows = 256, cols = 200;
  for (const char* name : {"binary-1", "ternary"})
    for (const bool weighted : {false, true})
      for (const bool uneven : {false, true})
        for (const LevelType level_type : {LevelType::f32, LevelType::f16}) {
          auto values = samples::floats(rows * cols, 0, 8);
          for (std::size_t i = 0; i < values.size(); ++i)
            if (uneven) values[i] *= static_cast<float>(1 + i % cols % 7) * static_cast<float>(1 + i / cols % 3);
          std::fill_n(values.begin() + 200, 200, 0.0f);  // a row and a column of zeros
          for (std::size_t r = 0; r < rows; ++r) values[r * cols + 5] = 0;
          const auto weights = samples::importance(values.size(), 3);
          Importance importance;
          if (weighted) importance.kind = Importance::Kind::weights, importance.values = weights;
          const auto view = samples::view_of(DType::f32, std::as_bytes(std::span(values)));
          const bool ternary = std::string_view(name) == "ternary";
          const auto run = [&](std::uint8_t scale) {
            const Method method{name, ternary ? 3u : 2u,
                                ternary ? std::vector<std::uint8_t>{0, scale} : std::vector<std::uint8_t>{scale}};
            return quantize_unit({view, importance, cols}, spec_of(method, Granularity::row, 0, level_type), nullptr);
          };
          CAPTURE(name, weighted, uneven, int(level_type));
          const UnitOutcome by_row = run(0), rank1 = run(1), cheapest = run(2);
          REQUIRE(rank1.unit.kind == CodebookKind::rank1);
          REQUIRE(rank1.unit.book.size() == rank1.unit.book_numbers());
          CHECK(rank1.stats.weighted_error <= by_row.stats.weighted_error * 1.0001);
          if (uneven) CHECK(rank1.stats.weighted_error < by_row.stats.weighted_error * 0.9);
          const double saved = unit_bits(by_row.unit) - unit_bits(rank1.unit);
          const double won = std::log2(by_row.stats.weighted_error / rank1.stats.weighted_error) / 2;
          CHECK((cheapest.unit.kind == CodebookKind::rank1) == (saved + won * static_cast<double>(values.size()) > 0));
          if (uneven && !ternary && level_type == LevelType::f16) CHECK(cheapest.unit.kind == CodebookKind::rank1);
          double loss = 0;
          for (std::size_t i = 0; i < values.size(); ++i) {
            const float factor = rank1.unit.book[i / cols] * rank1.unit.book[rows + i % cols];
            const float value = factor * rank1.unit.book[rows + cols + rank1.unit.codes[i]];
            loss += std::pow(double{values[i]} - double{value}, 2);
          }
          REQUIRE(loss == Approx(rank1.stats.squared_error).epsilon(1e-9));
          const samples::Threads three(3);
          REQUIRE(run(1).unit.book == rank1.unit.book);
        }
}

TEST_CASE("binary methods: numbers per codebook are k bases, one step") {
  const auto values = samples::floats(1024, 0, 8);
  const auto view = samples::view_of(DType::f32, std::as_bytes(std::span(values)));
  const auto numbers = [&](const Method& method) {
    return quantize_unit({view, {}, 1024}, spec_of(method, Granularity::group, 128, LevelType::f32), nullptr)
        .unit.book.size();
  };
  REQUIRE(numbers({"binary-1", 2, {}}) == 8);
  REQUIRE(numbers({"ternary", 3, {0}}) == 8);
  REQUIRE(numbers({"ternary", 3, {1}}) == 24);
  REQUIRE(numbers({"binary-2", 4, {}}) == 16);
  REQUIRE(numbers({"binary-k", 32, {1}}) == 40);
}

TEST_CASE("binary methods: options that make no sense are refused") {
  const auto refused = [](const char* name, std::size_t levels, std::vector<std::uint8_t> words) {
    QuantizerOptions options = options_of({name, levels, std::move(words)});
    try {
      find_quantizer(name).complete(options, true);
      return false;
    } catch (const Error& error) {
      return error.code == Errc::usage;
    }
  };
  CHECK(refused("binary-1", 4, {}));
  CHECK(refused("binary-2", 2, {}));
  CHECK(refused("ternary", 4, {0, 0}));
  CHECK(refused("ternary", 3, {1, 1}));
  CHECK(refused("binary-k", 3, {1}));
  CHECK(refused("binary-k", 512, {1}));
  CHECK(refused("binary-k", 8, {2}));
  CHECK(!refused("binary-k", 8, {1}));
  CHECK(!refused("binary-k", 4, {2}));
  CHECK(!refused("binary-2", 4, {}));
  CHECK(default_options(find_quantizer("ternary"), 16).levels == 3);
}

TEST_CASE("binary methods: the largest floats keep their sums finite") {
  Workspace scratch;
  for (const Method& method : methods()) {
    const std::vector<float> values{3.4028234e38f, -3.4028234e38f, 3.4e38f, 1e38f, -3e37f, 2e38f, 0.0f, 1.0f};
    const Codebook book = make(method)->fit_values(values, {}, scratch);
    for (const LevelType type : {LevelType::f32, LevelType::f16}) {
      const Codebook stored = book.stored_as(type);
      for (const float level : stored.levels()) REQUIRE(std::isfinite(level));
    }
  }
}
