#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "lmq/plan/plan.hpp"
#include "options.hpp"
#include "tensor_lines.hpp"

namespace lmq::app {

/// One line each, without a line break.
struct QualityNotes {
  std::vector<std::string> notes;     ///< the first one goes below the table; --quiet leaves them out
  std::vector<std::string> warnings;  ///< said in any case
};

/// What the errors of a finished run say of the file, in words: notes on the tensors of least SNR; warnings of those
/// whose largest error is out of all proportion (levels that clip a few large weights; layers have none), and where the
/// file is likely to be bad, with what is left to try. lines: [plan.tensors]. options: of the run. Empty when no tensor is
/// quantized.
[[nodiscard]] QualityNotes quality_notes(const Options& options, const std::vector<TensorLine>& lines,
                                         const Plan& plan);

/// What is said of a file that is smaller by more than a twentieth than the size that was asked for; empty of others, and
/// where no tensor's bits are chosen by a size. options: whether a method was chosen that spends no more.
[[nodiscard]] std::string unused_size(const Options& options, const Plan& plan, std::uint64_t bytes);
/// What is said where codebooks of rows or groups take a bit a weight or more; empty otherwise. options: who asked for
/// them; group: its weights, 0: rows; codes, stored: bits of all weights
[[nodiscard]] std::string beside_codes(const Options& options, std::uint64_t group, double weights, double codes,
                                       double stored);

}  // namespace lmq::app
