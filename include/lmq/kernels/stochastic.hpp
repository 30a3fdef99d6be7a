#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "lmq/base/dtype.hpp"
#include "lmq/base/quantized_unit.hpp"
#include "lmq/kernels/assign.hpp"

namespace lmq {

/// Unbiased stochastic rounding of weights of one source type to one codebook: of the two levels around a weight the
/// upper one where its draw (lmq/base/random.hpp) is below (w - lower) * (2^32 / (upper - lower)), in double: so with a
/// probability that is right to 2^-32. A weight on a level stays there; weights outside the levels get the outermost
/// one.
class StochasticLevel {
 public:
  /// levels    [1..256] finite, ascending, equal neighbours allowed (the first of equals is used)
  /// type      of the weights (is_float)
  /// key       of the stream of draws
  /// expected  weights that will be rounded: tables are made only where they pay
  void prepare(std::span<const float> levels, DType type, std::uint64_t key, std::size_t expected);
  /// Codes of codes.size() finite weights; weight i uses draw first + i. On one core 1.5 ns per BF16 weight, 2.5 ns per
  /// F32 weight with 16 levels.
  void assign(std::span<const std::byte> weights, std::uint64_t first, std::span<Code> codes) const noexcept;
  /// The same through the plain loop.
  void assign_reference(std::span<const std::byte> weights, std::uint64_t first, std::span<Code> codes) const noexcept;

 private:
  void prepare_table();
  void assign_table(const std::byte* weights, const std::uint32_t* draws, std::span<Code> codes) const noexcept;

  DType type_ = DType::f32;
  std::uint64_t key_ = 0;
  std::size_t count_ = 0;                    // distinct levels
  bool distinct_ = true;                     // index_ changes nothing
  std::array<double, 256> low_{}, scale_{};  // by distinct level; scale 0 at the last
  std::array<Code, 257> index_{};            // of the first level that equals it
  NearestLevel below_;                       // number of levels, but the first, <= the weight
  std::vector<std::uint64_t> table_;         // 16-bit types, by pattern: code << 40 | draws that go up, 0..2^32
};

/// For once: prepare and assign.
void assign_stochastic(DType type, std::span<const std::byte> weights, std::span<const float> levels, std::uint64_t key,
                       std::uint64_t first, std::span<Code> codes);

}  // namespace lmq
