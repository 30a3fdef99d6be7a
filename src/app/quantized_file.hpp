#pragma once
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "lmq/base/dtype.hpp"
#include "lmq/io/file.hpp"
#include "lmq/io/layout.hpp"
#include "lmq/plan/plan.hpp"
#include "tensor_lines.hpp"

namespace lmq::app {

/// One unit as the file's tables have it.
struct StoredUnit {
  std::uint64_t tensor = 0;  ///< index into QuantizedFile::tensors
  std::uint64_t begin = 0, count = 0;
  std::uint64_t bytes = 0, offset = 0;  ///< in the file
  std::uint64_t digest = 0, source_digest = 0;
  double squared_error = 0, weighted_error = 0, energy = 0, largest_error = 0;
};

/// One tensor of the checkpoint, in the order of the file's report.
struct StoredTensor {
  TensorLine line;
  DType dtype = DType::f32;  ///< in the checkpoint
  Treatment treatment = Treatment::keep;
  std::optional<std::size_t> dataset;  ///< index into the layout; nothing for a folded tensor
  std::uint64_t first_unit = 0, units = 0;
  [[nodiscard]] std::uint64_t count() const noexcept { return line.weights; }
};

/// A file of ours, opened: tables read and checked for sizes; payload only on request. Reading is thread-safe.
class QuantizedFile {
 public:
  /// Errc::missing, Errc::malformed, Errc::io; Errc::unsupported for HDF5 that is not ours or a newer format.
  explicit QuantizedFile(const std::filesystem::path& path);

  [[nodiscard]] const std::string& name() const noexcept { return name_; }  ///< for messages
  [[nodiscard]] const std::filesystem::path& path() const noexcept { return file_.path(); }
  [[nodiscard]] const FileLayout& layout() const noexcept { return layout_; }
  [[nodiscard]] const FilePlaces& places() const noexcept { return places_; }
  [[nodiscard]] const nlohmann::json& recipe() const noexcept { return recipe_; }
  [[nodiscard]] const nlohmann::json& provenance() const noexcept { return provenance_; }
  [[nodiscard]] const std::vector<StoredTensor>& tensors() const noexcept { return tensors_; }
  [[nodiscard]] const std::vector<StoredUnit>& units() const noexcept { return units_; }
  struct Purpose {
    std::string name;
    std::uint64_t bytes = 0;
  };
  [[nodiscard]] const std::vector<Purpose>& ledger() const noexcept { return ledger_; }
  [[nodiscard]] const std::string& plan_digest() const noexcept { return plan_digest_; }
  [[nodiscard]] std::vector<TensorLine> lines() const;
  /// What is wrong with the tables among themselves, one line each (verify says them; empty: nothing).
  [[nodiscard]] const std::vector<std::string>& findings() const noexcept { return findings_; }

  /// The stored bytes of a unit, into `bytes` (resized, capacity kept).
  void read(const StoredUnit& unit, std::vector<std::byte>& bytes) const;
  /// "OUT.h5, tensor 'x', unit 3" for messages.
  [[nodiscard]] std::string place(const StoredUnit& unit) const;
  /// Index into the layout's datasets, or nothing.
  [[nodiscard]] std::optional<std::size_t> find(const std::string& path) const;
  /// All bytes of a contiguous dataset.
  [[nodiscard]] std::vector<std::byte> read_dataset(std::size_t dataset) const;

 private:
  void check_format();
  [[nodiscard]] nlohmann::json read_json(const std::string& path) const;
  template <class T>
  [[nodiscard]] std::vector<T> read_table(const std::string& path) const;
  [[nodiscard]] StoredTensor reported_tensor(const nlohmann::json& entry) const;
  void read_dataset_of(StoredTensor& tensor, const nlohmann::json& entry) const;
  void read_tensors();
  void read_units();
  void read_ledger();
  [[nodiscard]] std::string fault_of_units(std::size_t tensor, std::uint64_t seen) const;
  void place_units();

  std::string name_;
  File file_;
  FileLayout layout_;
  FilePlaces places_;
  nlohmann::json recipe_, provenance_, report_;
  std::vector<StoredTensor> tensors_;
  std::vector<StoredUnit> units_;
  std::vector<Purpose> ledger_;
  std::string plan_digest_;
  std::vector<std::string> findings_;
};

}  // namespace lmq::app
