#pragma once
#include <vector>

#include "lmq/base/tensor.hpp"
#include "lmq/plan/recipe.hpp"

namespace lmq {

/// Errc::usage for the first rule that matches no tensor: its place, its pattern, and the names that come near. Rules
/// that match everything, those of default_rules() and optional ones may match nothing. O(rules * bytes of all names).
void check_rules_match(const std::vector<TensorInfo>& tensors, const Recipe& recipe);

}  // namespace lmq
