#include "lmq/kernels/stochastic.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "lmq/base/random.hpp"
#include "lmq/kernels/isa.hpp"
#include "lmq/kernels/widen.hpp"
#include "stochastic_simd.hpp"

namespace lmq {
namespace {
constexpr std::size_t kBlock = 1024;                            // weights rounded at once
constexpr std::size_t kMany = std::size_t{1} << 16;             // a table of patterns pays
constexpr std::uint64_t kDraws = (std::uint64_t{1} << 40) - 1;  // of a table's entry

bool goes_up(std::uint32_t draw, float weight, double low, double scale) noexcept {
  return static_cast<double>(draw) < (double{weight} - low) * scale;
}
}  // namespace

void StochasticLevel::prepare(std::span<const float> levels, DType type, std::uint64_t key, std::size_t expected) {
  type_ = type;
  key_ = key;
  count_ = 0;
  std::array<float, 256> distinct{};
  for (std::size_t k = 0; k < levels.size(); ++k) {
    if (count_ > 0 && levels[k] == distinct[count_ - 1]) continue;
    index_[count_] = static_cast<Code>(k);
    distinct[count_++] = levels[k];
  }
  distinct_ = index_[count_ - 1] + std::size_t{1} == count_;
  for (std::size_t k = 0; k < count_; ++k) {
    low_[k] = distinct[k];
    scale_[k] = k + 1 < count_ ? 0x1p32 / (double{distinct[k + 1]} - low_[k]) : 0.0;
  }
  below_.prepare_boundaries(std::span(distinct).subspan(1, count_ - 1), type, expected);
  table_.clear();
  if (bits(type) == 16 && expected >= kMany) prepare_table();
}

void StochasticLevel::prepare_table() {
  table_.resize(65536);
  std::vector<std::uint16_t> patterns(65536);
  for (std::size_t p = 0; p < patterns.size(); ++p) patterns[p] = static_cast<std::uint16_t>(p);
  std::vector<float> values(65536);
  std::vector<Code> codes(65536);
  widen(type_, std::as_bytes(std::span(patterns)), values);
  below_.assign(std::as_bytes(std::span(patterns)), codes);
  for (std::size_t p = 0; p < patterns.size(); ++p) {
    const double place = (double{values[p]} - low_[codes[p]]) * scale_[codes[p]];
    const double below = place > 0 ? std::min(std::ceil(place), 0x1p32) : 0.0;  // draws below `place`; NaN: none
    table_[p] = std::uint64_t{codes[p]} << 40 | static_cast<std::uint64_t>(below);
  }
}

void StochasticLevel::assign_table(const std::byte* weights, const std::uint32_t* draws,
                                   std::span<Code> codes) const noexcept {
  const std::uint64_t* const table = table_.data();
  for (std::size_t i = 0; i < codes.size(); ++i) {
    std::uint16_t pattern;
    std::memcpy(&pattern, weights + 2 * i, sizeof pattern);
    const std::uint64_t entry = table[pattern];
    codes[i] = static_cast<Code>((entry >> 40) + (draws[i] < (entry & kDraws)));
  }
}

void StochasticLevel::assign(std::span<const std::byte> weights, std::uint64_t first,
                             std::span<Code> codes) const noexcept {
  if (baseline_forced()) return assign_reference(weights, first, codes);
  const std::size_t size = bits(type_) / 8;
  std::array<std::uint32_t, kBlock> draws;
  std::array<float, kBlock> floats;
  for (std::size_t begin = 0; begin < codes.size(); begin += kBlock) {
    const auto block = codes.subspan(begin, std::min(kBlock, codes.size() - begin));
    const auto from = weights.subspan(begin * size, block.size() * size);
    draws_vector(key_, first + begin, block.size(), draws.data());
    if (!table_.empty()) {
      assign_table(from.data(), draws.data(), block);
    } else {
      below_.assign(from, block);
      widen(type_, from, std::span(floats).first(block.size()));
      round_up_vector(floats.data(), draws.data(), block.size(), low_.data(), scale_.data(), block.data());
    }
    if (distinct_) continue;
    for (Code& code : block) code = index_[code];
  }
}

void StochasticLevel::assign_reference(std::span<const std::byte> weights, std::uint64_t first,
                                       std::span<Code> codes) const noexcept {
  const std::size_t size = bits(type_) / 8;
  for (std::size_t i = 0; i < codes.size(); ++i) {
    float weight = 0;
    reference::widen(type_, weights.subspan(i * size, size), {&weight, 1});
    std::size_t k = 0;
    while (k + 1 < count_ && low_[k + 1] <= double{weight}) ++k;
    codes[i] = index_[k + goes_up(draw32(key_, first + i), weight, low_[k], scale_[k])];
  }
}

void assign_stochastic(DType type, std::span<const std::byte> weights, std::span<const float> levels, std::uint64_t key,
                       std::uint64_t first, std::span<Code> codes) {
  StochasticLevel level;
  level.prepare(levels, type, key, codes.size());
  level.assign(weights, first, codes);
}

}  // namespace lmq
