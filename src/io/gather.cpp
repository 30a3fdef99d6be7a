#include "gather.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "lmq/base/error.hpp"
#include "lmq/base/math.hpp"

namespace lmq {
namespace {

using Indexes = std::vector<std::uint64_t>;

std::size_t width_of(const TensorInfo& tensor) noexcept { return bits(tensor.dtype) / 8; }

/// Coordinates of the element with that row-major number.
Indexes coordinates(const Indexes& shape, std::uint64_t element) {
  Indexes at(shape.size());
  for (std::size_t d = shape.size(); d-- > 0;) {
    at[d] = element % shape[d];
    element /= shape[d];
  }
  return at;
}

/// The smallest box of coordinates that has all elements of a range: low <= coordinate <= high.
struct Box {
  Indexes low, high;
};
Box box_of(const Indexes& shape, std::uint64_t begin, std::uint64_t count) {
  Box box{coordinates(shape, begin), coordinates(shape, begin + count - 1)};
  std::size_t first = 0;
  while (first < shape.size() && box.low[first] == box.high[first]) ++first;
  for (std::size_t d = first + 1; d < shape.size(); ++d) box.low[d] = 0, box.high[d] = shape[d] - 1;
  return box;
}

std::uint64_t dot(const Indexes& at, const Indexes& strides) noexcept {
  std::uint64_t sum = 0;
  for (std::size_t d = 0; d < at.size(); ++d) sum += at[d] * strides[d];
  return sum;
}

void swap_bytes(std::span<std::byte> bytes, std::size_t width) noexcept {
  for (std::size_t i = 0; i + width <= bytes.size(); i += width)
    std::reverse(bytes.begin() + static_cast<std::ptrdiff_t>(i),
                 bytes.begin() + static_cast<std::ptrdiff_t>(i + width));
}

/// The first bytes of all elements, then the second, ...; bytes that are no whole element stay behind.
void unshuffle(std::span<const std::byte> from, std::span<std::byte> to, std::size_t width) noexcept {
  const std::size_t elements = from.size() / width;
  for (std::size_t b = 0; b < width; ++b)
    for (std::size_t i = 0; i < elements; ++i) to[i * width + b] = from[b * elements + i];
  std::copy(from.begin() + static_cast<std::ptrdiff_t>(elements * width), from.end(),
            to.begin() + static_cast<std::ptrdiff_t>(elements * width));
}

/// Fletcher's checksum of big-endian 16-bit words, sums modulo 65535, as HDF5 has it.
std::uint32_t fletcher32(std::span<const std::byte> bytes) noexcept {
  std::uint64_t low = 0, high = 0;
  const auto fold = [](std::uint64_t sum) {
    while (sum > 0xFFFF) sum = (sum & 0xFFFF) + (sum >> 16);
    return sum;
  };
  for (std::size_t i = 0; i < bytes.size(); i += 2) {
    low += std::to_integer<std::uint64_t>(bytes[i]) << 8;
    if (i + 1 < bytes.size()) low += std::to_integer<std::uint64_t>(bytes[i + 1]);
    high += low;
    if (i % 512 == 510) low = fold(low), high = fold(high);
  }
  return static_cast<std::uint32_t>(fold(high) << 16 | fold(low));
}

/// Elements along two dimensions of a strided tensor, the inner one last.
struct Plane {
  std::uint64_t offset = 0;  ///< of the first, in elements
  std::uint64_t rows = 1, cols = 1, row_stride = 0, col_stride = 0;
};

class StridedReader {
 public:
  StridedReader(const TensorInfo& tensor, const Placement& placement, const Gatherer::ReadBytes& read)
      : tensor_(tensor), strides_(placement.strides), width_(width_of(tensor)), read_(read) {}

  void read(std::uint64_t begin, std::span<std::byte> out) {
    const std::uint64_t count = out.size() / width_;
    if (tensor_.shape.empty()) return plane({}, out);
    const Box box = box_of(tensor_.shape, begin, count);
    const std::uint64_t low = dot(box.low, strides_), high = dot(box.high, strides_);
    if (high - low < 4 * count) return near(begin, low, high, out);
    const std::uint64_t cols = tensor_.shape.back();
    for (std::uint64_t done = 0; done < count;) {
      const std::uint64_t column = (begin + done) % cols;
      const std::uint64_t rows = column == 0 ? rows_from(begin + done, count - done) : 0;
      const std::uint64_t take = rows > 0 ? rows * cols : std::min(count - done, cols - column);
      const Indexes at = coordinates(tensor_.shape, begin + done);
      const std::size_t rank = at.size();
      plane({.offset = dot(at, strides_),
             .rows = std::max<std::uint64_t>(rows, 1),
             .cols = rows > 0 ? cols : take,
             .row_stride = rank > 1 ? strides_[rank - 2] : 0,
             .col_stride = strides_[rank - 1]},
            out.subspan(static_cast<std::size_t>(done) * width_, static_cast<std::size_t>(take) * width_));
      done += take;
    }
  }

 private:
  /// Whole rows of the last dimension that begin at the element and stay in one matrix.
  [[nodiscard]] std::uint64_t rows_from(std::uint64_t element, std::uint64_t count) const {
    const std::size_t rank = tensor_.shape.size();
    const std::uint64_t cols = tensor_.shape[rank - 1], rows = rank > 1 ? tensor_.shape[rank - 2] : 1;
    return std::min(count / cols, rows - element / cols % rows);
  }

  [[nodiscard]] std::span<const std::byte> fetch(std::uint64_t element, std::uint64_t count) {
    buffer_.resize(static_cast<std::size_t>(count) * width_);
    read_(tensor_.offset + element * width_, buffer_);
    return buffer_;
  }

  /// All that the range touches is read at once.
  void near(std::uint64_t begin, std::uint64_t low, std::uint64_t high, std::span<std::byte> out) {
    const std::span<const std::byte> bytes = fetch(low, high - low + 1);
    Indexes at = coordinates(tensor_.shape, begin);
    for (std::size_t i = 0; i < out.size(); i += width_) {
      std::memcpy(out.data() + i, bytes.data() + (dot(at, strides_) - low) * width_, width_);
      for (std::size_t d = at.size(); d-- > 0 && ++at[d] == tensor_.shape[d];) at[d] = 0;
    }
  }

  /// Reads along the dimension whose elements lie nearer to each other.
  void plane(const Plane& plane, std::span<std::byte> out) {
    const bool by_rows = plane.rows == 1 || plane.col_stride <= plane.row_stride;
    const std::uint64_t lines = by_rows ? plane.rows : plane.cols, length = by_rows ? plane.cols : plane.rows;
    const std::uint64_t step = by_rows ? plane.row_stride : plane.col_stride;
    const std::uint64_t stride = by_rows ? plane.col_stride : plane.row_stride;
    const std::uint64_t most = std::max<std::uint64_t>(1, kMaxSpan / std::max<std::uint64_t>(stride, 1));
    for (std::uint64_t line = 0; line < lines; ++line)
      for (std::uint64_t begin = 0; begin < length; begin += most) {
        const std::uint64_t count = std::min(most, length - begin);
        const auto bytes = fetch(plane.offset + line * step + begin * stride, (count - 1) * stride + 1);
        for (std::uint64_t i = 0; i < count; ++i) {
          const std::uint64_t to = by_rows ? line * plane.cols + begin + i : (begin + i) * plane.cols + line;
          std::memcpy(out.data() + to * width_, bytes.data() + i * stride * width_, width_);
        }
      }
  }

  static constexpr std::uint64_t kMaxSpan = std::uint64_t{1} << 20;  // elements read at once, gaps included
  const TensorInfo& tensor_;
  const Indexes& strides_;
  std::size_t width_;
  const Gatherer::ReadBytes& read_;
  std::vector<std::byte> buffer_;
};

/// Copies what a chunk (the one at `at` in the grid) has of the elements from `begin` on, a row at a time.
// More than 5 parameters: a chunk and its place, a window and its begin.
void copy_rows(const TensorInfo& tensor, const Indexes& chunk, const Indexes& at, std::span<const std::byte> bytes,
               std::uint64_t begin, std::span<std::byte> out) {
  const std::size_t width = width_of(tensor), rank = tensor.shape.size();
  const std::uint64_t end = begin + out.size() / width, cols = chunk[rank - 1], column = at[rank - 1] * cols;
  const std::uint64_t length = std::min(cols, tensor.shape[rank - 1] - column);
  for (std::uint64_t row = 0; row < bytes.size() / width / cols; ++row) {
    std::uint64_t rest = row, element = column, place = tensor.shape[rank - 1];  // of the row's first element
    bool inside = true;
    for (std::size_t d = rank - 1; d-- > 0; rest /= chunk[d]) {
      const std::uint64_t coordinate = at[d] * chunk[d] + rest % chunk[d];
      inside = inside && coordinate < tensor.shape[d];
      element += coordinate * place, place *= tensor.shape[d];
    }
    const std::uint64_t from = std::max(begin, element), to = std::min(end, element + length);
    if (inside && from < to)
      std::memcpy(out.data() + (from - begin) * width, bytes.data() + (row * cols + (from - element)) * width,
                  (to - from) * width);
  }
}

}  // namespace

Gatherer::Chunk Gatherer::chunk(const TensorInfo& tensor, const Placement& placement, std::uint64_t index,
                                const ReadBytes& read_bytes, const std::string& source) {
  const Placement::Piece& piece = placement.pieces[static_cast<std::size_t>(index)];
  std::size_t whole = width_of(tensor);
  for (const std::uint64_t length : placement.chunk) whole *= static_cast<std::size_t>(length);
  if (piece.bytes == 0) return std::make_shared<const std::vector<std::byte>>(whole);
  {
    const std::lock_guard lock(mutex_);
    if (last_ && last_shard_ == tensor.shard && last_offset_ == piece.offset && last_->size() == whole) return last_;
  }
  const auto refuse = [&](std::string_view what) {
    fail(Errc::malformed, fmt::format("{}: chunk {}: {}", source, index, what));
  };
  std::vector<std::byte> stored(static_cast<std::size_t>(piece.bytes));
  read_bytes(piece.offset, stored);
  std::span<const std::byte> packed = stored;
  if (placement.summed) {
    std::uint32_t sum = 0;
    if (packed.size() < sizeof sum) refuse("too short for its checksum");
    std::memcpy(&sum, packed.data() + packed.size() - sizeof sum, sizeof sum);
    packed = packed.first(packed.size() - sizeof sum);
    if (sum != fletcher32(packed)) refuse("its bytes do not have its checksum");
  }
  const auto lead = static_cast<std::size_t>(placement.lead);
  auto bytes = std::make_shared<std::vector<std::byte>>(lead + whole);
  if (!unpack(placement.packing, packed, *bytes)) refuse("its packed bytes are damaged");
  bytes->erase(bytes->begin(), bytes->begin() + static_cast<std::ptrdiff_t>(lead));
  if (placement.shuffled && width_of(tensor) > 1) {
    std::vector<std::byte> plain(whole);
    unshuffle(*bytes, plain, width_of(tensor));
    *bytes = std::move(plain);
  }
  const std::lock_guard lock(mutex_);
  last_ = bytes, last_offset_ = piece.offset, last_shard_ = tensor.shard;
  return bytes;
}

// More than 5 parameters: source is for messages.
void Gatherer::read_chunks(const TensorInfo& tensor, const Placement& placement, std::uint64_t begin,
                           std::span<std::byte> out, const ReadBytes& read_bytes, const std::string& source) {
  const std::size_t rank = tensor.shape.size();
  const Box box = box_of(tensor.shape, begin, out.size() / width_of(tensor));
  Indexes low(rank), high(rank), grid(rank);
  for (std::size_t d = 0; d < rank; ++d) {
    low[d] = box.low[d] / placement.chunk[d], high[d] = box.high[d] / placement.chunk[d];
    grid[d] = ceil_div(tensor.shape[d], placement.chunk[d]);
  }
  Indexes at = low;
  for (bool more = true; more;) {
    std::uint64_t index = 0;
    for (std::size_t d = 0; d < rank; ++d) index = index * grid[d] + at[d];
    copy_rows(tensor, placement.chunk, at, *chunk(tensor, placement, index, read_bytes, source), begin, out);
    more = false;
    for (std::size_t d = rank; d-- > 0 && !more;) {
      if (++at[d] <= high[d])
        more = true;
      else
        at[d] = low[d];
    }
  }
}

// More than 5 parameters: source is for messages.
void Gatherer::read(const TensorInfo& tensor, const Placement& placement, std::uint64_t begin, std::span<std::byte> out,
                    const ReadBytes& read_bytes, const std::string& source) {
  if (out.empty()) return;
  if (!placement.chunk.empty())
    read_chunks(tensor, placement, begin, out, read_bytes, source);
  else if (!placement.strides.empty())
    StridedReader(tensor, placement, read_bytes).read(begin, out);
  else
    read_bytes(tensor.offset + begin * width_of(tensor), out);
  if (placement.swapped) swap_bytes(out, width_of(tensor));
}

}  // namespace lmq
