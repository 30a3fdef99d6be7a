#include "export_files.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <span>

#include "lmq/base/error.hpp"
#include "lmq/base/text.hpp"
#include "lmq/io/file.hpp"
#include "lmq/io/reader.hpp"

namespace lmq::app {
namespace {

namespace fs = std::filesystem;
constexpr const char* kIndexName = "model.safetensors.index.json";

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

/// Small files that make weights a model: configuration, tokenizer, vocabulary, templates. Not weights, not their
/// index.
bool is_model_file(const fs::path& path) {
  const std::string name = path.filename().string(), type = path.extension().string();
  if (name.ends_with(".index.json")) return false;
  constexpr const char* kTypes[] = {".json", ".model", ".txt", ".jinja", ".tiktoken", ".vocab"};
  return std::ranges::find(kTypes, type) != std::end(kTypes) || (name.starts_with("tokenizer") && type == ".bin");
}

bool mentions_fp8(const nlohmann::ordered_json& config) {
  const auto quantization = config.find("quantization_config");
  if (quantization == config.end() || !quantization->is_object()) return false;
  const auto method = quantization->find("quant_method");
  return method != quantization->end() && method->is_string() &&
         method->get<std::string>().find("fp8") != std::string::npos;
}

std::string read_text(const fs::path& path) {
  const File file(path, File::Mode::read);
  std::string text(static_cast<std::size_t>(file.size()), '\0');
  file.read(0, std::as_writable_bytes(std::span(text)));
  return text;
}

}  // namespace

void check_replaceable(const fs::path& path) {
  std::error_code error;
  if (!fs::exists(path, error)) return;
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

StagedFolder::StagedFolder(fs::path final_folder, const std::vector<std::string>& shards)
    : final_(plain(std::move(final_folder))) {
  staging_ = final_;
  staging_ += ".lmq-partial";
  std::error_code error;
  if (fs::exists(final_, error)) {
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
  fs::remove_all(staging_, error);  // what an interrupted export left
  if (!fs::create_directory(staging_, error))
    fail(Errc::cannot_create, fmt::format("{}: cannot be made: {}", shown(staging_), error.message()));
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
  for (const fs::directory_entry& entry : fs::directory_iterator(staging_)) names.push_back(entry.path().filename());
  std::ranges::sort(names, {}, [](const fs::path& name) { return std::pair(name == kIndexName, name.string()); });
  fs::remove(final_ / kIndexName, error);  // between the first and the last file no index speaks for both
  for (const fs::path& name : names) rename_durably(staging_ / name, final_ / name);
}

std::vector<std::string> copy_model_files(const fs::path& source, const fs::path& target) {
  std::error_code error;
  if (!fs::is_directory(source, error)) fail(Errc::missing, fmt::format("--source {}: is no folder", shown(source)));
  std::vector<std::string> names;
  for (const fs::directory_entry& entry : fs::directory_iterator(source)) {
    if (!entry.is_regular_file(error) || !is_model_file(entry.path())) continue;
    const std::string name = entry.path().filename().string();
    if (name == "config.json") {
      auto config = nlohmann::ordered_json::parse(read_text(entry.path()), nullptr, false);
      if (config.is_object() && mentions_fp8(config)) {
        config.erase("quantization_config");
        write_text(target / name, config.dump(2) + "\n");
        names.push_back(name + " (without its quantization_config)");
        continue;
      }
    }
    if (!fs::copy_file(entry.path(), target / name, fs::copy_options::overwrite_existing, error))
      fail(Errc::io, fmt::format("{}: cannot be copied: {}", shown(entry.path()), error.message()));
    fs::permissions(target / name, fs::perms::owner_write, fs::perm_options::add, error);
    names.push_back(name);
  }
  std::ranges::sort(names);
  return names;
}

void write_index(const fs::path& folder, const std::map<std::string, std::string>& shard_of,
                 std::uint64_t total_bytes) {
  const nlohmann::json index{{"metadata", {{"total_size", total_bytes}}}, {"weight_map", shard_of}};
  write_text(folder / kIndexName, index.dump(2) + "\n");
}

}  // namespace lmq::app
