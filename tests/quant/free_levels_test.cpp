// kmeans with curvature "full": levels of their own under a Gram matrix.
#include <catch2/catch.hpp>
#include <cmath>

#include "learned_samples.hpp"
#include "matrix/grid_rows.hpp"
#include "option_values.hpp"
#include "quant_samples.hpp"

namespace {
using samples::loss_of;

// More than 5 parameters: what calls of these tests differ in.
lmq::UnitOutcome quantized(const samples::Layer& layer, std::size_t levels, std::uint64_t group, bool full,
                           const lmq::Importance& importance, lmq::LevelType type = lmq::LevelType::f32) {
  const auto& entry = lmq::find_quantizer("kmeans");
  lmq::QuantSpec spec{entry.id, lmq::default_options(entry, levels), lmq::Granularity::group, group,
                      type,     lmq::CoderChoice::cheapest};
  samples::set_option(spec.options, entry, "curvature", full ? 1 : 0);
  const auto view = samples::view_of(lmq::DType::f32, std::as_bytes(std::span(layer.x)));
  return lmq::quantize_unit({view, importance, layer.cols}, spec, nullptr);
}

std::vector<float> decoded(const lmq::QuantizedUnit& unit, const samples::Layer& layer) {
  std::vector<float> values;
  const std::size_t groups = (layer.cols + unit.group - 1) / unit.group;
  for (std::size_t i = 0; i < layer.x.size(); ++i)
    values.push_back(unit.book[(i / layer.cols * groups + i % layer.cols / unit.group) * unit.levels + unit.codes[i]]);
  return values;
}

/// Rows of a layer on tables that are far from the best.
lmq::GridRows rough_rows(const samples::Layer& layer, std::size_t levels, std::size_t group,
                         const lmq::RowCurvature& curvature) {
  lmq::GridRows rows;
  rows.prepare({layer.rows, layer.cols, group, levels}, layer.x, curvature);
  for (std::size_t b = 0; b < layer.rows * rows.shape.groups(); ++b)
    for (std::size_t k = 0; k < levels; ++k)
      rows.table.push_back(0.06F * (static_cast<float>(k) / static_cast<float>(levels) - 0.4F));
  lmq::assign_nearest(rows);
  lmq::measure_rows(rows);
  return rows;
}
}  // namespace

TEST_CASE("levels refitted: no loss rises, no level can be moved for less, levels ascend, codes keep their levels",
          "[free_levels]") {
  for (const std::size_t cols : {1u, 7u, 96u, 200u})
    for (const std::size_t levels : {1u, 2u, 5u, 16u})
      for (const std::size_t group : {std::size_t{200}, std::size_t{32}})
        for (const bool gram : {false, true}) {
          CAPTURE(cols, levels, group, gram);
          const auto layer = samples::correlated_layer(5, cols, 9, true);
          lmq::GridRows rows =
              rough_rows(layer, levels, group, gram ? lmq::RowCurvature{layer.gram, 0.02, {}} : lmq::RowCurvature{});
          const auto before = rows.loss;
          lmq::refit_levels(rows);
          const auto errors = rows.error;
          lmq::measure_rows(rows);
          CHECK((rows.error == errors));
          const std::size_t books = rows.shape.groups();
          for (std::size_t r = 0; r < layer.rows; ++r) {
            CHECK(rows.loss[r] <= before[r] * (1 + 1e-5) + 1e-12);
            for (std::size_t b = r * books; b < (r + 1) * books; ++b)
              CHECK(std::is_sorted(rows.table.begin() + static_cast<std::ptrdiff_t>(b * levels),
                                   rows.table.begin() + static_cast<std::ptrdiff_t>((b + 1) * levels)));
          }
          if (books > 1) continue;
          for (const float part : {-1e-3F, 1e-3F})
            for (std::size_t k = 0; k < levels; ++k) {
              lmq::GridRows other = rows;
              for (std::size_t r = 0; r < layer.rows; ++r) other.table[r * levels + k] += part * 0.02F;
              lmq::measure_rows(other);
              for (std::size_t r = 0; r < layer.rows; ++r) CHECK(other.loss[r] >= rows.loss[r] * (1 - 1e-5) - 1e-12);
            }
        }
}

TEST_CASE(
    "kmeans --curvature full: never above the exact partition by the diagonal, far below it where inputs correlate",
    "[free_levels]") {
  double logs = 0;
  int count = 0;
  for (const bool heavy : {false, true})
    for (const bool spectral : {false, true})
      for (const std::size_t levels : {2u, 4u, 16u})
        for (const std::uint64_t group : {std::uint64_t{96}, std::uint64_t{32}}) {
          const auto layer =
              spectral ? samples::spectral_layer(20, 96, 3, heavy) : samples::correlated_layer(20, 96, 3, heavy);
          CAPTURE(heavy, spectral, levels, group);
          lmq::Importance importance;
          importance.gram = layer.gram, importance.length = layer.cols;
          std::vector<float> diagonal;
          for (std::size_t c = 0; c < layer.cols; ++c) diagonal.push_back(layer.gram[c * layer.cols + c]);
          const auto full = quantized(layer, levels, group, true, importance);
          const auto exact = quantized(layer, levels, group, false, {lmq::Importance::Kind::columns, diagonal});
          const double ours = loss_of(layer, decoded(full.unit, layer), 0.003);
          const double start = loss_of(layer, decoded(exact.unit, layer), 0.003);
          CHECK(ours <= start);
          logs += std::log(ours / start), ++count;
        }
  CAPTURE(std::exp(logs / count));
  CHECK(std::exp(logs / count) < 0.5);
}

TEST_CASE("kmeans --curvature full without a Gram matrix is the exact partition, number by number", "[free_levels]") {
  for (const bool heavy : {false, true})
    for (const std::size_t levels : {2u, 3u, 16u, 256u})
      for (const auto type : {lmq::LevelType::f32, lmq::LevelType::f16}) {
        CAPTURE(heavy, levels);
        const auto layer = samples::correlated_layer(6, 70, 4, heavy);
        const auto full = quantized(layer, levels, 32, true, {}, type),
                   exact = quantized(layer, levels, 32, false, {}, type);
        CHECK((full.unit.book == exact.unit.book));
        CHECK(full.unit.levels == exact.unit.levels);
        CHECK((decoded(full.unit, layer) == decoded(exact.unit, layer)));
      }
}

TEST_CASE("kmeans --curvature full: the same for any threads and cut of rows; odd rows and matrices end well",
          "[free_levels]") {
  const std::size_t rows = 40, cols = 48;
  auto layer = samples::correlated_layer(rows, cols, 13);
  for (std::size_t c = 0; c < cols; ++c) {
    layer.x[c] = 0.25F, layer.x[cols + c] = c % 2 == 0 ? 0.0F : -0.0F, layer.x[2 * cols + c] *= 0x1p-130F;
    layer.x[3 * cols + c] *= 0x1p127F, layer.x[4 * cols + c] = c == 3 ? 1e30F : 1e-30F;
    layer.gram[5 * cols + c] = layer.gram[c * cols + 5] = 0;
  }
  lmq::Importance importance;
  importance.gram = layer.gram, importance.length = cols;
  for (const std::size_t levels : {1u, 2u, 8u, 64u}) {
    lmq::QuantizedUnit whole;
    for (const std::size_t threads : {1u, 3u}) {
      const samples::Threads set(threads);
      const auto outcome = quantized(layer, levels, 20, true, importance);
      if (threads == 1) whole = outcome.unit;
      CHECK((outcome.unit.codes == whole.codes));
      CHECK((outcome.unit.book == whole.book));
      for (const float number : outcome.unit.book) CHECK(std::isfinite(number));
      CHECK(outcome.stats.squared_error <= outcome.stats.energy * 1.1);
    }
    std::vector<lmq::Code> parts;
    for (std::size_t first = 0; first < rows; first += 8) {
      samples::Layer part = layer;
      part.rows = 8;
      part.x.assign(layer.x.begin() + static_cast<std::ptrdiff_t>(first * cols),
                    layer.x.begin() + static_cast<std::ptrdiff_t>((first + 8) * cols));
      const auto outcome = quantized(part, levels, 20, true, importance);
      parts.insert(parts.end(), outcome.unit.codes.begin(), outcome.unit.codes.end());
    }
    CHECK((parts == whole.codes));
  }
  std::vector<float> none(cols * cols, 0.0F);
  importance.gram = none;
  CHECK(std::isfinite(quantized(layer, 8, 48, true, importance).stats.squared_error));
}
