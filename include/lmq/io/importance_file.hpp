#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lmq/base/importance.hpp"
#include "lmq/io/reader.hpp"

namespace lmq {

/// Consecutive numbers of one tensor of an importance file.
struct ImportancePart {
  std::int64_t tensor = -1;  ///< index into the file's catalogue; -1: no such numbers, all are 1
  std::uint64_t first = 0;   ///< first number
  std::uint64_t count = 0;   ///< numbers
  std::int64_t stack = -1;   ///< sums to be divided: index into the file's stacks
  std::uint64_t matrix = 0;  ///< not 0: the numbers are diagonals of matrices [matrix, matrix], one after the other ...
  std::uint64_t matrix_run = 0;  ///< ... each run of so many numbers from a matrix of its own on
  double power = 1;              ///< exponent, a multiple of 2^-24
  double damping = 0;            ///< then each number h becomes (h + damping * mean) / (1 + damping)
  double mean = 0;               ///< over the part's numbers, to the power; only set with damping > 0
};

/// Symmetric matrices of one tensor of the file.
struct ImportanceMatrices {
  std::int64_t tensor = -1;  ///< index into the file's catalogue; -1: there are none
  std::uint64_t size = 0;    ///< of each, [size, size]
  std::uint64_t run = 0;     ///< of a block's rows or columns, in ceil(run / size) matrices
  std::uint64_t blocks = 0;  ///< 1, or one for each expert
  std::uint64_t rows = 0;    ///< of the weight that share a block of inputs; 0: all
};

/// The importance of one tensor of the checkpoint: what is known of it, and where its numbers lie.
struct ImportanceEntry {
  std::string weight;  ///< the checkpoint's tensor
  ImportanceInfo info;
  ImportancePart values;              ///< columns: [blocks][length]; weights: one for each weight; rows: none
  ImportancePart rows;                ///< a factor for each row (rows, outer)
  std::vector<std::uint32_t> pooled;  ///< experts without statistics of their own, which take their siblings' mean
  /// Curvature between weights, for tensors that want it (Options::curvature). Then nothing is damped.
  ImportanceMatrices gram;   ///< of the inputs: size == length
  ImportanceMatrices outer;  ///< of the outputs, diagonal blocks
  double outer_mean = 0;     ///< mean diagonal of outer
};

/// A window's importance, and the floats that it points to.
struct ImportanceWindow {
  ImportanceWindow() = default;
  ImportanceWindow(const ImportanceWindow&) = delete;
  ImportanceWindow& operator=(const ImportanceWindow&) = delete;
  ImportanceWindow(ImportanceWindow&&) = default;
  ImportanceWindow& operator=(ImportanceWindow&&) = default;

  Importance importance;  ///< its quantum is for the caller to set
  std::vector<float> values, rows, gram, outer;
  std::uint64_t gram_held = 0;  ///< Importance::gram_key of what gram holds
};

/// Numbers that are sums: each slice of `length` is to be divided by its divisor.
struct ImportanceStack {
  std::uint32_t tensor = 0;
  std::uint64_t length = 0;
  std::vector<float> divisors;  ///< [slices]; 0: nothing is known of this slice
};

/// Importance of weights from what people have: our own schema in safetensors or HDF5, squared gradients, Adam's second
/// moments, llama.cpp's imatrix in both formats. docs/importance.md has names, shapes and units. The kind of file is
/// told by its content. Values are absolute: nothing is normalised, and damping keeps means, so that tensors compare.
class ImportanceFile {
 public:
  struct Options {
    std::optional<double> power = {};  ///< exponent of all numbers, in (0, 2]; else 1, and 1/2 for Adam's moments
    double damping = 0;  ///< of all numbers of a tensor (rows and columns apart) towards their mean, 0..1e6
    /// Catalogue of an HDF5 file (lmq/io_hdf5/hdf5_catalogue.hpp): this room knows no HDF5.
    std::function<Catalogue(const std::filesystem::path&)> read_hdf5 = {};
    /// Is importance wanted for that tensor of the checkpoint? Others are not looked at; empty: for all.
    std::function<bool(std::size_t tensor)> wanted = {};
    /// Is curvature between weights wanted for it, too (`gram`, `outer`)? Only where `power` leaves numbers as they are.
    std::function<bool(std::size_t tensor)> curvature = {};
  };
  /// Opens a file and finds what it has for the tensors of `checkpoint`; that is read once, for the largest values and
  /// the digest. Errors: those of open_reader; Errc::unsupported for another kind of file; Errc::malformed for wrong
  /// shapes, for numbers that are negative or not finite (tensor and index are named), for truncated files, and when
  /// nothing in the file belongs to the checkpoint. Any byte string is handled.
  ImportanceFile(const std::filesystem::path& path, const Catalogue& checkpoint, const Options& options);
  ImportanceFile(const std::filesystem::path& path, const Catalogue& checkpoint)
      : ImportanceFile(path, checkpoint, Options{}) {}

  /// For another rank.
  [[nodiscard]] std::vector<std::byte> to_bytes() const;
  [[nodiscard]] static ImportanceFile from_bytes(std::span<const std::byte> bytes);

  [[nodiscard]] const Catalogue& catalogue() const noexcept { return reader_->catalogue(); }
  /// "safetensors", "HDF5", "imatrix" or "GGUF imatrix".
  [[nodiscard]] const std::string& format() const noexcept { return catalogue().format; }
  /// Ascending by name.
  [[nodiscard]] const std::vector<ImportanceEntry>& entries() const noexcept { return entries_; }
  /// What the file has for a tensor of the checkpoint, or nothing. Cost: O(log(entries)).
  [[nodiscard]] const ImportanceEntry* find(std::string_view weight) const noexcept;
  /// Names in the file that belong to no tensor of the checkpoint (to be reported).
  [[nodiscard]] const std::vector<std::string>& unused() const noexcept { return unused_; }
  /// Tensors of the checkpoint whose entry counts no sample at all.
  [[nodiscard]] const std::vector<std::string>& unknown() const noexcept { return unknown_; }
  /// digest128_hex of everything the entries say.
  [[nodiscard]] const std::string& digest() const noexcept { return digest_; }

  /// Importance of the weights [begin, begin + count) of an entry's tensor, without curvature. Thread-safe.
  /// Errc::malformed as above.
  void read(const ImportanceEntry& entry, std::uint64_t begin, std::uint64_t count, ImportanceWindow& window) const;
  /// Then curvature between weights for whole rows of one block, from a multiple of outer.size on (empty where there is
  /// none); a gram that the window holds already, by its key, is not read again. Thread-safe.
  /// Errc::malformed names tensor and indices of a number that is not finite, of a diagonal below 0, of two that differ
  /// by more than 1e-5 of the root of their diagonals' product.
  void read_curvature(const ImportanceEntry& entry, std::uint64_t begin, std::uint64_t count,
                      ImportanceWindow& window) const;
  /// Numbers [begin, begin + values.size()) of a part.
  void read(const ImportancePart& part, std::uint64_t begin, std::span<float> values) const;

 private:
  ImportanceFile() = default;
  void summarise(ImportanceEntry& entry, double damping, std::vector<std::uint64_t>& digests) const;
  void take_products(ImportanceEntry& entry, std::span<const std::pair<float, double>> columns,
                     std::span<const std::pair<float, double>> rows) const;
  void read_gram(const ImportanceMatrices& gram, std::uint64_t block, ImportanceWindow& window) const;
  void raise_all(const ImportancePart& part, std::uint64_t begin, std::span<float> values) const;
  [[noreturn]] void refuse_product(const ImportanceEntry& entry, float rows, float columns) const;
  std::unique_ptr<Reader> reader_;
  std::vector<ImportanceStack> stacks_;
  std::vector<ImportanceEntry> entries_;
  std::vector<std::string> unused_, unknown_;
  std::string digest_;
};

/// value ^ (steps / 2^24) from square roots and products alone, so the same bits everywhere. value >= 0.
[[nodiscard]] double raised(double value, std::uint32_t steps) noexcept;

}  // namespace lmq
