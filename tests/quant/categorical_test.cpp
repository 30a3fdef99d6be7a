// The categorical model of cluster-promoting quantization: its laws and its derivatives.
#include "methods/learned/categorical.hpp"

#include <catch2/catch.hpp>
#include <cmath>
#include <fstream>
#include <random>
#include <sstream>
#include <string>

#include "core/plain_exp.hpp"
#include "test_data.hpp"

namespace {
using lmq::GridPoints;

const GridPoints kGrids[] = {{2, -1}, {2, -0.5}, {3, -1}, {4, -2}, {4, -1.5}, {8, -4}, {16, -8}, {256, -128}};

/// A weight, its grid's step and its noise, at random.
struct Draw {
  double x, alpha, sigma;
};
Draw draw(std::mt19937& random, const GridPoints& grid) {
  std::uniform_real_distribution<double> unit(0, 1);
  const double alpha = 0.02 + 0.2 * unit(random);
  return {alpha * (grid.first - 1 + (static_cast<double>(grid.levels) + 1) * unit(random)), alpha,
          alpha * (0.1 + 1.5 * unit(random))};
}

double plainly(const Draw& d, const GridPoints& grid, std::size_t code) {
  const auto s = [&](double bound) { return 1 / (1 + std::exp(-(bound * d.alpha - d.x) / d.sigma)); };
  const double c = grid.point(code);
  return (s(c + 0.5) - s(c - 0.5)) / (s(grid.last() + 0.5) - s(grid.first - 0.5));
}

template <class F>
double central(const F& f, double at, double unit) {  // of fourth order
  const double h = 1e-3 * unit;
  return (8 * (f(at + h) - f(at - h)) - (f(at + 2 * h) - f(at - 2 * h))) / (12 * h);
}
bool near(double found, double wanted, double unit) {
  return std::fabs(found - wanted) <= 1e-6 * std::max(std::fabs(wanted), 1e-3 * unit);
}
}  // namespace

TEST_CASE("plain_exp: e^x to 4e-16, clamped at both ends, exact at 0", "[learned]") {
  std::mt19937 random(1);
  std::uniform_real_distribution<double> at(-699, 699);
  double worst = 0;
  for (int i = 0; i < 200000; ++i) {
    const double x = i % 2 == 0 ? at(random) : at(random) / 700;
    worst = std::max(worst, std::fabs(lmq::plain_exp(x) / std::exp(x) - 1));
  }
  CHECK(worst < 4e-16);
  CHECK(lmq::plain_exp(0) == 1);
  CHECK(lmq::plain_exp(-0.0) == 1);
  CHECK(lmq::plain_exp(1e300) == lmq::plain_exp(700));
  CHECK(lmq::plain_exp(-1e300) == lmq::plain_exp(-700));
  CHECK(lmq::plain_sigmoid(0) == 0.5);
}

TEST_CASE("categorical: probabilities are those of the definition, add to 1, and the nearest point has the largest",
          "[learned]") {
  std::mt19937 random(2);
  for (int i = 0; i < 2000; ++i)
    for (const GridPoints& grid : kGrids) {
      const Draw d = draw(random, grid);
      double sum = 0, most = -1;
      std::size_t best = 0;
      for (std::size_t k = 0; k < grid.levels; ++k) {
        const double pi = lmq::categorical(d.x, d.alpha, d.sigma, grid, k).pi;
        if (const double plain = plainly(d, grid, k); plain > 1e-3) REQUIRE(std::fabs(pi / plain - 1) < 1e-9);
        sum += pi;
        if (pi > most) most = pi, best = k;
      }
      REQUIRE(std::fabs(sum - 1) < 1e-12);
      const std::size_t nearest = lmq::nearest_code(d.x, d.alpha, grid);
      if (best != nearest)  // a tie up to rounding
        REQUIRE(most == Approx(lmq::categorical(d.x, d.alpha, d.sigma, grid, nearest).pi).epsilon(1e-12));
      if (grid.levels == 256 && i > 50) break;
    }
}

TEST_CASE("categorical: derivatives by x, alpha and sigma equal central differences to 1e-6", "[learned]") {
  std::mt19937 random(3);
  for (int i = 0; i < 300; ++i)
    for (const GridPoints& grid : kGrids) {
      const Draw d = draw(random, grid);
      const std::size_t k = lmq::nearest_code(d.x, d.alpha, grid);
      CAPTURE(grid.levels, grid.first, k, d.x, d.alpha, d.sigma);
      const lmq::Categorical found = lmq::categorical(d.x, d.alpha, d.sigma, grid, k);
      const auto pi = [&](double x, double alpha, double sigma) {
        return lmq::categorical(x, alpha, sigma, grid, k).pi;
      };
      REQUIRE(near(found.dx, central([&](double x) { return pi(x, d.alpha, d.sigma); }, d.x, d.sigma), 1 / d.sigma));
      const double reach = std::max(std::fabs(grid.first), 1.0);
      REQUIRE(near(found.dalpha, central([&](double a) { return pi(d.x, a, d.sigma); }, d.alpha, d.sigma / reach),
                   reach / d.sigma));
      REQUIRE(near(found.dsigma, central([&](double s) { return pi(d.x, d.alpha, s); }, d.sigma, d.sigma / reach),
                   reach / d.sigma));
    }
}

TEST_CASE(
    "straight-through rules: slopes and steps are those of the probabilities; nothing moves a weight on its point",
    "[learned]") {
  std::mt19937 random(4);
  for (int i = 0; i < 300; ++i)
    for (const GridPoints& grid : kGrids) {
      const Draw d = draw(random, grid);
      const double v = d.x / d.alpha, noise = d.sigma / d.alpha;
      const std::size_t k = lmq::nearest_code(v, 1, grid);
      const lmq::Categorical pi = lmq::categorical(v, 1, noise, grid, k);
      const lmq::Through through = lmq::through_class(v, noise, grid, k);
      REQUIRE(through.slope == Approx(grid.point(k) * pi.dx).margin(1e-12));
      // With sigma = noise * alpha, d pi / d ln alpha = -v d pi / d v.
      REQUIRE(pi.dalpha + noise * pi.dsigma == Approx(-v * pi.dx).margin(1e-9 * std::max(1.0, std::fabs(grid.first))));
      if (grid.point(k) == 0) REQUIRE(through.slope == 0);
      // At a point the mean of an inner cell does not lean either way by its own density.
      const auto mean = [&](double at) { return lmq::through_mean(at, noise, grid, k).point; };
      REQUIRE(near(lmq::through_mean(v, noise, grid, k).slope, central(mean, v, noise), 1));
      const bool inside = v >= grid.first - 0.5 && v <= grid.last() + 0.5;
      REQUIRE(lmq::through_step(v, grid, k).slope == (inside ? 1 : 0));
    }
  for (const std::size_t code : {6u, 7u, 8u, 9u, 10u}) {  // far from the ends of 16 levels
    const GridPoints grid{16, -8};
    CHECK(std::fabs(lmq::through_class(grid.point(code), 0.1, grid, code).slope) < 1e-12);
  }
}

TEST_CASE("DropBits: all masks one is the plain model, a closed gate leaves the grid of fewer levels", "[learned]") {
  std::mt19937 random(5);
  for (int i = 0; i < 300; ++i)
    for (const GridPoints& grid : kGrids)
      for (const auto scheme : {lmq::MaskScheme::ends, lmq::MaskScheme::bits}) {
        if (grid.levels > 16) continue;
        const Draw d = draw(random, grid);
        const double v = d.x / d.alpha, noise = d.sigma / d.alpha;
        lmq::Masks masks = lmq::open_masks(grid.levels, 2, scheme);
        const std::size_t k = lmq::nearest_code(v, 1, grid);
        REQUIRE(lmq::masked_code(v, noise, grid, masks) == k);
        const auto plain = lmq::categorical(v, 1, noise, grid, k);
        const auto open = lmq::masked_categorical(v, noise, grid, masks, k);
        REQUIRE(open.pi == Approx(plain.pi).epsilon(1e-12));
        REQUIRE(open.dv == Approx(plain.dx).epsilon(1e-9).margin(1e-12));
        REQUIRE(open.total == Approx(1).epsilon(1e-12));
        std::vector<double> gates(masks.gates, 1.0);
        for (std::size_t closed = 0; closed < masks.gates; ++closed) {
          std::fill(gates.begin(), gates.end(), 1.0);
          gates[closed] = 0;
          lmq::set_gates(masks, gates);
          const std::size_t left = lmq::levels_of_gates(masks, grid.levels, closed);
          REQUIRE(left < grid.levels);
          const std::size_t low = (grid.levels - 1) / 2 - ((left + 1) / 2 - 1);
          const GridPoints inner{left, grid.point(low)};
          const std::size_t found = lmq::masked_code(v, noise, grid, masks);
          REQUIRE(found == low + lmq::nearest_code(v, 1, inner));
          REQUIRE(lmq::masked_categorical(v, noise, grid, masks, found).pi ==
                  Approx(lmq::categorical(v, 1, noise, inner, found - low).pi).epsilon(1e-9));
          if (scheme == lmq::MaskScheme::bits && (grid.levels & (grid.levels - 1)) == 0)
            REQUIRE(left == std::size_t{2} << closed);
        }
      }
}

TEST_CASE("DropBits: masked probabilities add to 1; gradients by x, masks and gates equal central differences",
          "[learned]") {
  std::mt19937 random(6);
  std::uniform_real_distribution<double> unit(0.05, 0.95);
  for (int i = 0; i < 200; ++i)
    for (const GridPoints& grid : kGrids)
      for (const auto scheme : {lmq::MaskScheme::ends, lmq::MaskScheme::bits}) {
        if (grid.levels > 16) continue;
        const Draw d = draw(random, grid);
        const double v = d.x / d.alpha, noise = d.sigma / d.alpha;
        lmq::Masks masks = lmq::open_masks(grid.levels, 2, scheme);
        std::vector<double> gates(masks.gates), by_ring(masks.ring.size()), by_gate(masks.gates);
        for (double& gate : gates) gate = unit(random);
        lmq::set_gates(masks, gates);
        double sum = 0;
        for (std::size_t k = 0; k < grid.levels; ++k) sum += lmq::masked_categorical(v, noise, grid, masks, k).pi;
        REQUIRE(std::fabs(sum - 1) < 1e-12);
        const std::size_t k = lmq::masked_code(v, noise, grid, masks);
        const auto found = lmq::masked_categorical(v, noise, grid, masks, k);
        const auto pi = [&](double at) { return lmq::masked_categorical(at, noise, grid, masks, k).pi; };
        REQUIRE(near(found.dv, central(pi, v, noise), 1 / noise));
        lmq::masked_gradient(v, noise, grid, masks, k, by_ring);
        for (std::size_t ring = 0; ring < masks.ring.size(); ++ring) {
          const auto by_mask = [&](double mask) {
            lmq::Masks other = masks;
            other.ring[ring] = mask;
            return lmq::masked_categorical(v, noise, grid, other, k).pi;
          };
          REQUIRE(near(by_ring[ring], central(by_mask, masks.ring[ring], masks.ring[ring]), 1 / masks.ring[ring]));
        }
        lmq::gate_gradient(masks, gates, by_ring, by_gate);
        for (std::size_t g = 0; g < gates.size(); ++g) {
          const auto by_one = [&](double gate) {
            lmq::Masks other = masks;
            auto moved = gates;
            moved[g] = gate;
            lmq::set_gates(other, moved);
            return lmq::masked_categorical(v, noise, grid, other, k).pi;
          };
          REQUIRE(near(by_gate[g], central(by_one, gates[g], gates[g]), 1 / gates[g]));
        }
      }
}

TEST_CASE("hard concrete gates: open as often as they say, derivatives by phi, drop probabilities round trip",
          "[learned]") {
  std::mt19937_64 random(7);
  std::uniform_real_distribution<double> unit(0, 1);
  for (const double phi : {-3.0, -0.5, 0.0, 1.0, 2.5}) {
    const double p = lmq::open_probability(phi).value;
    constexpr int kDraws = 1000000;
    int open = 0;
    for (int i = 0; i < kDraws; ++i) open += lmq::hard_concrete(phi, unit(random) * (1 - 1e-12) + 5e-13).value > 0;
    CHECK(std::fabs(open - kDraws * p) < 5 * std::sqrt(kDraws * p * (1 - p)));
    CHECK(near(lmq::open_probability(phi).dphi,
               central([](double at) { return lmq::open_probability(at).value; }, phi, 1), 1));
    CHECK(lmq::phi_of_drop(1 - p) == Approx(phi).margin(1e-9));
    for (const double u : {0.1, 0.35, 0.5, 0.7, 0.9}) {
      const auto gate = lmq::hard_concrete(phi, u);
      CHECK((gate.value >= 0 && gate.value <= 1));
      if (gate.value > 0 && gate.value < 1)
        CHECK(near(gate.dphi, central([&](double at) { return lmq::hard_concrete(at, u).value; }, phi, 0.1), 1));
    }
  }
  CHECK(lmq::final_gate(-10) == 0);
  CHECK(lmq::final_gate(10) == 1);
}

TEST_CASE("the definition in Python gives the same numbers: tests/data/categorical.csv", "[learned]") {
  std::ifstream file(test_data() / "categorical.csv");
  std::string line;
  int lines = 0;
  for (; std::getline(file, line); ++lines) {
    std::vector<std::string> fields;
    std::istringstream in(line);
    for (std::string field; std::getline(in, field, ',');) fields.push_back(field);
    REQUIRE(fields.size() >= 8);
    const GridPoints grid{std::stoul(fields[0]), std::stod(fields[1])};
    const auto scheme = fields[2] == "ends" ? lmq::MaskScheme::ends : lmq::MaskScheme::bits;
    const double v = std::stod(fields[3]), noise = std::stod(fields[4]);
    lmq::Masks masks = lmq::open_masks(grid.levels, 2, scheme);
    std::vector<double> gates;
    for (std::size_t i = 8; i < fields.size(); ++i) gates.push_back(std::stod(fields[i]));
    REQUIRE(gates.size() == masks.gates);
    lmq::set_gates(masks, gates);
    CAPTURE(line);
    const std::size_t code = lmq::masked_code(v, noise, grid, masks);
    REQUIRE(code == std::stoul(fields[5]));
    const auto found = lmq::masked_categorical(v, noise, grid, masks, code);
    REQUIRE(found.pi == Approx(std::stod(fields[6])).epsilon(1e-9));
    REQUIRE(found.dv == Approx(std::stod(fields[7])).epsilon(1e-6).margin(1e-9));
  }
  CHECK(lines == 112);
}
