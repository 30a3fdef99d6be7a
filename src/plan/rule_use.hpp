#pragma once
#include <vector>

#include "lmq/base/tensor.hpp"
#include "lmq/plan/plan.hpp"
#include "lmq/plan/recipe.hpp"

namespace lmq {

/// Errc::usage for the first rule that matches no tensor: its place, its pattern, and the names that come near. Rules
/// that match everything, those of default_rules() and optional ones may match nothing. O(rules * bytes of all names).
void check_rules_match(const std::vector<TensorInfo>& tensors, const Recipe& recipe);

/// Some tensor's bits are to be chosen, or there is none but for weights that are quantized already, whom no rule keeps:
/// then it is not the size that is at fault. notes: [tensors], nullptr: none
[[nodiscard]] bool may_choose_bits(const std::vector<TensorPlan>& tensors, const std::vector<const TensorNote*>& notes);

}  // namespace lmq
