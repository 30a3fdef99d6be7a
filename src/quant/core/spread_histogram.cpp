#include "lmq/quant/spread_histogram.hpp"

#include <algorithm>

#include "lmq/base/bytes.hpp"
#include "lmq/base/trellis_unit.hpp"

namespace lmq {
namespace {
constexpr std::uint32_t kMagic = 0x41545053;                   // "SPTA"
constexpr std::uint64_t kMaxWeights = std::uint64_t{1} << 40;  // of a bin, so that sums of histograms stay numbers

double square_of(int eighths) noexcept {
  const double spread = octave_eighths(eighths);
  return spread * spread;
}
}  // namespace

void SpreadHistogram::add(int eighths, std::uint64_t weights, double gain) {
  if (weights == 0) return;
  if (count_.empty()) count_.resize(kBins), gain_.resize(kBins);
  const auto bin = static_cast<std::size_t>(std::clamp(eighths, kLowest, kLowest + kBins - 1) - kLowest);
  count_[bin] += weights;
  gain_[bin] += weights * static_cast<std::uint64_t>(kGainOne * std::clamp(gain, 0.0, kMaxGain) + 0.5);
}

void SpreadHistogram::merge(const SpreadHistogram& other) {
  if (other.empty()) return;
  if (empty()) {
    *this = other;
    return;
  }
  for (std::size_t bin = 0; bin < count_.size(); ++bin)
    count_[bin] += other.count_[bin], gain_[bin] += other.gain_[bin];
}

std::uint64_t SpreadHistogram::weights() const noexcept {
  std::uint64_t sum = 0;
  for (const std::uint64_t count : count_) sum += count;
  return sum;
}

double SpreadHistogram::mean_square() const noexcept {
  double sum = 0, weights = 0;
  for (std::size_t bin = 0; bin < count_.size(); ++bin) {
    const auto count = static_cast<double>(count_[bin]);
    weights += count;
    if (bin > 0) sum += count * square_of(kLowest + static_cast<int>(bin));  // the lowest stands for zeros
  }
  return weights > 0 ? sum / weights : 0;
}

std::vector<SpreadHistogram::Bin> SpreadHistogram::bins() const {
  std::vector<Bin> made;
  for (std::size_t bin = 0; bin < count_.size(); ++bin)
    if (count_[bin] > 0)
      made.push_back({square_of(kLowest + static_cast<int>(bin)), count_[bin],
                      static_cast<double>(gain_[bin]) / (kGainOne * static_cast<double>(count_[bin]))});
  return made;
}

std::vector<std::byte> SpreadHistogram::to_bytes() const {
  ByteWriter out;
  out.le(kMagic);
  out.le(static_cast<std::uint32_t>(std::ranges::count_if(count_, [](std::uint64_t count) { return count > 0; })));
  for (std::size_t bin = 0; bin < count_.size(); ++bin)
    if (count_[bin] > 0) out.le(static_cast<std::uint32_t>(bin)), out.le(count_[bin]), out.le(gain_[bin]);
  return out.take();
}

SpreadHistogram SpreadHistogram::from_bytes(std::span<const std::byte> bytes, const std::string& source) {
  ByteReader in(bytes, source);
  if (in.le<std::uint32_t>("magic") != kMagic) in.refuse("no histogram of spreads");
  const auto held = in.le<std::uint32_t>("bins");
  if (held > kBins) in.refuse("more bins than there are");
  SpreadHistogram histogram;
  if (held > 0) histogram.count_.resize(kBins), histogram.gain_.resize(kBins);
  for (std::uint32_t k = 0, next = 0; k < held; ++k) {
    const auto bin = in.le<std::uint32_t>("bin");
    if (bin < next || bin >= static_cast<std::uint32_t>(kBins)) in.refuse("bins that do not ascend");
    next = bin + 1;
    const auto weights = in.le<std::uint64_t>("weights"), gain = in.le<std::uint64_t>("gain");
    if (weights == 0 || weights > kMaxWeights) in.refuse("a bin of " + std::to_string(weights) + " weights");
    if (gain > weights * static_cast<std::uint64_t>(kGainOne * kMaxGain)) in.refuse("a gain that cannot be");
    histogram.count_[bin] = weights, histogram.gain_[bin] = gain;
  }
  if (in.left() != 0) in.refuse("bytes after the last bin");
  return histogram;
}

}  // namespace lmq
