// Learned grids: what passing errors on, descent, closed-form steps and training promise.
#include <catch2/catch.hpp>
#include <cmath>

#include "learned_samples.hpp"
#include "lmq/base/error.hpp"
#include "matrix/step_search.hpp"
#include "methods/learned/grid_solver.hpp"
#include "methods/learned/learned_quantizer.hpp"
#include "option_values.hpp"
#include "quant_samples.hpp"

namespace {
using lmq::GridRows;
using lmq::ZeroPoint;

GridRows rows_of(const samples::Layer& layer, std::size_t levels, std::size_t group, const lmq::RowCurvature& curvature,
                 ZeroPoint zero = ZeroPoint::automatic) {
  GridRows rows;
  auto shape = lmq::grid_shape(layer.cols, group, levels, zero);
  shape.rows = layer.rows;
  rows.prepare(shape, layer.x, curvature);
  return rows;
}

/// e H e^T of every row, in plain doubles.
std::vector<double> plain_losses(const GridRows& rows) {
  std::vector<double> losses;
  const std::size_t n = rows.shape.cols;
  for (std::size_t r = 0; r < rows.shape.rows; ++r) {
    std::vector<double> e(n);
    for (std::size_t c = 0; c < n; ++c)
      e[c] = rows.level(rows.book(r, c), rows.codes[r * n + c]) - double{rows.x[r * n + c]};
    double loss = 0;
    for (std::size_t i = 0; i < n; ++i)
      for (std::size_t j = 0; j < n; ++j) {
        const double h = !rows.curvature.gram.empty() ? double{rows.curvature.gram[i * n + j]} : 0;
        loss += e[i] * e[j] *
                (i == j ? (rows.curvature.gram.empty() ? rows.diagonal(r, i) : h + rows.curvature.damping) : h);
      }
    losses.push_back(loss);
  }
  return losses;
}
double sum(const std::vector<double>& values) {
  double total = 0;
  for (const double value : values) total += value;
  return total;
}

/// Loss of rounding to nearest on the best of many grids, every row for itself, by the whole H.
double best_rounding(const samples::Layer& layer, std::size_t levels, std::size_t group,
                     const lmq::RowCurvature& curvature, std::size_t tries = 80) {
  GridRows rows = rows_of(layer, levels, group, curvature);
  lmq::search_steps(rows, lmq::kStepFactors);
  const auto start = rows.step;
  std::vector<double> best(layer.rows, 1e300);
  for (std::size_t f = 0; f < tries; ++f) {
    for (std::size_t b = 0; b < start.size(); ++b) rows.step[b] = start[b] * (0.4 + 1.4 * double(f) / double(tries));
    lmq::assign_nearest(rows);
    lmq::measure_rows(rows);
    for (std::size_t r = 0; r < layer.rows; ++r) best[r] = std::min(best[r], rows.loss[r]);
  }
  return sum(best);
}
}  // namespace

TEST_CASE("grid rows: measured losses are e H e^T for diagonal and Gram matrices, by row and group", "[learned]") {
  for (const std::size_t cols : {1u, 7u, 64u, 130u})
    for (const std::size_t group : {std::size_t{5}, std::size_t{130}})
      for (const bool gram : {false, true}) {
        CAPTURE(cols, group, gram);
        const auto layer = samples::correlated_layer(6, cols, 3);
        std::vector<float> weights = samples::importance(layer.x.size(), 5);
        for (float& w : weights) w += 0.01F;
        const lmq::RowCurvature curvature =
            gram ? lmq::RowCurvature{layer.gram, 0.05, {}} : lmq::RowCurvature{{}, 0, weights};
        GridRows rows = rows_of(layer, 8, group, curvature);
        lmq::search_steps(rows, lmq::kStepFactors);
        lmq::measure_rows(rows);
        const auto plain = plain_losses(rows);
        for (std::size_t r = 0; r < layer.rows; ++r)
          CHECK(rows.loss[r] == Approx(plain[r]).epsilon(1e-4).margin(1e-12));
      }
}

TEST_CASE("descent and closed-form steps never raise a loss; a step is the least of its parabola", "[learned]") {
  for (const std::size_t levels : {2u, 4u, 16u})
    for (const std::size_t group : {std::size_t{32}, std::size_t{96}})
      for (const ZeroPoint zero : {ZeroPoint::on, ZeroPoint::free})
        for (const bool gram : {false, true}) {
          CAPTURE(levels, group, static_cast<int>(zero), gram);
          const auto layer = samples::correlated_layer(9, 96, 11, true);
          GridRows rows =
              rows_of(layer, levels, group, gram ? lmq::RowCurvature{layer.gram, 0.01, {}} : lmq::RowCurvature{}, zero);
          lmq::search_steps(rows, 4);
          lmq::measure_rows(rows);
          auto before = plain_losses(rows);
          for (int round = 0; round < 3; ++round) {
            lmq::descend_rows(rows);
            const auto after = plain_losses(rows);
            for (std::size_t r = 0; r < after.size(); ++r) REQUIRE(after[r] <= before[r] * (1 + 1e-5));
            lmq::rescale_rows(rows);
            before = plain_losses(rows);
            for (std::size_t r = 0; r < after.size(); ++r) REQUIRE(before[r] <= after[r] * (1 + 1e-5));
            if (rows.shape.groups() == 1)
              for (const double part : {-1e-3, 1e-3}) {
                GridRows other = rows;
                for (double& step : other.step) step *= 1 + part;
                const auto moved = plain_losses(other);
                for (std::size_t r = 0; r < moved.size(); ++r) REQUIRE(moved[r] >= before[r] * (1 - 1e-6));
              }
            lmq::measure_rows(rows);
          }
        }
}

TEST_CASE("passing errors on: its losses are those of the codes, below rounding to nearest", "[learned]") {
  for (const std::size_t cols : {1u, 63u, 64u, 65u, 200u}) {
    CAPTURE(cols);
    const auto layer = samples::correlated_layer(8, cols, 7);
    const auto factor = lmq::feedback_factor(layer.gram, cols, 0.003);
    GridRows rows = rows_of(layer, 8, 200, {layer.gram, factor.damping, {}});
    lmq::search_steps(rows, lmq::kStepFactors);
    lmq::measure_rows(rows);
    const double rounded = sum(rows.loss);
    std::vector<float> room;
    lmq::feedback_rows(rows, factor, room);
    const auto said = rows.loss, plain = plain_losses(rows);
    for (std::size_t r = 0; r < layer.rows; ++r) CHECK(said[r] == Approx(plain[r]).epsilon(1e-3));
    if (cols > 1) CHECK(sum(said) < rounded);
  }
}

TEST_CASE("learned: at most half the loss of the best rounding to nearest at 2, 3 and 4 bits on correlated layers",
          "[learned][slow]") {
  for (const std::size_t levels : {4u, 8u, 16u}) {
    double logs = 0;
    int layers = 0;
    for (const bool heavy : {false, true})
      for (const bool spectral : {false, true})
        for (const unsigned seed : {0u, 1u}) {
          const auto layer = spectral ? samples::spectral_layer(40, 128, seed, heavy)
                                      : samples::correlated_layer(40, 128, seed, heavy);
          const auto factor = lmq::feedback_factor(layer.gram, layer.cols, 0.003);
          const lmq::RowCurvature curvature{layer.gram, factor.damping, {}};
          GridRows rows = rows_of(layer, levels, 128, curvature);
          lmq::SolverScratch scratch;
          lmq::solve_grids(rows, {}, &factor, scratch);
          const double rounding = best_rounding(layer, levels, 128, curvature), learned = sum(plain_losses(rows));
          CAPTURE(levels, heavy, spectral, seed, learned / rounding);
          CHECK(learned < rounding);
          logs += std::log(learned / rounding), ++layers;
        }
    CAPTURE(levels, std::exp(logs / layers));
    CHECK(std::exp(logs / layers) <= 0.50);
  }
}

TEST_CASE("training never ends above rounding to nearest on its start; forward is rounding for any noise; seeds repeat",
          "[learned][slow]") {
  const auto layer = samples::correlated_layer(12, 64, 5);
  for (const auto backward : {lmq::Backward::cpq, lmq::Backward::mean, lmq::Backward::lsq, lmq::Backward::free_logits})
    for (const std::size_t levels : {2u, 4u, 16u})
      for (const double drop : {0.0, 0.2}) {
        if (drop > 0 && backward != lmq::Backward::cpq && backward != lmq::Backward::lsq) continue;
        CAPTURE(static_cast<int>(backward), levels, drop);
        const lmq::RowCurvature curvature{layer.gram, 0.01, {}};
        lmq::GridSearch search;
        search.trains = true, search.descents = 0;
        search.training.backward = backward, search.training.steps = 40, search.training.drop = drop;
        GridRows rows = rows_of(layer, levels, 64, curvature), start = rows, again = rows;
        lmq::search_steps(start, lmq::kStepFactors);
        lmq::measure_rows(start);
        lmq::SolverScratch scratch;
        lmq::solve_grids(rows, search, nullptr, scratch);
        const auto losses = plain_losses(rows);
        for (std::size_t r = 0; r < layer.rows; ++r) CHECK(losses[r] <= start.loss[r] * (1 + 1e-5));
        lmq::solve_grids(again, search, nullptr, scratch);
        CHECK((again.codes == rows.codes));
        CHECK((again.step == rows.step));
        search.training.steps = 1, search.training.noise = 2.5, search.training.last_noise = 2.5;
        if (backward == lmq::Backward::free_logits) continue;  // its forward is a soft mean
        lmq::solve_grids(again, search, nullptr, scratch);
        start = again;
        lmq::assign_nearest(start);
        CHECK((again.codes == start.codes));
      }
}

TEST_CASE("training on correlated layers: losses in the order lsq < mean < cpq < rounding, and descent lowers each",
          "[learned][slow]") {
  const auto layer = samples::correlated_layer(40, 128, 0);
  const lmq::RowCurvature curvature{layer.gram, 0.003, {}};
  const auto loss_of = [&](lmq::Backward backward, std::size_t descents) {
    GridRows rows = rows_of(layer, 8, 128, curvature);
    lmq::GridSearch search;
    search.trains = true, search.descents = descents;
    search.training.backward = backward, search.training.steps = 300;
    lmq::SolverScratch scratch;
    lmq::solve_grids(rows, search, nullptr, scratch);
    return sum(plain_losses(rows));
  };
  const double rounding = best_rounding(layer, 8, 128, curvature);
  const double cpq = loss_of(lmq::Backward::cpq, 0), mean = loss_of(lmq::Backward::mean, 0);
  const double lsq = loss_of(lmq::Backward::lsq, 0);
  CHECK(cpq < rounding);
  CHECK(mean < cpq);
  CHECK(lsq < mean);
  CHECK(loss_of(lmq::Backward::lsq, 4) < lsq);
}

TEST_CASE("a diagonal H: learned is rounding to nearest on the best grid, to the resolution of the search",
          "[learned]") {
  for (const std::size_t levels : {2u, 3u, 4u, 16u, 256u})
    for (const bool heavy : {false, true}) {
      const auto layer = samples::correlated_layer(8, 200, 9, heavy);
      GridRows rows = rows_of(layer, levels, 200, {});
      lmq::SolverScratch scratch;
      lmq::solve_grids(rows, {}, nullptr, scratch);
      CAPTURE(levels, heavy);
      CHECK(sum(rows.loss) <= best_rounding(layer, levels, 200, {}, 2000) * (levels <= 16 ? 1.01 : 1.02));
    }
}

TEST_CASE("values that lie on a grid of so many levels come back exactly", "[learned]") {
  for (const std::size_t levels : {2u, 3u, 4u, 8u, 16u, 256u})
    for (const float step : {0.03125F, 0.0123291015625F, 1e-3F}) {
      std::vector<float> values;
      const auto shape = lmq::grid_shape(300, 300, levels, ZeroPoint::automatic);
      for (std::size_t i = 0; i < 300; ++i) {
        const float half = static_cast<float>(std::ldexp(std::round(std::ldexp(step, 16)), -16));  // few bits
        values.push_back(half * static_cast<float>(shape.first + static_cast<double>(i * i % levels)));
      }
      const lmq::TensorView view = samples::view_of(lmq::DType::f32, std::as_bytes(std::span(values)));
      for (const char* name : {"learned", "cpq"})
        for (const auto granularity : {lmq::Granularity::tensor, lmq::Granularity::row}) {
          CAPTURE(levels, step, name, static_cast<int>(granularity));
          const auto& entry = lmq::find_quantizer(name);
          const lmq::QuantSpec spec{entry.id,
                                    lmq::default_options(entry, levels),
                                    granularity,
                                    0,
                                    lmq::LevelType::f32,
                                    lmq::CoderChoice::cheapest};
          CHECK(lmq::quantize_unit({view, {}, 300}, spec, nullptr).stats.squared_error == 0);
        }
    }
}

TEST_CASE("learned, cpq and gptq by rows: the same codes for any number of threads and any cut of rows into windows",
          "[learned]") {
  const std::size_t rows = 40, cols = 72;
  const auto layer = samples::correlated_layer(rows, cols, 13);
  for (const char* name : {"learned", "cpq", "gptq"})
    for (const bool gram : {false, true})
      for (const std::uint64_t group : {std::uint64_t{72}, std::uint64_t{32}}) {
        const auto& entry = lmq::find_quantizer(name);
        const lmq::QuantSpec spec{entry.id,
                                  lmq::default_options(entry, 8),
                                  lmq::Granularity::group,
                                  group,
                                  lmq::LevelType::f32,
                                  lmq::CoderChoice::cheapest};
        std::vector<float> columns;
        for (std::size_t c = 0; c < cols; ++c) columns.push_back(layer.gram[c * cols + c]);
        lmq::Importance importance{lmq::Importance::Kind::columns, columns};
        if (gram) importance.gram = layer.gram, importance.length = cols;
        std::vector<lmq::Code> whole;
        double loss = 0;
        for (const std::size_t threads : {1u, 3u}) {
          const samples::Threads set(threads);
          const auto view = samples::view_of(lmq::DType::f32, std::as_bytes(std::span(layer.x)));
          const auto outcome = lmq::quantize_unit({view, importance, cols}, spec, nullptr);
          if (threads == 1) whole = outcome.unit.codes, loss = outcome.stats.weighted_error;
          CHECK((outcome.unit.codes == whole));
          CHECK(outcome.stats.weighted_error == loss);
        }
        std::vector<lmq::Code> parts;
        for (std::size_t first = 0; first < rows; first += 8) {
          const auto part = std::span(layer.x).subspan(first * cols, 8 * cols);
          const auto outcome = lmq::quantize_unit(
              {samples::view_of(lmq::DType::f32, std::as_bytes(part)), importance, cols}, spec, nullptr);
          parts.insert(parts.end(), outcome.unit.codes.begin(), outcome.unit.codes.end());
        }
        CAPTURE(name, gram, group);
        CHECK((parts == whole));
      }
}

TEST_CASE("by rows with a Gram matrix: the layer loss that is said is that of what readers see", "[learned]") {
  const std::size_t rows = 24, cols = 72;
  const auto layer = samples::correlated_layer(rows, cols, 19);
  lmq::Importance importance;
  importance.gram = layer.gram, importance.length = cols;
  double mean = 0;
  for (std::size_t c = 0; c < cols; ++c) mean += double{layer.gram[c * cols + c]} / static_cast<double>(cols);
  for (const char* name : {"learned", "cpq", "gptq"}) {
    const auto& entry = lmq::find_quantizer(name);
    const lmq::QuantSpec spec{entry.id,
                              lmq::default_options(entry, 8),
                              lmq::Granularity::row,
                              0,
                              lmq::LevelType::f32,
                              lmq::CoderChoice::cheapest};
    const auto view = samples::view_of(lmq::DType::f32, std::as_bytes(std::span(layer.x)));
    const auto outcome = lmq::quantize_unit({view, importance, cols}, spec, nullptr);
    CHECK_FALSE(lmq::quantize_unit({view, {}, cols}, spec, nullptr).stats.layer_loss);
    const double damping = mean * (std::string_view(name) == "gptq" ? 0.01 : 0.003);
    double loss = 0;
    for (std::size_t r = 0; r < rows; ++r) {
      std::vector<double> e;
      for (std::size_t c = 0; c < cols; ++c)
        e.push_back(double{outcome.unit.book[2 * r]} +
                    double{outcome.unit.book[2 * r + 1]} * static_cast<double>(outcome.unit.codes[r * cols + c]) -
                    double{layer.x[r * cols + c]});
      for (std::size_t i = 0; i < cols; ++i)
        for (std::size_t j = 0; j < cols; ++j)
          loss += e[i] * e[j] * (double{layer.gram[i * cols + j]} + (i == j ? damping : 0));
    }
    CAPTURE(name);
    REQUIRE(outcome.stats.layer_loss);
    CHECK(*outcome.stats.layer_loss == Approx(loss).epsilon(1e-3));
  }
}

TEST_CASE("by rows with a Gram matrix: numbers that are nothing beside its diagonal change no bit", "[learned]") {
  const std::size_t rows = 9, cols = 200;
  auto layer = samples::correlated_layer(rows, cols, 23);
  for (std::size_t i = 0; i < cols; ++i)  // down to 2^-199, of which floats keep those above 2^-149
    for (std::size_t j = 0; j < cols; ++j)
      layer.gram[i * cols + j] = std::ldexp(1.0F, -static_cast<int>(i > j ? i - j : j - i));
  std::vector<float> without = layer.gram;
  for (float& value : without) value = value < 0x1p-100F ? 0.0F : value;
  const auto unit_of = [&](const char* name, std::span<const float> gram) {
    const auto& entry = lmq::find_quantizer(name);
    lmq::QuantizerOptions options = lmq::default_options(entry, 8);
    const lmq::QuantSpec spec{
        entry.id, options, lmq::Granularity::row, 0, lmq::LevelType::f32, lmq::CoderChoice::cheapest};
    lmq::Importance importance;
    importance.gram = gram, importance.length = cols;
    const auto view = samples::view_of(lmq::DType::f32, std::as_bytes(std::span(layer.x)));
    return lmq::quantize_unit({view, importance, cols}, spec, nullptr).unit;
  };
  for (const char* name : {"learned", "cpq", "gptq"}) {
    CAPTURE(name);
    CHECK((unit_of(name, layer.gram).codes == unit_of(name, without).codes));
    CHECK((unit_of(name, layer.gram).book == unit_of(name, without).book));
  }
}

TEST_CASE(
    "learned, cpq, gptq: odd rows and matrices end well: constant, zero, huge, subnormal, one column, dead inputs",
    "[learned]") {
  const std::size_t cols = 48;
  std::vector<std::vector<float>> odd(8, std::vector<float>(2 * cols, 0.0F));
  for (std::size_t i = 0; i < 2 * cols; ++i) {
    const float wave = static_cast<float>(static_cast<int>(i * 29 % 41) - 20);
    odd[1][i] = 2.5F, odd[2][i] = wave * 1.6e37F, odd[3][i] = wave * 0x1p-149F, odd[4][i] = i % 2 == 0 ? 1.0F : -0.0F;
    odd[5][i] = i == 3 ? 1e30F : wave * 1e-30F, odd[6][i] = -wave * wave, odd[7][i] = i < cols ? wave : -3e38F;
  }
  auto gram = samples::correlated_layer(1, cols, 1).gram;
  for (std::size_t c = 0; c < cols; ++c) gram[5 * cols + c] = gram[c * cols + 5] = 0;  // an input that is always 0
  const std::vector<float> none(cols * cols, 0.0F);
  for (const auto& values : odd)
    for (const std::size_t levels : {2u, 3u, 16u, 256u})
      for (const char* name : {"learned", "cpq", "gptq"})
        for (const int kind : {0, 1, 2})
          for (const auto type : {lmq::LevelType::f32, lmq::LevelType::f16}) {
            CAPTURE(values[0], values[1], levels, name, kind);
            const auto& entry = lmq::find_quantizer(name);
            const lmq::QuantSpec spec{entry.id, lmq::default_options(entry, levels), lmq::Granularity::group, 20,
                                      type,     lmq::CoderChoice::cheapest};
            lmq::Importance importance;
            if (kind > 0) importance.gram = kind == 1 ? gram : none, importance.length = cols;
            const auto view = samples::view_of(lmq::DType::f32, std::as_bytes(std::span(values)));
            const auto outcome = lmq::quantize_unit({view, importance, cols}, spec, nullptr);
            CHECK(std::isfinite(outcome.stats.squared_error));
            for (const float number : outcome.unit.book) CHECK(std::isfinite(number));
            CHECK(outcome.stats.squared_error <= outcome.stats.energy * 1.1);
          }
}

TEST_CASE("cpq: options that contradict each other are refused", "[learned]") {
  const auto& entry = lmq::find_quantizer("cpq");
  auto options = lmq::default_options(entry, 8);
  samples::set_option(options, entry, "drop", 0.2);
  samples::set_option(options, entry, "backward", 3);
  CHECK_THROWS_WITH(entry.complete(options, true), "drop: bits are dropped with backward \"cpq\" or \"lsq\"");
}
