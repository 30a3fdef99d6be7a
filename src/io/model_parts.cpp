#include "model_parts.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <system_error>
#include <vector>

#include "checkpoint_files.hpp"
#include "lmq/base/error.hpp"
#include "lmq/base/text.hpp"

namespace lmq {
namespace fs = std::filesystem;
namespace {

/// Names of a folder, ascending; none where it cannot be read.
std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator entries(folder, error), end; !error && entries != end; entries.increment(error))
    names.push_back(entries->path().filename().native());
  std::ranges::sort(names);
  return names;
}

/// The shards that an index of Keras in the folder names, and its name: the first index of two shards and more.
struct KerasShards {
  std::string index;
  std::set<std::string> shards;
};
KerasShards keras_shards(const fs::path& folder, const std::vector<std::string>& names) {
  for (const std::string& name : names) try {
      if (!name.ends_with(".weights.json")) continue;
      KerasShards found{name, shards_of(read_shard_index(folder / name))};
      if (found.shards.size() > 1) return found;
    } catch (const Error&) {  // what it is worth is said when it is named itself
    }
  return {};
}

/// "consolidated.01.pth": the names of its kind in the folder. Each holds a slice of every tensor.
std::size_t slices_like(const std::string& name, const std::vector<std::string>& names) {
  constexpr std::string_view kStart = "consolidated.";
  const auto is_slice = [&](const std::string& other) {
    const auto dot = other.rfind('.');
    return other.starts_with(kStart) && dot > kStart.size() && dot != other.npos &&
           other.substr(dot) == name.substr(name.rfind('.')) &&
           std::all_of(other.begin() + static_cast<std::ptrdiff_t>(kStart.size()),
                       other.begin() + static_cast<std::ptrdiff_t>(dot), [](char c) { return c >= '0' && c <= '9'; });
  };
  if (!name.starts_with(kStart) || !is_slice(name)) return 0;
  return static_cast<std::size_t>(std::ranges::count_if(names, is_slice));
}

}  // namespace

std::string part_warning(const fs::path& file) {
  const std::string name = file.filename().native();
  const std::vector<std::string> names = names_in(file.parent_path());
  const auto warning = [&](std::uint64_t count, std::string_view what) {
    return fmt::format("{}: is one of {} shards, and the others are not used: {}", printable(file.native()), count,
                       what);
  };
  if (const std::size_t slices = slices_like(name, names); slices > 1)
    return warning(slices, "each may hold a slice of every tensor; a conversion to safetensors puts them together");
  if (const KerasShards keras = keras_shards(file.parent_path(), names); keras.shards.contains(name))
    return warning(keras.shards.size(),
                   fmt::format("{} names them; save the model as one file", printable(keras.index)));
  if (file.extension() == ".safetensors") return {};
  if (const std::uint64_t count = shards_by_name(file); count > 1)
    return warning(count, "save the model as one file or as safetensors");
  return {};
}

void refuse_keras_shards(const fs::path& folder) {
  const std::vector<std::string> names = names_in(folder);
  if (std::ranges::any_of(names, [](const std::string& name) { return name.ends_with(".safetensors"); })) return;
  const KerasShards keras = keras_shards(folder, names);
  if (std::ranges::any_of(keras.shards, [&](const std::string& s) { return std::ranges::binary_search(names, s); }))
    fail(Errc::unsupported, fmt::format("{}: {} shards of {}, which are not put together: save the model as one file",
                                        printable(folder.native()), keras.shards.size(), printable(keras.index)));
}

}  // namespace lmq
