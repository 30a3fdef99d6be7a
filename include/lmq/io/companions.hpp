#pragma once
#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "lmq/io/reader.hpp"

namespace lmq {

/// What lies beside weights that are quantized already: scales, zero points, codebooks, permutations, ...
/// [tensor] index of the weight that the tensor belongs to, its own where that weight is in a shard that is not here, or
/// -1. That weight is of integers, 4-, 6- or 8-bit floats. A tensor belongs to it by its name (T_scale, T.absmax;
/// X.scales, X.qzeros beside X.qweight; X_scales beside X_blocks; scales.X beside X or codes.X; ...) or its shape and by
/// lying beside it. described: the configuration says that there are quantized weights, so that any matrix of floats
/// beside integers belongs to them. Cost: O(tensors * log(tensors)).
[[nodiscard]] std::vector<std::int64_t> find_companions(const Catalogue& catalogue, bool described = false);

/// What has no use any more once the scales of `folded` weights are part of their values: their other companions
/// (scales of activations, largest values, ...), and marks of the whole file that say there are such weights
/// ("scaled_fp8"). catalogue: names, types, shapes and scales as in the checkpoint, ascending. Empty where nothing was folded.
[[nodiscard]] std::set<std::string> outlived_companions(const Catalogue& catalogue,
                                                        const std::set<std::string>& folded);

/// True for a key of a file's metadata under which tools describe quantized weights: "quantization_config",
/// "_quantization_metadata", "quant_method", ...: one of its words is "quant" or begins with "quantiz" or "quantis".
[[nodiscard]] bool is_quantization_key(std::string_view key);

}  // namespace lmq
