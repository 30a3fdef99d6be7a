#pragma once
#include <cstdint>
#include <functional>
#include <vector>

#include "lmq/run/comm.hpp"
#include "lmq/run/executor.hpp"

namespace lmq {

/// What a budget chooses for a scope, all its weights together.
struct ScopeForecast {
  std::size_t levels = 0;  ///< of methods with slopes about
  double bits = 0;         ///< of the codes
  double distortion = 0;   ///< squared error, weighted by the importance where there is some
  double energy = 0;       ///< squares of the weights, weighted alike
};

struct Forecast {
  std::vector<ScopeForecast> scopes;  ///< [plan.scopes], of the budgeted ones
  double bytes = 0;                   ///< of the file
  double loss = 0;                    ///< Budget::expected_loss
  bool sampled = false;               ///< not all weights were looked at
};

/// Measures the budgeted scopes of a plan with a target and chooses for them as the run will do at first; its later
/// corrections are small. Of models of more than 2^31 weights a part is looked at: every n-th unit of each tensor.
/// Nothing is written. Collective, scopes shared out among the ranks; whole on rank 0.
/// other_bytes  as bytes_beside says; on rank 0
/// progress     called with the weights that this rank has measured, and those it will
/// Errors       Errc::malformed for NaN and infinities
/// Cost         the budgeted tensors are read once, 2^31 weights at most; the statistics of one scope are held at a time
[[nodiscard]] Forecast forecast_budget(Comm& comm, const RunContext& context, std::uint64_t other_bytes,
                                       const std::function<void(double, double)>& progress);

}  // namespace lmq
