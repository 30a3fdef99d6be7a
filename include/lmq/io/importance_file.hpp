#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lmq/base/tensor.hpp"
#include "lmq/io/reader.hpp"

namespace lmq {

/// Importance of weights, from a safetensors file whose tensors carry the names of the checkpoint's: shape [cols] is one
/// value per input column, the weight's own shape one value per weight. Finite and >= 0, F32/F16/BF16/F64.
class ImportanceFile {
 public:
  struct Entry {
    bool per_column = false;      ///< else per weight
    std::uint32_t tensor = 0;     ///< index into the importance file's own catalogue
    double largest = 0;           ///< largest value
  };
  /// Reads headers and scans every entry's values (needed for the largest). Errors: those of open_reader;
  /// Errc::malformed for a NaN, infinity or negative value with name and index.
  explicit ImportanceFile(const std::filesystem::path& path);
  /// What rank 0 found, on another rank.
  ImportanceFile(Catalogue catalogue, std::vector<double> largest);

  [[nodiscard]] const Catalogue& catalogue() const noexcept { return reader_->catalogue(); }
  [[nodiscard]] const std::vector<double>& largest() const noexcept { return largest_; }
  /// Entry for a tensor of the checkpoint, nothing when the file has none.
  /// Errc::malformed when the shape is neither [cols] nor the tensor's; cols is the row length the plan uses.
  [[nodiscard]] std::optional<Entry> find(const TensorInfo& weight, std::uint64_t cols) const;
  /// Names in the file that no tensor of the checkpoint has (to be reported).
  [[nodiscard]] std::vector<std::string> unused(const Catalogue& checkpoint) const;
  /// Values [begin, begin + count) of an entry as floats, into `values` (resized).
  void read(const Entry& entry, std::uint64_t begin, std::uint64_t count, std::vector<float>& values) const;

 private:
  std::unique_ptr<Reader> reader_;
  std::vector<double> largest_;   // [tensors]
};

}  // namespace lmq
