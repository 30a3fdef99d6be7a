#include "lmq/run/quantize_run.hpp"

#include <fmt/format.h>

#include <optional>
#include <system_error>
#include <utility>

#include "lmq/base/bytes.hpp"
#include "lmq/base/digest.hpp"
#include "lmq/io/file.hpp"
#include "lmq/run/commit.hpp"
#include "lmq/run/coordinator.hpp"
#include "lmq/run/rank_loop.hpp"
#include "lmq/run/signals.hpp"
#include "lmq/run/work_dir.hpp"

namespace lmq {
namespace {

/// Sizes and times of all input files, as 32 digits.
std::string stamp_of_input(const Reader& reader, const ImportanceFile* importance) {
  ByteWriter out;
  const auto add = [&](const Catalogue& catalogue) {
    for (const ShardInfo& shard : catalogue.shards)
      out.text(shard.name), out.le(shard.bytes), out.le(shard.modified_ns);
  };
  add(reader.catalogue());
  if (importance != nullptr) add(importance->catalogue());
  return digest128_hex(out.bytes());
}

/// That the output can be made is better known before the work than after it.
void try_output(const RunOptions& options, const Plan& plan) {
  const std::filesystem::path part = part_path(options.output, plan.digest);
  refuse_busy_part(part);
  File(part, File::Mode::create).close();
  std::error_code ignored;
  std::filesystem::remove(part, ignored);
}

/// The same run number on every rank, and the same plan.
void agree(Comm& comm, JournalHeader& header) {
  ByteWriter out;
  out.le(header.run);
  out.text(header.plan_digest);
  const std::vector<std::byte> bytes = comm.broadcast(out.take(), 0);
  ByteReader in(bytes, "message from rank 0");
  header.run = in.le<std::uint32_t>("run");
  const std::string digest = in.text("plan digest");
  run_agreed(comm, [&] {
    if (digest != header.plan_digest)
      fail(Errc::internal, fmt::format("rank {} has plan {}, rank 0 has {}", comm.rank(), header.plan_digest, digest));
  });
  header.rank = static_cast<std::uint32_t>(comm.rank());
}

}  // namespace

RunReport run_quantize(Comm& comm, const Reader& reader, const ImportanceFile* importance, const Plan& plan,
                       LayoutFormat& format, const RunOptions& options) {
  const SignalGuard signals;
  const RunContext context{reader, importance, plan, options.work_dir};
  JournalHeader header{0, 0, plan.digest, stamp_of_input(reader, importance)};
  std::optional<WorkDir> work_dir;
  std::optional<Coordinator> coordinator;
  run_agreed(comm, [&] {
    if (comm.rank() != 0) return;
    try_output(options, plan);
    work_dir.emplace(options.work_dir, header, options.resume);
    header.run = work_dir->run();
    coordinator.emplace(comm, context, format, options, *work_dir);
  });
  agree(comm, header);
  {
    RankLoop loop(comm, context, header, coordinator ? &*coordinator : nullptr);
    try {
      loop.run();
    } catch (const Error& error) {
      // A size that cannot be reached: what was measured serves no other recipe.
      if (work_dir && plan.target_bytes > 0 && error.code == Errc::usage) coordinator.reset(), work_dir->remove();
      throw;
    }
  }
  if (comm.rank() != 0) return {};
  RunReport report = coordinator->report();
  coordinator.reset();
  work_dir->remove();
  return report;
}

}  // namespace lmq
