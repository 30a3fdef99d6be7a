#include "check_layout.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <string_view>

#include "lmq/base/error.hpp"
#include "lmq/base/text.hpp"
#include "types.hpp"

namespace lmq::h5 {
namespace {

class Checker {
 public:
  Checker(const std::string& file, const FileLayout& layout) : file_(file), layout_(layout) {}

  GroupTable run() {
    attributes("/", layout_.root);
    for (const GroupLayout& group : layout_.groups) {
      path(group.path);
      if (!groups_.emplace(group.path, &group).second) internal(group.path, "is given twice");
      attributes(group.path, group.attributes);
    }
    for (const GroupLayout& group : layout_.groups) add_parents(group.path);
    const std::string* before = nullptr;
    for (const DatasetLayout& dataset : layout_.datasets) {
      path(dataset.path);
      if (before != nullptr && *before >= dataset.path)
        internal(dataset.path, "does not come after '" + printable(*before) + "'");
      before = &dataset.path;
      attributes(dataset.path, dataset.attributes);
      storage(dataset);
      shape(dataset);
      pieces(dataset);
      add_parents(dataset.path);
    }
    for (const DatasetLayout& dataset : layout_.datasets)
      if (groups_.contains(dataset.path)) unsupported(dataset.path, "is a dataset and a group at once");
    return std::move(groups_);
  }

 private:
  [[noreturn]] void refuse(Errc code, const std::string& object, const std::string& what) const {
    fail(code, fmt::format("{}: '{}' {}", file_, printable(object), what));
  }
  [[noreturn]] void internal(const std::string& object, const std::string& what) const {
    refuse(Errc::internal, object, what);
  }
  [[noreturn]] void unsupported(const std::string& object, const std::string& what) const {
    refuse(Errc::unsupported, object, what);
  }

  void path(const std::string& path) const {
    if (path.empty() || path[0] != '/') internal(path, "is no absolute path");
    if (!is_clean_utf8(path)) unsupported(path, "is not UTF-8 without NUL, which HDF5 names are");
    const auto depth = static_cast<std::size_t>(std::ranges::count(path, '/'));
    if (depth > kMaxPathDepth) unsupported(path, fmt::format("nests {} deep; the limit is {}", depth, kMaxPathDepth));
    for (std::size_t at = 0; at < path.size();) {
      const std::size_t end = std::min(path.find('/', at + 1), path.size());
      const std::string_view part(path.data() + at + 1, end - at - 1);
      if (part.empty() || part == ".") unsupported(path, "has a part that is empty or '.': HDF5 has no such name");
      if (part.size() > kMaxPathPart)
        unsupported(path, fmt::format("has a part of {} bytes; the limit is {}", part.size(), kMaxPathPart));
      at = end;
    }
  }

  void add_parents(const std::string& path) {
    for (std::string parent = parent_of(path); !parent.empty(); parent = parent_of(parent))
      if (!groups_.emplace(parent, nullptr).second) return;
  }

  void attributes(const std::string& object, const std::vector<Attribute>& attributes) const {
    std::set<std::string_view> names;
    for (const Attribute& attribute : attributes) {
      const std::string what = fmt::format("attribute '{}'", printable(attribute.name));
      if (attribute.name.empty() || attribute.name.size() > kMaxPathPart || !is_clean_utf8(attribute.name))
        internal(object, what + ": no name for an attribute");
      if (attribute.name.starts_with(kReservedPrefix)) internal(object, what + ": the name is reserved");
      if (!names.insert(attribute.name).second) internal(object, what + " is given twice");
      if (const auto* text = std::get_if<std::string>(&attribute.value); text != nullptr && !is_clean_utf8(*text))
        internal(object, what + " is not UTF-8 without NUL");
      if (const std::size_t bytes = value_bytes(attribute); bytes > kMaxAttributeBytes)
        internal(object, fmt::format("{} has {} bytes; the limit is {}", what, bytes, kMaxAttributeBytes));
    }
  }

  static std::size_t value_bytes(const Attribute& attribute) {
    return std::visit(
        [](const auto& value) -> std::size_t {
          if constexpr (requires { value.size(); })
            return value.size() * sizeof(value[0]);
          else
            return sizeof(value);
        },
        attribute.value);
  }

  void storage(const DatasetLayout& dataset) const {
    if (dataset.text && (dataset.dtype != DType::u8 || dataset.shape.size() != 1 || dataset.shape[0] == 0))
      internal(dataset.path, "is a text of no bytes");
    if (dataset.text && dataset.shape[0] > kMaxChunkBytes)
      unsupported(dataset.path, fmt::format("is a text of {} bytes; HDF5's limit is 4 GiB - 1", dataset.shape[0]));
    if (dataset.text && !dataset.chunk.empty()) internal(dataset.path, "is a text in chunks");
    if (!dataset.deflated) return;
    const StoredAs stored = stored_as(dataset.dtype);
    if (dataset.encoded || !dataset.chunk.empty() || dataset.shape.empty() || stored.marked)
      internal(dataset.path, "cannot be deflated");
  }

  void shape(const DatasetLayout& dataset) const {
    const StoredAs stored = stored_as(dataset.dtype);
    const std::size_t rank = dataset.shape.size() + (stored.pair ? 1 : 0);
    if (rank > H5S_MAX_RANK)
      unsupported(dataset.path, fmt::format("has {} dimensions; HDF5 has {}", rank, H5S_MAX_RANK));
    const auto bytes = element_bytes(dataset.dtype, element_count(dataset.shape));
    if (!bytes || *bytes > (std::uint64_t{1} << 60)) unsupported(dataset.path, "is too large for a file");
    if (dataset.chunk.empty()) {
      if (dataset.encoded) internal(dataset.path, "is encoded without chunks");
      return;
    }
    if (stored.pair || stored.packed) internal(dataset.path, fmt::format("of type {} has chunks", name(dataset.dtype)));
    if (dataset.chunk.size() != dataset.shape.size())
      internal(dataset.path,
               fmt::format("has {} dimensions, its chunks {}", dataset.shape.size(), dataset.chunk.size()));
    for (std::size_t i = 0; i < dataset.chunk.size(); ++i)
      if (dataset.chunk[i] == 0 || dataset.chunk[i] > dataset.shape[i])
        internal(dataset.path,
                 fmt::format("has a chunk of {} in a dimension of {}", dataset.chunk[i], dataset.shape[i]));
  }

  void pieces(const DatasetLayout& dataset) const {
    const auto expect = [&](std::uint64_t count) {
      if (dataset.piece_bytes.size() != count)
        internal(dataset.path, fmt::format("has {} pieces; {} are expected", dataset.piece_bytes.size(), count));
    };
    if (dataset.deflated) {
      expect(1);
      const auto whole = element_bytes(dataset.dtype, element_count(dataset.shape));
      if (*whole == 0 || dataset.piece_bytes[0] == 0) internal(dataset.path, "is deflated without elements");
      if (*whole > kMaxChunkBytes || dataset.piece_bytes[0] > kMaxChunkBytes)
        unsupported(dataset.path, fmt::format("has {} bytes to deflate; HDF5's limit is 4 GiB - 1", *whole));
      return;
    }
    if (dataset.chunk.empty()) {
      expect(1);
      const std::uint64_t bytes = *element_bytes(dataset.dtype, element_count(dataset.shape));
      if (dataset.piece_bytes[0] != bytes)
        internal(dataset.path, fmt::format("has {} bytes; {} are expected", dataset.piece_bytes[0], bytes));
      return;
    }
    const std::uint64_t whole = *element_bytes(dataset.dtype, element_count(dataset.chunk));
    if (whole > kMaxChunkBytes)
      unsupported(dataset.path, fmt::format("has a chunk of {} bytes; HDF5's limit is 4 GiB - 1", whole));
    expect(*element_count(chunk_grid(dataset.shape, dataset.chunk)));
    for (const std::uint64_t bytes : dataset.piece_bytes) {
      if (bytes > kMaxChunkBytes)
        unsupported(dataset.path, fmt::format("has a piece of {} bytes; HDF5's limit is 4 GiB - 1", bytes));
      if (bytes == 0 || (!dataset.encoded && bytes != whole))
        internal(dataset.path, fmt::format("has a piece of {} bytes; its chunks have {}", bytes, whole));
    }
  }

  const std::string& file_;
  const FileLayout& layout_;
  GroupTable groups_;
};

}  // namespace

GroupTable check_layout(const std::string& file, const FileLayout& layout) { return Checker(file, layout).run(); }

}  // namespace lmq::h5
