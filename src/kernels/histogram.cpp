#include "lmq/kernels/histogram.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "lmq/kernels/isa.hpp"
#include "lmq/kernels/keys.hpp"
#include "moments.hpp"
#include "unaligned.hpp"

// Counting is bound by loads and stores of single counters, which no vector unit helps: the fast form only spreads
// neighbours over several tables, because adding to the counter just written waits for that store.
namespace lmq {
namespace {
constexpr std::size_t kPatterns = 65536;

std::uint64_t load64(const std::byte* at) noexcept {
  std::uint64_t word;
  std::memcpy(&word, at, sizeof word);
  return word;
}
}  // namespace

Histogram16::Histogram16() : tables_(kTables * kPatterns) {}

void Histogram16::add(const std::byte* patterns, std::size_t count) {
  if (pending_ + count > 0xFFFFFFFFu || pending_ + count < pending_) {  // a counter might overflow
    constexpr std::size_t kPart = std::size_t{1} << 30;
    if (carry_.empty()) carry_.resize(kPatterns);
    for (; count > kPart; count -= kPart, patterns += 2 * kPart) add(patterns, kPart);
    std::vector<std::uint64_t> kept;
    kept.swap(carry_);
    drain(kept);
    kept.swap(carry_);
  }
  pending_ += count;
  std::uint32_t* const t0 = tables_.data();
  std::uint32_t* const t1 = t0 + kPatterns;
  std::uint32_t* const t2 = t1 + kPatterns;
  std::uint32_t* const t3 = t2 + kPatterns;
  const std::byte* const end = patterns + 2 * count;
  if (baseline_forced()) {
    for (; patterns != end; patterns += 2) ++t0[*reinterpret_cast<const unaligned::u16*>(patterns)];
    return;
  }
  for (; end - patterns >= 16; patterns += 16) {
    const std::uint64_t a = load64(patterns), b = load64(patterns + 8);
    ++t0[a & 0xFFFF];
    ++t1[a >> 16 & 0xFFFF];
    ++t2[a >> 32 & 0xFFFF];
    ++t3[a >> 48];
    ++t0[b & 0xFFFF];
    ++t1[b >> 16 & 0xFFFF];
    ++t2[b >> 32 & 0xFFFF];
    ++t3[b >> 48];
  }
  for (; patterns != end; patterns += 2) ++t0[*reinterpret_cast<const unaligned::u16*>(patterns)];
}

void Histogram16::drain(std::span<std::uint64_t> totals) {
  std::uint32_t* const t0 = tables_.data();
  for (std::size_t p = 0; p < kPatterns; ++p)
    totals[p] += std::uint64_t{t0[p]} + t0[p + kPatterns] + t0[p + 2 * kPatterns] + t0[p + 3 * kPatterns];
  std::memset(t0, 0, tables_.size() * sizeof(std::uint32_t));
  for (std::size_t p = 0; p < carry_.size(); ++p) totals[p] += carry_[p];
  carry_.clear();
  pending_ = 0;
}

void add_histogram8(const std::byte* bytes, std::size_t count, std::span<std::uint64_t> counts) noexcept {
  if (baseline_forced()) return reference::add_histogram8(bytes, count, counts);
  std::array<std::array<std::uint32_t, 256>, 8> tables;
  constexpr std::size_t kPart = std::size_t{1} << 30;
  for (const std::byte* const end = bytes + count; bytes != end;) {
    const std::byte* const stop = bytes + std::min<std::size_t>(kPart, static_cast<std::size_t>(end - bytes));
    for (auto& table : tables) table.fill(0);
    for (; stop - bytes >= 8; bytes += 8) {
      const std::uint64_t word = load64(bytes);
      for (unsigned k = 0; k < 8; ++k) ++tables[k][word >> (8 * k) & 0xFF];
    }
    for (; bytes != stop; ++bytes) ++tables[0][static_cast<std::uint8_t>(*bytes)];
    for (std::size_t p = 0; p < 256; ++p)
      for (const auto& table : tables) counts[p] += table[p];
  }
}

MomentHistogram::MomentHistogram() : cells_(kPatterns) {}

void MomentHistogram::add(const std::byte* floats, std::size_t count) {
  constexpr std::uint64_t kMax = (1u << 24) - 1;  // then count and sum of offsets fit their 24 and 40 bits
  while (count > 0) {
    const std::size_t part = std::min<std::size_t>(count, kMax - pending_);
    const KeyExtremes extremes = baseline_forced() ? add_moments_plainly(floats, part, cells_.data())
                                                   : add_moments_vector(floats, part, cells_.data());
    extremes_.lowest = std::min(extremes_.lowest, extremes.lowest);
    extremes_.highest = std::max(extremes_.highest, extremes.highest);
    pending_ += part, floats += 4 * part, count -= part;
    if (pending_ == kMax) spill();
  }
}

void MomentHistogram::spill() {
  std::vector<Moments> kept;
  kept.swap(carry_);
  kept.resize(kPatterns);
  const KeyExtremes extremes = drain(kept);
  kept.swap(carry_);
  extremes_ = extremes;
}

KeyExtremes MomentHistogram::drain(std::span<Moments> totals) {
  for (std::size_t bin = 0; bin < kPatterns; ++bin) {
    Cell& cell = cells_[bin];
    if (cell.packed == 0) continue;
    totals[bin].count += cell.packed >> 40;
    totals[bin].first += cell.packed & ((std::uint64_t{1} << 40) - 1);
    totals[bin].second += cell.second;
    cell = {};
  }
  for (std::size_t bin = 0; bin < carry_.size(); ++bin) {
    totals[bin].count += carry_[bin].count;
    totals[bin].first += carry_[bin].first;
    totals[bin].second += carry_[bin].second;
  }
  carry_.clear();
  pending_ = 0;
  return std::exchange(extremes_, {});
}

namespace reference {

void add_histogram16(const std::byte* patterns, std::size_t count, std::span<std::uint64_t> counts) noexcept {
  for (std::size_t i = 0; i < count; ++i) ++counts[reinterpret_cast<const unaligned::u16*>(patterns)[i]];
}

void add_histogram8(const std::byte* bytes, std::size_t count, std::span<std::uint64_t> counts) noexcept {
  for (std::size_t i = 0; i < count; ++i) ++counts[static_cast<std::uint8_t>(bytes[i])];
}

void add_moments(const std::byte* floats, std::size_t count, std::span<Moments> totals) noexcept {
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint32_t key =
        float_key(std::bit_cast<float>(std::uint32_t{reinterpret_cast<const unaligned::u32*>(floats)[i]}));
    Moments& bin = totals[key >> 16];
    const std::uint64_t offset = key & 0xFFFFu;
    ++bin.count;
    bin.first += offset;
    bin.second += static_cast<unsigned __int128>(offset) * offset;
  }
}

}  // namespace reference
}  // namespace lmq
