#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <vector>

#include "lmq/io/file.hpp"
#include "lmq/io/importance_file.hpp"
#include "lmq/io/reader.hpp"
#include "lmq/plan/plan.hpp"
#include "lmq/quant/workspace.hpp"
#include "lmq/run/spool.hpp"
#include "lmq/run/task.hpp"
#include "lmq/run/work_dir.hpp"

namespace lmq {

/// What every rank of a run knows. The referenced objects outlive the run.
struct RunContext {
  const Reader& reader;
  const ImportanceFile* importance;
  const Plan& plan;
  std::filesystem::path work_dir;
};

/// Buffers of one task; they keep their capacity from task to task (fresh pages cost more than the work in them).
struct TaskBuffers {
  std::vector<std::byte> bytes;
  ImportanceWindow importance;
};

/// A task with its input in memory. Points into the buffers it was loaded with.
struct LoadedTask {
  Task task;
  TensorView view;  ///< measure, quantize, copy of a kept unit
  Importance importance;
  std::span<const std::byte> record;  ///< copy: a record; solve: a spooled histogram; empty when its bytes are damaged;
                                      ///< compare: bytes of the output
};

/// A finished task; `histogram` is what a measure task found, for rank 0.
struct Outcome {
  Finished finished;
  std::vector<std::byte> histogram;
};

/// What the tasks of a rank work with; it outlives them all.
struct TaskTools {
  const RunContext& context;
  Spool& spool;
  SpoolFiles spool_files;        ///< of the loading thread
  std::optional<File> compared;  ///< of the loading thread
  std::optional<File> output;    ///< of the running thread
  QuantizedUnit recycled;        ///< of the running thread, as the next
  Workspace workspace;           ///< what methods that see layers keep of the last one
};

/// Does tasks, each by its row of the table (task_type.hpp): one thread loads, one runs. Results that are worth keeping
/// (all but very large histograms) are in the spool when `run` returns.
/// Held at most: two views of the largest unit with their importance (TaskBuffers), codes and codebooks of one unit,
/// one record, and what statistics, solver or quantizer need as scratch; a method that sees layers keeps what it made of
/// the last one.
class Executor {
 public:
  Executor(const RunContext& context, Spool& spool)
      : tools_{context, spool, SpoolFiles(context.work_dir), {}, {}, {}, {}} {}

  /// Reads what the task needs. Errors of the reader; Errc::io.
  [[nodiscard]] LoadedTask load(Task task, TaskBuffers& buffers);
  /// Errc::malformed names tensor and first index of a NaN or infinity; Errc::io.
  [[nodiscard]] Outcome run(const LoadedTask& loaded);
  /// Tells the system what a task will read.
  void prefetch(const Task& task) const noexcept;

 private:
  TaskTools tools_;
};

/// Whether curvature is read where the plan has it.
enum class Curvature : bool { no, yes };
/// The importance of a unit's weights as the plan has it, with the curvature where its method sees layers; it points
/// into `window`.
[[nodiscard]] Importance load_importance(const RunContext& context, const WorkUnit& unit, ImportanceWindow& window,
                                         Curvature curvature = Curvature::yes);

/// A unit, or a part of one, as quantizers see it; what it refers to must outlive it.
[[nodiscard]] RowWindow row_window(const Plan& plan, const WorkUnit& unit, const TensorView& view,
                                   const Importance& importance, Workspace* workspace) noexcept;

/// Errc::malformed for the first NaN or infinity among the elements [0, end) of a tensor, in the words every rank uses;
/// nothing when there is none. Reads the tensor from its start. target_bytes: the size asked for, of which the tensor would
/// take its part when it is kept; 0: none
void refuse_first_nonfinite(const Reader& reader, const TensorInfo& tensor, std::uint64_t end,
                            std::uint64_t target_bytes = 0);

}  // namespace lmq
