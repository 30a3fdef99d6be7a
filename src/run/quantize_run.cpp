#include "lmq/run/quantize_run.hpp"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <optional>
#include <set>
#include <system_error>
#include <utility>

#include "coordinator.hpp"
#include "lmq/base/bytes.hpp"
#include "lmq/base/digest.hpp"
#include "lmq/base/text.hpp"
#include "lmq/run/run_lock.hpp"
#include "lmq/run/signals.hpp"
#include "lmq/run/work_dir.hpp"
#include "part_file.hpp"
#include "rank_loop.hpp"

namespace lmq {
namespace {

/// Whatever the system says of a catalogue's files when they are written, moved or replaced. ctime cannot be set: a copy
/// with the old modification time shows.
void put_stamps(ByteWriter& out, const Catalogue& catalogue) {
  for (const ShardInfo& shard : catalogue.shards) {
    struct stat status {};
    const std::filesystem::path path = catalogue.folder / shard.name;
    if (::stat(path.c_str(), &status) != 0) fail(Errc::missing, fmt::format("{}: is gone", printable(path.string())));
    out.text(shard.name);
    out.text(shard.header_digest);
    for (const std::int64_t value : {std::int64_t{status.st_size}, std::int64_t{status.st_mtim.tv_sec},
                                     std::int64_t{status.st_mtim.tv_nsec}, std::int64_t{status.st_ctim.tv_sec},
                                     std::int64_t{status.st_ctim.tv_nsec}, static_cast<std::int64_t>(status.st_ino)})
      out.le(value);
  }
}

/// Of the input's files, as 32 digits. The numbers of an importance file are in its digest, but for the curvature
/// between weights: where some is used, its files count as input.
std::string stamp_of_input(const Reader& reader, const ImportanceFile* importance, const Plan& plan) {
  ByteWriter out;
  put_stamps(out, reader.catalogue());
  const bool curved = std::ranges::any_of(plan.tensors, [](const TensorPlan& tensor) {
    return tensor.importance.gram || tensor.importance.outer_rows > 0;
  });
  if (importance != nullptr && curved) put_stamps(out, importance->catalogue());
  return digest128_hex(out.bytes());
}

/// Waits for whoever is at work on the output. From now on the lock names our unfinished file beside those of others.
void lock_output(std::optional<RunLock>& lock, const RunOptions& options, const Plan& plan) {
  RunLock::Request request;
  request.path = options.output;
  request.path += ".lmq-lock";
  request.subject = printable(options.output.string());
  request.plan = plan.digest;
  request.patience = options.patience;
  request.content_with_others = options.content_with_others;
  request.say = options.say;
  lock.emplace(std::move(request));
  if (!lock->finished_by().empty()) return;
  std::set<std::string> parts{part_path(options.output, lock->run(), lock->run()).filename().string()};
  for (const std::string& name : lock->parts())
    if (const std::string origin = origin_of_part(options.output, name); !origin.empty()) {
      if (!std::filesystem::exists(options.output.parent_path() / name)) continue;
      parts.insert(name);
      parts.insert(part_path(options.output, origin, lock->run()).filename().string());  // should it be gone on with
    }
  lock->set_parts({parts.begin(), parts.end()});
}

/// The same run number on every rank, and the same plan; or that another run has done it.
void agree(Comm& comm, JournalHeader& header, std::string& finished_by) {
  ByteWriter out;
  out.le(header.run);
  out.text(header.plan_digest);
  out.text(header.input_stamp);
  out.text(finished_by);
  const std::vector<std::byte> bytes = comm.broadcast(out.take(), 0);
  ByteReader in(bytes, "message from rank 0");
  header.run = in.le<std::uint32_t>("run");
  const std::string digest = in.text("plan digest");
  header.input_stamp = in.text("input stamp");
  finished_by = in.text("who finished");
  run_agreed(comm, [&] {
    if (digest != header.plan_digest)
      fail(Errc::internal, fmt::format("rank {} has plan {}, rank 0 has {}", comm.rank(), header.plan_digest, digest));
  });
  header.rank = static_cast<std::uint32_t>(comm.rank());
}

}  // namespace

// More than 5 parameters: one of each kind of input, the ranks and the options.
RunReport run_quantize(Comm& comm, const Reader& reader, const ImportanceFile* importance, const Plan& plan,
                       LayoutFormat& format, const RunOptions& options) {
  const SignalGuard signals;
  const RunContext context{reader, importance, plan, options.work_dir};
  JournalHeader header{0, 0, plan.digest, ""};
  std::optional<RunLock> lock;  // before anything is made or removed
  std::optional<WorkDir> work_dir;
  std::optional<Coordinator> coordinator;
  RunReport report;
  run_agreed(comm, [&] {
    if (comm.rank() != 0) return;
    header.input_stamp = stamp_of_input(reader, importance, plan);
    lock_output(lock, options, plan);
    report.finished_by = lock->finished_by();
    if (!report.finished_by.empty()) return;
    work_dir.emplace(options.work_dir, header, options.resume, LockPatience{options.patience, options.say});
    header.run = work_dir->run();
    coordinator.emplace(comm, context, format, options, *lock, *work_dir);
  });
  agree(comm, header, report.finished_by);
  if (!report.finished_by.empty()) return report;
  {
    RankLoop loop(comm, context, header, coordinator ? &*coordinator : nullptr);
    loop.run();
  }
  if (comm.rank() != 0) return report;
  report = coordinator->report();
  coordinator.reset();
  work_dir->remove();
  lock->set_finished();
  return report;
}

}  // namespace lmq
