#include "core/grid_rounding.hpp"

#include <algorithm>
#include <cmath>

namespace lmq {
namespace {
/// The next smaller number that `type` stores with this exponent.
float next_smaller(float step, LevelType type, int exponent) noexcept {
  if (type == LevelType::f32) return std::nextafter(step, 0.0f);
  const std::uint16_t half = to_scaled_half(step, exponent);
  return half == 0 ? 0.0f : from_scaled_half(static_cast<std::uint16_t>(half - 1), exponent);
}
}  // namespace

void round_grids(std::span<float> book, std::size_t levels, LevelType type) {
  round_levels(book, type);
  const int exponent = half_exponent(book);
  for (std::size_t at = 0; at + 1 < book.size() && levels > 1; at += 2) {
    float& step = book[at + 1];
    const auto rise = static_cast<float>(levels - 1);
    while (step > 0 && !std::isfinite(book[at] + rise * step)) step = next_smaller(step, type, exponent);
  }
}

void narrow_tables(QuantizedUnit& unit, std::size_t width) {
  const std::size_t books = unit.book.size() / unit.levels;
  for (std::size_t b = 0; b < books && width < unit.levels; ++b)
    std::ranges::copy_n(unit.book.begin() + static_cast<std::ptrdiff_t>(b * unit.levels),
                        static_cast<std::ptrdiff_t>(width), unit.book.begin() + static_cast<std::ptrdiff_t>(b * width));
  unit.levels = static_cast<std::uint32_t>(width);
  unit.book.resize(books * width);
}

}  // namespace lmq
