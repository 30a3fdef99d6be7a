#include <algorithm>
#include <array>

#include "lmq/quant/partition.hpp"
#include "methods.hpp"

namespace lmq {
namespace {

constexpr std::size_t kMostNewBins = std::size_t{1} << 19;  // asked for in one round

// The open bins as ranges, cut as finely as the round allows; at least in two.
std::vector<KeyRange> ranges_of(const Group& group, std::span<const std::uint32_t> bins) {
  const auto asked = [&](unsigned finer) {
    std::size_t sum = 0;
    for (const std::uint32_t bin : bins) sum += std::size_t{1} << std::min(finer, span_bits(group, bin));
    return sum;
  };
  if (bins.empty()) return {};
  unsigned finer = 1;
  while (finer < 32 && asked(finer + 1) <= kMostNewBins) ++finer;
  std::vector<KeyRange> ranges;
  for (const std::uint32_t bin : bins) {
    const std::uint32_t begin = ordered_key(group.low[bin]), end = last_key(group, bin);
    const unsigned bits = span_bits(group, bin), left = bits - std::min(bits, finer);
    if (!ranges.empty() && ranges.back().end + 1 == begin && ranges.back().span_bits == left)
      ranges.back().end = end;
    else
      ranges.push_back({begin, end, left});
  }
  return ranges;
}

Codebook table_of(const std::vector<double>& levels) {
  std::vector<float> rounded(levels.size());
  std::ranges::transform(levels, rounded.begin(), [](double level) { return static_cast<float>(level); });
  return Codebook::table(std::move(rounded));
}

class KmeansQuantizer final : public Quantizer {
 public:
  explicit KmeansQuantizer(std::size_t levels) : levels_(levels) {}

  [[nodiscard]] Fit fit(const Group& group) const override {
    PartitionSolver solver;
    (void)solver.solve_group(group, levels_);
    return {table_of(solver.levels()), ranges_of(group, solver.open_bins())};
  }

  [[nodiscard]] Codebook fit_values(std::span<const float> values, std::span<const float> importance,
                                    FitScratch& scratch) const override {
    std::array<float, 256> levels{};
    const std::size_t count =
        scratch.partition().fit_values(values, importance, std::min(levels_, levels.size()), levels);
    return Codebook::table({levels.begin(), levels.begin() + static_cast<std::ptrdiff_t>(count)});
  }

 private:
  std::size_t levels_;
};

}  // namespace

const QuantizerEntry kKmeans{
    .id = 2,  // written to files: never reused, never renumbered
    .name = "kmeans",
    .summary = "least squared error, weighted by importance: the exact optimum",
    .source =
        "Choi, El-Khamy & Lee 2017, Towards the Limit of Network Quantization, section 3 (Hessian-weighted k-means); "
        "Bruce 1964 (exact, by dynamic programming)",
    .make = [](const QuantizerOptions& options) -> std::unique_ptr<Quantizer> {
      return std::make_unique<KmeansQuantizer>(options.levels);
    }};

}  // namespace lmq
