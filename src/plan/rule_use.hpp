#pragma once
#include <vector>

#include "lmq/base/tensor.hpp"
#include "lmq/plan/plan.hpp"
#include "lmq/plan/recipe.hpp"

namespace lmq {

/// The place of rules that are there without being written.
inline constexpr const char* kBuiltIn = "built in";

/// Errc::usage for the first rule that matches no tensor: its place, its pattern, and the names that come near. Rules
/// that match everything, those of default_rules() and optional ones may match nothing. O(rules * bytes of all names).
void check_rules_match(const std::vector<TensorInfo>& tensors, const Recipe& recipe);

/// No tensor's bits are to be chosen, and rules are why: they say the bits, or keep. False where tensors are kept for
/// what they are (small, of integers, quantized already): then it is not the size that is at fault.
[[nodiscard]] bool rules_say_all_bits(const std::vector<TensorPlan>& tensors, const std::vector<Rule>& rules);

}  // namespace lmq
