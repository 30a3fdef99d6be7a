#include "lmq/run/commit.hpp"

#include <fmt/format.h>
#include <sys/file.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

#include "lmq/base/error.hpp"
#include "lmq/io/file.hpp"

namespace lmq {
namespace {
constexpr double kSecondsPerByte = 0.5e-9;  // read, digest, write
}

std::filesystem::path part_path(const std::filesystem::path& output, const std::string& plan_digest) {
  std::filesystem::path part = output;
  part += ".part-" + plan_digest.substr(0, 8);
  return part;
}

void refuse_busy_part(const std::filesystem::path& part) {
  std::error_code ignored;
  if (!std::filesystem::exists(part, ignored)) return;
  const File file(part, File::Mode::update);
  if (flock(file.fd(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
    fail(Errc::usage, fmt::format("{}: another run is writing this file now", part.string()));
}

Commit::Commit(const OutputContents& contents, LayoutFormat& format, std::filesystem::path output, int ranks,
               std::uint32_t run)
    : contents_(contents),
      output_path_(std::move(output)),
      part_(part_path(output_path_, contents.plan.digest)),
      tensors_(report_tensors(contents)),
      output_(lay_out(contents, tensors_)),
      queues_(static_cast<std::size_t>(ranks) + 1),
      kept_digests_(contents.plan.units.size()) {
  for (std::uint64_t unit = 0; unit < contents.plan.units.size(); ++unit) {
    const SpoolPlace& place = contents.units[unit].place;
    const bool at_hand = place.length > 0 && place.run == run && place.rank < static_cast<std::uint32_t>(ranks);
    queues_[at_hand ? place.rank : queues_.size() - 1].push_back(unit);
    bytes_to_copy_ += stored_bytes(contents, unit);
    ++waiting_;
  }
  refuse_busy_part(part_);
  try {
    places_ = format.create(part_, output_.layout);
    claim();
  } catch (...) {
    std::error_code ignored;
    std::filesystem::remove(part_, ignored);
    throw;
  }
}

void Commit::claim() {
  part_lock_ = File(part_, File::Mode::update);
  (void)flock(part_lock_.fd(),
              LOCK_EX | LOCK_NB);  // where there are no locks, two runs of one output are not told apart
}

Commit::~Commit() {
  std::error_code ignored;
  if (!finished_) std::filesystem::remove(part_, ignored);
}

std::optional<Task> Commit::next(int rank) {
  const auto take = [&](std::deque<std::uint64_t>& queue) {
    const std::uint64_t unit = queue.front();
    queue.pop_front();
    return copy_task(unit);
  };
  if (auto& own = queues_[static_cast<std::size_t>(rank)]; !own.empty()) return take(own);
  if (auto& nobodys = queues_.back(); !nobodys.empty()) return take(nobodys);
  const auto longest = std::ranges::max_element(queues_, {}, &std::deque<std::uint64_t>::size);
  if (longest->empty()) return std::nullopt;
  return take(*longest);
}

Task Commit::copy_task(std::uint64_t unit) const {
  const CopyOrder order{contents_.units[unit].place, address_of(contents_, output_, places_, unit), part_.string()};
  return {{TaskKind::copy, unit, 0},
          order.to_bytes(),
          kSecondsPerByte * static_cast<double>(stored_bytes(contents_, unit))};
}

void Commit::copied(std::uint64_t unit, const CopyResult& result) {
  --waiting_;
  bytes_copied_ += result.bytes;
  if (!result.intact) {
    lost_.push_back(unit);
    return;
  }
  if (result.bytes != stored_bytes(contents_, unit)) fail(Errc::internal, "a unit was copied with another length");
  kept_digests_[unit] = result.digest;
}

void Commit::finish(const Reader& reader) {
  complete_side(contents_, output_, places_, kept_digests_);
  File file(part_, File::Mode::update);
  for (std::size_t d = 0; d < output_.layout.datasets.size(); ++d) {
    const auto side = output_.side.find(output_.layout.datasets[d].path);
    if (side != output_.side.end() && !side->second.empty()) file.write(places_.offsets[d][0], side->second);
  }
  file.sync();
  file.close();
  reader.check_unchanged();
  rename_durably(part_, output_path_);
  finished_ = true;
}

}  // namespace lmq
