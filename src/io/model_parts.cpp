#include "model_parts.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
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

/// "consolidated.01.pth", "mp_rank_01_model_states.pt": what is behind the number, where each file of the kind holds a
/// slice of every tensor; nothing of other names.
std::optional<std::string> behind_slice_number(std::string_view name) {
  for (const std::string_view start : {"consolidated.", "mp_rank_"}) {
    if (!name.starts_with(start)) continue;
    const std::size_t end = std::min(name.find_first_not_of("0123456789", start.size()), name.size());
    const std::string_view rest = name.substr(end);
    if (end > start.size() && (rest.rfind('.') == 0 || rest.starts_with('_'))) return std::string(rest);
  }
  return std::nullopt;
}

/// How many names of the folder are slices of what `name` is a slice of; 0 when it is none.
std::size_t slices_like(const std::string& name, const std::vector<std::string>& names) {
  const std::optional<std::string> rest = behind_slice_number(name);
  if (!rest) return 0;
  return static_cast<std::size_t>(
      std::ranges::count_if(names, [&](const std::string& other) { return behind_slice_number(other) == rest; }));
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

void refuse_unjoined_parts(const fs::path& folder) {
  const std::vector<std::string> names = names_in(folder);
  const auto other_safetensors = [](const std::string& name) {
    return !behind_slice_number(name) && (name.ends_with(".safetensors") || name.ends_with(".safetensors.index.json"));
  };
  if (std::ranges::any_of(names, other_safetensors)) return;
  const auto slice = std::ranges::find_if(names, [&](const std::string& name) { return slices_like(name, names) > 1; });
  if (slice != names.end())
    fail(Errc::unsupported,
         fmt::format("{}: {} files like {}, each with a slice of every tensor (model parallel), which are not put "
                     "together: convert the model to safetensors with the scripts of transformers, then name the "
                     "folder they make",
                     printable(folder.native()), slices_like(*slice, names), printable(*slice)));
  const KerasShards keras = keras_shards(folder, names);
  if (std::ranges::any_of(keras.shards, [&](const std::string& s) { return std::ranges::binary_search(names, s); }))
    fail(Errc::unsupported, fmt::format("{}: {} shards of {}, which are not put together: save the model as one file",
                                        printable(folder.native()), keras.shards.size(), printable(keras.index)));
}

}  // namespace lmq
