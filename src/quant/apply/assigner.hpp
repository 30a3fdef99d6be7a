#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "lmq/kernels/assign.hpp"
#include "lmq/kernels/stochastic.hpp"
#include "lmq/quant/quantizer.hpp"

namespace lmq {

/// Codes of weights for one codebook, as its method rounds.
class Assigner {
 public:
  /// levels    as they will be read, ascending, equal neighbours allowed
  /// cuts      decisions between them, or empty
  /// key       of the draws of stochastic rounding
  /// expected  weights that will be mapped
  /// order     codes of the intervals between cuts; empty: interval i has code i. Must outlive assign.
  // More than 5 parameters: all that decides codes, set once for many calls of assign.
  void prepare(std::span<const float> levels, std::span<const float> cuts, Rounding rounding, std::uint64_t key,
               DType type, std::size_t expected, std::span<const Code> order = {}) {
    order_ = order;
    is_stochastic_ = rounding == Rounding::stochastic;
    if (is_stochastic_)
      stochastic_.prepare(levels, type, key, expected);
    else if (!order.empty() || (rounding == Rounding::cuts && !cuts.empty()))
      nearest_.prepare_boundaries(cuts, type, expected);
    else
      nearest_.prepare(levels, type, expected);
  }
  /// Codes of weights first, first + 1, ... of the tensor.
  void assign(std::span<const std::byte> weights, std::uint64_t first, std::span<Code> codes) const noexcept {
    if (is_stochastic_)
      stochastic_.assign(weights, first, codes);
    else
      nearest_.assign(weights, codes);
    if (!order_.empty())
      for (Code& code : codes) code = order_[code];
  }

 private:
  NearestLevel nearest_;
  StochasticLevel stochastic_;
  std::span<const Code> order_;
  bool is_stochastic_ = false;
};

}  // namespace lmq
