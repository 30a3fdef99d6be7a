#pragma once
#include <cstdint>
#include <vector>

#include "lmq/io/companions.hpp"
#include "lmq/io/reader.hpp"
#include "model_config.hpp"

namespace lmq {

/// Notes weights of integers that have companions, and the companions of all weights (Fitness::companion), with a
/// warning that names how many, the method, and what to start from. After pair_block_scales.
void mark_companions(Catalogue& catalogue, const std::vector<std::int64_t>& owners, const ModelConfig& config);

}  // namespace lmq
