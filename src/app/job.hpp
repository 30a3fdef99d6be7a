#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "lmq/container/size.hpp"
#include "lmq/io/importance_file.hpp"
#include "lmq/io/reader.hpp"
#include "lmq/plan/plan.hpp"
#include "lmq/plan/recipe.hpp"
#include "lmq/run/comm.hpp"
#include "options.hpp"

namespace lmq::app {

/// What is to be done, the same on every rank.
struct Job {
  std::unique_ptr<Reader> reader;
  std::optional<ImportanceFile> importance;
  Recipe recipe;
  Plan plan;
  std::string chosen_method;  ///< the method where the importance file decided it; on rank 0
};

/// Opens input, importance and recipe on rank 0 (`check` runs there once the headers are read), hands them to all
/// ranks, and plans; Errc::unsupported when all weights are quantized already. Warnings of the input are said on
/// standard error. `scan`: look for NaN and infinities when the recipe keeps such tensors. Collective; errors are
/// agreed.
[[nodiscard]] Job open_job(Comm& comm, const Options& options, bool scan,
                           const std::function<void(const Reader&)>& check);

/// What the importance file has for a tensor, as make_plan asks for it.
[[nodiscard]] std::function<ImportanceInfo(const TensorInfo&, std::uint64_t)> importance_lookup(
    const std::optional<ImportanceFile>& file);
/// Opens an importance file of any kind for a checkpoint.
/// wanted, curvature: see ImportanceFile::Options.
[[nodiscard]] ImportanceFile open_importance(const std::filesystem::path& path, const Catalogue& checkpoint,
                                             const Recipe& recipe, const std::function<bool(std::size_t)>& wanted,
                                             const std::function<bool(std::size_t)>& curvature);
/// What the plan makes of the importance file: which quantized tensors it has nothing for, what in it nobody uses, and
/// which experts take their siblings' mean. One line each, none for what is not there; a first line says how many
/// tensors have which kind.
[[nodiscard]] std::vector<std::string> importance_lines(const Job& job);
/// The same with every name, for the JSON reports; null without importance.
[[nodiscard]] nlohmann::json importance_json(const Job& job);

/// JSON for /lmq/provenance: input names, sizes and digests, the shard of every tensor, version, importance. A function
/// of checkpoint, recipe and importance alone: no folder, machine, time, rank or thread is in it.
[[nodiscard]] std::string provenance_json(const Job& job);

/// The output's size with codes of equal probability: about the most it can be.
[[nodiscard]] SizeEstimate estimate_output(const Job& job);
/// The same with other records and levels: those that are expected.
[[nodiscard]] SizeEstimate estimate_output(const Job& job, const Plan& plan,
                                           const std::function<std::uint64_t(std::uint64_t unit)>& record_bytes);

/// The preflight: what can be known to fail before any work. Errc::cannot_create, Errc::usage; rank 0 only.
void check_output(const Options& options, const Reader& reader);
/// What lies where the report of --json goes: an earlier report may be replaced, other files only by quantize with
/// --force, which check_output says. Errc::cannot_create; rank 0 only.
void check_report(const Options& options);
/// Errc::usage for a size that is less than what is sure to be reached, which it names.
void check_target(const Job& job);
/// Errc::io when even the tensors that are kept do not fit on the output's file system; a warning when it looks tight.
void check_space(const Options& options, const Job& job);
/// Errc::usage when a rank needs more than --memory; a warning when the ranks of this machine need more than it has.
void check_memory(const Options& options, const MemoryEstimate& need);

}  // namespace lmq::app
