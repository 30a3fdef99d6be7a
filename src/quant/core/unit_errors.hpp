#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "lmq/base/tensor.hpp"
#include "lmq/kernels/error.hpp"
#include "lmq/quant/importance.hpp"
#include "lmq/quant/unit_stats.hpp"

namespace lmq {

/// Error sums of a window: calls block(begin, count, importance of the block or empty) -> ErrorSums for blocks of
/// kErrorBlock weights, several to a task of parallel_for_worker, and adds them in order. Before the blocks of a task
/// it calls task(begin, count, worker).
using PrepareTask = std::function<void(std::uint64_t begin, std::size_t count, std::size_t worker)>;
using BlockErrors = std::function<ErrorSums(std::uint64_t begin, std::size_t count, std::span<const float> importance,
                                            std::size_t worker)>;
[[nodiscard]] UnitStats sum_errors(std::uint64_t count, const Importance& importance, const PrepareTask& prepare,
                                   const BlockErrors& block);

/// The bytes of `count` weights of a view.
[[nodiscard]] inline std::span<const std::byte> bytes_of(const TensorView& view, std::uint64_t begin,
                                                         std::size_t count) {
  const std::size_t size = bits(view.dtype) / 8;
  return view.bytes.subspan(static_cast<std::size_t>(begin) * size, count * size);
}

}  // namespace lmq
