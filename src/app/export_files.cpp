#include "export_files.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <exception>
#include <initializer_list>
#include <set>
#include <span>

#include "lmq/base/error.hpp"
#include "lmq/base/text.hpp"
#include "lmq/io/file.hpp"
#include "lmq/io/json_text.hpp"
#include "lmq/io/reader.hpp"

namespace lmq::app {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
constexpr std::uint64_t kConfigLimit = std::uint64_t{16} << 20, kIndexLimit = std::uint64_t{256} << 20;

std::string shown(const fs::path& path) { return printable(path.string()); }

/// A folder's name without the slash at its end.
fs::path plain(fs::path path) {
  path = path.lexically_normal();
  return path.has_filename() ? path : path.parent_path();
}

void write_text(const fs::path& path, const std::string& text) {
  File file(path, File::Mode::create);
  file.write(0, std::as_bytes(std::span(text)));
  file.close();
}

bool ends_with_one_of(const std::string& name, std::initializer_list<const char*> suffixes) {
  return std::ranges::any_of(suffixes, [&](const char* suffix) { return name.ends_with(suffix); });
}

/// Weights in other formats, and what is left of a training or a running program.
bool is_left_out(const std::string& name) {
  const bool tokenizer = name.starts_with("tokenizer") || name.starts_with("vocab");
  if (name.ends_with(".bin") && !tokenizer) return true;
  if (name.starts_with("events.out.tfevents") || name.ends_with(".pyc")) return true;
  return ends_with_one_of(name, {".pt", ".pth", ".ckpt", ".gguf", ".onnx", ".onnx_data", ".h5", ".hdf5", ".keras",
                                 ".msgpack", ".ot", ".tflite", ".mlmodel", ".engine", ".bin.index.json"});
}

/// Folders of which nothing belongs to the model: its states during training, their log, compiled code.
bool is_left_out_folder(const std::string& name) {
  constexpr std::string_view kCheckpoint = "checkpoint-";
  const bool checkpoint = name.starts_with(kCheckpoint) && name.size() > kCheckpoint.size() &&
                          name.find_first_not_of("0123456789", kCheckpoint.size()) == name.npos;
  return checkpoint || name == "__pycache__" || name == "runs" || name == "wandb";
}

/// Weights of the model or of another part, and their indexes.
bool is_weights(const std::string& name) {
  return name.ends_with(".safetensors") || name.find(".safetensors.index.") != name.npos ||
         name.ends_with(".index.json");
}

constexpr std::string_view kQuantizationKeys[] = {"quantization_config", "compression_config", "quantization"};

/// Files that describe quantized weights and nothing else.
bool describes_quantization(const std::string& name) {
  return std::ranges::any_of(std::initializer_list<const char*>{"hf_quant_config.json", "quantize_config.json",
                                                                "quant_config.json", "quantization_config.json"},
                             [&](const char* known) { return name == known; });
}

constexpr std::string_view kTypeKeys[] = {"torch_dtype", "dtype"};  // of the weights
constexpr std::string_view kFloat8 = "float8";

/// Takes descriptions of quantized weights out, wherever nested, and says BF16 where their type was an 8-bit float; true
/// when there was one.
bool erase_quantization(Json& tree) {
  bool found = false;
  if (tree.is_object()) {
    for (const std::string_view key : kQuantizationKeys)
      if (const auto at = tree.find(key); at != tree.end() && at->is_object()) tree.erase(at), found = true;
    for (const std::string_view key : kTypeKeys)
      if (const auto at = tree.find(key);
          at != tree.end() && at->is_string() && at->get<std::string>().find(kFloat8) != std::string::npos)
        *at = "bfloat16", found = true;
  }
  if (tree.is_structured())
    for (Json& value : tree)
      if (erase_quantization(value)) found = true;
  return found;
}

/// Whether a small text file names one of kQuantizationKeys or an 8-bit float.
bool speaks_of_quantization(const fs::path& path) {
  const File file(path, File::Mode::read);
  if (file.size() > kConfigLimit) return false;  // vocabularies
  std::string text(static_cast<std::size_t>(file.size()), '\0');
  file.read(0, std::as_writable_bytes(std::span(text)));
  return text.find(kFloat8) != text.npos || std::ranges::any_of(kQuantizationKeys, [&](std::string_view key) {
           return text.find(fmt::format("\"{}\"", key)) != text.npos;
         });
}

std::string text_of(const Json& config) {
  return bare_python_numbers(config.dump(2, ' ', false, Json::error_handler_t::replace)) + "\n";
}

void copy_one(const fs::path& from, const fs::path& to) {
  std::error_code error;
  fs::create_directories(to.parent_path(), error);
  if (!fs::copy_file(from, to, fs::copy_options::overwrite_existing, error))
    fail(Errc::io, fmt::format("{}: cannot be copied: {}", shown(from), error.message()));
  fs::permissions(to, fs::perms::owner_write, fs::perm_options::add, error);
}

/// Walks a model's folder and copies what belongs to it.
class ModelCopy {
 public:
  ModelCopy(fs::path source, fs::path target, bool described)
      : source_(std::move(source)), target_(std::move(target)), described_(described) {}

  CopiedFiles run() {
    find_shards();
    walk({});
    for (auto* names : {&out_.copied, &out_.changed, &out_.left_out, &out_.unread}) std::ranges::sort(*names);
    return std::move(out_);
  }

 private:
  /// What indexes of the folder name as their shards: weights, also where they lie below.
  void find_shards() {
    for (const fs::directory_entry& entry : fs::directory_iterator(source_)) {
      const std::string name = entry.path().filename().string();
      if (name.find(".safetensors.index.") == name.npos) continue;
      try {
        const auto index = read_python_json_file(entry.path(), kIndexLimit);
        for (const auto& [tensor, shard] : index.at("weight_map").items())
          shards_.insert(fs::path(shard.get<std::string>()).lexically_normal());
      } catch (const std::exception&) {
        // No index that could be read: it names nothing.
      }
    }
  }

  void walk(const fs::path& below) {
    std::error_code error;
    open_.push_back(fs::canonical(source_ / below, error));
    for (const fs::directory_entry& entry : fs::directory_iterator(source_ / below)) {
      const std::string name = entry.path().filename().string();
      const bool folder = entry.is_directory(error);
      if (folder && is_where_it_goes(entry.path())) continue;
      if (name.starts_with('.') || (folder && (is_left_out_folder(name) || leads_back(entry.path()))))
        out_.left_out.push_back((below / name).string());
      else if (folder)
        walk(below / name);
      else if (entry.is_regular_file(error))
        take(below / name, below.empty());
      else
        out_.left_out.push_back((below / name).string());
    }
    open_.pop_back();
  }

  /// A link to a folder that is being copied, or to one that holds it: it would be copied into itself.
  [[nodiscard]] bool leads_back(const fs::path& folder) const {
    std::error_code error;
    const fs::path real = fs::canonical(folder, error);
    return std::ranges::any_of(open_, [&](const fs::path& open) {
      const auto [in_real, in_open] = std::ranges::mismatch(real, open);
      return in_real == real.end();
    });
  }

  /// The export itself, when it is made inside of the model's folder.
  [[nodiscard]] bool is_where_it_goes(const fs::path& folder) const {
    std::error_code error;
    const auto name = [](const fs::path& path) { return path.filename().string(); };
    return fs::equivalent(folder, target_, error) ||
           (name(target_).starts_with(name(folder) + kPartial) &&
            fs::equivalent(folder.parent_path(), target_.parent_path(), error));
  }

  void take(const fs::path& file, bool top) {
    const std::string name = file.filename().string();
    std::error_code error;
    if (top && is_weights(name) && fs::exists(target_ / name, error)) return;  // the export has its own
    if (is_left_out(name) || (top && is_weights(name)) || shards_.contains(file) ||
        (!described_ && describes_quantization(name))) {
      out_.left_out.push_back(file.string());
    } else if (!described_ && name.ends_with(".json") && write_config(file)) {
      out_.changed.push_back(file.string());
    } else {
      copy_one(source_ / file, target_ / file);
      out_.copied.push_back(file.string());
    }
  }

  /// False when nothing in it describes quantized weights.
  bool write_config(const fs::path& file) {
    if (!speaks_of_quantization(source_ / file)) return false;
    Json config;
    try {
      config = read_python_json_file<Json>(source_ / file, kConfigLimit);
    } catch (const Error&) {
      out_.unread.push_back(file.string());
      return false;  // no JSON: copied as it is
    }
    if (!erase_quantization(config)) return false;
    std::error_code error;
    fs::create_directories((target_ / file).parent_path(), error);
    write_text(target_ / file, text_of(config));
    return true;
  }

  const fs::path source_, target_;
  const bool described_;
  std::set<fs::path> shards_;
  std::vector<fs::path> open_;  // folders on the way to what is being copied, without links
  CopiedFiles out_;
};

std::string list_text(const std::vector<std::string>& names) {
  return names.empty() ? "nothing" : printable(fmt::format("{}", fmt::join(names, ", ")), 2000);
}

}  // namespace

void check_replaceable(const fs::path& path) {
  std::error_code error;
  if (!fs::exists(fs::symlink_status(path, error))) return;  // a link that leads nowhere is there, too
  bool ours = false;
  if (fs::is_regular_file(path, error)) {
    try {
      ours = open_reader(path)->catalogue().metadata.contains(kExportMark);
    } catch (const Error&) {  // whatever it is, it is not ours
    }
  }
  if (!ours)
    fail(Errc::cannot_create,
         fmt::format("{}: exists and is no earlier export of lmq; remove it or choose another name", shown(path)));
}

StagedFolder::StagedFolder(fs::path final_folder, const std::vector<std::string>& shards, std::string index)
    : final_(plain(std::move(final_folder))), index_(std::move(index)) {
  staging_ = free_name_beside(final_);
  std::error_code error;
  if (fs::exists(fs::symlink_status(final_, error))) {
    if (!fs::is_directory(final_, error))
      fail(Errc::cannot_create, fmt::format("{}: exists and is no folder", shown(final_)));
    for (const fs::directory_entry& entry : fs::directory_iterator(final_)) {
      if (entry.path().extension() != ".safetensors") continue;
      if (std::ranges::find(shards, entry.path().filename().string()) == shards.end())
        fail(Errc::cannot_create, fmt::format("{}: is none of the files to be made; remove it or choose another folder",
                                              shown(entry.path())));
      check_replaceable(entry.path());
    }
  }
  for (const std::string& shard : shards)
    if (shard.find('/') != std::string::npos) check_replaceable(final_ / shard);
  if (!fs::create_directory(staging_, error))
    fail(Errc::cannot_create, fmt::format("{}: cannot be made: {}", shown(staging_), error.message()));
  for (const std::string& shard : shards) fs::create_directories((staging_ / shard).parent_path(), error);
}

StagedFolder::~StagedFolder() {
  std::error_code ignored;
  fs::remove_all(staging_, ignored);
}

void StagedFolder::publish() {
  std::error_code error;
  if (!fs::exists(final_, error)) {
    rename_durably(staging_, final_);
    return;
  }
  std::vector<fs::path> names;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(staging_))
    if (entry.is_regular_file(error)) names.push_back(entry.path().lexically_relative(staging_));
  std::ranges::sort(names, {}, [&](const fs::path& name) { return std::pair(name == index_, name.string()); });
  if (!index_.empty())
    fs::remove(final_ / index_, error);  // between the first and the last file no index speaks for both
  for (const fs::path& name : names) {
    if (const fs::path folder = (final_ / name).parent_path(); !fs::create_directories(folder, error) && error)
      fail(Errc::cannot_create, fmt::format("{}: cannot be made: {}", shown(folder), error.message()));
    rename_durably(staging_ / name, final_ / name);
  }
}

CopiedFiles copy_model_files(const fs::path& source, const fs::path& target, bool described) {
  std::error_code error;
  if (!fs::is_directory(source, error)) fail(Errc::missing, fmt::format("--source {}: is no folder", shown(source)));
  return ModelCopy(source, target, described).run();
}

nlohmann::json copied_json(const CopiedFiles& files) {
  return {{"copied", files.copied}, {"changed", files.changed}, {"left_out", files.left_out}};
}

std::string copied_text(const fs::path& source, const CopiedFiles& files) {
  const std::string from = printable(source.string());
  std::string text = fmt::format("copied from {}: {}\n", from, list_text(files.copied));
  if (!files.changed.empty())
    text += fmt::format("without their quantization_config, which no longer holds: {}\n", list_text(files.changed));
  if (!files.unread.empty())
    text += fmt::format("copied as they are, no JSON although they speak of quantized weights, which are no more: {}\n",
                        list_text(files.unread));
  if (!files.left_out.empty()) text += fmt::format("left out: {}\n", list_text(files.left_out));
  return text;
}

nlohmann::json index_metadata(const fs::path& path) {
  std::error_code error;
  if (!fs::is_regular_file(path, error)) return nlohmann::json::object();
  try {
    nlohmann::json metadata = read_python_json_file(path, kIndexLimit).value("metadata", nlohmann::json());
    return metadata.is_object() ? metadata : nlohmann::json::object();
  } catch (const std::exception&) {
    return nlohmann::json::object();  // no index that could be read
  }
}

void write_index(const fs::path& path, const std::map<std::string, std::string>& shard_of, std::uint64_t total_bytes,
                 nlohmann::json metadata) {
  metadata["total_size"] = total_bytes;
  const nlohmann::json index{{"metadata", std::move(metadata)}, {"weight_map", shard_of}};
  write_text(path, index.dump(2) + "\n");
}

void describe_weights(const fs::path& folder, const Json& description) {
  const fs::path path = folder / "config.json";
  auto config = read_python_json_file<Json>(path, kConfigLimit);
  if (!config.is_object()) fail(Errc::malformed, fmt::format("{}: is no JSON object", shown(path)));
  config["quantization_config"] = description;
  write_text(path, text_of(config));
}

}  // namespace lmq::app
