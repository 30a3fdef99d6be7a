#include "lmq/quant/group.hpp"

#include <algorithm>
#include <bit>

#include "lmq/kernels/keys.hpp"

namespace lmq {

std::uint32_t ordered_key(float value) noexcept { return float_key(value); }
float from_ordered_key(std::uint32_t key) noexcept { return key_float(key); }

bool Group::resolved() const noexcept {
  for (std::size_t j = 0; j < size(); ++j)
    if (low[j] != high[j]) return false;
  return true;
}

// No float has the key before that of 0, which is read as 0.
std::uint32_t last_key(const Group& group, std::size_t bin) noexcept {
  return ordered_key(group.high[bin]) - (group.low[bin] < 0 && group.high[bin] == 0 ? 1 : 0);
}

unsigned span_bits(const Group& group, std::size_t bin) noexcept {
  return static_cast<unsigned>(std::bit_width(last_key(group, bin) - ordered_key(group.low[bin])));
}

std::vector<KeyRange> refine_all(const Group& group, std::size_t most_bins) {
  unsigned widest = 0;
  for (std::size_t j = 0; j < group.size(); ++j) widest = std::max(widest, span_bits(group, j));
  // A bin of n weights has at most n values, however finely it is cut.
  const auto asked = [&](unsigned finer) {
    double sum = 0;
    for (std::size_t j = 0; j < group.size(); ++j)
      sum += std::min(group.count[j], static_cast<double>(std::uint64_t{1} << std::min(finer, span_bits(group, j))));
    return sum;
  };
  const auto most = static_cast<double>(most_bins);
  if (widest == 0 || asked(1) > most) return {};
  unsigned finer = 1;
  while (finer < widest && asked(finer + 1) <= most) ++finer;
  std::vector<KeyRange> ranges;
  for (std::size_t j = 0; j < group.size(); ++j) {
    const unsigned bits = span_bits(group, j);
    if (bits == 0) continue;
    const std::uint32_t begin = ordered_key(group.low[j]), end = last_key(group, j);
    const unsigned left = bits - std::min(bits, finer);
    if (!ranges.empty() && ranges.back().end + 1 == begin && ranges.back().span_bits == left)
      ranges.back().end = end;
    else
      ranges.push_back({begin, end, left});
  }
  return ranges;
}

std::vector<KeyRange> refine_at(const Group& group, std::span<const std::uint32_t> bins, std::size_t most_bins) {
  const auto asked = [&](unsigned finer) {
    std::size_t sum = 0;
    for (const std::uint32_t bin : bins) sum += std::size_t{1} << std::min(finer, span_bits(group, bin));
    return sum;
  };
  if (bins.empty()) return {};
  unsigned finer = 1;
  while (finer < 32 && asked(finer + 1) <= most_bins) ++finer;
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

}  // namespace lmq
