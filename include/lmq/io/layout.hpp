#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <variant>
#include <vector>

#include "lmq/base/dtype.hpp"

namespace lmq {

/// Bounds of a guarded opening.
inline constexpr std::uint64_t kGuardedBytes = std::uint64_t{4} << 30;
inline constexpr unsigned kGuardedSeconds = 120;

/// Most bytes one attribute's value may have; longer texts and lists are datasets.
inline constexpr std::size_t kMaxAttributeBytes = 60'000;

/// A named value on a group or dataset. Texts have variable length, so that h5py gives them as str; the first one costs
/// a heap of 4 KiB, each one some 90 bytes. Names and texts are UTF-8 without NUL. Names that begin with "lmq_stored_"
/// are the body's own and refused.
struct Attribute {
  std::string name;
  std::variant<std::string, std::int64_t, std::uint64_t, double, std::vector<std::uint64_t>, std::vector<double>> value;
  friend bool operator==(const Attribute&, const Attribute&) = default;
};

/// One dataset of the output: described here, filled later by whoever has its bytes.
/// A path is absolute, its components separated by single slashes; none of them is "." (HDF5 has no such names).
struct DatasetLayout {
  std::string path;                  ///< "/model.layers.0.weight", "/lmq/units/bytes"
  DType dtype = DType::f32;          ///< element type as a reader sees it
  std::vector<std::uint64_t> shape;  ///< empty: a scalar
  std::vector<std::uint64_t> chunk;  ///< empty: contiguous; else chunk dimensions (1 <= chunk <= shape in each place)
  bool encoded = false;              ///< chunks are records behind the lmq filter (then `chunk` is not empty)
  bool deflated = false;             ///< all of it in one piece behind HDF5's own filters: shuffle where elements have
                                     ///< more than a byte, then deflate (then `chunk` is empty; at least one element)
  bool text = false;                 ///< one UTF-8 text of shape[0] bytes, at least 1; dtype is u8
  std::vector<std::uint64_t>
      piece_bytes;  ///< stored size of each chunk in row-major chunk order, 1 .. 2^32 - 1 (unless
                    ///< encoded: that of a whole chunk, at the edge too); contiguous, deflated: one entry
  std::vector<Attribute> attributes;
  friend bool operator==(const DatasetLayout&, const DatasetLayout&) = default;
};

struct GroupLayout {
  std::string path;
  std::vector<Attribute> attributes;
  friend bool operator==(const GroupLayout&, const GroupLayout&) = default;
};

/// The whole file without its payload.
struct FileLayout {
  std::vector<Attribute> root;
  std::vector<GroupLayout> groups;      ///< explicit groups; those that dataset paths imply are made as needed
  std::vector<DatasetLayout> datasets;  ///< ascending by path (bytes), each path once
  friend bool operator==(const FileLayout&, const FileLayout&) = default;
};

/// Where the payload goes: absolute offsets in the file. A dataset without bytes (a dimension of 0) has piece 0 at 0.
struct FilePlaces {
  std::vector<std::vector<std::uint64_t>> offsets;  ///< [dataset][piece]
  std::uint64_t file_bytes = 0;                     ///< the whole file, metadata and payload
  friend bool operator==(const FilePlaces&, const FilePlaces&) = default;
};

/// Makes files of a layout and reads layouts back; lmq_io_hdf5 is the body. One thread at a time.
class LayoutFormat {
 public:
  virtual ~LayoutFormat() = default;
  /// Creates `path` with all metadata and room for every piece; no payload byte is written (they read as zeros). The
  /// file has its full length, and its space is reserved where the file system can. The bytes are a function of the
  /// layout alone. On failure nothing stays at `path`, except that a refused layout leaves alone what was there before.
  /// Attributes come back in the order given; ascending by name costs least.
  /// Cost: 70 us a dataset, 1 us a chunk; about 1 KB of memory and 170 bytes of file a dataset.
  /// Errc::cannot_create; Errc::io (also: out of space); Errc::unsupported (a name or shape the format cannot hold, two
  /// names that exclude each other, a chunk of 4 GiB or more); Errc::internal (a layout that contradicts itself).
  [[nodiscard]] virtual FilePlaces create(const std::filesystem::path& path, const FileLayout& layout) = 0;
  /// What `create` adds to the pieces, in bytes: exact up to a megabyte of it, as a rule, beyond within a tenth. Cost:
  /// 0.5 us a dataset.
  [[nodiscard]] virtual std::uint64_t metadata_bytes(const FileLayout& layout) const = 0;
  struct Existing {
    FileLayout layout;
    FilePlaces places;
  };
  /// Layout and places of an existing file: what `create` was given (groups: those with attributes or without members,
  /// ascending). Every piece lies inside the file. Attributes of other kinds than ours are passed over; other objects,
  /// types, filters and links are refused by name. Only metadata is read; nothing is locked or written.
  /// Errc::missing, Errc::malformed, Errc::unsupported, Errc::io.
  [[nodiscard]] virtual Existing open(const std::filesystem::path& path) = 0;
  /// The same for a file that may be damaged: whatever happens while it is read happens to a child process of bounded
  /// memory (kGuardedBytes beyond this process's) and time (kGuardedSeconds of processor time). Errc::malformed when
  /// the child does not come back.
  [[nodiscard]] virtual Existing open_guarded(const std::filesystem::path& path) = 0;
};

}  // namespace lmq
