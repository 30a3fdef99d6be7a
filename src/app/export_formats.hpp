#pragma once
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>

#include "options.hpp"

namespace lmq::app {

/// What an exporter says of what it has made.
struct Exported {
  std::string text;       ///< for people, in lines
  nlohmann::json report;  ///< for programs: tensors, bytes, errors, files; an object
};

/// One row of the table of exporters: `lmq export FILE --to NAME` or `--to NAME:VARIANT`.
struct ExportFormat {
  std::string_view name;
  std::string_view variants;  ///< what may follow a colon: "q8_0 q4_0", empty: nothing
  std::string_view summary;
  std::string_view path;  ///< what -o names
  /// Writes options.output. Errors throw.
  Exported (*write)(const Options& options, const std::string& variant);
};
[[nodiscard]] std::span<const ExportFormat> export_formats() noexcept;

/// The row that a word after --to names, and its variant. Errc::usage names the known ones.
[[nodiscard]] const ExportFormat& find_export_format(const std::string& word, std::string& variant);

// The rows' functions.
Exported export_safetensors(const Options& options, const std::string& variant);
Exported export_gguf(const Options& options, const std::string& variant);
Exported export_compressed_tensors(const Options& options, const std::string& variant);
Exported export_gptq(const Options& options, const std::string& variant);
Exported export_hdf5(const Options& options, const std::string& variant);

}  // namespace lmq::app
