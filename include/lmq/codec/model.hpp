#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "lmq/base/bytes.hpp"
#include "lmq/kernels/rans.hpp"

namespace lmq {

/// log2(value) with 32 fractional bits, truncated; value >= 1. Integers only, so that it may decide bytes.
[[nodiscard]] std::uint64_t log2_q32(std::uint32_t value) noexcept;

/// Codes per symbol; at most 2^30 in all.
using CodeCounts = std::array<std::uint64_t, 256>;

/// The frequencies that sum to 2^bits and give the fewest bits for these counts (largest sum of c[s] * log2 f[s], f[s]
/// >= 1 where c[s] > 0): exact up to the resolution of log2_q32. At least two counts above 0 and no more of them than
/// 2^bits.
[[nodiscard]] RansModel fit_model(const CodeCounts& counts, unsigned bits) noexcept;
/// Bits the codes cost under the model, rounded up; states not counted.
[[nodiscard]] std::uint64_t coded_bits(const CodeCounts& counts, const RansModel& model) noexcept;
/// What they cost beyond because states are integers: (1 - sum p^2) / (24 * Q^2 * ln 2^16 * ln 2) bits each with Q =
/// 2^(16 - bits), the least quotient x / f. Where x / f = q + u, a symbol costs log(q + v) - log(q + u) too much, v
/// being the place in all M that u in [0, 1) has in the symbol's range; u and v are alike but for the density 1 / x of
/// states, whose covariance with both logs is (1 - sum p^2) / (12 q^3), summed over all q. At most .00135.
[[nodiscard]] std::uint64_t rounding_bits(const CodeCounts& counts, const RansModel& model) noexcept;
/// The model for one table and its codes. At most kRansQuickBits where that costs no more than 1/8192 (1/4096 with more
/// than kRansFewSymbols symbols, whose long tables are slow); then the fewest bits whose price is within 1/65536 of the
/// best that is left (1/4096 with more symbols and bits).
[[nodiscard]] RansModel choose_model(const CodeCounts& counts);

/// The frequencies as bits (docs/format.md, section 2.4).
[[nodiscard]] std::vector<std::byte> write_model(const RansModel& model);
/// The reverse; takes exactly the model's bytes. Errc::malformed unless it keeps the rules of is_valid.
[[nodiscard]] RansModel read_model(ByteReader& in, unsigned bits, unsigned symbols);

}  // namespace lmq
