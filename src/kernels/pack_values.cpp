#include <algorithm>
#include <array>

#include "lmq/kernels/isa.hpp"
#include "lmq/kernels/pack.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "pack_values.cpp"
#include "targets.hpp"
// foreach_target must come before highway.h
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace lmq::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// Values of whole vectors from the front; returns how many. `table` has 32 entries. Lanes must reach across 16
/// entries.
std::size_t table_some([[maybe_unused]] const std::uint8_t* codes, [[maybe_unused]] std::size_t count,
                       [[maybe_unused]] const float* table, [[maybe_unused]] std::size_t levels,
                       [[maybe_unused]] float* values) {
  std::size_t i = 0;
#if HWY_TARGET <= HWY_AVX3
  const hn::ScalableTag<float> d;
  const hn::RebindToUnsigned<decltype(d)> index;
  const hn::Rebind<std::uint8_t, decltype(d)> bytes;
  const auto low = hn::LoadU(d, table), high = hn::LoadU(d, table + 16);
  if (levels <= 16) {
    for (; i + 16 <= count; i += 16)
      hn::StoreU({_mm512_permutexvar_ps(hn::PromoteTo(index, hn::LoadU(bytes, codes + i)).raw, low.raw)}, d,
                 values + i);
  } else {
    for (; i + 16 <= count; i += 16)
      hn::StoreU({_mm512_permutex2var_ps(low.raw, hn::PromoteTo(index, hn::LoadU(bytes, codes + i)).raw, high.raw)}, d,
                 values + i);
  }
#elif HWY_TARGET <= HWY_AVX2
  const hn::ScalableTag<float> d;
  const hn::RebindToSigned<decltype(d)> index;
  const hn::Rebind<std::uint8_t, decltype(d)> bytes;
  for (; i + 8 <= count; i += 8)
    hn::StoreU(hn::GatherIndex(d, table, hn::PromoteTo(index, hn::LoadU(bytes, codes + i))), d, values + i);
#endif
  return i;
}

std::size_t grid_some(const std::uint8_t* codes, std::size_t count, float low, float step, float* values) {
  const hn::ScalableTag<float> d;
  const hn::RebindToSigned<decltype(d)> wide;
  const hn::Rebind<std::uint8_t, decltype(d)> bytes;
  const std::size_t width = hn::Lanes(d);
  const auto low_ = hn::Set(d, low), step_ = hn::Set(d, step);
  std::size_t i = 0;
  for (; i + width <= count; i += width)  // two roundings: no fused multiply-add
    hn::StoreU(hn::Add(low_, hn::Mul(hn::ConvertTo(d, hn::PromoteTo(wide, hn::LoadU(bytes, codes + i))), step_)), d,
               values + i);
  return i;
}

}  // namespace lmq::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lmq {
HWY_EXPORT(table_some);
HWY_EXPORT(grid_some);

void table_values(std::span<const std::uint8_t> codes, std::span<const float> levels,
                  std::span<float> values) noexcept {
  std::size_t i = 0;
  if (levels.size() <= 32 && codes.size() >= 16 && !baseline_forced()) {
    std::array<float, 32> table{};
    std::ranges::copy(levels, table.begin());
    i = HWY_DYNAMIC_DISPATCH(table_some)(codes.data(), codes.size(), table.data(), levels.size(), values.data());
  }
  for (; i < codes.size(); ++i) values[i] = levels[codes[i]];
}

void grid_values(std::span<const std::uint8_t> codes, float low, float step, std::span<float> values) noexcept {
  std::size_t i = 0;
  if (!baseline_forced()) i = HWY_DYNAMIC_DISPATCH(grid_some)(codes.data(), codes.size(), low, step, values.data());
  for (; i < codes.size(); ++i) {
    const float scaled = static_cast<float>(codes[i]) * step;
    values[i] = low + scaled;
  }
}

void scale_values(float row, std::span<const float> columns, std::span<float> values) noexcept {
  for (std::size_t i = 0; i < values.size(); ++i) {
    const float factor = row * columns[i];
    values[i] = factor * values[i] + 0.0F;
  }
}

}  // namespace lmq
#endif
