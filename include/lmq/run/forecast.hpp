#pragma once
#include <cstdint>
#include <functional>
#include <vector>

#include "lmq/run/comm.hpp"
#include "lmq/run/executor.hpp"

namespace lmq {

/// What a budget chooses for a scope, all its weights together.
struct ScopeForecast {
  std::size_t levels = 0;   ///< of methods with slopes about
  std::size_t numbers = 0;  ///< of a codebook that the file lists; of tensors without a budget
  double bits = 0;          ///< of the codes
  double distortion = 0;    ///< squared error, weighted by the importance where there is some
  double energy = 0;        ///< squares of the weights, weighted alike
  double weights = 0;       ///< of the scope or tensor
};

struct Forecast {
  std::vector<ScopeForecast> scopes;  ///< [plan.scopes], of the budgeted ones
  /// [plan.tensors] of those that are quantized without a budget, records and all; no weights where nothing is known.
  std::vector<ScopeForecast> tensors;
  double bytes = 0;      ///< of the file
  double loss = 0;       ///< Budget::expected_loss
  bool sampled = false;  ///< not all weights were looked at
};

/// Measures the budgeted scopes of a plan with a target and chooses for them as the run will do at first; its later
/// corrections are small. Of models of more than 2^31 weights a part is looked at: every n-th unit of each tensor. Where
/// layers come out all but exact, what is chosen is tried and corrected as the run does it, with 2^22 weights at a time: a
/// model may need less than the target.
/// Nothing is written. Collective, scopes shared out among the ranks; whole on rank 0.
/// other_bytes  as bytes_beside says; on rank 0
/// progress     called with the weights that this rank has measured, and those it will
/// Errors       Errc::malformed for NaN and infinities
/// Cost         the budgeted tensors are read once, 2^31 weights at most; the statistics of one scope are held at a time
[[nodiscard]] Forecast forecast_budget(Comm& comm, const RunContext& context, std::uint64_t other_bytes,
                                       const std::function<void(double, double)>& progress);

/// Tries the tensors that are quantized without a budget: a part of their weights is quantized and coded as the run will do
/// it, at most 2^20 of a tensor, all of them where the run takes about two seconds; codebooks that are shared come from the histogram of all weights
/// (a part of them where there are more than 2^28). Of many tensors every n-th is tried, and stands for those under the
/// same rule. Tensors with NaN or infinities are left out.
/// Collective; Forecast::tensors whole on rank 0, [plan.tensors].
[[nodiscard]] std::vector<ScopeForecast> forecast_tensors(Comm& comm, const RunContext& context);

/// The plan with as many levels as the codebooks that the file lists are expected to have numbers.
[[nodiscard]] Plan with_expected_levels(const Plan& plan, const std::vector<ScopeForecast>& tensors);

}  // namespace lmq
