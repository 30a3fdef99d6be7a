#pragma once
#include <optional>
#include <string>
#include <vector>

#include "handle.hpp"
#include "lmq/base/dtype.hpp"
#include "lmq/io/layout.hpp"

namespace lmq::h5 {

/// Attributes that create() adds where HDF5's own type does not tell ours, and open() takes away again.
inline constexpr std::string_view kReservedPrefix = "lmq_stored_";
inline constexpr const char* kStoredType = "lmq_stored_type";    ///< name of a DType
inline constexpr const char* kStoredShape = "lmq_stored_shape";  ///< u64 list; types of less than a byte

/// What one of our types is in HDF5.
struct StoredAs {
  DType element;  ///< u8 for BOOL, F8, F6 and F4, f32 for C64, else the type itself
  bool marked;    ///< HDF5's type does not tell ours
  bool packed;    ///< elements of less than a byte: a list of bytes
  bool pair;      ///< one more dimension, of 2
};
[[nodiscard]] StoredAs stored_as(DType type) noexcept;

/// A new HDF5 type for an element type (one that `stored_as` names).
[[nodiscard]] Type make_type(const Calls& calls, DType element);
/// A new type of texts of so many bytes.
[[nodiscard]] Type make_text_type(const Calls& calls, std::uint64_t bytes);
/// The element type of an HDF5 type, or nothing. Floats are told by their fields.
[[nodiscard]] std::optional<DType> recognise(const Calls& calls, hid_t type);

/// Product of the dimensions (1 for a scalar), or nothing when it overflows.
[[nodiscard]] std::optional<std::uint64_t> element_count(const std::vector<std::uint64_t>& shape) noexcept;
/// Bytes of so many elements, or nothing when that overflows.
[[nodiscard]] std::optional<std::uint64_t> element_bytes(DType type, std::optional<std::uint64_t> count) noexcept;

/// The grid of chunks over a shape, or nothing when it overflows; 0 chunks where a dimension is 0.
[[nodiscard]] std::vector<std::uint64_t> chunk_grid(const std::vector<std::uint64_t>& shape,
                                                    const std::vector<std::uint64_t>& chunk);

/// Whether no chunk reaches over the edge: the filter is told the size of a chunk where one does.
[[nodiscard]] bool has_whole_chunks(const DatasetLayout& dataset) noexcept;

/// Walks over the first elements of the chunks, row-major.
class ChunkWalk {
 public:
  ChunkWalk(const std::vector<std::uint64_t>& shape, const std::vector<std::uint64_t>& chunk)
      : shape_(shape), chunk_(chunk), at_(shape.size(), 0) {}
  [[nodiscard]] const hsize_t* at() const noexcept { return at_.data(); }
  void next() noexcept;
  [[nodiscard]] std::string text() const;

 private:
  const std::vector<std::uint64_t>& shape_;
  const std::vector<std::uint64_t>& chunk_;
  std::vector<hsize_t> at_;
};

}  // namespace lmq::h5
