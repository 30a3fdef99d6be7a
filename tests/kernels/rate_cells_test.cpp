#include "lmq/kernels/rate_cells.hpp"

#include <catch2/catch.hpp>
#include <cmath>
#include <random>
#include <vector>

#include "lmq/kernels/huffman.hpp"

namespace {

struct Line {
  std::vector<double> n{0}, a{0}, b{0}, c{0}, f{0};
  Line(std::size_t points, bool weighted, unsigned seed) {
    std::mt19937_64 random(seed);
    std::uniform_real_distribution<double> uniform(-1, 1);
    for (std::size_t k = 0; k < points; ++k) {
      const double count = static_cast<double>(1 + random() % 1000),
                   mass = weighted ? count * (uniform(random) + 1.1) : count;
      const double value = 2.0 * static_cast<double>(k) / static_cast<double>(points) - 1;
      n.push_back(n.back() + count), a.push_back(a.back() + mass), b.push_back(b.back() + mass * value);
      c.push_back(c.back() + mass * value * value), f.push_back(uniform(random));
    }
  }
  [[nodiscard]] lmq::CellColumns columns() const { return {n.data(), a.data(), b.data(), c.data()}; }
};

/// Cheapest lengths of at most `most` bits, all combinations tried.
std::uint64_t cheapest(const std::vector<std::uint64_t>& counts, unsigned most, std::size_t at = 0, double kraft = 0) {
  if (kraft > 1) return ~0ULL / 2;
  if (at == counts.size()) return 0;
  if (counts[at] == 0) return cheapest(counts, most, at + 1, kraft);
  std::uint64_t best = ~0ULL / 2;
  for (unsigned length = 1; length <= most; ++length)
    best = std::min(
        best, counts[at] * length + cheapest(counts, most, at + 1, kraft + std::ldexp(1.0, -static_cast<int>(length))));
  return best;
}

}  // namespace

TEST_CASE("plain_log2 and plain_exp2 are the functions of their names") {
  std::mt19937_64 random(1);
  std::uniform_real_distribution<double> uniform(-700, 700);
  for (int k = 0; k < 20000; ++k) {
    const double y = uniform(random), x = std::exp2(y);
    REQUIRE(std::fabs(lmq::plain_log2(x) - std::log2(x)) <= 1e-15 * std::max(1.0, std::fabs(y)));
    REQUIRE(std::fabs(lmq::plain_exp2(y) / x - 1) <= 4e-13);
  }
  for (const double x : {1.0, 2.0, 0.5, 0x1p-1000, 0x1p1000}) REQUIRE(lmq::plain_log2(x) == std::log2(x));
  for (double x = 0.70; x < 1.43; x += 1e-4) REQUIRE(std::fabs(lmq::plain_log2(x) - std::log2(x)) <= 1e-15);
  REQUIRE(lmq::plain_exp2(-3) == 0.125);
}

TEST_CASE("best_cell_start: the vector twin has the reference's bits, and the smallest edge wins") {
  for (const bool weighted : {false, true})
    for (const bool pinned : {false, true}) {
      const Line line(203, weighted, 5);
      const lmq::CellPrice price{0.003, 1 / line.n.back()};
      for (const std::size_t j : {1, 2, 7, 64, 203})
        for (const std::size_t first : {0, 1, 3, 60})
          for (const std::size_t last : {first, first + 1, first + 7, first + 8, first + 33, j}) {
            if (last > j) continue;
            const auto fast = lmq::best_cell_start(line.columns(), price, line.f.data(), first, last, j, pinned);
            const auto slow =
                lmq::best_cell_start_reference(line.columns(), price, line.f.data(), first, last, j, pinned);
            REQUIRE(fast.value == slow.value);
            REQUIRE(fast.edge == slow.edge);
            if (first < last) {
              const double error = lmq::cell_error(line.columns(), slow.edge, j, pinned);
              const double bits = lmq::cell_bits(line.columns(), price.inverse_total, slow.edge, j);
              REQUIRE(slow.value == Approx(line.f[slow.edge] + error + price.lambda * bits).epsilon(1e-11));
            }
          }
    }
  Line flat(40, false, 2);
  for (double& f : flat.f) f = 1;
  for (std::size_t i = 0; i < flat.n.size(); ++i) flat.c[i] = flat.b[i] = 0;  // no price at all but f
  REQUIRE(lmq::best_cell_start(flat.columns(), {0.0, 1 / flat.n.back()}, flat.f.data(), 3, 40, 40, false).edge == 3);
}

TEST_CASE("Huffman lengths are the cheapest of all within the limit, and fill the code space") {
  std::mt19937_64 random(9);
  for (int trial = 0; trial < 300; ++trial) {
    std::vector<std::uint64_t> counts(1 + random() % 6);
    for (auto& count : counts) count = random() % 3 == 0 ? random() % 3 : 1ULL << random() % 20;
    const auto used = std::ranges::count_if(counts, [](auto c) { return c > 0; });
    for (const unsigned most : {3u, 4u, 6u}) {
      std::vector<std::uint8_t> lengths(counts.size());
      lmq::huffman_lengths(counts, most, lengths);
      std::uint64_t price = 0;
      double kraft = 0;
      for (std::size_t s = 0; s < counts.size(); ++s) {
        REQUIRE((lengths[s] == 0) == (counts[s] == 0));
        REQUIRE(lengths[s] <= most);
        price += counts[s] * lengths[s];
        if (lengths[s] > 0) kraft += std::ldexp(1.0, -lengths[s]);
      }
      REQUIRE(price == cheapest(counts, most));
      if (used >= 2) REQUIRE(kraft == 1.0);
    }
  }
  std::vector<std::uint64_t> fibonacci{1, 1};
  while (fibonacci.size() < 60) fibonacci.push_back(fibonacci[fibonacci.size() - 1] + fibonacci[fibonacci.size() - 2]);
  std::vector<std::uint8_t> lengths(fibonacci.size());
  lmq::huffman_lengths(fibonacci, 12, lengths);
  REQUIRE(std::ranges::max(lengths) == 12);
  std::vector<std::uint64_t> all(256, 7);
  lengths.resize(256);
  lmq::huffman_lengths(all, 8, lengths);
  for (const auto length : lengths) REQUIRE(length == 8);
}
