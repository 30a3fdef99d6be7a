#include <array>
#include <bit>
#include <catch2/catch.hpp>
#include <limits>
#include <numeric>
#include <random>
#include <utility>

#include "lmq/quant/partition.hpp"
#include "lmq/quant/quantizer.hpp"
#include "option_values.hpp"
#include "partition_twin.hpp"

using namespace lmq;

namespace {

struct Data {
  std::vector<float> values, weights;  // ascending, as many
};

Data ascending(twin::Source source, std::size_t n, bool weighted, std::uint64_t seed) {
  const auto x = twin::draw(source, n, seed);
  const auto w = weighted ? twin::random_weights(n, seed + 1) : std::vector<float>(n, 1.0f);
  std::vector<std::size_t> order(n);
  for (std::size_t i = 0; i < n; ++i) order[i] = i;
  std::ranges::stable_sort(order, [&](std::size_t a, std::size_t b) { return x[a] < x[b]; });
  Data data;
  for (const std::size_t i : order) data.values.push_back(x[i] + 0.0f), data.weights.push_back(w[i]);
  return data;
}

// A histogram of the test's own: the key space cut into bins of 2^bits keys, which may be cut again.
struct Grid {
  struct Bin {
    std::uint32_t begin, end;
  };
  std::vector<Bin> bins;

  explicit Grid(unsigned bits) {
    for (std::uint64_t key = 0; key < (std::uint64_t{1} << 32); key += std::uint64_t{1} << bits)
      bins.push_back(
          {static_cast<std::uint32_t>(key), static_cast<std::uint32_t>(key + ((std::uint64_t{1} << bits) - 1))});
  }
  void refine(const std::vector<KeyRange>& ranges) {
    std::vector<Bin> finer;
    std::size_t r = 0;
    for (const Bin bin : bins) {
      while (r < ranges.size() && ranges[r].end < bin.begin) ++r;
      if (r == ranges.size() || bin.begin < ranges[r].begin) {
        finer.push_back(bin);
        continue;
      }
      REQUIRE(bin.end <= ranges[r].end);  // a range covers whole bins
      const std::uint64_t step = std::uint64_t{1} << ranges[r].span_bits;
      REQUIRE(step < std::uint64_t{bin.end} - bin.begin + 1);
      for (std::uint64_t key = bin.begin; key <= bin.end; key += step)
        finer.push_back({static_cast<std::uint32_t>(key), static_cast<std::uint32_t>(key + (step - 1))});
    }
    bins = std::move(finer);
  }
  [[nodiscard]] Group group(const Data& data) const {
    Group g;
    std::size_t i = 0;
    for (const Bin bin : bins) {
      const std::size_t first = i;
      double mass = 0, sum = 0, scatter = 0;
      while (i < data.values.size() && ordered_key(data.values[i]) <= bin.end) {
        mass += data.weights[i];
        sum += double{data.weights[i]} * (double{data.values[i]} - double{data.values[first]});
        ++i;
      }
      if (i == first) continue;
      const double mean = sum / mass + data.values[first];
      for (std::size_t j = first; j < i; ++j) {
        const double e = data.values[j] - mean;
        scatter += data.weights[j] * e * e;
      }
      const bool single = data.values[first] == data.values[i - 1];
      g.low.push_back(single ? data.values[first] : from_ordered_key(bin.begin));
      g.high.push_back(single ? data.values[first] : from_ordered_key(bin.end));
      g.count.push_back(static_cast<double>(i - first)), g.mass.push_back(mass);
      g.mean.push_back(single ? double{data.values[first]} : mean);
      g.scatter.push_back(single ? 0 : scatter);
    }
    g.minimum = data.values.front(), g.maximum = data.values.back();
    return g;
  }
};

double loss_with(const Data& data, std::span<const float> levels) {
  double loss = 0;
  std::size_t k = 0;
  for (std::size_t i = 0; i < data.values.size(); ++i) {
    const double v = data.values[i];
    while (k + 1 < levels.size() && std::abs(v - levels[k + 1]) < std::abs(v - levels[k])) ++k;
    loss += data.weights[i] * (v - levels[k]) * (v - levels[k]);
  }
  return loss;
}

// Bins that measuring the ranges would give: those that are not empty.
std::size_t bins_asked(const Data& data, const std::vector<KeyRange>& ranges) {
  std::size_t bins = 0, r = 0;
  std::uint64_t end = 0;  // of the last bin
  for (const float value : data.values) {
    const std::uint64_t key = ordered_key(value);
    while (r < ranges.size() && ranges[r].end < key) ++r;
    if (r == ranges.size()) break;
    if (key < ranges[r].begin || key < end) continue;
    ++bins;
    end = ((key >> ranges[r].span_bits) + 1) << ranges[r].span_bits;
  }
  return bins;
}

// measure -> fit -> measure finer, until the fit is final; how many measurements.
int rounds_until_exact(const Data& data, std::size_t cells, unsigned bits, std::size_t& most_bins) {
  const auto method = find_quantizer("kmeans").make({cells});
  Workspace scratch;
  const Codebook exact = method->fit_values(data.values, data.weights, scratch);
  Grid grid(bits);
  for (int round = 1;; ++round) {
    REQUIRE(round <= 6);
    const Group group = grid.group(data);
    const Fit fit = method->fit(group);
    if (group.resolved()) REQUIRE(fit.refine.empty());
    if (fit.refine.empty()) {
      const double best = loss_with(data, exact.levels()), found = loss_with(data, fit.codebook.levels());
      CAPTURE(found - best, best, found, round);
      REQUIRE(found <= best * (1 + 1e-9) + 1e-300);
      REQUIRE(best <= found * (1 + 1e-9) + 1e-300);
      return round;
    }
    const std::size_t asked = bins_asked(data, fit.refine);
    REQUIRE(asked <= (std::size_t{1} << 18) + group.size());
    most_bins = std::max(most_bins, asked);
    grid.refine(fit.refine);
  }
}

}  // namespace

TEST_CASE("kmeans: looking closer ends in the exact partition of the sorted values", "[quant][kmeans]") {
  for (const auto source : twin::kSources)
    for (const bool weighted : {false, true}) {
      const Data data = ascending(source, 3000, weighted, 11);
      for (const std::size_t cells : {2, 5, 16}) {
        CAPTURE(static_cast<int>(source), weighted, cells);
        std::size_t bins = 0;
        const int rounds = rounds_until_exact(data, cells, 16, bins);
        REQUIRE(rounds <= 4);
      }
    }
}

TEST_CASE("kmeans: many values in few coarse bins still end in the exact partition", "[quant][kmeans][slow]") {
  for (const auto source : {twin::Source::normal, twin::Source::student, twin::Source::uniform}) {
    const Data data = ascending(source, 60000, source == twin::Source::student, 5);
    for (const std::size_t cells : {4, 16, 64, 256}) {
      CAPTURE(static_cast<int>(source), cells);
      std::size_t bins = 0;
      const int rounds = rounds_until_exact(data, cells, 18, bins);
      REQUIRE(rounds <= 5);
    }
  }
}

TEST_CASE("kmeans: the bracket of a group holds the optimum of its values, whatever the bins", "[quant][kmeans]") {
  std::vector<std::pair<unsigned, Grid>> grids;  // built once: the finest has a million bins
  for (const unsigned bits : {23u, 20u, 18u, 16u, 13u}) grids.emplace_back(bits, Grid(bits));
  Workspace scratch;
  PartitionSolver solver;
  for (const auto source : twin::kSources)
    for (const bool weighted : {false, true}) {
      const Data data = ascending(source, 2000, weighted, 3);
      for (const auto& [bits, grid] : grids) {
        const Group group = grid.group(data);
        for (const std::size_t cells : {2, 3, 16, 40}) {
          if (group.size() <= cells) continue;
          CAPTURE(static_cast<int>(source), weighted, cells, bits, group.size());
          (void)solver.solve_group(group, cells);
          const double scatter = std::accumulate(group.scatter.begin(), group.scatter.end(), 0.0);
          const double found = solver.loss() + scatter;
          const auto levels = find_quantizer("kmeans").make({cells})->fit_values(data.values, data.weights, scratch);
          const double best = loss_with(data, levels.levels());
          double energy = 0;
          for (std::size_t i = 0; i < data.values.size(); ++i)
            energy += data.weights[i] * (double{data.values[i]} * data.values[i] + 1e-76);
          const double rounding = 1e-11 * best + 1e-13 * energy;  // of levels to float, and of sums
          CAPTURE(found, best, solver.gap(), solver.open_bins().size());
          REQUIRE(found * (1 - solver.gap()) <= best + rounding);
          REQUIRE(best <= found + rounding);
          REQUIRE((solver.gap() <= kClosedGap) == solver.open_bins().empty());
        }
      }
    }
}

TEST_CASE("kmeans: fewer distinct values than levels are levels themselves, in a resolved group or not",
          "[quant][kmeans]") {
  const auto method = find_quantizer("kmeans").make({16});
  Workspace scratch;
  const std::vector<float> x{3, 1, 3, -2, 1, 1};
  const std::vector<float> expected{-2, 1, 3};
  const Codebook book = method->fit_values(x, {}, scratch);
  REQUIRE(std::vector<float>(book.levels().begin(), book.levels().end()) == expected);
  Data data{{-2, 1, 1, 1, 3, 3}, {1, 1, 1, 1, 1, 1}};
  Grid grid(16);
  for (int round = 0; round < 5; ++round) {
    const Fit fit = method->fit(grid.group(data));
    if (fit.refine.empty()) {
      REQUIRE(std::vector<float>(fit.codebook.levels().begin(), fit.codebook.levels().end()) == expected);
      return;
    }
    grid.refine(fit.refine);
  }
  FAIL("never final");
}

TEST_CASE("kmeans: a single bin of several values is looked at closer", "[quant][kmeans]") {
  const Data data{{1.0f, 1.0f + 0x1p-20f, 1.0f + 0x1p-19f}, {1, 1, 1}};
  Grid grid(16);
  REQUIRE(grid.group(data).size() == 1);
  const auto method = find_quantizer("kmeans").make({.levels = 16});
  for (int round = 0; round < 5; ++round) {
    const Fit fit = method->fit(grid.group(data));
    if (fit.refine.empty()) {
      REQUIRE(std::ranges::equal(fit.codebook.levels(), data.values));
      return;
    }
    grid.refine(fit.refine);
  }
  FAIL("never final");
}

TEST_CASE("kmeans: values in hand fit as their resolved group does, whatever the scratch has seen", "[quant][kmeans]") {
  Workspace used, fresh;
  for (const std::size_t n : {1, 5, 33, 4096, 100, 1000})
    for (const std::size_t levels : {2, 16, 256}) {
      const auto method = find_quantizer("kmeans").make({levels});
      const Data data = ascending(twin::Source::laplace, n, true, n);
      const Codebook one = method->fit_values(data.values, data.weights, used);
      Workspace other;
      const Codebook two = method->fit_values(data.values, data.weights, other);
      const Codebook three = method->Quantizer::fit_values(data.values, data.weights, fresh);
      REQUIRE(std::ranges::equal(one.levels(), two.levels()));
      REQUIRE(std::ranges::equal(one.levels(), three.levels()));
    }
}

TEST_CASE("kmeans: zeros that stand out keep the level 0, at the least loss of all codebooks that have it",
          "[quant][kmeans]") {
  for (unsigned seed = 0; seed < 20; ++seed) {
    std::mt19937_64 random(seed);
    std::normal_distribution<double> normal(0.3, 1);
    std::vector<float> values(9);
    for (float& value : values) value = static_cast<float>(normal(random));
    std::vector<float> all(values);
    all.insert(all.end(), 6, 0.0f);
    for (const std::size_t levels : {2, 3, 4}) {
      QuantizerOptions options = default_options(find_quantizer("kmeans"), levels);
      Workspace scratch;
      const Codebook book = find_quantizer("kmeans").make(options)->fit_values(all, {}, scratch);
      REQUIRE(std::ranges::count(book.levels(), 0.0f) == 1);
      // Every way to cut the sorted values into cells, the one with the zeros decoding to 0.
      std::ranges::sort(all);
      double best = std::numeric_limits<double>::infinity();
      for (std::uint32_t cuts = 0; cuts < 1u << (all.size() - 1); ++cuts) {
        if (static_cast<std::size_t>(std::popcount(cuts)) + 1 > levels) continue;
        double loss = 0;
        for (std::size_t i = 0, j = 1; j <= all.size(); ++j) {
          if (j < all.size() && (cuts >> (j - 1) & 1) == 0) continue;
          double mean = 0;
          for (std::size_t k = i; k < j; ++k) mean += double{all[k]} / static_cast<double>(j - i);
          if (std::find(all.begin() + static_cast<std::ptrdiff_t>(i), all.begin() + static_cast<std::ptrdiff_t>(j),
                        0.0f) != all.begin() + static_cast<std::ptrdiff_t>(j))
            mean = 0;
          for (std::size_t k = i; k < j; ++k) loss += (all[k] - mean) * (all[k] - mean);
          i = j;
        }
        best = std::min(best, loss);
      }
      const Data data{all, std::vector<float>(all.size(), 1.0f)};
      CAPTURE(seed, levels);
      REQUIRE(loss_with(data, book.levels()) <= best * (1 + 1e-5) + 1e-12);
      samples::set_option(options, find_quantizer("kmeans"), "zero", 1);  // off: the plain optimum, which is no worse
      const Codebook plain = find_quantizer("kmeans").make(options)->fit_values(all, {}, scratch);
      REQUIRE(loss_with(data, plain.levels()) <= loss_with(data, book.levels()) * (1 + 1e-9));
    }
  }
}
