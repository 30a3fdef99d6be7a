// What every method of the registry must do; a new method is tested here before its own test exists.
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <optional>

#include "lmq/base/error.hpp"
#include "lmq/quant/quantizer.hpp"
#include "lmq/quant/unit.hpp"
#include "quant_samples.hpp"

using lmq::Codebook;
using lmq::DType;

namespace {
/// Values that methods stumble over.
std::vector<std::vector<float>> inputs() {
  std::vector<std::vector<float>> made{{1.0f},
                                       {-0.0f},
                                       {0.0f, -0.0f, 0.0f},
                                       {2.5f, 2.5f, 2.5f},
                                       {-1.0f, 1.0f},
                                       {-3e38f, 3e38f, 2.9e38f, 0.0f},
                                       {0x1p-149f, -0x1p-149f, 0x1p-148f, 0.0f},
                                       {1.0f, 1.0f + 0x1p-23f, 1.0f + 0x1p-22f},
                                       {1e-30f, 1e30f, -1e-30f, 5.0f, 5.0f}};
  for (const int kind : {0, 1, 2, 3}) {
    made.push_back(samples::floats(17, kind, 1));
    made.push_back(samples::floats(3000, kind, 2));
  }
  for (float& value : made[made.size() - 3]) value = std::min(std::max(value, -3e38f), 3e38f);
  return made;
}

std::vector<float> levels_of(const Codebook& book) { return {book.levels().begin(), book.levels().end()}; }

/// Codebooks of signs list their levels by code, all of them.
bool of_signs(const Codebook& book) {
  return book.kind() == lmq::CodebookKind::bases || book.kind() == lmq::CodebookKind::centred;
}

/// Methods that answer with levels; those that see layers have other laws.
std::vector<lmq::QuantizerEntry> level_methods() {
  std::vector<lmq::QuantizerEntry> methods;
  for (const lmq::QuantizerEntry& entry : lmq::quantizers())
    if (entry.make(lmq::default_options(entry, 16))->traits().sees != lmq::Sees::layer) methods.push_back(entry);
  return methods;
}

/// Options with so many levels, or as many as the method has; nothing when it refuses them.
std::optional<lmq::QuantizerOptions> options_of(const lmq::QuantizerEntry& entry, std::size_t levels) {
  try {
    return lmq::default_options(entry, levels);
  } catch (const lmq::Error& error) {
    REQUIRE(error.code == lmq::Errc::usage);
    return std::nullopt;
  }
}

void check_codebook(const Codebook& book, const std::vector<float>& values, std::size_t levels) {
  REQUIRE(!book.levels().empty());
  REQUIRE(book.levels().size() <= levels);
  for (std::size_t k = 0; k < book.levels().size(); ++k) {
    REQUIRE(std::isfinite(book.levels()[k]));
    if (k > 0 && !of_signs(book)) REQUIRE(book.levels()[k - 1] < book.levels()[k]);
  }
  std::vector<float> distinct(values);
  std::ranges::sort(distinct);
  distinct.erase(std::unique(distinct.begin(), distinct.end()), distinct.end());
  if (distinct.size() == 1 && of_signs(book)) {
    REQUIRE(std::ranges::find(book.levels(), distinct[0]) != book.levels().end());
  } else if (distinct.size() == 1) {
    REQUIRE(book.levels().size() == 1);
    REQUIRE(book.levels()[0] == distinct[0]);
  }
}

/// Fits a histogram until the codebook is final, as the run does.
Codebook fit_histogram(const lmq::Quantizer& quantizer, const lmq::TensorView& view, const lmq::Importance& importance,
                       double quantum) {
  lmq::ValueHistogram histogram = lmq::ValueHistogram::of(view, importance, {});
  for (int round = 0;; ++round) {
    REQUIRE(round < 40);
    const lmq::Fit fit = quantizer.fit(histogram.group(quantum));
    if (fit.refine.empty()) return fit.codebook;
    histogram.refine(lmq::ValueHistogram::of(view, importance, fit.refine), fit.refine);
  }
}
}  // namespace

TEST_CASE("every method fits what it is given, the same for any number of threads", "[slow]") {
  for (const lmq::QuantizerEntry& entry : level_methods())
    for (const std::size_t levels : {2, 3, 16, 256})
      for (const auto& values : inputs())
        for (const bool weighted : {false, true}) {
          INFO(entry.name << ", " << levels << " levels, " << values.size() << " values, first " << values[0]);
          const auto options = options_of(entry, levels);
          if (!options) continue;
          const auto quantizer = entry.make(*options);
          auto weights = samples::importance(values.size(), 9);
          if (weighted && values.size() < 8) weights.assign(values.size(), 0.0f);  // all zero counts as all ones
          const auto view = samples::view_of(DType::f32, std::as_bytes(std::span(values)));
          lmq::Importance importance;
          if (weighted)
            importance = {lmq::Importance::Kind::weights, weights, 0,
                          lmq::importance_quantum(*std::ranges::max_element(weights), values.size())};
          lmq::Workspace scratch;
          const auto weight_span = weighted ? std::span<const float>(weights) : std::span<const float>{};
          const Codebook direct = quantizer->fit_values(values, weight_span, scratch);
          check_codebook(direct, values, options->levels);
          const Codebook again = entry.make(*options)->fit_values(values, weight_span, scratch);
          REQUIRE((levels_of(again) == levels_of(direct)));
          // Some methods take seconds here; kmeans_test.cpp does the same for up to 256 levels.
          if (values.size() > 100 && levels > (weighted ? 3 : 16)) continue;
          std::vector<float> first;
          for (const std::size_t threads : {1, 3}) {
            const samples::Threads set(threads);
            const Codebook book = fit_histogram(*quantizer, view, importance, importance.quantum);
            check_codebook(book, values, options->levels);
            if (threads == 1) first = levels_of(book);
            REQUIRE((levels_of(book) == first));
          }
        }
}

TEST_CASE("every method: rows as large as floats go have levels and errors that are numbers, stored in 32 or 16 bits") {
  constexpr std::size_t kRows = 8, kCols = 32;
  constexpr float kMost = std::numeric_limits<float>::max();
  auto values = samples::floats(kRows * kCols, 0, 3);
  values[0] = kMost, values[kCols] = -kMost, values[2 * kCols] = kMost, values[2 * kCols + 1] = -kMost;
  for (std::size_t i = 3 * kCols; i < 4 * kCols; ++i) values[i] = i % 2 == 0 ? kMost : -kMost;
  for (std::size_t i = 4 * kCols; i < 5 * kCols; ++i) values[i] *= 8e37f;
  const auto view = samples::view_of(DType::f32, std::as_bytes(std::span(values)));
  for (const lmq::QuantizerEntry& entry : level_methods())
    for (const std::size_t levels : {2, 3, 5, 17, 100, 256})
      for (const auto type : {lmq::LevelType::f32, lmq::LevelType::f16})
        for (const auto granularity : {lmq::Granularity::tensor, lmq::Granularity::row, lmq::Granularity::group}) {
          INFO(entry.name << ", " << levels << " levels, type " << int(type) << ", granularity " << int(granularity));
          const auto options = options_of(entry, levels);
          if (!options) continue;
          const lmq::QuantSpec spec{entry.id, *options, granularity, 16, type, lmq::CoderChoice::cheapest};
          const auto outcome = lmq::quantize_unit({view, {}, kCols}, spec, nullptr);
          for (const float number : outcome.unit.book) REQUIRE(std::isfinite(number));
          if (outcome.unit.kind != lmq::CodebookKind::rank1)
            for (std::uint64_t book = 0; book < outcome.unit.codebooks(); ++book)
              for (const float level : lmq::levels_of(outcome.unit, book)) REQUIRE(std::isfinite(level));
          REQUIRE(std::isfinite(outcome.stats.squared_error));
        }
}

TEST_CASE(
    "every method: values that fit into the levels of a table come back exactly, unless few numbers make all levels") {
  const std::vector<float> few{-4.0f, -1.0f, 0.5f, 0.75f, 8.0f};
  std::vector<float> values;
  for (int i = 0; i < 500; ++i) values.push_back(few[static_cast<std::size_t>(i * i) % few.size()]);
  for (const lmq::QuantizerEntry& entry : level_methods()) {
    lmq::Workspace scratch;
    const Codebook book = entry.make(lmq::default_options(entry, 16))->fit_values(values, {}, scratch);
    if (book.kind() == lmq::CodebookKind::grid || of_signs(book)) continue;  // few numbers make all levels
    for (const float value : values) CHECK(std::ranges::find(book.levels(), value) != book.levels().end());
  }
}

TEST_CASE("every method: a power of two scales the levels bit by bit; doubled data changes nothing") {
  for (const lmq::QuantizerEntry& entry : level_methods())
    for (const int kind : {0, 1}) {
      const auto values = samples::floats(2000, kind, 5);
      auto scaled = values, doubled = values;
      for (float& value : scaled) value *= 4;
      doubled.insert(doubled.end(), values.begin(), values.end());
      lmq::Workspace scratch;
      const auto quantizer = entry.make(lmq::default_options(entry, 16));
      const auto book = levels_of(quantizer->fit_values(values, {}, scratch));
      auto four = levels_of(quantizer->fit_values(scaled, {}, scratch));
      for (float& level : four) level /= 4;
      CHECK((four == book));
      CHECK((levels_of(quantizer->fit_values(doubled, {}, scratch)) == book));
    }
}

TEST_CASE(
    "every method: a unit stores no more numbers than were foreseen, and all of them where all codebooks are alike") {
  const std::size_t rows = 8, cols = 96;
  const auto values = samples::floats(rows * cols, 0, 5);
  const lmq::TensorView view = samples::view_of(DType::f32, std::as_bytes(std::span(values)));
  for (const lmq::QuantizerEntry& entry : level_methods())
    for (const std::size_t levels : {2u, 4u, 16u, 256u})
      for (const lmq::Granularity granularity :
           {lmq::Granularity::tensor, lmq::Granularity::row, lmq::Granularity::group}) {
        CAPTURE(entry.name, levels, static_cast<int>(granularity));
        const auto options = options_of(entry, levels);
        if (!options) continue;
        const lmq::QuantSpec spec{entry.id, *options, granularity, 40, lmq::LevelType::f32, lmq::CoderChoice::cheapest};
        const std::uint64_t foreseen = lmq::stored_numbers(spec, view.count, cols);
        const auto outcome = lmq::quantize_unit({view, {}, cols}, spec, nullptr);
        CHECK(outcome.unit.book_numbers() <= foreseen);
        if (lmq::traits_of(spec).numbered.numbers > 0) CHECK(outcome.unit.book_numbers() == foreseen);
      }
}
