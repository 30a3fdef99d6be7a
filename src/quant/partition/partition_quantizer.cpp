#include "partition_quantizer.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>

#include "cell_means.hpp"
#include "engines.hpp"
#include "lmq/quant/partition.hpp"

namespace lmq {
namespace {

constexpr double kMaxNewBins = 0x1p18;  // asked for in one round

// How much a threshold inside the bin can gain at most, as a power of 4: sqrt(mass scatter) times the distance of the
// levels about it, or where that is more its scatter. Halving a bin takes a factor of 4 of it.
int gain_of(const Group& group, std::uint32_t bin, double gap) {
  const double scatter = group.scatter[bin], gain = std::max(std::sqrt(group.mass[bin] * scatter) * gap, scatter);
  return std::ilogb(std::max(gain, std::numeric_limits<double>::min())) / 2;
}

struct OpenBin {
  std::uint32_t bin;
  int gain;
  unsigned bits;  // of its span
  double count;
  [[nodiscard]] unsigned cuts(int least) const {
    return std::min(static_cast<unsigned>(std::max(gain - least, 1)), bits);
  }
};

// What solve_group left open, weighed.
std::vector<OpenBin> weigh(const Group& group, const PartitionSolver& solver, const std::vector<double>& levels) {
  std::vector<OpenBin> open;
  std::size_t t = 1;
  for (const std::uint32_t bin : solver.open_bins()) {
    while (t + 1 < levels.size() && 0.5 * (levels[t] + levels[t + 1]) < group.mean[bin]) ++t;
    const double gap = t < levels.size() ? levels[t] - levels[t - 1] : 0.0;
    open.push_back({bin, gain_of(group, bin, gap), span_bits(group, bin), group.count[bin]});
  }
  return open;
}

// The open bins as ranges: those that matter most are cut most, at least in two, as finely as the round allows.
std::vector<KeyRange> ranges_of(const Group& group, const std::vector<OpenBin>& open, int least) {
  const auto asked = [&](int gain) {
    double sum = 0;
    for (const OpenBin& one : open) sum += std::min(std::ldexp(1.0, static_cast<int>(one.cuts(gain))), one.count);
    return sum;
  };
  int gain = least, high = least;  // bisection: asked(high) is within the budget or nothing helps
  for (const OpenBin& one : open) high = std::max(high, one.gain);
  if (asked(gain) > kMaxNewBins)
    for (int low = gain; (gain = high) - low > 1;) {
      const int middle = low + (high - low) / 2;
      (asked(middle) > kMaxNewBins ? low : high) = middle;
    }
  std::vector<KeyRange> ranges;
  for (const OpenBin& one : open) {
    const std::uint32_t begin = ordered_key(group.low[one.bin]), end = last_key(group, one.bin);
    const unsigned left = one.bits - one.cuts(gain);
    if (!ranges.empty() && ranges.back().end + 1 == begin && ranges.back().span_bits == left)
      ranges.back().end = end;
    else
      ranges.push_back({begin, end, left});
  }
  return ranges;
}

constexpr double kHeavy = 0x1p20;  // mass of the zeros that keep their level, as a multiple of all else
// The group with zeros so heavy that the level of their cell is at 0, but for what float does not show; then it is set
// to 0. Nothing where zeros have no level of their own.
std::optional<Group> with_heavy_zeros(const Group& group, ZeroRule rule) {
  const std::size_t zero = pinned_zero(group, rule);
  if (zero == group.size()) return std::nullopt;
  Group heavy = group;
  heavy.mass[zero] = kHeavy * std::accumulate(group.mass.begin(), group.mass.end(), 0.0);
  return heavy;
}

void put_zero(std::vector<double>& levels) {
  *std::ranges::min_element(levels, {}, [](double level) { return std::fabs(level); }) = 0;
}

Codebook table_of(const std::vector<double>& levels) {
  std::vector<float> rounded(levels.size());
  std::ranges::transform(levels, rounded.begin(), [](double level) { return static_cast<float>(level); });
  return Codebook::table(std::move(rounded));
}

}  // namespace

PartitionQuantizer::PartitionQuantizer(std::size_t levels, ZeroRule zero)
    : PartitionQuantizer(levels, zero, {.detail = Detail::levels, .cost = {.row_few = 30, .value_bytes = 88}}) {}
PartitionQuantizer::PartitionQuantizer(std::size_t levels, ZeroRule zero, const Traits& traits)
    : Quantizer(traits), levels_(levels), zero_(zero) {}

Fit PartitionQuantizer::fit(const Group& given) const {
  const std::optional<Group> heavy = with_heavy_zeros(given, zero_);
  const Group& group = heavy ? *heavy : given;
  PartitionSolver solver;
  (void)solver.solve_group(group, levels_);
  std::vector<double> levels = solver.levels();
  if (heavy) put_zero(levels);
  if (solver.open_bins().empty()) return {table_of(levels), {}};
  // Thresholds of less gain than that do not add up to the gap that is accepted.
  const double loss = solver.loss() + std::accumulate(group.scatter.begin(), group.scatter.end(), 0.0);
  const double least = loss * (kClosedGap / 16) / static_cast<double>(levels.size());
  return {table_of(levels), ranges_of(group, weigh(group, solver, levels), std::ilogb(std::max(least, 0x1p-1000)) / 2)};
}

Codebook PartitionQuantizer::approximate_fit(const Group& group) const {
  const std::optional<Group> heavy = with_heavy_zeros(group, zero_);
  PartitionSolver solver;
  (void)solver.solve_group(heavy ? *heavy : group, levels_);
  std::vector<double> levels = solver.levels();
  if (heavy) put_zero(levels);
  return table_of(levels);
}

Codebook PartitionQuantizer::fit_values(std::span<const float> values, std::span<const float> importance,
                                        Workspace& workspace) const {
  // Zeros may keep a level: that is decided by values and their counts.
  const auto zeros = static_cast<std::size_t>(std::ranges::count(values, 0.0f));
  if (zero_ == ZeroRule::on ? zeros > 0 : zero_ == ZeroRule::automatic && zeros > 2 && zeros * 1024 >= values.size())
    return Quantizer::fit_values(values, importance, workspace);
  std::array<float, 256> levels{};
  const std::size_t count =
      workspace.get<PartitionSolver>().fit_values(values, importance, std::min(levels_, levels.size()), levels);
  return Codebook::table({levels.begin(), levels.begin() + static_cast<std::ptrdiff_t>(count)});
}

std::vector<Codebook> every_partition(const Group& group, std::size_t most_levels) {
  PartitionSolver solver;
  const LayeredPartition layers = solver.all(group.mean, group.mass, most_levels);
  std::vector<Codebook> books(1);
  std::vector<double> levels;
  for (std::size_t k = 1; k < layers.losses().size(); ++k) {
    cell_means(group.mean, group.mass, layers.ends(k), -1, levels);
    books.push_back(Codebook::table({levels.begin(), levels.end()}));
  }
  return books;
}

std::vector<Codebook> every_partition_with_zero(const Group& group, std::size_t most_levels) {
  const std::optional<Group> heavy = with_heavy_zeros(group, ZeroRule::automatic);
  std::vector<Codebook> books = every_partition(heavy ? *heavy : group, most_levels);
  if (!heavy) return books;
  for (Codebook& book : books) {
    std::vector<double> levels(book.levels().begin(), book.levels().end());
    if (levels.empty()) continue;
    put_zero(levels);
    book = table_of(levels);
  }
  return books;
}

}  // namespace lmq
