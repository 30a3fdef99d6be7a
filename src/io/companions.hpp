#pragma once
#include <cstdint>
#include <vector>

#include "lmq/io/reader.hpp"
#include "model_config.hpp"

namespace lmq {

/// What lies beside weights that are quantized already: scales, zero points, codebooks, permutations, ...
/// [tensor] index of the weight that the tensor belongs to, or -1. That weight is of integers, 4-, 6- or 8-bit floats.
/// A tensor belongs to it by its name (T_scale, T.absmax; X.scales, X.qzeros beside X.qweight; X_scales beside
/// X_blocks; ...) and by lying beside it. Cost: O(tensors * log(tensors)).
[[nodiscard]] std::vector<std::int64_t> find_companions(const Catalogue& catalogue);

/// Notes weights of integers that have companions, and the companions of all weights (Fitness::companion), with a
/// warning that names how many, the method, and what to start from. After pair_block_scales.
void mark_companions(Catalogue& catalogue, const std::vector<std::int64_t>& owners, const ModelConfig& config);

}  // namespace lmq
