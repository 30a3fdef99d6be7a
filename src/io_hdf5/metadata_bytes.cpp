// What HDF5 adds to the pieces, counted from its file format (version 3.0 of the specification, as libver bounds V110
// choose from it). tests/io_hdf5/metadata_bytes_test.cpp holds it against files.
#include <algorithm>
#include <bit>
#include <map>

#include "check_layout.hpp"
#include "format.hpp"
#include "lmq/base/math.hpp"
#include "types.hpp"

namespace lmq::h5 {
namespace {

constexpr std::uint64_t kMessage = 4;  // type, size and flags of an object header's message
constexpr std::uint64_t kHeader = 10;  // signature, version, flags, checksum of an object header
constexpr std::uint64_t kHeap = 4096;  // least size of the heap of texts
constexpr std::uint64_t kPage = 1024;  // chunks of a page of their index

/// Object headers as HDF5 makes them with addresses and lengths of `size` bytes.
class Counter {
 public:
  explicit Counter(std::uint64_t size) : size_(size), bytes_(16 + 4 * size) {}  // the superblock

  void group(std::uint64_t links, std::uint64_t name_bytes, const std::vector<Attribute>& attributes) {
    std::uint64_t header = kMessage + 2 + 2 * size_ + kMessage + 2;
    const std::uint64_t link_bytes = links * (kMessage + 3 + size_) + name_bytes;
    if (links > 0 && links <= kMostPlainLinks) header += 8 + link_bytes;
    if (links > kMostPlainLinks) bytes_ += link_bytes + links * 20 + kHeap;  // a heap, and an index of it
    object(header + attributes_of(attributes));
  }

  void dataset(const DatasetLayout& dataset) {
    const std::uint64_t rank = dataset.text ? (dataset.deflated ? 1 : 0) : stored_rank(dataset);
    std::uint64_t header = kMessage + 4 + rank * size_ + kMessage + type_bytes(dataset) + kMessage + 2;
    if (dataset.deflated)
      header += one_chunk(dataset.text ? std::vector<std::uint64_t>{1} : dataset.shape, dataset) + kMessage + 2 + 10 +
                (dataset.text || bits(dataset.dtype) <= 8 ? 0 : 10);
    else if (dataset.chunk.empty())
      header += kMessage + 2 + 2 * size_;
    else
      header += (dataset.piece_bytes.size() == 1 ? one_chunk(dataset.chunk, dataset) : many_chunks(dataset)) +
                (dataset.encoded ? kMessage + 2 + 12 + 8 : 0);
    header += 3 + 3 * size_;  // room for a continuation, and for what is known only once it is written
    object(header + attributes_of(dataset.attributes) + mark_bytes(dataset));
  }

  [[nodiscard]] std::uint64_t bytes() const noexcept {
    return bytes_ + (text_bytes_ == 0 ? 0 : ceil_div(text_bytes_ + 32, kHeap) * kHeap);
  }

  /// Messages of an object's attributes.
  std::uint64_t attributes_of(const std::vector<Attribute>& attributes) {
    if (attributes.empty()) return 0;
    std::uint64_t bytes = kMessage + 2 + 2 * size_;
    for (const Attribute& attribute : attributes) bytes += attribute_bytes(attribute);
    return bytes;
  }

 private:
  void object(std::uint64_t messages) {
    bytes_ += kHeader + messages + (messages < 256 ? 1 : messages < 65536 ? 2 : 4);
  }

  static std::uint64_t stored_rank(const DatasetLayout& dataset) {
    const StoredAs stored = stored_as(dataset.dtype);
    return stored.packed ? 1 : dataset.shape.size() + (stored.pair ? 1 : 0);
  }
  static std::uint64_t type_bytes(const DatasetLayout& dataset) {
    if (dataset.text) return 8;
    return is_float(stored_as(dataset.dtype).element) ? 20 : 12;
  }

  /// Layout message of a chunked dataset up to what its kind of index says.
  static std::uint64_t chunk_message(const std::vector<std::uint64_t>& chunk, const DatasetLayout& dataset) {
    std::uint64_t largest = std::max<std::uint64_t>(1, bits(dataset.dtype) / 8);
    for (const std::uint64_t dim : chunk) largest = std::max(largest, dim);
    if (dataset.text) largest = dataset.shape[0];
    const auto width = ceil_div(static_cast<std::uint64_t>(std::bit_width(largest)), 8);
    return kMessage + 5 + (chunk.size() + 1) * width + 1;
  }
  [[nodiscard]] std::uint64_t one_chunk(const std::vector<std::uint64_t>& chunk, const DatasetLayout& dataset) const {
    const bool filtered = dataset.encoded || dataset.deflated;
    return chunk_message(chunk, dataset) + (filtered ? size_ + 4 : 0) + size_;
  }
  /// A fixed array of places: its header, and its block of pages where there are many.
  std::uint64_t many_chunks(const DatasetLayout& dataset) {
    const std::uint64_t chunks = dataset.piece_bytes.size(),
                        whole = element_bytes(dataset.dtype, element_count(dataset.chunk)).value_or(1);
    const std::uint64_t length = std::min<std::uint64_t>(8, 1 + (std::bit_width(whole) + 7) / 8);
    const std::uint64_t place = size_ + (dataset.encoded ? length + 4 : 0);
    const std::uint64_t pages = chunks > kPage ? ceil_div(chunks, kPage) : 0;
    bytes_ += 12 + 2 * size_ + 10 + size_ + chunks * place + ceil_div(pages, 8) + 4 * pages;
    return chunk_message(dataset.chunk, dataset) + 1 + size_;
  }

  std::uint64_t mark_bytes(const DatasetLayout& dataset) {
    std::vector<Attribute> marks;
    const StoredAs stored = stored_as(dataset.dtype);
    if (stored.marked && !dataset.text) marks.push_back({kStoredType, std::string(name(dataset.dtype))});
    if (stored.packed) marks.push_back({kStoredShape, dataset.shape});
    if (marks.empty()) return 0;
    return attributes_of(marks) - (dataset.attributes.empty() ? 0 : kMessage + 2 + 2 * size_);
  }

  std::uint64_t attribute_bytes(const Attribute& attribute) {
    const std::uint64_t name = kMessage + 9 + attribute.name.size() + 1;
    if (const auto* text = std::get_if<std::string>(&attribute.value)) {
      text_bytes_ += 16 + ceil_div(text->size(), 8) * 8;
      return name + 16 + 4 + 8 + size_;
    }
    const auto list = [&](std::uint64_t type, std::size_t count) { return name + type + 4 + size_ + 8 * count; };
    if (const auto* us = std::get_if<std::vector<std::uint64_t>>(&attribute.value)) return list(12, us->size());
    if (const auto* ds = std::get_if<std::vector<double>>(&attribute.value)) return list(20, ds->size());
    return name + (std::holds_alternative<double>(attribute.value) ? 20 : 12) + 4 + 8;
  }

  std::uint64_t size_;
  std::uint64_t bytes_;           // in all
  std::uint64_t text_bytes_ = 0;  // in the heap of texts
};

struct Members {
  std::uint64_t links = 0, name_bytes = 0;
  const GroupLayout* group = nullptr;
};

/// Every group of a layout, "" the root, with what it holds.
std::map<std::string, Members> groups_of(const FileLayout& layout) {
  std::map<std::string, Members> groups;
  groups[""];
  const auto add = [&](std::string path) {
    for (bool fresh = true; fresh && !path.empty(); path = parent_of(path)) {
      const std::string parent = parent_of(path);
      fresh = !groups.contains(parent);
      ++groups[parent].links;
      groups[parent].name_bytes += leaf_of(path).size();
    }
  };
  for (const GroupLayout& group : layout.groups) {
    if (!groups.contains(group.path)) add(group.path);
    groups[group.path].group = &group;
  }
  for (const DatasetLayout& dataset : layout.datasets) add(dataset.path);
  return groups;
}

}  // namespace

std::size_t address_bytes(const FileLayout& layout) {
  std::uint64_t bytes = 0;
  for (const DatasetLayout& dataset : layout.datasets) {
    for (const std::uint64_t piece : dataset.piece_bytes)
      if (piece >= std::uint64_t{1} << 40 || !checked_add(bytes, piece + 32, bytes)) return 8;
    bytes += 1000 + 2 * dataset.path.size();
  }
  return bytes < (std::uint64_t{1} << 31) ? 4 : 8;
}

std::uint64_t attribute_bytes(const std::vector<Attribute>& attributes, std::size_t address_bytes) {
  return Counter(address_bytes).attributes_of(attributes);
}

std::uint64_t metadata_bytes(const FileLayout& layout) {
  Counter counter(address_bytes(layout));
  for (const auto& [path, members] : groups_of(layout))
    counter.group(members.links, members.name_bytes,
                  path.empty()               ? layout.root
                  : members.group != nullptr ? members.group->attributes
                                             : std::vector<Attribute>());
  for (const DatasetLayout& dataset : layout.datasets) counter.dataset(dataset);
  return counter.bytes();
}

}  // namespace lmq::h5
