#pragma once
#include <span>
#include <string>
#include <string_view>

#include "options.hpp"

namespace lmq::app {

/// One row of the table of exporters: `lmq export FILE --to NAME` or `--to NAME:VARIANT`.
struct ExportFormat {
  std::string_view name;
  std::string_view variants;  ///< what may follow a colon: "q8_0 q4_0", empty: nothing
  std::string_view summary;
  std::string_view path;  ///< what -o names
  /// Writes options.output and returns what is said of it on standard output. Errors throw.
  std::string (*write)(const Options& options, const std::string& variant);
};
[[nodiscard]] std::span<const ExportFormat> export_formats() noexcept;

/// The row that a word after --to names, and its variant. Errc::usage names the known ones.
[[nodiscard]] const ExportFormat& find_export_format(const std::string& word, std::string& variant);

// The rows' functions.
std::string export_safetensors(const Options& options, const std::string& variant);
std::string export_gguf(const Options& options, const std::string& variant);
std::string export_compressed_tensors(const Options& options, const std::string& variant);
std::string export_gptq(const Options& options, const std::string& variant);
std::string export_hdf5(const Options& options, const std::string& variant);

}  // namespace lmq::app
