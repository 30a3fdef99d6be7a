#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <variant>
#include <vector>

#include "lmq/base/dtype.hpp"

namespace lmq {

/// A named value on a group or dataset. Texts are stored with fixed length, so nothing lies in a shared heap.
struct Attribute {
  std::string name;
  std::variant<std::string, std::int64_t, std::uint64_t, double, std::vector<std::uint64_t>, std::vector<double>> value;
};

/// One dataset of the output: described here, filled later by whoever has its bytes.
struct DatasetLayout {
  std::string path;                        ///< "/model.layers.0.weight", "/lmq/units/bytes"
  DType dtype = DType::f32;                ///< element type as a reader sees it
  std::vector<std::uint64_t> shape;        ///< empty: a scalar
  std::vector<std::uint64_t> chunk;        ///< empty: contiguous; else chunk dimensions (<= shape in each place)
  bool encoded = false;                    ///< chunks are records behind the lmq filter
  std::vector<std::uint64_t> piece_bytes;  ///< stored size of each chunk in row-major chunk order; contiguous: one entry
  std::vector<Attribute> attributes;
};

struct GroupLayout {
  std::string path;
  std::vector<Attribute> attributes;
};

/// The whole file without its payload.
struct FileLayout {
  std::vector<Attribute> root;
  std::vector<GroupLayout> groups;         ///< explicit groups; those that dataset paths imply are made as needed
  std::vector<DatasetLayout> datasets;     ///< ascending by path
};

/// Where the payload goes: absolute offsets in the file. A dataset without bytes (a dimension of 0) has piece 0 at 0.
struct FilePlaces {
  std::vector<std::vector<std::uint64_t>> offsets;   ///< [dataset][piece]
  std::uint64_t file_bytes = 0;
};

/// Makes files of a layout and reads layouts back; lmq_io_hdf5 is the body. One thread at a time.
class LayoutFormat {
 public:
  virtual ~LayoutFormat() = default;
  /// Creates `path` with all metadata and room for every piece; no payload byte is written. Cost: milliseconds per
  /// thousand pieces. The bytes are a function of the layout alone. Errc::cannot_create, Errc::io.
  [[nodiscard]] virtual FilePlaces create(const std::filesystem::path& path, const FileLayout& layout) = 0;
  struct Existing {
    FileLayout layout;
    FilePlaces places;
  };
  /// Layout and places of an existing file. Errc::missing, Errc::malformed, Errc::unsupported.
  [[nodiscard]] virtual Existing open(const std::filesystem::path& path) = 0;
};

}  // namespace lmq
