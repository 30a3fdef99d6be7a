#pragma once
#include <cstdint>
#include <optional>
#include <string>

#include "lmq/run/executor.hpp"
#include "lmq/run/task.hpp"

namespace lmq {

/// Everything that decides a task's result but the values it reads, as digest128_hex: tensor (name, type, shape, block
/// scales), the elements, importance, method and options, codebook. Two plans that have a task of the same identity
/// make the same of it; whether the values are the same is told by Finished::source.
/// By the task's row of the table; of kinds that are not found by it "". Cost: 1 us, and the digest of the body.
[[nodiscard]] std::string task_identity(const RunContext& context, const Task& task);

/// Of what is made of a unit's weights by the unit's specification and the body.
[[nodiscard]] std::string unit_identity(const RunContext& context, const Task& task);

/// Of a scope's solve in a round (without its version), with a budget's options or the plan's.
[[nodiscard]] std::string solve_identity(const RunContext& context, std::uint64_t scope,
                                         const std::optional<QuantizerOptions>& options, std::uint32_t round);

[[nodiscard]] std::string curve_identity(const RunContext& context, std::uint64_t scope);
/// Of the elements of a unit as they are read.
[[nodiscard]] std::string elements_identity(const RunContext& context, std::uint64_t unit);

}  // namespace lmq
