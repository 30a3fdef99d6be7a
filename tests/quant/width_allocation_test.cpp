#include "lmq/quant/width_allocation.hpp"

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <random>

using namespace lmq;

namespace {

constexpr Allocation kWays[] = {Allocation::lagrangian, Allocation::exact, Allocation::uniform, Allocation::dropbits};

/// Scopes as tensors have them: losses near variance * weights / 4^width with `noise`, bytes of the codes and a header.
std::vector<WidthTable> tables_of(std::size_t scopes, std::uint32_t seed, double noise = 0.2, std::size_t widths = 8) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<double> uniform(0, 1);
  std::vector<WidthTable> tables;
  for (std::size_t s = 0; s < scopes; ++s) {
    const double weights = std::floor(std::pow(10.0, 2 + 3 * uniform(random)));
    const double variance = std::exp(3 * (uniform(random) - 0.5));
    WidthTable table;
    for (std::size_t b = 1; b <= widths; ++b) {
      const double loss = weights * variance * std::pow(4.0, -static_cast<double>(b)) * (1 + noise * uniform(random));
      table.push_back({b, std::ceil(weights * static_cast<double>(b) / 8) + 64, loss});
    }
    tables.push_back(std::move(table));
  }
  return tables;
}

double bytes_at(const std::vector<WidthTable>& tables, std::size_t point) {
  double bytes = 0;
  for (const WidthTable& table : tables) bytes += table[point].bytes;
  return bytes;
}

/// The least loss over all vectors of widths; infinity when none fits.
double brute_force(const std::vector<WidthTable>& tables, double room, std::size_t from = 0) {
  if (from == tables.size()) return room >= 0 ? 0 : std::numeric_limits<double>::infinity();
  double best = std::numeric_limits<double>::infinity();
  for (const WidthPoint& point : tables[from])
    if (point.bytes <= room) best = std::min(best, point.loss + brute_force(tables, room - point.bytes, from + 1));
  return best;
}

void check_choice(const std::vector<WidthTable>& tables, const WidthChoice& choice, double room) {
  REQUIRE(choice.points.size() == tables.size());
  double bytes = 0, loss = 0;
  for (std::size_t s = 0; s < tables.size(); ++s) {
    REQUIRE(choice.points[s] < tables[s].size());
    bytes += tables[s][choice.points[s]].bytes, loss += tables[s][choice.points[s]].loss;
  }
  CHECK(bytes == choice.bytes);
  CHECK(loss == choice.loss);
  CHECK(bytes <= room);
}

}  // namespace

TEST_CASE("widths: exact equals the best of all vectors of widths", "[quant][widths]") {
  for (std::uint32_t seed = 0; seed < 60; ++seed) {
    const std::size_t scopes = 1 + seed % 6;
    auto tables = tables_of(scopes, seed, seed % 3 == 0 ? 20 : 0.2, 1 + seed % 5);  // noise 20: any order of losses
    if (seed % 4 == 1) tables.back() = tables.front();                              // ties
    const double least = bytes_at(tables, 0), most = bytes_at(tables, tables[0].size() - 1);
    for (const double share : {0.0, 0.1, 0.35, 0.5, 0.8, 1.0}) {
      const double room = std::floor(least + share * (most - least));
      INFO("seed " << seed << ", share " << share);
      const auto exact = allocate_widths(Allocation::exact, tables, room);
      REQUIRE(exact);
      check_choice(tables, *exact, room);
      CHECK(exact->proven);
      CHECK(exact->loss <= brute_force(tables, room) * (1 + 1e-12));
    }
  }
}

TEST_CASE("widths: exact is never above Lagrangian, Lagrangian never above uniform, none above its room",
          "[quant][widths]") {
  for (std::uint32_t seed = 0; seed < 5; ++seed) {
    const auto tables = tables_of(std::vector<std::size_t>{1, 2, 7, 40, 200}[seed % 5], seed);
    const double least = bytes_at(tables, 0), most = bytes_at(tables, 7);
    std::vector<double> rooms{least, most, 2 * most};
    for (std::size_t b = 1; b < 7; b += 2) rooms.push_back(bytes_at(tables, b));  // where uniform spends all
    for (const double share : {0.03, 0.61}) rooms.push_back(std::floor(least + share * (most - least)));
    for (const double room : rooms) {
      INFO("seed " << seed << ", room " << room);
      std::vector<double> loss;
      for (const Allocation how : kWays) {
        const auto choice = allocate_widths(how, tables, room);
        REQUIRE(choice);
        check_choice(tables, *choice, room);
        loss.push_back(choice->loss);
      }
      CHECK(loss[1] <= loss[0]);
      CHECK(loss[0] <= loss[2]);
      CHECK(loss[1] <= loss[3]);
      CHECK(allocate_widths(Allocation::exact, tables, room)->proven);
    }
  }
}

TEST_CASE("widths: less room than the smallest widths take is nothing; no scopes take nothing", "[quant][widths]") {
  const auto tables = tables_of(5, 3);
  for (const Allocation how : kWays) {
    CHECK_FALSE(allocate_widths(how, tables, bytes_at(tables, 0) - 1));
    CHECK(allocate_widths(how, tables, bytes_at(tables, 0)));
    const auto none = allocate_widths(how, {}, 0);
    if (how != Allocation::uniform) {
      REQUIRE(none);
      CHECK(none->points.empty());
    }
  }
}

TEST_CASE("widths: one scope gets the least loss that fits, of one width that", "[quant][widths]") {
  const std::vector<WidthTable> falling{{{1, 10, 9}, {2, 20, 4}, {3, 30, 1}}}, single{{{3, 30, 1}}};
  const std::vector<WidthTable> rising{{{1, 10, 1}, {2, 20, 4}, {3, 5, 2}}};  // more bytes, more loss; and fewer bytes
  for (const Allocation how : kWays) {
    CHECK(allocate_widths(how, falling, 25)->points.front() == 1);
    CHECK(allocate_widths(how, single, 30)->points.front() == 0);
    CHECK_FALSE(allocate_widths(how, single, 29));
  }
  for (const Allocation how : {Allocation::lagrangian, Allocation::exact}) {
    CHECK(allocate_widths(how, rising, 100)->points.front() == 0);
    CHECK(allocate_widths(how, rising, 7)->points.front() == 2);
  }
}

TEST_CASE("widths: gates spend a budget, and the cheaper the price the more of them stay open", "[quant][widths]") {
  const auto tables = tables_of(20, 11, 0);
  const double least = bytes_at(tables, 0), most = bytes_at(tables, 7);
  double before = std::numeric_limits<double>::infinity();
  for (const double share : {0.1, 0.3, 0.5, 0.7, 0.9}) {
    const double room = std::floor(least + share * (most - least));
    const auto choice = allocate_widths(Allocation::dropbits, tables, room);
    CHECK(choice->bytes > 0.97 * room);
    CHECK(choice->loss < before);
    before = choice->loss;
  }
}
