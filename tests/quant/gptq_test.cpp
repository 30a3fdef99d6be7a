// Errors passed on once, on grids that stay as they are: what gptq promises.
#include <catch2/catch.hpp>
#include <cmath>

#include "learned_samples.hpp"
#include "matrix/feedback.hpp"
#include "matrix/step_search.hpp"
#include "methods/learned/grid_solver.hpp"
#include "option_values.hpp"
#include "quant_samples.hpp"

namespace {
using lmq::ColumnOrder;
using samples::loss_of;

lmq::QuantSpec spec_of(const char* method, std::size_t levels, std::uint64_t group, lmq::LevelType type,
                       std::initializer_list<std::pair<const char*, double>> given = {}) {
  const auto& entry = lmq::find_quantizer(method);
  lmq::QuantSpec spec{entry.id, lmq::default_options(entry, levels), lmq::Granularity::group, group,
                      type,     lmq::CoderChoice::cheapest};
  for (const auto& [name, value] : given) samples::set_option(spec.options, entry, name, value);
  return spec;
}

/// What readers make of a unit's codes, and of the nearest levels of its grids.
struct Decoded {
  std::vector<float> values, nearest;
};
Decoded decoded(const lmq::QuantizedUnit& unit, const samples::Layer& layer) {
  Decoded made;
  const std::size_t groups = (layer.cols + unit.group - 1) / unit.group;
  for (std::size_t i = 0; i < layer.x.size(); ++i) {
    const std::size_t book = i / layer.cols * groups + i % layer.cols / unit.group;
    const auto level = [&](std::size_t code) {
      return unit.book[2 * book] + static_cast<float>(code) * unit.book[2 * book + 1];
    };
    std::size_t best = 0;
    for (std::size_t k = 1; k < unit.levels; ++k)
      if (std::abs(level(k) - layer.x[i]) < std::abs(level(best) - layer.x[i])) best = k;
    made.values.push_back(level(unit.codes[i])), made.nearest.push_back(level(best));
  }
  return made;
}

std::vector<samples::Layer> layers() {
  std::vector<samples::Layer> made{samples::correlated_layer(1, 40, 2), samples::correlated_layer(30, 1, 3),
                                   samples::correlated_layer(7, 65, 4)};
  for (const bool heavy : {false, true})
    for (const unsigned seed : {0u, 1u}) {
      made.push_back(samples::correlated_layer(24, 96, seed, heavy));
      made.push_back(samples::spectral_layer(24, 96, seed, heavy));
    }
  return made;
}
}  // namespace

TEST_CASE("passing errors on in panels gives the bits of plain loops, in either order, for any cut of the rows",
          "[gptq]") {
  for (const std::size_t cols : {1u, 2u, 63u, 64u, 65u, 130u, 200u})
    for (const auto order : {ColumnOrder::curvature, ColumnOrder::natural})
      for (const std::size_t group : {std::size_t{32}, cols}) {
        CAPTURE(cols, static_cast<int>(order), group);
        const auto layer = samples::correlated_layer(5, cols, 3, true);
        const auto factor = lmq::feedback_factor(layer.gram, cols, 0.01, order);
        const auto coded = [&](std::size_t first, std::size_t count, bool plain) {
          lmq::GridRows rows;
          auto shape = lmq::grid_shape(cols, group, 8, lmq::ZeroPoint::on);
          shape.rows = count;
          rows.prepare(shape, std::span(layer.x).subspan(first * cols, count * cols), {layer.gram, factor.damping, {}});
          lmq::search_steps(rows, 20);
          std::vector<float> room;
          if (plain)
            lmq::feedback_rows_reference(rows, factor);
          else
            lmq::feedback_rows(rows, factor, room);
          return std::pair(rows.codes, rows.loss);
        };
        const auto whole = coded(0, 5, true);
        CHECK((coded(0, 5, false) == whole));
        for (std::size_t r = 0; r < 5; ++r) {
          const auto one = coded(r, 1, false);
          CHECK((one.first == std::vector(whole.first.begin() + static_cast<std::ptrdiff_t>(r * cols),
                                          whole.first.begin() + static_cast<std::ptrdiff_t>((r + 1) * cols))));
          CHECK(one.second[0] == whole.second[r]);
        }
      }
}

TEST_CASE("gptq: the loss by the Gram matrix is never above that of the nearest levels of the same grids", "[gptq]") {
  double logs = 0;
  int count = 0;
  for (const samples::Layer& layer : layers())
    for (const std::size_t levels : {3u, 4u, 16u, 256u})
      for (const double zero : {1.0, 3.0})
        for (const double order : {0.0, 1.0})
          for (const auto& [group, type] :
               {std::pair{std::uint64_t{32}, lmq::LevelType::f16}, std::pair{std::uint64_t{96}, lmq::LevelType::f32}}) {
            CAPTURE(layer.rows, layer.cols, levels, zero, order, group);
            const auto spec = spec_of("gptq", levels, group, type, {{"zero-point", zero}, {"order", order}});
            lmq::Importance importance;
            importance.gram = layer.gram, importance.length = layer.cols;
            const auto view = samples::view_of(lmq::DType::f32, std::as_bytes(std::span(layer.x)));
            const auto outcome = lmq::quantize_unit({view, importance, layer.cols}, spec, nullptr);
            const Decoded found = decoded(outcome.unit, layer);
            const double passed = loss_of(layer, found.values, 0.01), nearest = loss_of(layer, found.nearest, 0.01);
            CHECK(passed <= nearest * (1 + 1e-5) + 1e-12);
            if (layer.rows == 24 && levels == 16) logs += std::log(passed / nearest), ++count;
          }
  CAPTURE(std::exp(logs / count));
  CHECK(std::exp(logs / count) < 0.6);
}

TEST_CASE("gptq without a Gram matrix is rounding to nearest on the best grids", "[gptq]") {
  for (const samples::Layer& layer : layers())
    for (const std::size_t levels : {2u, 4u, 16u}) {
      CAPTURE(layer.rows, layer.cols, levels);
      const auto view = samples::view_of(lmq::DType::f32, std::as_bytes(std::span(layer.x)));
      const auto of = [&](const char* method) {
        return lmq::quantize_unit({view, {}, layer.cols}, spec_of(method, levels, 32, lmq::LevelType::f16), nullptr);
      };
      const auto outcome = of("gptq"), learned = of("learned");
      CHECK((outcome.unit.codes == learned.unit.codes));
      CHECK((outcome.unit.book == learned.unit.book));
      CHECK((decoded(outcome.unit, layer).values == decoded(outcome.unit, layer).nearest));
    }
}
