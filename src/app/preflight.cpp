// What can be known to fail before any work.
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <span>
#include <string_view>

#include "job.hpp"
#include "launch.hpp"
#include "lmq/base/math.hpp"
#include "lmq/base/text.hpp"
#include "lmq/base/words.hpp"
#include "lmq/io/file.hpp"
#include "lmq/io/system_words.hpp"
#include "lmq/io_hdf5/hdf5_format.hpp"
#include "lmq/run/budget.hpp"
#include "lmq/run/work_dir.hpp"
#include "terminal.hpp"

namespace lmq::app {
namespace {

namespace fs = std::filesystem;

fs::path folder_of(const fs::path& path) { return path.has_parent_path() ? path.parent_path() : fs::path("."); }

/// The nearest folder of `path` that is there.
fs::path existing_folder(fs::path path) {
  std::error_code error;
  while (!fs::is_directory(path, error) && path.has_relative_path()) path = folder_of(path);
  return path.empty() ? fs::path(".") : path;
}

void check_folder(const fs::path& folder, const std::string& output) {
  std::error_code error;
  const fs::file_status status = fs::status(folder, error);
  if (!fs::exists(status))
    fail(Errc::cannot_create, fmt::format("{}: the folder {} does not exist", output, printable(folder.string())));
  if (!fs::is_directory(status))
    fail(Errc::cannot_create, fmt::format("{}: {} is no folder", output, printable(folder.string())));
  // access() says yes to root on some file systems that refuse: making a file is the proof.
  std::string probe = (folder / ".lmq-probe-XXXXXX").string();
  const int fd = ::mkstemp(probe.data());
  if (fd < 0) {
    const int reason = errno;
    fail(out_of_descriptors(reason) ? Errc::io : Errc::cannot_create,
         fmt::format("{}: no file can be made in {}: {}", output, printable(folder.string()), system_words(reason)));
  }
  ::close(fd);
  ::unlink(probe.c_str());
}

/// An output of ours, whole or damaged, by what it holds: HDF5's signature and our mark among the first attributes.
bool is_quantized_file(const fs::path& path) {
  constexpr std::uint64_t kSearched = 1u << 20;
  constexpr std::string_view kSignature("\x89HDF\r\n\x1a\n"), kMark("lmq_format");
  const File file(path, File::Mode::read);
  std::string text(static_cast<std::size_t>(std::min(file.size(), kSearched)), '\0');
  file.read(0, std::as_writable_bytes(std::span(text)));
  return text.starts_with(kSignature) && text.find(kMark) != std::string::npos;
}

/// A report of --json, whose first key is kReportMark.
bool is_report(const fs::path& path) {
  const std::string start = fmt::format("{{\n  \"{}\"", kReportMark);
  const File file(path, File::Mode::read);
  std::string text(static_cast<std::size_t>(std::min<std::uint64_t>(file.size(), start.size())), '\0');
  file.read(0, std::as_writable_bytes(std::span(text)));
  return text == start;
}

/// Something has this name: a link that leads nowhere, too.
bool is_taken(const fs::path& path) {
  std::error_code error;
  return fs::exists(fs::symlink_status(path, error));
}

/// Files of the checkpoint, listed or not: all in a folder that was given as the input; beside a single file its
/// config.json and indexes.
bool belongs_to_input(const fs::path& path, const Options& options, const Catalogue& catalogue) {
  std::error_code error;
  if (!fs::equivalent(folder_of(path), catalogue.folder, error)) return false;
  const bool whole_folder = fs::is_directory(options.input, error) || options.input.extension() == ".json";
  const std::string name = path.filename().string();
  return whole_folder || name == "config.json" || name.ends_with(".index.json");
}

/// What is there under the name of something we are to write: one of ours may be replaced, others when it was asked
/// for, those of the input never.
// More than 5 parameters: two are for the message.
void check_replaceable(const fs::path& path, const std::string& shown, bool ours, const char* kind,
                       const Options& options, const Catalogue& catalogue) {
  if (ours) return;
  if (belongs_to_input(path, options, catalogue))
    fail(Errc::cannot_create,
         fmt::format("{}: exists, is no earlier {} of lmq and lies in the input's folder: choose another name", shown,
                     kind));
  if (!options.force)
    fail(Errc::cannot_create, fmt::format("{}: exists and is no earlier {} of lmq; --force replaces it", shown, kind));
}

struct Space {
  std::uint64_t free = 0;
  bool known = false;
};

Space space_at(const fs::path& folder) {
  struct statvfs about {};
  if (::statvfs(folder.c_str(), &about) != 0 || about.f_frsize == 0 || about.f_blocks == 0) return {};
  return {std::uint64_t{about.f_bavail} * about.f_frsize, true};
}

/// Memory of this machine; 0 when unknown.
std::uint64_t machine_memory() {
  const long pages = ::sysconf(_SC_PHYS_PAGES), size = ::sysconf(_SC_PAGESIZE);
  return pages > 0 && size > 0 ? static_cast<std::uint64_t>(pages) * static_cast<std::uint64_t>(size) : 0;
}

}  // namespace

void check_report(const Options& options) {
  if (!options.json || *options.json == "-") return;
  const fs::path json = *options.json;
  const std::string name = fmt::format("--json {}", printable(json.string()));
  std::error_code error;
  const fs::file_status status = fs::status(json, error);
  if (fs::is_directory(status)) fail(Errc::cannot_create, fmt::format("{}: is a folder", name));
  if (fs::exists(status) && !fs::is_regular_file(status))
    fail(Errc::cannot_create, fmt::format("{}: exists and is no ordinary file; --json - is standard output", name));
  check_folder(folder_of(json), name);
  if (options.command == Command::export_ && fs::absolute(json) == fs::absolute(options.output))
    fail(Errc::usage, fmt::format("{}: that is the output", name));
  const auto refuse_same = [&](const std::optional<fs::path>& input, const char* what) {
    std::error_code ignored;
    if (input && fs::equivalent(json, *input, ignored)) fail(Errc::usage, fmt::format("{}: that is {}", name, what));
  };
  refuse_same(options.importance, "the importance file");
  refuse_same(options.recipe_file, "the recipe");
  refuse_same(options.against, "the file to compare with");
  refuse_same(options.source, "the file of --source");
  const bool may_force = options.command == Command::quantize;
  if (!is_taken(json) || (fs::exists(status) && is_report(json))) return;
  if (may_force && !options.dry_run) return;  // of which check_output asks
  fail(Errc::cannot_create, fmt::format("{}: exists and is no earlier report of lmq: choose another name", name));
}

void check_output(const Options& options, const Reader& reader) {
  const std::string output = printable(options.output.string());
  std::error_code error;
  const fs::file_status status = fs::status(options.output, error);
  if (fs::is_directory(status))
    fail(Errc::cannot_create, fmt::format("{}: is a folder, a file name is expected", output));
  if (fs::exists(status) && !fs::is_regular_file(status))
    fail(Errc::cannot_create, fmt::format("{}: exists and is no ordinary file", output));
  if (!options.output.has_filename()) fail(Errc::cannot_create, fmt::format("{}: a file name is expected", output));
  const auto refuse_same = [&](const fs::path& input, const char* what) {
    std::error_code ignored;
    if (fs::equivalent(options.output, input, ignored))
      fail(Errc::usage, fmt::format("{}: the output is {}", output, what));
  };
  refuse_same(options.input, "the input itself");
  const Catalogue& catalogue = reader.catalogue();
  for (const ShardInfo& shard : catalogue.shards)
    refuse_same(catalogue.folder / shard.name, "one of the input's files");
  if (options.importance) refuse_same(*options.importance, "the importance file");
  if (options.recipe_file) refuse_same(*options.recipe_file, "the recipe");
  if (is_taken(options.output))
    check_replaceable(options.output, output, fs::exists(status) && is_quantized_file(options.output), "output",
                      options, catalogue);
  check_folder(folder_of(options.output), output);
  if (is_name_of_work_dir(options.output.filename().string()) &&
      fs::equivalent(folder_of(options.output), options.work_dir, error))
    fail(Errc::usage, fmt::format("{}: is a name of the work directory's own files there: choose another", output));
  if (options.json && *options.json != "-") {
    const fs::path json = *options.json;
    const std::string name = fmt::format("--json {}", printable(json.string()));
    if (fs::absolute(json) == fs::absolute(options.output) || fs::equivalent(json, options.output, error))
      fail(Errc::usage, fmt::format("{}: that is the output", name));
    for (const ShardInfo& shard : catalogue.shards)
      if (fs::equivalent(json, catalogue.folder / shard.name, error))
        fail(Errc::usage, fmt::format("{}: that is one of the input's files", name));
    if (is_taken(json))
      check_replaceable(json, name, fs::exists(json, error) && is_report(json), "report", options, catalogue);
  }
  if (fs::exists(options.work_dir, error) && !fs::is_directory(options.work_dir, error))
    fail(Errc::cannot_create,
         fmt::format("--work-dir {}: exists and is no folder", printable(options.work_dir.string())));
}

SizeEstimate estimate_output(const Job& job, const Plan& plan,
                             const std::function<std::uint64_t(std::uint64_t unit)>& record_bytes) {
  return estimate_size(job.reader->catalogue(), plan, job.recipe.canonical_json(), provenance_json(job),
                       *make_hdf5_format(), record_bytes);
}

SizeEstimate estimate_output(const Job& job) {
  return estimate_output(job, job.plan, [&](std::uint64_t unit) { return record_bound(job.plan, unit); });
}

void check_target(const Job& job) {
  lmq::check_target(job.reader->catalogue(), job.plan, job.recipe.canonical_json(), provenance_json(job),
                    *make_hdf5_format());
}

void check_space(const Options& options, const Job& job) {
  const SizeEstimate need = estimate_output(job);
  const fs::path folder = folder_of(options.output);
  const Space output = space_at(folder);
  if (!output.known) return;
  if (need.kept > output.free)
    fail(Errc::io, fmt::format("{}: {} are free, the tensors kept raw alone need {}", printable(folder.string()),
                               format_bytes(output.free), format_bytes(need.kept)));
  // Finished records lie in the work directory until the output is complete.
  struct stat here {
  }, there{};
  const fs::path work = existing_folder(options.work_dir);
  const bool together =
      ::stat(folder.c_str(), &here) == 0 && ::stat(work.c_str(), &there) == 0 && here.st_dev == there.st_dev;
  const std::uint64_t records = need.total() - need.kept;
  if (need.total() + (together ? records : 0) > output.free)
    warn(fmt::format("{}: {} are free, up to {} may be needed{}", printable(folder.string()), format_bytes(output.free),
                     format_bytes(need.total() + (together ? records : 0)),
                     together ? " with the work directory" : ""));
  const Space spool = space_at(work);
  if (!together && spool.known && records > spool.free)
    warn(fmt::format("--work-dir {}: {} are free, up to {} may be needed", printable(options.work_dir.string()),
                     format_bytes(spool.free), format_bytes(records)));
}

void check_memory(const Options& options, const MemoryEstimate& need) {
  if (options.memory && need.total() > *options.memory)
    fail(Errc::usage,
         fmt::format("--memory {}: a rank needs {} (program {}, input {}, work {}, output {}, coordinator {}); "
                     "fewer threads need less",
                     format_bytes(*options.memory), format_bytes(need.total()), format_bytes(need.program),
                     format_bytes(need.input), format_bytes(need.work), format_bytes(need.output),
                     format_bytes(need.coordinator)));
  const std::uint64_t ranks = launch_local_ranks(), machine = machine_memory();
  const std::uint64_t together = need.coordinator + ranks * (need.total() - need.coordinator);
  if (machine > 0 && together > machine && launch_rank() == 0)
    warn(fmt::format("{} need{} {}, this machine has {}", counted(ranks, "rank"), ranks == 1 ? "s" : "",
                     format_bytes(together), format_bytes(machine)));
}

}  // namespace lmq::app
