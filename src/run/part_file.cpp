#include "part_file.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <system_error>
#include <utility>

#include "lmq/base/bytes.hpp"
#include "lmq/base/digest.hpp"
#include "lmq/base/error.hpp"
#include "lmq/base/text.hpp"
#include "lmq/io/file.hpp"

namespace lmq {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kRunDigits = 16, kMaxAtOnce = std::size_t{4} << 20;

/// What lies between the pieces.
std::vector<std::pair<std::uint64_t, std::uint64_t>> gaps_of(const FileLayout& layout, const FilePlaces& places) {
  std::vector<std::pair<std::uint64_t, std::uint64_t>> pieces;  // begin, end
  for (std::size_t d = 0; d < layout.datasets.size(); ++d)
    for (std::size_t p = 0; p < layout.datasets[d].piece_bytes.size(); ++p) {
      const std::uint64_t bytes = layout.datasets[d].piece_bytes[p], begin = places.offsets[d][p];
      if (bytes > 0) pieces.emplace_back(begin, begin + bytes);
    }
  std::sort(pieces.begin(), pieces.end());
  std::vector<std::pair<std::uint64_t, std::uint64_t>> gaps;
  std::uint64_t at = 0;
  for (const auto& [begin, end] : pieces) {
    if (begin > at) gaps.emplace_back(at, begin);
    at = std::max(at, end);
  }
  if (places.file_bytes > at) gaps.emplace_back(at, places.file_bytes);
  return gaps;
}

}  // namespace

fs::path part_path(const fs::path& output, const std::string& origin, const std::string& run) {
  fs::path part = output;
  part += ".part-" + origin + "-" + run;
  return part;
}

std::string origin_of_part(const fs::path& output, const std::string& name) {
  const std::string start = output.filename().string() + ".part-";
  if (name.size() != start.size() + 2 * kRunDigits + 1 || !name.starts_with(start)) return {};
  const auto is_run = [](const std::string& text) {
    return text.find_first_not_of("0123456789abcdef") == std::string::npos;
  };
  const std::string origin = name.substr(start.size(), kRunDigits), run = name.substr(start.size() + kRunDigits + 1);
  return name[start.size() + kRunDigits] == '-' && is_run(origin) && is_run(run) ? origin : std::string();
}

PartFile::PartFile(fs::path path, LayoutFormat& format, const FileLayout& layout) : path_(std::move(path)) {
  create(format, layout);
}

PartFile::PartFile(fs::path path, LayoutFormat& format, const FileLayout& layout, const Earlier& earlier)
    : path_(std::move(path)) {
  std::error_code ignored;
  try {
    create(format, layout);
  } catch (const Error& error) {
    // There may be room for one of them only.
    if (error.code != Errc::io || !fs::remove(earlier.path, ignored)) throw;
    create(format, layout);
    return;
  }
  adopt(earlier);
}

void PartFile::create(LayoutFormat& format, const FileLayout& layout) {
  auto made = File::make_new(path_);
  if (!made) fail(Errc::cannot_create, fmt::format("{}: is there already", printable(path_.string())));
  made->close();
  try {
    places_ = format.create(path_, layout);
    gaps_ = gaps_of(layout, places_);
    metadata_digest_ = digest_of_metadata(path_);
  } catch (...) {
    std::error_code ignored;
    fs::remove(path_, ignored);
    throw;
  }
}

void PartFile::adopt(const Earlier& earlier) {
  try {
    if (stamp_of(earlier.path).bytes != places_.file_bytes || digest_of_metadata(earlier.path) != metadata_digest_)
      return;
  } catch (const Error&) {
    return;  // it is gone, or cannot be read
  }
  std::error_code problem;
  fs::rename(earlier.path, earlier.adopted, problem);
  if (problem) return;
  fs::remove(path_, problem);
  path_ = earlier.adopted;
  adopted_ = true;
}

PartFile::~PartFile() {
  std::error_code ignored;
  if (!keep_) fs::remove(path_, ignored);
}

std::uint64_t PartFile::digest_of_metadata(const fs::path& path) const {
  const File file(path, File::Mode::read);
  ByteWriter digests;
  std::vector<std::byte> buffer;
  for (auto [begin, end] : gaps_)
    for (; begin < end; begin += buffer.size()) {
      buffer.resize(std::min<std::uint64_t>(kMaxAtOnce, end - begin));
      file.read(begin, buffer);
      digests.le(digest64(std::span<const std::byte>(buffer)));
    }
  return digest64(std::span<const std::byte>(digests.bytes()));
}

void PartFile::write(const std::map<std::size_t, std::span<const std::byte>>& datasets) const {
  File file(path_, File::Mode::update);
  for (const auto& [dataset, bytes] : datasets)
    if (!bytes.empty()) file.write(places_.offsets[dataset][0], bytes);
  file.sync();
  file.close();
}

void PartFile::check(const std::map<std::size_t, std::span<const std::byte>>& datasets) const {
  const File file(path_, File::Mode::read);
  const auto wrong = [&](const std::string& what) {
    fail(Errc::io, fmt::format("{}: {}: it is not what was written; the output is left as it was",
                               printable(path_.string()), what));
  };
  if (file.size() != places_.file_bytes)
    wrong(fmt::format("has {} bytes, expected {}", file.size(), places_.file_bytes));
  if (digest_of_metadata(path_) != metadata_digest_) wrong("its metadata have changed");
  std::vector<std::byte> buffer;
  for (const auto& [dataset, bytes] : datasets) {
    buffer.resize(bytes.size());
    file.read(places_.offsets[dataset][0], buffer);
    if (!std::ranges::equal(buffer, bytes)) wrong(fmt::format("at byte {}", places_.offsets[dataset][0]));
  }
}

void PartFile::rename(const fs::path& output) {
  rename_durably(path_, output);
  keep_ = true;
}

}  // namespace lmq
