#include "commit.hpp"

#include <fmt/format.h>

#include <utility>

#include "lmq/base/error.hpp"
#include "lmq/base/text.hpp"
#include "task_type.hpp"

namespace lmq {
namespace {

/// A task of the table on a unit's stored bytes.
Task stored_task(TaskKind kind, std::uint64_t unit, const CopyOrder& order, std::uint64_t bytes) {
  const TaskKey key{kind, unit, 0};
  return {key, order.to_bytes(), type_of(key).seconds_per_byte * static_cast<double>(bytes)};
}

}  // namespace

// More than 5 parameters: what a run has made, and where it goes.
Commit::Commit(const OutputContents& contents, const std::vector<SpoolPlace>& spooled, LayoutFormat& format,
               const std::filesystem::path& output, const Ranks& ranks, const Begun& begun)
    : contents_(contents),
      spooled_(spooled),
      tensors_(report_tensors(contents)),
      output_(lay_out(contents, tensors_)),
      part_(part_path(output, ranks.lock_run, ranks.lock_run), format, output_.layout, begun.part),
      origin_(origin_of_part(output, part_.path().filename().string())),
      queues_(static_cast<std::size_t>(ranks.count)),
      kept_digests_(contents.plan.units.size()),
      copied_again_(contents.plan.units.size(), false) {
  for (std::uint64_t unit = 0; unit < contents.plan.units.size(); ++unit) {
    const std::uint64_t bytes = stored_bytes(contents, unit);
    bytes_to_copy_ += bytes;
    to_compare_.push_back(unit);
    const auto copied = begun.copied.find(unit);
    if (part_.adopted() && copied != begun.copied.end() && copied->second.bytes == bytes) {
      kept_digests_[unit] = copied->second.digest;
      bytes_copied_ += bytes;
      continue;
    }
    const SpoolPlace& place = spooled[unit];
    const bool at_hand =
        place.length > 0 && place.run == ranks.run && place.rank < static_cast<std::uint32_t>(ranks.count);
    queues_.offer(unit, at_hand ? place.rank : SIZE_MAX);
    ++waiting_;
  }
}

std::optional<Task> Commit::next(int rank) {
  const auto unit = queues_.next(static_cast<std::size_t>(rank));
  return unit ? std::optional(copy_task(*unit)) : std::nullopt;
}

Task Commit::copy_task(std::uint64_t unit) const {
  const CopyOrder order{spooled_[unit], address_of(contents_, output_, part_.places(), unit), part_.path().string(),
                        origin_};
  return stored_task(TaskKind::copy, unit, order, stored_bytes(contents_, unit));
}

void Commit::copied(std::uint64_t unit, const CopyResult& result) {
  --waiting_;
  if (!result.intact) {
    lost_.push_back(unit);
    return;
  }
  if (result.bytes != stored_bytes(contents_, unit)) fail(Errc::internal, "a unit was copied with another length");
  if (copied_again_[unit])
    to_compare_.push_back(unit);
  else
    bytes_copied_ += result.bytes;
  kept_digests_[unit] = result.digest;
}

std::optional<Task> Commit::next_to_compare() {
  while (!to_compare_.empty()) {
    const std::uint64_t unit = to_compare_.front(), bytes = stored_bytes(contents_, unit);
    to_compare_.pop_front();
    if (bytes == 0) continue;
    const SpoolPlace& place = spooled_[unit];
    CopyOrder order;
    order.from.length = bytes;
    order.from.digest = place.length > 0 ? place.digest : kept_digests_[unit];
    order.address = address_of(contents_, output_, part_.places(), unit);
    order.output = part_.path().string();
    return stored_task(TaskKind::compare, unit, order, bytes);
  }
  return std::nullopt;
}

void Commit::compared(std::uint64_t unit, const CopyResult& result) {
  if (result.intact) return;
  if (copied_again_[unit])
    fail(Errc::io,
         fmt::format("{}: twice, what was written is not what is read back", printable(part_.path().string())));
  copied_again_[unit] = true;
  queues_.offer(unit);
  ++waiting_;
}

void Commit::finish(const Reader& reader, const std::filesystem::path& output, const RunLock& lock) {
  complete_side(contents_, output_, kept_digests_);
  std::map<std::size_t, std::span<const std::byte>> datasets;
  for (std::size_t d = 0; d < output_.layout.datasets.size(); ++d)
    if (const auto side = output_.side.find(output_.layout.datasets[d].path); side != output_.side.end())
      datasets[d] = side->second;
  part_.write(datasets);
  part_.check(datasets);
  File file(part_.path(), File::Mode::update);
  seal_file(contents_, output_, part_.places(), kept_digests_, file);
  file.sync();
  file.close();
  reader.check_unchanged();
  lock.check_held();
  part_.rename(output);
}

}  // namespace lmq
