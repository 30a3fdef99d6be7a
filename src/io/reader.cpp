#include "lmq/io/reader.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <deque>
#include <mutex>
#include <utility>

#include "block_scales.hpp"
#include "gather.hpp"
#include "gguf_blocks.hpp"
#include "lmq/base/error.hpp"
#include "lmq/base/math.hpp"
#include "lmq/base/text.hpp"
#include "lmq/io/file.hpp"
#include "lmq/io/input_formats.hpp"
#include "lmq/io/placement.hpp"
#include "open_checkpoint.hpp"
#include "small_floats.hpp"

namespace lmq {
namespace {

/// Opens shards when they are first wanted and keeps the newest open. Thread-safe.
class OpenShards {
 public:
  explicit OpenShards(const Catalogue& catalogue) : catalogue_(catalogue), files_(catalogue.shards.size()) {}

  /// Shared, because another thread may close its place here while this one still reads.
  [[nodiscard]] std::shared_ptr<const File> get(std::uint32_t shard) {
    const std::lock_guard lock(mutex_);
    if (!files_.at(shard)) {
      if (order_.size() == kMaxOpen) {
        files_[order_.front()].reset();
        order_.pop_front();
      }
      files_[shard] = open(catalogue_.shards[shard]);
      order_.push_back(shard);
    }
    return files_[shard];
  }

 private:
  [[nodiscard]] std::shared_ptr<const File> open(const ShardInfo& info) const {
    auto file = std::make_shared<const File>(catalogue_.folder / info.name, File::Mode::read);
    const std::uint64_t bytes = file->size();
    if (bytes != info.bytes)
      fail(Errc::io, fmt::format("{}: the file has {} bytes, expected {}: it changed", printable(file->path().native()),
                                 bytes, info.bytes));
    return file;
  }

  static constexpr std::size_t kMaxOpen = 256;  // well below the usual limit of 1024 descriptors
  const Catalogue& catalogue_;
  std::mutex mutex_;
  std::vector<std::shared_ptr<const File>> files_;  // [shards]
  std::deque<std::uint32_t> order_;
};

/// Makes room without clearing bytes that are there already: a page is zeroed once, not at every call.
std::span<std::byte> room(std::vector<std::byte>& scratch, std::uint64_t bytes) {
  if (scratch.size() < bytes) {
    scratch = {};  // first, so that old and new are never held together
    scratch.resize(static_cast<std::size_t>(bytes));
  }
  return std::span(scratch).first(static_cast<std::size_t>(bytes));
}

/// Reads whatever a catalogue can say, whichever format it came from.
class FileReader final : public Reader {
 public:
  explicit FileReader(Catalogue catalogue) : catalogue_(std::move(catalogue)), shards_(catalogue_) {}

  [[nodiscard]] const Catalogue& catalogue() const noexcept override { return catalogue_; }

  [[nodiscard]] TensorView view(const TensorInfo& tensor, std::uint64_t begin, std::uint64_t count,
                                std::vector<std::byte>& scratch) const override {
    const ByteRange range = bytes_of(tensor, begin, count);
    TensorView result{.dtype = tensor.value_type(), .bytes = {}, .count = static_cast<std::size_t>(count)};
    if (count == 0) return result;
    const Placement* const placement = placed(tensor);
    if (placement != nullptr && placement->block_type != 0) {
      const std::span<std::byte> bytes = room(scratch, range.bytes);
      from_blocks(tensor, placement->block_type, begin,
                  {reinterpret_cast<float*>(bytes.data()), static_cast<std::size_t>(count)});
      result.bytes = bytes;
      return result;
    }
    if (tensor.scale < 0) {
      const std::span<std::byte> bytes = room(scratch, range.bytes);
      fetch(tensor, begin, bytes);
      result.bytes = bytes;
      return result;
    }
    const std::span<std::byte> bytes = room(scratch, count * sizeof(float));
    // The allocator aligns to 16 bytes.
    scaled(tensor, begin, {reinterpret_cast<float*>(bytes.data()), static_cast<std::size_t>(count)});
    result.bytes = bytes;
    return result;
  }

  void prefetch(const TensorInfo& tensor, std::uint64_t begin, std::uint64_t count) const noexcept override {
    try {
      ByteRange range = bytes_of(tensor, begin, count);
      if (const Placement* const placement = placed(tensor)) {
        if (placement->block_type == 0) return;
        range = blocks_of(tensor, placement->block_type, begin, count).range;
      }
      shards_.get(tensor.shard)->advise_soon(range.offset, range.bytes);
    } catch (...) {
      // A wish only: what is wrong is reported by the view that follows.
    }
  }

  void check_unchanged() const override {
    for (const ShardInfo& shard : catalogue_.shards) {
      const std::filesystem::path path = catalogue_.folder / shard.name;
      File::Stamp now;
      try {
        now = stamp_of(path);
      } catch (const Error& error) {
        fail(Errc::io, error.what());  // it was there when its header was read
      }
      if (now != File::Stamp{shard.bytes, shard.modified_ns})
        fail(
            Errc::io,
            fmt::format("{}: the file changed: found {} bytes, modified at {} ns, expected {} bytes, modified at {} ns",
                        printable(path.native()), now.bytes, now.modified_ns, shard.bytes, shard.modified_ns));
    }
  }

 private:
  struct ByteRange {
    std::uint64_t offset = 0, bytes = 0;
  };

  /// Where elements lie in the shard. Errc::internal when the caller asks for what the tensor does not have.
  [[nodiscard]] static ByteRange bytes_of(const TensorInfo& tensor, std::uint64_t begin, std::uint64_t count) {
    const std::uint64_t elements = tensor.count(), width = bits(tensor.dtype);
    const auto refuse = [&](const char* what) {
      fail(Errc::internal,
           fmt::format("tensor '{}': elements {} + {} of {} {}", printable(tensor.name), begin, count, elements, what));
    };
    if (begin > elements || count > elements - begin) refuse("are not there");
    // A byte holds whole elements or a fraction of one; eight elements are `width` bytes, so nothing overflows.
    if (begin % 8 * width % 8 != 0 || count % 8 * width % 8 != 0) refuse("are no whole bytes");
    return {tensor.offset + begin / 8 * width + begin % 8 * width / 8, count / 8 * width + count % 8 * width / 8};
  }

  void read(const TensorInfo& tensor, std::uint64_t offset, std::span<std::byte> bytes) const {
    try {
      shards_.get(tensor.shard)->read(offset, bytes);
    } catch (const Error& error) {
      fail(error.code, fmt::format("{} (tensor '{}')", error.what(), printable(tensor.name)));
    }
  }

  /// nullptr for values in a row as their type has them.
  [[nodiscard]] const Placement* placed(const TensorInfo& tensor) const {
    if (catalogue_.placements == nullptr) return nullptr;
    const std::int64_t at = catalogue_.find(tensor.name);
    return at < 0 ? nullptr : placement_of(catalogue_, static_cast<std::size_t>(at));
  }

  /// Elements from `begin` on as their type has them.
  void fetch(const TensorInfo& tensor, std::uint64_t begin, std::span<std::byte> bytes) const {
    const Placement* const placement = placed(tensor);
    if (placement == nullptr) return read(tensor, bytes_of(tensor, begin, 0).offset, bytes);
    gatherer_.read(
        tensor, *placement, begin, bytes,
        [&](std::uint64_t offset, std::span<std::byte> part) { read(tensor, offset, part); },
        fmt::format("{}: tensor '{}'", printable(catalogue_.shards[tensor.shard].name), printable(tensor.name)));
  }

  struct BlockRange {
    const BlockType* type = nullptr;
    std::uint64_t first = 0, count = 0;  ///< blocks
    ByteRange range;                     ///< of these
  };
  /// The blocks that hold the elements [begin, begin + count).
  [[nodiscard]] static BlockRange blocks_of(const TensorInfo& tensor, std::uint32_t id, std::uint64_t begin,
                                            std::uint64_t count) {
    const BlockType* const type = block_type(id);
    if (type == nullptr || type->decode == nullptr)
      fail(Errc::internal, fmt::format("tensor '{}': blocks of type {}", printable(tensor.name), id));
    const std::uint64_t first = begin / type->elements, blocks = ceil_div(begin + count, type->elements) - first;
    return {type, first, blocks, {tensor.offset + first * type->bytes, blocks * type->bytes}};
  }

  /// Floats of blocks, piece by piece; blocks that the range holds only part of are decoded beside it.
  void from_blocks(const TensorInfo& tensor, std::uint32_t id, std::uint64_t begin, std::span<float> floats) const {
    const BlockRange needed = blocks_of(tensor, id, begin, floats.size());
    const std::uint64_t size = needed.type->elements, most = kPieceBytes / needed.type->bytes;
    std::vector<std::byte> piece(static_cast<std::size_t>(std::min(most, needed.count) * needed.type->bytes));
    std::array<float, 256> edge;
    const std::uint64_t end = begin + floats.size();
    for (std::uint64_t done = 0; done < needed.count; done += most) {
      const std::uint64_t count = std::min(most, needed.count - done);
      read(tensor, needed.range.offset + done * needed.type->bytes,
           std::span(piece).first(static_cast<std::size_t>(count * needed.type->bytes)));
      const auto* const in = reinterpret_cast<const std::uint8_t*>(piece.data());
      for (std::uint64_t b = 0; b < count;) {
        const std::uint64_t element = (needed.first + done + b) * size;
        if (element < begin || element + size > end) {
          needed.type->decode(in + b * needed.type->bytes, 1, edge.data());
          const std::uint64_t from = std::max(begin, element), to = std::min(end, element + size);
          std::copy(edge.data() + (from - element), edge.data() + (to - element), floats.data() + (from - begin));
          ++b;
          continue;
        }
        const std::uint64_t whole = std::min(count - b, (end - element) / size);
        needed.type->decode(in + b * needed.type->bytes, static_cast<std::size_t>(whole),
                            floats.data() + (element - begin));
        b += whole;
      }
    }
  }

  /// Floats of 8-bit values, piece by piece: the bytes pass through a small buffer, so scratch holds the floats alone.
  void scaled(const TensorInfo& tensor, std::uint64_t begin, std::span<float> floats) const {
    const TensorInfo& scale = catalogue_.tensors[static_cast<std::size_t>(tensor.scale)];
    const ScaleRange needed = scale_range(tensor, scale, begin, floats.size());
    const std::vector<float> scales = read_scales(scale, needed);
    const bool has_zero = std::ranges::count(scales, 0.0F) > 0;
    std::vector<std::byte> piece(std::min<std::size_t>(floats.size(), kPieceBytes));
    for (std::size_t done = 0; done < floats.size(); done += kPieceBytes) {
      const std::span<std::byte> bytes =
          std::span(piece).first(std::min<std::size_t>(kPieceBytes, floats.size() - done));
      fetch(tensor, begin + done, bytes);
      if (has_zero) check_zeros(tensor, begin + done, bytes, scales, needed.begin);
      apply_scales(tensor, scale, begin + done, bytes, scales, needed.begin, floats.subspan(done, bytes.size()));
    }
  }

  /// A block of zeros may have the scale 0; values under such a scale are lost.
  void check_zeros(const TensorInfo& tensor, std::uint64_t begin, std::span<const std::byte> bytes,
                   std::span<const float> scales, std::uint64_t first_scale) const {
    const TensorInfo& scale = catalogue_.tensors[static_cast<std::size_t>(tensor.scale)];
    if (const auto element = first_under_zero(tensor, scale, begin, bytes, scales, first_scale))
      fail(Errc::malformed, fmt::format("{}: tensor '{}': element {} is not 0, but its scale in '{}' is 0; --tensor "
                                        "'{}=keep' leaves both as they are",
                                        printable(catalogue_.shards[tensor.shard].name), printable(tensor.name),
                                        *element, printable(scale.name), printable(tensor.name)));
  }

  [[nodiscard]] std::vector<float> read_scales(const TensorInfo& scale, const ScaleRange& range) const {
    const ByteRange place = bytes_of(scale, range.begin, range.count);
    std::vector<std::byte> bytes(static_cast<std::size_t>(place.bytes));
    fetch(scale, range.begin, bytes);
    std::vector<float> scales(static_cast<std::size_t>(range.count));
    to_floats(scale.dtype, bytes, scales);
    for (std::size_t i = 0; i < scales.size(); ++i)
      if (!(std::isfinite(scales[i]) && scales[i] >= 0))
        fail(Errc::malformed,
             fmt::format(
                 "{}: tensor '{}': scale {} is {}, expected a finite number, not below 0; --tensor '{}=keep' leaves it "
                 "and what it scales as they are",
                 printable(catalogue_.shards[scale.shard].name), printable(scale.name), range.begin + i, scales[i],
                 scale.scales < 0 ? "NAME"
                                  : printable(catalogue_.tensors[static_cast<std::size_t>(scale.scales)].name)));
    return scales;
  }

  static constexpr std::size_t kPieceBytes = std::size_t{256} << 10;
  Catalogue catalogue_;
  mutable OpenShards shards_;
  mutable Gatherer gatherer_;
};

}  // namespace

std::unique_ptr<Reader> open_reader(const std::filesystem::path& input, std::span<const InputFormat> more) {
  return open_reader(read_catalogue(input, more));
}

std::unique_ptr<Reader> open_reader(Catalogue catalogue) { return std::make_unique<FileReader>(std::move(catalogue)); }

}  // namespace lmq
