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
/// The model for one table and its codes: the fewest bits whose price is within 1/4096 of the best.
[[nodiscard]] RansModel choose_model(const CodeCounts& counts);

/// The frequencies as bits (docs/format.md, section 2.3).
[[nodiscard]] std::vector<std::byte> write_model(const RansModel& model);
/// The reverse; takes exactly the model's bytes. Errc::malformed unless it keeps the rules of is_valid.
[[nodiscard]] RansModel read_model(ByteReader& in, unsigned bits, unsigned symbols);

}  // namespace lmq
