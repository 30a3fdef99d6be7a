#pragma once
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace lmq::app {

/// Key in "__metadata__" that marks a file as an export of ours, which another export may replace.
inline constexpr const char* kExportMark = "lmq_export";

/// Errc::cannot_create when something that is no export of ours has the name `path`.
void check_replaceable(const std::filesystem::path& path);

/// The place an export is made in: a folder beside `final_folder` that takes its name, or gives it its files, at the
/// end.
class StagedFolder {
 public:
  /// shards: the .safetensors files to come, in folders below where their names say so; index: that of their index, empty: none. Errc::cannot_create when
  /// `final_folder` is no folder, cannot be written, or holds other weights than an earlier export of these shards.
  StagedFolder(std::filesystem::path final_folder, const std::vector<std::string>& shards, std::string index);
  ~StagedFolder();  ///< removes what was not published
  StagedFolder(const StagedFolder&) = delete;
  StagedFolder& operator=(const StagedFolder&) = delete;
  [[nodiscard]] const std::filesystem::path& path() const noexcept { return staging_; }
  /// Gives everything its final name; the index last.
  void publish();

 private:
  std::filesystem::path final_, staging_;
  std::string index_;
};

/// Paths relative to the model's folder, ascending.
struct CopiedFiles {
  std::vector<std::string> copied, changed, left_out;
  std::vector<std::string> unread;  ///< of copied: no JSON, though they name quantized weights
};

/// Copies what makes weights a model: configuration, tokenizer, code, licence, sub-folders - everything but the weights
/// of the folder itself, their indexes and the shards that those name, weights of other formats anywhere, the states and
/// logs of a training, compiled Python, what begins with a dot, and links that lead back to where they are. Other links
/// are followed. described: the export still holds what its description of quantized weights
/// says; else that is taken out of all *.json wherever nested, and files that hold nothing else stay behind.
/// Errc::missing, Errc::io.
CopiedFiles copy_model_files(const std::filesystem::path& source, const std::filesystem::path& target, bool described);

/// What was copied from the model's folder, changed on the way, and left out, in lines.
[[nodiscard]] std::string copied_text(const std::filesystem::path& source, const CopiedFiles& files);

/// The same for programs: "copied", "changed", "left_out".
[[nodiscard]] nlohmann::json copied_json(const CopiedFiles& files);

/// Puts quantization_config into config.json of `folder`, in place of another. Errc::missing, Errc::malformed.
void describe_weights(const std::filesystem::path& folder, const nlohmann::ordered_json& description);

/// What an index of shards says of the model beside where its tensors are; an empty object where there is none.
[[nodiscard]] nlohmann::json index_metadata(const std::filesystem::path& path);

/// The index `path`: which shard has which tensor, and what else it says of them.
void write_index(const std::filesystem::path& path, const std::map<std::string, std::string>& shard_of,
                 std::uint64_t total_bytes, nlohmann::json metadata);

}  // namespace lmq::app
