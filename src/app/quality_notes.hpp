#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "lmq/plan/plan.hpp"
#include "tensor_lines.hpp"

namespace lmq::app {

/// What the errors of a finished run say of the file, in words: the tensors of least SNR, those whose largest error is
/// out of all proportion (levels that clip a few large weights; layers have none), and whether the file is likely to be
/// bad. lines: [plan.tensors]. importance: errors were weighted, so that a low plain SNR says little. One line each,
/// without a line break; empty when no tensor is quantized.
[[nodiscard]] std::vector<std::string> quality_notes(const std::vector<TensorLine>& lines, const Plan& plan,
                                                     bool importance);

/// What is said of a file that is smaller by more than a twentieth than the size that was asked for; empty of others, and
/// without a size (target 0).
[[nodiscard]] std::string unused_size(std::uint64_t target, std::uint64_t bytes);
/// What is said where codebooks of rows or groups take a bit a weight or more; empty otherwise.
/// group: its weights, 0: rows; codes, stored: bits of all weights
[[nodiscard]] std::string beside_codes(std::uint64_t group, double weights, double codes, double stored);

}  // namespace lmq::app
