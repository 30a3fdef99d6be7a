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
#include "lmq/io/system_words.hpp"
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

/// A shard that a folder or an index names is there and a regular file; links are followed, wherever they lead.
void check_shard(const fs::path& folder, const std::string& name, const std::string& named_by) {
  const fs::path path = folder / name;
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (!fs::exists(status)) {
    if (fs::is_symlink(path, error))
      fail(Errc::missing, fmt::format("{}: the shard is a link to {}, which is not there", shown(path),
                                      shown(fs::read_symlink(path, error))));
    fail(Errc::missing, fmt::format("{}: the shard is missing, {} names it", shown(path), printable(named_by)));
  }
  if (!fs::is_regular_file(status)) fail(Errc::missing, fmt::format("{}: expected a file", shown(path)));
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
  files.index = read_shard_index(path);
  const std::set<std::string> names = shards_of(*files.index);
  files.shards.assign(names.begin(), names.end());
  for (const std::string& shard : files.shards) check_shard(files.folder, shard, files.index_name);
  return files;
}

/// "model-00002-of-00003.safetensors", "model_2_of_3.safetensors", "consolidated.01.of3.safetensors" in parts.
struct ShardName {
  std::string before, between;  ///< "model-" and "-of-"
  std::string digits, digits_of_count;
  std::uint64_t number = 0, count = 0;
  [[nodiscard]] bool same_set(const ShardName& other) const noexcept {
    const bool padded = (digits.size() > 1 && digits[0] == '0') || (other.digits.size() > 1 && other.digits[0] == '0');
    return before == other.before && between == other.between && digits_of_count == other.digits_of_count &&
           (!padded || digits.size() == other.digits.size());
  }
};
constexpr std::string_view kSuffix = ".safetensors";

bool read_number(std::string_view text, std::uint64_t& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc{} && end == text.data() + text.size();
}

/// Takes what `wanted` says off the end of `text`.
template <class Wanted>
std::string take_end(std::string_view& text, const Wanted& wanted) {
  std::size_t begin = text.size();
  while (begin > 0 && wanted(text[begin - 1])) --begin;
  const std::string end(text.substr(begin));
  text.remove_suffix(end.size());
  return end;
}

std::optional<ShardName> parse_shard_name(std::string_view name, std::string_view suffix = kSuffix) {
  if (!name.ends_with(suffix)) return std::nullopt;
  name.remove_suffix(suffix.size());
  const auto digit = [](char c) { return c >= '0' && c <= '9'; };
  const auto divides = [](char c) { return c == '-' || c == '_' || c == '.'; };
  ShardName parts;
  parts.digits_of_count = take_end(name, digit);
  const std::string after = take_end(name, divides);
  if (!name.ends_with("of")) return std::nullopt;
  name.remove_suffix(2);
  parts.between = take_end(name, divides) + "of" + after;
  parts.digits = take_end(name, digit);
  parts.before = name;
  if (parts.between.starts_with("of") || name.size() < 2 || !divides(name.back())) return std::nullopt;
  const bool numbers = read_number(parts.digits, parts.number) && read_number(parts.digits_of_count, parts.count);
  return numbers && parts.count > 0 && parts.number <= parts.count ? std::optional(parts) : std::nullopt;
}

std::string joined(const std::vector<std::string>& names) {
  constexpr std::size_t kMax = 8;
  const std::size_t named = std::min(names.size(), kMax);
  std::string text =
      fmt::format("{}", fmt::join(names.begin(), names.begin() + static_cast<std::ptrdiff_t>(named), ", "));
  if (names.size() > kMax) text += fmt::format(" and {} more", names.size() - kMax);
  return printable(text, 1000);
}

/// All of one set, numbered from 0 or 1; a gap is a missing shard.
void check_complete_set(const fs::path& folder, const std::vector<std::string>& names) {
  const std::optional<ShardName> first = parse_shard_name(names.front());
  std::set<std::uint64_t> numbers;
  for (const std::string& name : names) {
    const std::optional<ShardName> parts = parse_shard_name(name);
    if (!parts || !first || !parts->same_set(*first))
      fail(Errc::usage, fmt::format("{}: the folder holds {} .safetensors files of different sets and no index, name "
                                    "one of them: {}; a set is "
                                    "read whole in a folder of its own (links will do)",
                                    shown(folder), names.size(), joined(names)));
    numbers.insert(parts->number);
  }
  const std::uint64_t begin = numbers.contains(0) ? 0 : 1;
  std::uint64_t expected = begin;
  while (numbers.contains(expected)) ++expected;
  if (expected < begin + first->count)
    fail(Errc::missing, fmt::format("{}/{}{:0{}}{}{}{}: the shard is missing", shown(folder), printable(first->before),
                                    expected, first->digits.size(), first->between, first->digits_of_count, kSuffix));
}

struct Listing {
  std::vector<std::string> safetensors, indexes, foreign;
  std::vector<std::string> others;  ///< models of kinds that are not read
};

/// "model.safetensors.index.json", "model.safetensors.index.fp16.json"
bool is_index_name(std::string_view name) {
  if (!name.ends_with(".json") || name.find(".bin.index.") != name.npos) return false;
  return name.ends_with(".index.json") || name.find(".safetensors.index.") != name.npos;
}

Listing list_folder(const fs::path& folder) {
  Listing listing;
  std::error_code error;
  fs::directory_iterator entries(folder, error);
  if (error)
    fail(out_of_descriptors(error.value()) ? Errc::io : Errc::missing,
         fmt::format("{}: the folder cannot be read: {}", shown(folder), system_words(error.value())));
  for (; entries != fs::directory_iterator(); entries.increment(error)) {
    if (error)
      fail(Errc::io, fmt::format("{}: reading the folder failed: {}", shown(folder), system_words(error.value())));
    const std::string name = entries->path().filename().native();
    const auto ends = [&](std::string_view suffix) { return name.ends_with(suffix) && name.front() != '.'; };
    if (ends(kSuffix))
      listing.safetensors.push_back(name);
    else if (is_index_name(name) && name.front() != '.')
      listing.indexes.push_back(name);
    else if (ends(".bin") || ends(".pt") || ends(".pth") || ends(".gguf") || ends(".h5") || ends(".hdf5") ||
             ends(".keras"))
      listing.foreign.push_back(name);
    else if (ends(".onnx") || ends(".tflite") || ends(".pb") || ends(".msgpack") || ends(".mlmodel"))
      listing.others.push_back(name);
  }
  for (auto* names : {&listing.safetensors, &listing.indexes, &listing.foreign, &listing.others})
    std::ranges::sort(*names);
  return listing;
}

/// The index of a folder that is to be used; what else lies there is named as not used. Nothing when the only index is
/// a left-over: none of its shards is there, but the one file it would have been split from.
std::optional<CheckpointFiles> from_an_index(const fs::path& folder, const Listing& listing) {
  constexpr std::string_view kUsual = "model.safetensors.index.json";
  std::string chosen = listing.indexes.front();
  if (std::ranges::count(listing.indexes, kUsual) > 0)
    chosen = kUsual;
  else if (listing.indexes.size() > 1)
    fail(Errc::usage, fmt::format("{}: the folder holds {} indexes, name one of them: {}", shown(folder),
                                  listing.indexes.size(), joined(listing.indexes)));
  const ShardIndex index = read_shard_index(folder / chosen);
  std::vector<std::string> unused;
  bool any_shard = false;
  const std::set<std::string> named = shards_of(index);
  for (const std::string& name : listing.safetensors)
    if (named.contains(name))
      any_shard = true;
    else
      unused.push_back(name);
  // "model.safetensors.index.json" is of a model that was once split from "model.safetensors".
  const std::string whole = chosen.substr(0, chosen.find(".index."));
  if (std::ranges::find(unused, whole) != unused.end()) {
    if (!any_shard) return std::nullopt;
    fail(Errc::usage,
         fmt::format("{}: the folder holds {} and the shards of {}, which does not name it: one of them is "
                     "older than the other; name the one that is meant, {} or {}",
                     shown(folder), printable(whole), printable(chosen), printable(whole), printable(chosen)));
  }
  CheckpointFiles files = from_index(folder / chosen);
  for (const std::string& name : listing.indexes)
    if (name != chosen) unused.push_back(name);
  if (!unused.empty())
    files.warnings.push_back(fmt::format("{}: not used, because {} does not name {}: {}", shown(folder),
                                         printable(chosen), unused.size() == 1 ? "it" : "them", joined(unused)));
  return files;
}

/// Folders in `folder` and in those that hold safetensors, ascending: parts of a pipeline, snapshots of a hub's cache.
std::vector<std::string> folders_with_weights(const fs::path& folder, int deeper = 1) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator entries(folder, error), end; !error && entries != end; entries.increment(error)) {
    std::error_code unread;
    if (!entries->is_directory(unread)) continue;
    const std::string name = entries->path().filename().native() + "/";
    fs::directory_iterator files(entries->path(), unread);
    if (std::any_of(begin(files), fs::directory_iterator(),
                    [](const fs::directory_entry& file) { return file.path().extension() == kSuffix; }))
      names.push_back(name);
    else if (deeper > 0)
      for (const std::string& below : folders_with_weights(entries->path(), deeper - 1)) names.push_back(name + below);
  }
  std::ranges::sort(names);
  return names;
}

/// Weights of another format, by their usual names; not what a training or a tokenizer leaves.
bool is_foreign_weights(std::string_view name) {
  for (const std::string_view start :
       {"model", "pytorch_model", "consolidated", "tf_model", "ggml-model", "diffusion_pytorch_model"})
    if (name.starts_with(start)) return true;
  return name.ends_with(".gguf");
}

/// What a file is, for a message, as far as it can be read.
std::string kind_of_entry(const fs::path& path) {
  std::error_code error;
  if (!fs::is_regular_file(path, error)) return "no file that can be read";
  const FileFormat format = recognize(File(path, File::Mode::read));
  return format.words.empty() ? "of a kind that is not supported" : fmt::format("{}: {}", format.words, format.advice);
}

[[noreturn]] void refuse_kind(const fs::path& folder, const std::string& name) {
  fail(Errc::unsupported, fmt::format("{}: the folder holds no .safetensors file; {} is {}", shown(folder),
                                      printable(name), kind_of_entry(folder / name)));
}

CheckpointFiles from_folder(const fs::path& folder) {
  Listing listing = list_folder(folder);
  std::vector<std::string> warnings;
  if (!listing.indexes.empty()) {
    if (std::optional<CheckpointFiles> files = from_an_index(folder, listing)) return std::move(*files);
    std::string whole = listing.indexes.front();
    for (const std::string& name : listing.indexes)
      if (name == "model.safetensors.index.json") whole = name;
    warnings.push_back(fmt::format("{}: {} is not used: none of its shards is there", shown(folder), printable(whole)));
    listing.safetensors = {whole.substr(0, whole.find(".index."))};
  }
  if (listing.safetensors.empty() && !listing.foreign.empty()) refuse_kind(folder, listing.foreign.front());
  if (listing.safetensors.empty()) {
    const std::vector<std::string> below = folders_with_weights(folder);
    if (below.empty() && !listing.others.empty()) refuse_kind(folder, listing.others.front());
    fail(Errc::missing,
         fmt::format("{}: the folder holds no .safetensors file, no index of them and no checkpoint of another kind{}",
                     shown(folder),
                     below.empty() ? "" : fmt::format("; weights lie in {}: name one of them", joined(below))));
  }
  std::erase_if(listing.foreign, [](const std::string& name) { return !is_foreign_weights(name); });
  std::erase_if(listing.foreign,
                [](const std::string& name) { return name.ends_with(".h5") && !name.starts_with("tf_"); });
  if (!listing.foreign.empty())
    warnings.push_back(
        fmt::format("{}: not used, because safetensors lie there: {}", shown(folder), joined(listing.foreign)));
  CheckpointFiles files{.folder = absolute_folder(folder),
                        .shards = listing.safetensors,
                        .index = {},
                        .index_name = {},
                        .warnings = std::move(warnings)};
  if (files.shards.size() > 1 || parse_shard_name(files.shards.front())) check_complete_set(folder, files.shards);
  for (const std::string& shard : files.shards) check_shard(files.folder, shard, "its folder");
  return files;
}

/// What a set is called that one file is a shard of, and what to do for the whole model.
struct SetOfShard {
  std::size_t shards = 0;
  std::string whole;
};

/// The first index beside the file that names it and others.
std::optional<SetOfShard> set_by_index(const Listing& beside, const fs::path& file) {
  for (const std::string& name : beside.indexes) try {
      const std::set<std::string> shards = shards_of(read_shard_index(file.parent_path() / name));
      if (shards.size() > 1 && shards.contains(file.filename().native()))
        return SetOfShard{shards.size(), fmt::format("name {} for the whole model", printable(name))};
    } catch (const Error&) {  // what it is worth is said when it is named itself
    }
  return std::nullopt;
}

std::optional<SetOfShard> set_by_name(const Listing& beside, const fs::path& file) {
  const auto shard = parse_shard_name(file.filename().native());
  if (!shard || shard->count < 2) return std::nullopt;
  const bool alone = beside.indexes.empty() && std::ranges::all_of(beside.safetensors, [&](const std::string& name) {
                       const auto parts = parse_shard_name(name);
                       return parts && parts->same_set(*shard);
                     });
  return SetOfShard{static_cast<std::size_t>(shard->count),
                    alone ? "name the folder for the whole model"
                          : "for the whole model give its shards a folder of their own (links will do)"};
}

/// One file alone. A shard of a set is part of a model: that is said, by the word of an index or else by its name.
CheckpointFiles from_file(const fs::path& file) {
  CheckpointFiles files{.folder = absolute_folder(file.parent_path()),
                        .shards = {file.filename().native()},
                        .index = {},
                        .index_name = {},
                        .warnings = {}};
  Listing beside;
  try {
    beside = list_folder(files.folder);
  } catch (const Error&) {  // a folder may be entered without being read: the file's name is all there is to go by
  }
  std::optional<SetOfShard> set = set_by_index(beside, files.folder / files.shards[0]);
  if (!set) set = set_by_name(beside, files.folder / files.shards[0]);
  if (set)
    files.warnings.push_back(
        fmt::format("{}: is one of {} shards, and the others are not used: {}", shown(file), set->shards, set->whole));
  return files;
}

}  // namespace

ShardIndex read_shard_index(const fs::path& path) {
  return parse_shard_index(read_index_text(File(path, File::Mode::read)), shown(path));
}

std::set<std::string> shards_of(const ShardIndex& index) {
  std::set<std::string> names;
  for (const auto& [tensor, shard] : index.shard_of) names.insert(shard);
  for (const auto& [tensor, shards] : index.further_shards_of) names.insert(shards.begin(), shards.end());
  return names;
}

std::uint64_t shards_by_name(const fs::path& file) {
  const std::optional<ShardName> parts = parse_shard_name(file.filename().native(), file.extension().native());
  return parts ? parts->count : 0;
}

CheckpointFiles find_checkpoint_files(const fs::path& input) {
  std::error_code error;
  const fs::file_status status = fs::status(input, error);
  if (!fs::exists(status)) {
    std::error_code unread;
    if (const fs::path to = fs::read_symlink(input, unread); !unread && status.type() == fs::file_type::not_found)
      fail(Errc::missing, fmt::format("{}: is a link to {}, which is not there", shown(input), shown(to)));
    fail(Errc::missing, fmt::format("{}: {}", shown(input), error ? error.message() : "no such file or folder"));
  }
  if (fs::is_directory(status)) return from_folder(input);
  if (!fs::is_regular_file(status)) fail(Errc::missing, fmt::format("{}: expected a file or a folder", shown(input)));
  const FileFormat format = recognize(File(input, File::Mode::read));
  if (format.kind == FileKind::json) return from_index(input);
  if (format.is_foreign())
    fail(Errc::unsupported, fmt::format("{}: found {}, expected a checkpoint ({}): {}", shown(input), format.words,
                                        kReadKinds, format.advice));
  // What looks like nothing known is left to the header's rules, which say what is wrong with it.
  return from_file(input);
}

}  // namespace lmq
