// A histogram as bytes, little-endian: u32 magic, u8 version, u8 flags (1 weighted, 2 wide bins, 4 layers), u16 0, u64
// bins, u64 nonfinite, u32 minimum key, u32 maximum key, then by column: u32 key, u64 count, [weighted: u64 mass],
// [layers: u8 layer], [wide: u8 span_bits, u64 + u64 first, u64 + u64 second (low, high)].
#include <algorithm>

#include "lmq/base/bytes.hpp"
#include "lmq/quant/value_histogram.hpp"

namespace lmq {
namespace {
using Bin = ValueHistogram::Bin;
using Wide = unsigned __int128;

constexpr std::uint32_t kMagic = 0x594C4154;  // "TALY"
constexpr std::uint8_t kVersion = 2, kWeighted = 1, kWideBins = 2, kLayered = 4;
constexpr std::uint64_t kMaxSteps = std::uint64_t{1} << 62;  // sum of all importance steps (importance_quantum)
constexpr std::uint32_t kNoKey = 0x7FFFFFFFu;                // would be -0

void put_wide(ByteWriter& out, Wide value) {
  out.le(static_cast<std::uint64_t>(value));
  out.le(static_cast<std::uint64_t>(value >> 64));
}
Wide take_wide(ByteReader& in, std::string_view field) {
  const auto low = in.le<std::uint64_t>(field);
  return Wide{in.le<std::uint64_t>(field)} << 64 | low;
}

/// Where the bins of all layers lie: least and greatest of their first keys and of the ends behind them.
struct Reach {
  std::uint64_t first_key = ~std::uint64_t{0}, first_end = ~std::uint64_t{0}, last_key = 0, end_key = 0;
};

/// Throws when the extremes lie outside the bins.
void check_extremes(const ByteReader& in, std::uint32_t minimum, std::uint32_t maximum, bool empty,
                    const Reach& reach) {
  if (empty) {
    if (minimum != 0xFFFFFFFFu || maximum != 0) in.refuse("extremes of an empty histogram");
    return;
  }
  if (minimum < reach.first_key || minimum >= reach.first_end || maximum < reach.last_key || maximum >= reach.end_key ||
      maximum < minimum || minimum == kNoKey || maximum == kNoKey)
    in.refuse("the extremes lie outside the bins");
}

/// Magic, version and flags.
std::uint8_t read_flags(ByteReader& in) {
  if (in.le<std::uint32_t>("magic") != kMagic) in.refuse("no histogram");
  if (const auto version = in.le<std::uint8_t>("version"); version != kVersion)
    in.refuse("histogram version " + std::to_string(version) + ", expected " + std::to_string(kVersion));
  const auto flags = in.le<std::uint8_t>("flags");
  if (flags > 7 || in.le<std::uint16_t>("reserved") != 0) in.refuse("unknown flags");
  return flags;
}

/// Throws when the bin cannot be a sum over finite floats in its range.
void check_bin(const ByteReader& in, const Bin& bin) {
  if (bin.span_bits > 16)
    in.refuse("a bin spans 2^" + std::to_string(bin.span_bits) + " keys, at most 2^16 are allowed");
  const std::uint64_t widest = (std::uint64_t{1} << bin.span_bits) - 1;
  if ((bin.key & widest) != 0) in.refuse("a bin's key " + std::to_string(bin.key) + " is no multiple of its width");
  if (bin.key < kLowestKey || bin.key > kHighestKey || (bin.key == kNoKey && widest == 0))
    in.refuse("a bin's key " + std::to_string(bin.key) + " is that of no finite float");
  if (bin.count == 0 || bin.mass < bin.count || bin.mass >= kMaxSteps) in.refuse("a bin's count or mass is impossible");
  // Offsets are 0 .. widest and mass >= 1, so first <= mass * widest, first <= second <= first * widest.
  if (bin.first > bin.mass * widest || bin.second < bin.first || bin.second > bin.first * widest)
    in.refuse("a bin's moments are impossible");
  if (widest == 0) return;  // both moments are 0; the divisions below take most of the time
  // Cauchy-Schwarz, second * mass >= first^2, in the form that cannot overflow (see ValueHistogram::group).
  const Wide q = bin.first / bin.mass, r = bin.first % bin.mass;
  if (bin.second < q * (bin.first + r)) in.refuse("a bin's moments are impossible");
  const Wide about_q = bin.second - q * (bin.first + r);
  if (r > 0 && about_q < (r * r + bin.mass - 1) / bin.mass) in.refuse("a bin's moments are impossible");
}

bool is_weighted(std::span<const Bin> bins) {
  for (const Bin& bin : bins)
    if (bin.mass != bin.count) return true;
  return false;
}
bool has_wide_bins(std::span<const Bin> bins) {
  for (const Bin& bin : bins)
    if (bin.span_bits > 0) return true;
  return false;
}
bool has_layers(std::span<const Bin> bins) { return !bins.empty() && bins.back().layer > 0; }
}  // namespace

std::vector<std::byte> ValueHistogram::to_bytes() const {
  const std::uint8_t flags = (is_weighted(bins_) ? kWeighted : 0) | (has_wide_bins(bins_) ? kWideBins : 0) |
                             (has_layers(bins_) ? kLayered : 0);
  ByteWriter out;
  out.le(kMagic);
  out.le(kVersion);
  out.le(flags);
  out.le(std::uint16_t{0});
  out.le(static_cast<std::uint64_t>(bins_.size()));
  out.le(nonfinite_);
  out.le(minimum_key_);
  out.le(maximum_key_);
  for (const Bin& bin : bins_) out.le(bin.key);
  for (const Bin& bin : bins_) out.le(bin.count);
  if (flags & kWeighted)
    for (const Bin& bin : bins_) out.le(static_cast<std::uint64_t>(bin.mass));
  if (flags & kLayered)
    for (const Bin& bin : bins_) out.le(static_cast<std::uint8_t>(bin.layer));
  if (flags & kWideBins)
    for (const Bin& bin : bins_) {
      out.le(static_cast<std::uint8_t>(bin.span_bits));
      put_wide(out, bin.first);
      put_wide(out, bin.second);
    }
  return out.take();
}

ValueHistogram ValueHistogram::from_bytes(std::span<const std::byte> bytes, const std::string& source) {
  ByteReader in(bytes, source);
  const std::uint8_t flags = read_flags(in);
  const auto size = in.le<std::uint64_t>("bins");
  ValueHistogram histogram;
  histogram.nonfinite_ = in.le<std::uint64_t>("nonfinite");
  histogram.minimum_key_ = in.le<std::uint32_t>("minimum key");
  histogram.maximum_key_ = in.le<std::uint32_t>("maximum key");
  const auto keys = in.array<std::uint32_t>(size, "keys");
  const auto counts = in.array<std::uint64_t>(size, "counts");
  const auto masses = in.array<std::uint64_t>(flags & kWeighted ? size : 0, "masses");
  const auto layers = in.array<std::uint8_t>(flags & kLayered ? size : 0, "layers");
  histogram.bins_.resize(keys.size());
  std::uint64_t steps = 0, next_key = 0;
  Reach reach;
  for (std::size_t j = 0; j < keys.size(); ++j) {
    Bin& bin = histogram.bins_[j];
    bin.key = keys[j], bin.count = counts[j], bin.mass = masses.empty() ? counts[j] : masses[j];
    if (flags & kWideBins) {
      bin.span_bits = in.le<std::uint8_t>("span bits");
      bin.first = take_wide(in, "first moment");
      bin.second = take_wide(in, "second moment");
    }
    check_bin(in, bin);
    if (!layers.empty()) bin.layer = layers[j];
    const std::uint16_t layer_before = j > 0 ? histogram.bins_[j - 1].layer : 0;
    if (bin.layer < layer_before || bin.layer >= kLayers || (bin.layer == layer_before && bin.key < next_key))
      in.refuse("bins are not ascending");
    next_key = std::uint64_t{bin.key} + (std::uint64_t{1} << bin.span_bits);
    reach.first_key = std::min<std::uint64_t>(reach.first_key, bin.key);
    reach.first_end = std::min(reach.first_end, next_key);
    reach.last_key = std::max<std::uint64_t>(reach.last_key, bin.key);
    reach.end_key = std::max(reach.end_key, next_key);
    steps += static_cast<std::uint64_t>(bin.mass);
    if (steps >= kMaxSteps) in.refuse("the sum of importance steps exceeds 2^62");
  }
  if (in.left() != 0) in.refuse(std::to_string(in.left()) + " bytes too many");
  check_extremes(in, histogram.minimum_key_, histogram.maximum_key_, histogram.bins_.empty(), reach);
  return histogram;
}

}  // namespace lmq
