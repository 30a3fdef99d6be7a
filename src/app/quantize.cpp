#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "commands.hpp"
#include "job.hpp"
#include "launch.hpp"
#include "lmq/base/parallel.hpp"
#include "lmq/base/text.hpp"
#include "lmq/io_hdf5/hdf5_format.hpp"
#include "lmq/run/quantize_run.hpp"
#include "quality_notes.hpp"
#include "table.hpp"
#include "tensor_lines.hpp"
#include "terminal.hpp"
#include "version.hpp"

namespace lmq::app {
namespace {

std::string units_text(const RunReport& report) {
  std::string text = counted(report.units_done, "unit");
  if (report.units_resumed > 0) text += fmt::format(" ({} more were finished by an earlier run)", report.units_resumed);
  return text;
}

/// Where the time of each rank's computing thread went.
nlohmann::json rank_seconds_json(const std::vector<RankTimes>& ranks) {
  nlohmann::json list = nlohmann::json::array();
  for (const RankTimes& rank : ranks)
    list.push_back({{"computing", rank.computing},
                    {"writing", rank.writing},
                    {"waiting_for_input", rank.waiting_input},
                    {"waiting_for_work", rank.waiting_work}});
  return list;
}

nlohmann::json report_json(const Options& options, const Job& job, const RunReport& report, const Totals& totals,
                           int ranks) {
  return {{"lmq_version", kVersion},
          {"input", options.input.string()},
          {"output", options.output.string()},
          {"plan_digest", job.plan.digest},
          {"recipe", nlohmann::json::parse(job.recipe.canonical_json())},
          {"tensors", to_json(report.tensors)},
          {"importance", importance_json(job)},
          {"totals", to_json(totals)},
          {"seconds", report.seconds},
          {"units_done", report.units_done},
          {"units_resumed", report.units_resumed},
          {"ranks", ranks},
          {"rank_seconds", rank_seconds_json(report.ranks)},
          {"threads", thread_count()}};
}

RunOptions run_options(const Options& options, const Job& job, const MemoryEstimate& need) {
  RunOptions run;
  run.output = options.output;
  run.work_dir = options.work_dir;
  run.resume = options.resume;
  run.max_minutes = options.max_minutes;
  run.memory = options.memory.value_or(need.total());
  run.progress = options.progress;
  run.recipe_json = job.recipe.canonical_json();
  run.provenance_json = provenance_json(job);
  run.content_with_others = !options.json;  // which needs a run of our own
  if (!options.quiet) run.say = note;
  return run;
}

/// The table of a run that has ended, what it took, and a line below them.
void say_table(const Options& options, const RunReport& report, const Totals& totals, int ranks,
               const std::string& below) {
  const double seconds = std::max(report.seconds, 1e-9);
  std::string text = fmt::format("{}\n{}{} in {}: {:.3f} GB/s of input, {} with {}\n{}\n{}",
                                 tensor_table(report.tensors, output_width(), options.summary ? 0 : kMaxLines),
                                 totals_text(totals), units_text(report), format_duration(report.seconds),
                                 static_cast<double>(report.source_bytes) * 1e-9 / seconds,
                                 counted(static_cast<std::uint64_t>(ranks), "rank"), counted(thread_count(), "thread"),
                                 printable(options.output.string()), wrap(text_of(report.ranks), output_width(), 0));
  if (!below.empty()) text += wrap(below, output_width(), 0);
  print_beside(text, options.output.string());
}

/// The table and the notes of a run that has ended, and its report: one that was asked for and cannot be written is an
/// error, the table is not.
void say_done(const Options& options, const Job& job, const RunReport& report, int ranks) {
  const auto& lines = report.tensors;
  const Totals totals = totals_of(lines, report.file_bytes);
  if (options.json) print_json(*options.json, report_json(options, job, report, totals, ranks));
  auto [notes, warnings] = quality_notes(options, lines, job.plan);
  if (std::string unused = unused_size(options, job.plan, report.file_bytes); !unused.empty())
    notes.push_back(std::move(unused));
  if (!options.quiet && options.json != "-") {
    say_table(options, report, totals, ranks, notes.empty() ? std::string{} : notes.front());
    for (std::size_t i = 1; i < notes.size(); ++i) note(notes[i]);
  }
  for (const std::string& line : warnings) warn(line);
}

}  // namespace

int quantize(Comm& comm, const Options& options) {
  if (options.dry_run) return plan(comm, options);
  if (const long tasks = launch_strangers(); tasks > 1)
    warn(
        fmt::format("srun started {} tasks without MPI: one of them works, the others wait for it; --mpi=pmix makes "
                    "them ranks of one run",
                    tasks));
  const Job job = open_job(comm, options, true, [&](const Reader& reader) { check_output(options, reader); });
  const MemoryEstimate need =
      estimate_memory(job.reader->catalogue().tensors, job.plan, thread_count(), static_cast<std::size_t>(comm.size()));
  run_agreed(comm, [&] {
    if (comm.rank() != 0) return;
    check_target(job);
    check_memory(options, need);
    check_space(options, job);
  });
  const std::unique_ptr<LayoutFormat> format = make_hdf5_format();
  const RunReport report = run_quantize(comm, *job.reader, job.importance ? &*job.importance : nullptr, job.plan,
                                        *format, run_options(options, job, need));
  if (!report.finished_by.empty()) {
    if (comm.rank() == 0 && !options.quiet)
      note(fmt::format("{}: {} has made it while this run waited; nothing was left to do",
                       printable(options.output.string()), report.finished_by));
    return 0;
  }
  run_agreed(comm, [&] {
    if (comm.rank() != 0) return;
    say_done(options, job, report, comm.size());
  });
  return 0;
}

}  // namespace lmq::app
