#pragma once
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

}  // namespace lmq::app
