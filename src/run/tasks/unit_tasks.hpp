#pragma once
// What tasks share that read a unit's weights.
#include <fmt/format.h>

#include <span>

#include "lmq/base/error.hpp"
#include "lmq/base/text.hpp"
#include "task_type.hpp"

namespace lmq::tasks {

inline constexpr const char* kFromRankZero = "message from rank 0";

[[nodiscard]] const WorkUnit& unit_of(const TaskTools& tools, const Task& task);
[[nodiscard]] const TensorPlan& plan_of(const TaskTools& tools, const Task& task);
[[nodiscard]] const TensorInfo& info_of(const TaskTools& tools, const Task& task);
/// Errc::internal for a method that does not exist.
[[nodiscard]] const QuantizerEntry& entry_of(const QuantSpec& spec);

/// The unit's bytes, without its importance.
void load_view(TaskTools& tools, LoadedTask& loaded, TaskBuffers& buffers);
/// The unit's bytes and its importance.
void load_weights(TaskTools& tools, LoadedTask& loaded, TaskBuffers& buffers);
/// The unit of a method that sees layers.
[[nodiscard]] RowWindow layer_window(TaskTools& tools, const LoadedTask& loaded);
/// Errc::malformed for the unit's tensor, whose first value that is not finite is named.
[[noreturn]] void refuse_nonfinite(const TaskTools& tools, const Task& task);

/// Fills in what a later run needs to know the result, and keeps both.
void keep(TaskTools& tools, const LoadedTask& loaded, Finished& finished, std::span<const std::byte> payload);

/// What a method refuses of the user's options is said with the tensor it met.
template <class Work>
auto for_tensor(const TensorInfo& tensor, const Work& work) {
  try {
    return work();
  } catch (const Error& error) {
    if (error.code != Errc::usage) throw;
    fail(Errc::usage, fmt::format("tensor '{}': {}", printable(tensor.name), error.what()));
  }
}

}  // namespace lmq::tasks
