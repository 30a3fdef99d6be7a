#pragma once
#include <concepts>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>

#include "lmq/base/error.hpp"

namespace lmq {

/// `value` as `To`, or Errc::internal when it does not fit; `what` names the quantity in the message.
template <std::integral To, std::integral From>
[[nodiscard]] constexpr To narrow(From value, const char* what) {
  return std::in_range<To>(value) ? static_cast<To>(value)
                                  : (fail(Errc::internal, std::string(what) + " does not fit"), To{});
}

/// a * b into `out`; false on overflow (then `out` is unspecified).
[[nodiscard]] constexpr bool checked_mul(std::uint64_t a, std::uint64_t b, std::uint64_t& out) noexcept {
  return !__builtin_mul_overflow(a, b, &out);
}

/// a + b into `out`; false on overflow (then `out` is unspecified).
[[nodiscard]] constexpr bool checked_add(std::uint64_t a, std::uint64_t b, std::uint64_t& out) noexcept {
  return !__builtin_add_overflow(a, b, &out);
}

/// Smallest integer >= a / b, b > 0; never overflows.
[[nodiscard]] constexpr std::uint64_t ceil_div(std::uint64_t a, std::uint64_t b) noexcept {
  return a / b + (a % b != 0);
}

}  // namespace lmq
