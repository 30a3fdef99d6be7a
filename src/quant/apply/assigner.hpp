#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "lmq/kernels/assign.hpp"
#include "lmq/kernels/stochastic.hpp"
#include "lmq/quant/quantizer.hpp"

namespace lmq {

/// What decides the code of a weight.
struct CodeRule {
  std::span<const float> levels;     ///< as they will be read, ascending, equal neighbours allowed
  std::span<const float> cuts = {};  ///< decisions between them, or empty
  Rounding rounding = Rounding::nearest;
  std::uint64_t key = 0;             ///< of the draws of stochastic rounding
  std::span<const Code> order = {};  ///< codes of the intervals between cuts; empty: interval i has code i
};

/// Codes of weights for one codebook, as its method rounds.
class Assigner {
 public:
  /// expected  weights that will be mapped. What rule.order points to must outlive assign.
  void prepare(const CodeRule& rule, DType type, std::size_t expected) {
    order_ = rule.order;
    is_stochastic_ = rule.rounding == Rounding::stochastic;
    if (is_stochastic_)
      stochastic_.prepare(rule.levels, type, rule.key, expected);
    else if (!rule.order.empty() || (rule.rounding == Rounding::cuts && !rule.cuts.empty()))
      nearest_.prepare_boundaries(rule.cuts, type, expected);
    else
      nearest_.prepare(rule.levels, type, expected);
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
