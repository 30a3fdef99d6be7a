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
  /// levels    as they will be read, ascending, equal neighbours allowed; must outlive assign
  /// cuts      decisions between them, or empty
  /// key       of the draws of stochastic rounding
  /// expected  weights that will be mapped
  void prepare(std::span<const float> levels, std::span<const float> cuts, Rounding rounding, std::uint64_t key,
               DType type, std::size_t expected) {
    levels_ = levels;
    key_ = key;
    type_ = type;
    stochastic_ = rounding == Rounding::stochastic;
    if (stochastic_) return;
    if (rounding == Rounding::cuts && !cuts.empty())
      nearest_.prepare_boundaries(cuts, type, expected);
    else
      nearest_.prepare(levels, type, expected);
  }
  /// Codes of weights first, first + 1, ... of the tensor.
  void assign(std::span<const std::byte> weights, std::uint64_t first, std::span<Code> codes) const noexcept {
    if (stochastic_)
      assign_stochastic(type_, weights, levels_, key_, first, codes);
    else
      nearest_.assign(weights, codes);
  }

 private:
  NearestLevel nearest_;
  std::span<const float> levels_;
  std::uint64_t key_ = 0;
  DType type_ = DType::f32;
  bool stochastic_ = false;
};

}  // namespace lmq
