#pragma once
#include <algorithm>
#include <map>

#include "lmq/base/bytes.hpp"
#include "task_type.hpp"

namespace lmq::test {

inline constexpr TaskKind kZeros{200};
/// What rank 0 was told, by unit.
[[nodiscard]] std::map<std::uint64_t, std::uint32_t>& zeros_taken();

}  // namespace lmq::test
