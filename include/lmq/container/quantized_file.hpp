#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lmq/base/dtype.hpp"
#include "lmq/container/contents.hpp"
#include "lmq/io/file.hpp"
#include "lmq/io/layout.hpp"
#include "lmq/plan/plan.hpp"

namespace lmq {

struct Seal;

/// One unit as the file's tables have it.
struct StoredUnit {
  std::uint64_t tensor = 0;  ///< index into QuantizedFile::tensors
  std::uint64_t begin = 0, count = 0;
  std::uint64_t bytes = 0, offset = 0;  ///< in the file
  std::optional<std::uint64_t> digest;  ///< of the stored bytes; nothing for records from version 2 on, which have one
                                        ///< inside and one for all records of the file together
  std::uint64_t source_digest = 0;
  double squared_error = 0, weighted_error = 0, energy = 0, largest_error = 0;
};

/// One tensor of the checkpoint, in the order of the file's table.
struct StoredTensor {
  TensorLine line;
  DType dtype = DType::f32;  ///< in the checkpoint
  Treatment treatment = Treatment::keep;
  std::optional<std::size_t> dataset;  ///< index into the layout; nothing for a folded tensor
  std::uint64_t first_unit = 0, units = 0;
  std::optional<std::uint64_t> codebook;  ///< row of the file's list of codebooks
  [[nodiscard]] std::uint64_t count() const noexcept { return line.weights; }
};

/// One digest for the stored bytes of all units: of their digests (digest64) in order.
[[nodiscard]] std::uint64_t stored_digest_of(std::span<const std::uint64_t> unit_digests);

/// A file of ours, of version 1 or 2, opened: tables read and checked for sizes; payload only on request. Reading is
/// thread-safe.
class QuantizedFile {
 public:
  /// The seal is checked first: metadata it does not vouch for are read by LayoutFormat::open_guarded. Errc::missing,
  /// Errc::malformed, Errc::io; Errc::unsupported for HDF5 that is not ours or a newer format.
  QuantizedFile(const std::filesystem::path& path, LayoutFormat& format);

  [[nodiscard]] const std::string& name() const noexcept { return name_; }  ///< for messages
  [[nodiscard]] const std::filesystem::path& path() const noexcept { return file_.path(); }
  [[nodiscard]] unsigned version() const noexcept { return version_; }  ///< major
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
  /// Digest of the digests of all units' stored bytes, in order; nothing before version 2.
  [[nodiscard]] std::optional<std::uint64_t> stored_digest() const noexcept { return stored_digest_; }
  [[nodiscard]] std::vector<TensorLine> lines() const;
  /// What is wrong with the metadata and the tables among themselves, one line each (verify says them; empty: nothing).
  [[nodiscard]] const std::vector<std::string>& findings() const noexcept { return findings_; }

  /// The stored bytes of a unit, into `bytes` (resized, capacity kept).
  void read(const StoredUnit& unit, std::vector<std::byte>& bytes) const;
  /// "OUT.h5, tensor 'x', unit 3" for messages.
  [[nodiscard]] std::string place(const StoredUnit& unit) const;
  /// Index into the layout's datasets, or nothing.
  [[nodiscard]] std::optional<std::size_t> find(const std::string& path) const;
  /// All bytes of a dataset in one piece, inflated where it is deflated.
  [[nodiscard]] std::vector<std::byte> read_dataset(std::size_t dataset) const;

 private:
  void open_layout(LayoutFormat& format, const Seal& seal);
  void check_format();
  void read_tables();
  [[nodiscard]] std::string fault_of_units(std::size_t tensor, std::uint64_t seen) const;
  void place_units();

  std::string name_;
  File file_;
  unsigned version_ = 0;
  FileLayout layout_;
  FilePlaces places_;
  nlohmann::json recipe_, provenance_;
  std::vector<StoredTensor> tensors_;
  std::vector<StoredUnit> units_;
  std::vector<Purpose> ledger_;
  std::string plan_digest_;
  std::optional<std::uint64_t> stored_digest_;
  std::vector<std::string> findings_;
};

/// The codebooks that serve whole tensors as a file lists them, read once for all tensors.
class CodebookList {
 public:
  /// Errc::malformed, Errc::io. Holds 4 bytes a number. `file` outlives it.
  explicit CodebookList(const QuantizedFile& file);
  /// The numbers of a tensor's codebook (levels before version 2, then ListedCodebook); nothing when none is listed.
  [[nodiscard]] std::optional<std::vector<float>> of(const StoredTensor& tensor) const;

 private:
  const QuantizedFile& file_;
  std::vector<std::byte> bytes_;  // [rows, width] floats
  std::size_t width_ = 0;
};

}  // namespace lmq
