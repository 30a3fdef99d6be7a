#include "checkpoint_files.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <set>
#include <system_error>

#include "file_kind.hpp"
#include "lmq/base/error.hpp"
#include "lmq/base/text.hpp"
#include "lmq/io/file.hpp"
#include "safetensors_header.hpp"

namespace lmq {
namespace fs = std::filesystem;
namespace {

std::string shown(const fs::path& path) { return printable(path.native()); }

fs::path absolute_folder(const fs::path& folder) {
  std::error_code error;
  const fs::path absolute = fs::absolute(folder.empty() ? fs::path(".") : folder, error);
  return error ? folder : absolute.lexically_normal();
}

/// Canonical form, links resolved. Errc::missing when there is nothing.
fs::path resolved(const fs::path& path) {
  std::error_code error;
  fs::path real = fs::canonical(path, error);
  if (error) fail(Errc::missing, fmt::format("{}: cannot be found: {}", shown(path), error.message()));
  return real;
}

bool lies_in(const fs::path& file, const fs::path& folder) {
  const fs::path relative = file.lexically_relative(folder);
  return !relative.empty() && *relative.begin() != "..";
}

/// A shard that a folder or an index names: there, a regular file, and not somewhere else by a link.
void check_shard(const fs::path& folder, const std::string& name, const std::string& named_by) {
  const fs::path path = folder / name;
  std::error_code error;
  if (!fs::exists(path, error))
    fail(Errc::missing, fmt::format("{}: the shard is missing, {} names it", shown(path), printable(named_by)));
  if (!fs::is_regular_file(path, error)) fail(Errc::missing, fmt::format("{}: expected a file", shown(path)));
  const fs::path real = resolved(path), home = resolved(folder);
  if (lies_in(real, home)) return;
  const fs::path snapshots = home.parent_path();
  if (snapshots.filename() == "snapshots" && lies_in(real, snapshots.parent_path() / "blobs")) return;
  fail(Errc::malformed,
       fmt::format("{}: the shard is a link to {}, expected a file in its folder", shown(path), shown(real)));
}

std::string read_index_text(const File& file) {
  const std::uint64_t bytes = file.size();
  if (bytes > kHeaderLimit)
    fail(Errc::malformed,
         fmt::format("{}: an index of {} bytes, expected at most {}", shown(file.path()), bytes, kHeaderLimit));
  std::string text(static_cast<std::size_t>(bytes), '\0');
  file.read(0, std::as_writable_bytes(std::span(text)));
  return text;
}

CheckpointFiles from_index(const fs::path& path) {
  CheckpointFiles files;
  files.folder = absolute_folder(path.parent_path());
  files.index_name = path.filename().native();
  files.index = parse_shard_index(read_index_text(File(path, File::Mode::read)), shown(path));
  std::set<std::string> names;
  for (const auto& [tensor, shard] : files.index->shard_of) names.insert(shard);
  files.shards.assign(names.begin(), names.end());
  for (const std::string& shard : files.shards) check_shard(files.folder, shard, files.index_name);
  return files;
}

/// "model-00002-of-00003.safetensors" in its parts.
struct ShardName {
  std::string prefix, digits_of_count;
  std::uint64_t number = 0, count = 0;
};
constexpr std::string_view kSuffix = ".safetensors";

bool read_number(std::string_view text, std::uint64_t& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc{} && end == text.data() + text.size();
}

std::optional<ShardName> parse_shard_name(std::string_view name) {
  if (!name.ends_with(kSuffix)) return std::nullopt;
  name.remove_suffix(kSuffix.size());
  const auto of = name.rfind("-of-");
  if (of == name.npos || of == 0) return std::nullopt;
  const auto dash = name.rfind('-', of - 1);
  if (dash == name.npos) return std::nullopt;
  ShardName parts{.prefix = std::string(name.substr(0, dash)), .digits_of_count = std::string(name.substr(of + 4))};
  const bool numbers = read_number(name.substr(dash + 1, of - dash - 1), parts.number) &&
                       read_number(parts.digits_of_count, parts.count);
  return numbers && parts.number >= 1 && parts.number <= parts.count ? std::optional(parts) : std::nullopt;
}

/// All of one numbered set; a gap is a missing shard.
void check_complete_set(const fs::path& folder, const std::vector<std::string>& names) {
  const std::optional<ShardName> first = parse_shard_name(names.front());
  for (const std::string& name : names) {
    const std::optional<ShardName> parts = parse_shard_name(name);
    if (!parts || !first || parts->prefix != first->prefix || parts->count != first->count)
      fail(
          Errc::usage,
          fmt::format("{}: the folder holds {} .safetensors files of different sets and no index, name one of them: {}",
                      shown(folder), names.size(), printable(fmt::format("{}", fmt::join(names, ", ")))));
  }
  std::set<std::uint64_t> numbers;
  for (const std::string& name : names) numbers.insert(parse_shard_name(name)->number);
  std::uint64_t expected = 1;
  for (const std::uint64_t number : numbers)
    if (number == expected) ++expected;
  if (expected <= first->count)
    fail(Errc::missing,
         fmt::format("{}/{}-{:0{}}-of-{}{}: the shard is missing", shown(folder), printable(first->prefix), expected,
                     first->digits_of_count.size(), first->digits_of_count, kSuffix));
}

struct Listing {
  std::vector<std::string> safetensors, indexes, foreign;
};

Listing list_folder(const fs::path& folder) {
  Listing listing;
  std::error_code error;
  fs::directory_iterator entries(folder, error);
  if (error) fail(Errc::missing, fmt::format("{}: the folder cannot be read: {}", shown(folder), error.message()));
  for (; entries != fs::directory_iterator(); entries.increment(error)) {
    if (error) fail(Errc::io, fmt::format("{}: reading the folder failed: {}", shown(folder), error.message()));
    const std::string name = entries->path().filename().native();
    const auto ends = [&](std::string_view suffix) { return name.ends_with(suffix) && name.front() != '.'; };
    if (ends(kSuffix))
      listing.safetensors.push_back(name);
    else if (ends(".index.json") && !ends(".bin.index.json"))
      listing.indexes.push_back(name);
    else if (ends(".bin") || ends(".pt") || ends(".pth") || ends(".gguf") || ends(".h5") || ends(".hdf5") ||
             ends(".keras"))
      listing.foreign.push_back(name);
  }
  for (auto* names : {&listing.safetensors, &listing.indexes, &listing.foreign}) std::ranges::sort(*names);
  return listing;
}

CheckpointFiles from_folder(const fs::path& folder) {
  const Listing listing = list_folder(folder);
  constexpr std::string_view kUsual = "model.safetensors.index.json";
  if (std::ranges::count(listing.indexes, kUsual) > 0) return from_index(folder / kUsual);
  if (listing.indexes.size() == 1) return from_index(folder / listing.indexes.front());
  if (listing.indexes.size() > 1)
    fail(Errc::usage,
         fmt::format("{}: the folder holds {} indexes, name one of them: {}", shown(folder), listing.indexes.size(),
                     printable(fmt::format("{}", fmt::join(listing.indexes, ", ")))));
  if (listing.safetensors.empty() && !listing.foreign.empty())
    fail(Errc::unsupported,
         fmt::format("{}: the folder holds no .safetensors file; {} is of a kind that is not supported", shown(folder),
                     printable(listing.foreign.front())));
  if (listing.safetensors.empty())
    fail(Errc::missing, fmt::format("{}: the folder holds no .safetensors file and no index of them", shown(folder)));
  CheckpointFiles files{
      .folder = absolute_folder(folder), .shards = listing.safetensors, .index = {}, .index_name = {}};
  if (files.shards.size() > 1 || parse_shard_name(files.shards.front())) check_complete_set(folder, files.shards);
  for (const std::string& shard : files.shards) check_shard(files.folder, shard, "its folder");
  return files;
}

}  // namespace

CheckpointFiles find_checkpoint_files(const fs::path& input) {
  std::error_code error;
  const fs::file_status status = fs::status(input, error);
  if (!fs::exists(status))
    fail(Errc::missing, fmt::format("{}: {}", shown(input), error ? error.message() : "no such file or folder"));
  if (fs::is_directory(status)) return from_folder(input);
  if (!fs::is_regular_file(status)) fail(Errc::missing, fmt::format("{}: expected a file or a folder", shown(input)));
  const FileNature nature = recognize(File(input, File::Mode::read));
  if (nature.kind == FileKind::json) return from_index(input);
  if (nature.kind == FileKind::other)
    fail(Errc::unsupported,
         fmt::format("{}: found {}, expected safetensors or an index of them", shown(input), nature.words));
  // What looks like nothing known is left to the header's rules, which say what is wrong with it.
  return {.folder = absolute_folder(input.parent_path()),
          .shards = {input.filename().native()},
          .index = {},
          .index_name = {}};
}

}  // namespace lmq
