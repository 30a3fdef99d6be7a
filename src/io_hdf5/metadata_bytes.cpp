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
constexpr std::uint64_t kLargestBlock = 1 << 20;

/// Object headers as HDF5 makes them with addresses and lengths of `size` bytes.
class Counter {
 public:
  explicit Counter(std::uint64_t size) : size_(size), bytes_(16 + 4 * size) {}  // the superblock

  void group(bool root, std::uint64_t links, std::uint64_t name_bytes, const std::vector<Attribute>& attributes) {
    std::uint64_t header = kMessage + 2 + 2 * size_ + kMessage + 2;
    const std::uint64_t own = attributes_of(attributes);
    if (links > 0 && links <= kMaxPlainLinks) {
      header += 8 + links * (kMessage + 3 + size_) + links * ceil_div(name_bytes + own, links);
    } else {  // HDF5's own guess: four links with names of 8 bytes
      header += std::max(4 * (kMessage + 3 + size_ + 8), own);
      if (links > 0) bytes_ += links * (kMessage + 3 + size_ + 20) + name_bytes + kHeap;  // a heap, and an index of it
    }
    object(header + (root ? 0 : 24 + 3 * size_));
  }

  void dataset(const DatasetLayout& dataset) {
    const std::uint64_t rank = dataset.text ? (dataset.deflated ? 1 : 0) : stored_rank(dataset);
    const std::uint64_t attributes = attributes_of(dataset.attributes) + mark_bytes(dataset);
    std::uint64_t header = kMessage + 4 + rank * size_ + kMessage + type_bytes(dataset) + kMessage + 2 + attributes;
    // HDF5 leaves room for a continuation, and for what it knows only once data are written.
    if (dataset.deflated)
      header += one_chunk(dataset.text ? std::vector<std::uint64_t>{1} : dataset.shape, dataset) + kMessage + 2 +
                (dataset.text || bits(dataset.dtype) <= 8 ? 10 : 20) + (dataset.text ? 2 : 3) * size_;
    else if (dataset.chunk.empty())
      header += kMessage + 2 + 2 * size_ + 3 * size_ + (dataset.text ? 0 : 4) + (attributes > 0 ? 12 : 0);
    else
      header += one_chunk(dataset.chunk, dataset) + 3 * size_ +
                (dataset.encoded ? kMessage + 2 + 12 + (has_whole_chunks(dataset) ? 0 : 8) : 0);
    if (dataset.piece_bytes.size() > 1) header += index_bytes(dataset) - (attributes > 0 ? size_ + 4 : 0);
    object(header);
  }

  /// In object headers and indexes.
  [[nodiscard]] std::uint64_t bytes() const noexcept { return bytes_; }
  /// In heaps of texts.
  [[nodiscard]] std::uint64_t heap_bytes() const noexcept {
    return text_bytes_ == 0 ? 0 : ceil_div(text_bytes_ + 32, kHeap) * kHeap;
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
  /// A fixed array of places, its header, and its pages where there are many; more in the dataset's header.
  std::uint64_t index_bytes(const DatasetLayout& dataset) {
    const std::uint64_t chunks = dataset.piece_bytes.size(),
                        whole = element_bytes(dataset.dtype, element_count(dataset.chunk)).value_or(1);
    const std::uint64_t length = std::min<std::uint64_t>(8, 1 + (std::bit_width(whole) + 7) / 8);
    const std::uint64_t place = size_ + (dataset.encoded ? length + 4 : 0);
    const std::uint64_t pages = chunks > kPage ? ceil_div(chunks, kPage) : 0;
    bytes_ += 12 + 2 * size_ + 10 + size_ + chunks * place + ceil_div(pages, 8) + 4 * pages;
    return 1;
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
  std::uint64_t bytes_;           // in object headers and indexes
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

Counter count_metadata(const FileLayout& layout) {
  Counter counter(address_bytes(layout));
  const std::vector<Attribute> none;
  for (const auto& [path, members] : groups_of(layout))
    counter.group(path.empty(), members.links, members.name_bytes,
                  path.empty()               ? layout.root
                  : members.group != nullptr ? members.group->attributes
                                             : none);
  for (const DatasetLayout& dataset : layout.datasets) counter.dataset(dataset);
  return counter;
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

std::uint64_t metadata_block(const FileLayout& layout) {
  const std::uint64_t bytes = count_metadata(layout).bytes();
  return bytes <= kLargestBlock ? bytes + bytes / 128 + 32 : kLargestBlock / 4;
}

std::uint64_t metadata_bytes(const FileLayout& layout) {
  const Counter counter = count_metadata(layout);
  // One block is there as a whole; of several the rest of the last one may be cut off or hold the heaps.
  return std::max(counter.bytes(), counter.bytes() <= kLargestBlock ? metadata_block(layout) : 0) +
         counter.heap_bytes();
}

}  // namespace lmq::h5
