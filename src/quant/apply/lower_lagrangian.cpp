#include "lower_lagrangian.hpp"

#include <array>

#include "lmq/kernels/pack.hpp"
#include "lmq/kernels/rate_cells.hpp"

namespace lmq {

double unit_bits(const QuantizedUnit& unit) {
  std::array<std::uint64_t, 256> counts{};
  count_codes(unit.codes, counts);
  double bits = static_cast<double>(unit.book_numbers()) * (unit.level_type == LevelType::f16 ? 16 : 32);
  const auto all = static_cast<double>(unit.count);
  for (const std::uint64_t n : counts)
    if (n > 0) bits -= static_cast<double>(n) * plain_log2(static_cast<double>(n) / all);
  return bits;
}

bool lower_lagrangian(const QuantizedUnit& a, double error_a, const QuantizedUnit& b, double error_b) {
  if (!(error_a > 0) || !(error_b > 0)) return error_a < error_b || (error_a == error_b && unit_bits(a) < unit_bits(b));
  return unit_bits(a) + static_cast<double>(a.count) / 2 * plain_log2(error_a / error_b) < unit_bits(b);
}

}  // namespace lmq
