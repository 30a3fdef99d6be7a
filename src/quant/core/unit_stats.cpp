#include "lmq/quant/unit_stats.hpp"

#include <algorithm>
#include <array>
#include <atomic>

#include "lmq/base/error.hpp"
#include "lmq/base/parallel.hpp"
#include "lmq/kernels/widen.hpp"
#include "steps.hpp"
#include "unit_errors.hpp"

namespace lmq {
namespace {
constexpr std::size_t kTask = 16 * kErrorBlock;          // weights of a task: 16 blocks
constexpr std::size_t kScanTask = std::size_t{1} << 18;  // weights of a task that only looks

/// Importance of a block of weights; empty when there is none. `room` holds what has to be made.
std::span<const float> block_importance(const Importance& importance, std::uint64_t begin, std::size_t count,
                                        std::span<float> room) {
  if (importance.kind == Importance::Kind::none) return {};
  if (importance.kind == Importance::Kind::weights)
    return importance.values.subspan(static_cast<std::size_t>(begin), count);
  importance_at(importance, begin, room.first(count));
  return room.first(count);
}

std::size_t blocks_of(std::uint64_t count) { return static_cast<std::size_t>((count + kErrorBlock - 1) / kErrorBlock); }

UnitStats in_order(std::span<const ErrorSums> blocks) {
  ErrorSums sums;
  for (const ErrorSums& one : blocks) sums.append(one);
  return {sums.squared, sums.weighted, sums.energy, sums.largest, sums.weighted_energy};
}
}  // namespace

UnitStats sum_errors(std::uint64_t count, const Importance& importance, const PrepareTask& prepare,
                     const BlockErrors& block) {
  std::vector<ErrorSums> blocks(blocks_of(count));
  parallel_for_worker(static_cast<std::size_t>((count + kTask - 1) / kTask), [&](std::size_t task, std::size_t worker) {
    const std::uint64_t task_begin = std::uint64_t{task} * kTask;
    const std::uint64_t task_end = std::min<std::uint64_t>(task_begin + kTask, count);
    if (prepare) prepare(task_begin, static_cast<std::size_t>(task_end - task_begin), worker);
    std::array<float, kErrorBlock> weights;
    for (std::uint64_t begin = task_begin; begin < task_end; begin += kErrorBlock) {
      const auto length = static_cast<std::size_t>(std::min<std::uint64_t>(kErrorBlock, task_end - begin));
      const std::span<const float> scale = block_importance(importance, begin, length, weights);
      blocks[static_cast<std::size_t>(begin / kErrorBlock)] = block(begin, length, scale, worker);
    }
  });
  return in_order(blocks);
}

ErrorMeter::ErrorMeter(const TensorView& view, const Importance& importance)
    : view_(view), importance_(importance), blocks_(blocks_of(view.count)) {}

void ErrorMeter::add(std::uint64_t begin, std::span<const float> decoded) {
  if (begin % kErrorBlock != 0 || begin > view_.count ||
      decoded.size() != std::min<std::uint64_t>(kErrorBlock, view_.count - begin))
    fail(Errc::internal, "ErrorMeter: no whole block");
  std::array<float, kErrorBlock> room;
  blocks_[static_cast<std::size_t>(begin / kErrorBlock)] =
      error_of_values(view_.dtype, bytes_of(view_, begin, decoded.size()), decoded,
                      block_importance(importance_, begin, decoded.size(), room));
}

UnitStats ErrorMeter::stats() const { return in_order(blocks_); }

UnitStats measure_error(const TensorView& view, std::span<const float> decoded, const Importance& importance) {
  if (decoded.size() != view.count) fail(Errc::internal, "measure_error: decoded values and weights differ in number");
  return sum_errors(view.count, importance, nullptr,
                    [&](std::uint64_t begin, std::size_t count, std::span<const float> scale, std::size_t) {
                      return error_of_values(view.dtype, bytes_of(view, begin, count),
                                             decoded.subspan(static_cast<std::size_t>(begin), count), scale);
                    });
}

std::optional<std::uint64_t> first_nonfinite(const TensorView& view) {
  std::atomic<std::uint64_t> first{view.count};
  parallel_for((view.count + kScanTask - 1) / kScanTask, [&](std::size_t task) {
    const std::uint64_t begin = std::uint64_t{task} * kScanTask;
    if (begin >= first.load(std::memory_order_relaxed)) return;
    const auto found = find_nonfinite(view.dtype, bytes_of(view, begin, std::min(kScanTask, view.count - begin)));
    if (!found) return;
    std::uint64_t known = first.load(std::memory_order_relaxed);
    while (begin + *found < known && !first.compare_exchange_weak(known, begin + *found)) {
    }
  });
  return first < view.count ? std::optional(first.load()) : std::nullopt;
}

}  // namespace lmq
