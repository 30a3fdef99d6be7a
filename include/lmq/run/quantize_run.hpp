#pragma once
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "lmq/container/contents.hpp"
#include "lmq/io/importance_file.hpp"
#include "lmq/io/layout.hpp"
#include "lmq/io/reader.hpp"
#include "lmq/plan/plan.hpp"
#include "lmq/run/comm.hpp"
#include "lmq/run/rank_times.hpp"

namespace lmq {

enum class ProgressMode : std::uint8_t { automatic, plain, none };

struct RunOptions {
  std::filesystem::path output;    ///< final name; an older file there stays until the rename
  std::filesystem::path work_dir;  ///< spools and journals; on a file system all ranks see
  bool resume = true;              ///< continue what the work directory holds of the same plan; false: throw it away
  double max_minutes = 0;          ///< stop cleanly in time, 0: no limit
  std::uint64_t memory = 0;        ///< bytes a rank may hold
  ProgressMode progress = ProgressMode::automatic;
  std::string recipe_json;      ///< canonical recipe, stored as /lmq/recipe
  std::string provenance_json;  ///< input names, sizes, digests, version, stored as /lmq/provenance
  /// When another run finishes the same plan while this one waits for it, that will do (RunReport::finished_by).
  bool content_with_others = false;
  std::chrono::milliseconds patience = std::chrono::seconds(15);  ///< for another run on the output or work directory
  std::function<void(const std::string&)> say;  ///< rank 0: told who is waited for, and that locks are missing
  /// Asked on rank 0 after each result with their number; true ends the run as a signal would (for programs that embed
  /// this, and for tests).
  std::function<bool(std::uint64_t results)> stop_after;
};

struct RunReport {
  std::vector<TensorLine> tensors;
  std::uint64_t file_bytes = 0;
  std::uint64_t source_bytes = 0;
  double seconds = 0;
  std::uint64_t units_done = 0;     ///< in this run
  std::uint64_t units_resumed = 0;  ///< found finished
  std::vector<RankTimes> ranks;     ///< [ranks] where their time went
  std::string finished_by;          ///< who made the file while we waited; empty: we have, and the rest is filled in
};

/// Steps 3 to 10 of docs/architecture.md: deals units, quantizes, spools, commits. Collective; the report is whole on
/// rank 0. Errc::interrupted after SIGTERM, SIGUSR1, SIGHUP, SIGINT or the time limit: what is finished stays in the work
/// directory. Errc::cannot_create when another run is at work on the output or in the work directory: it is waited for
/// for 15 seconds.
[[nodiscard]] RunReport run_quantize(Comm& comm, const Reader& reader, const ImportanceFile* importance,
                                     const Plan& plan, LayoutFormat& format, const RunOptions& options);

/// Tensors that hold NaN or infinities, found by all ranks together (--nonfinite keep). Collective; same on every rank.
[[nodiscard]] std::vector<std::uint32_t> find_nonfinite_tensors(Comm& comm, const Reader& reader);

}  // namespace lmq
