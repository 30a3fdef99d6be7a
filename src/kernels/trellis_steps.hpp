#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "lmq/kernels/trellis_decode.hpp"

namespace lmq {

/// Widest escape: magnitudes of codes that trellis_search can make, and no more.
inline constexpr std::uint32_t kMaxEscapeWidth = 20;

/// Spread class of a lane's weight.
[[nodiscard]] unsigned spread_at(const TrellisDiagonal& diagonal, std::size_t row, std::size_t col,
                                 std::size_t lane) noexcept;
/// The codes of lanes that are escapes; false where words run out or a code is none. Paths in cursor are those before
/// the step.
[[nodiscard]] bool take_escapes(const TrellisTables& tables, TrellisCursor& cursor, const TrellisDiagonal& diagonal,
                                std::size_t step, std::span<std::int32_t> codes) noexcept;
/// One step of all lanes: row diagonal.first_row - step.
[[nodiscard]] bool trellis_step(const TrellisTables& tables, TrellisCursor& cursor, const TrellisDiagonal& diagonal,
                                std::size_t step) noexcept;

}  // namespace lmq
