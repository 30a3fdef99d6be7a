#include "lmq/io/placement.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "gather.hpp"
#include "gguf_blocks.hpp"
#include "lmq/base/error.hpp"
#include "lmq/base/math.hpp"
#include "lmq/base/text.hpp"
#include "safetensors_header.hpp"

namespace lmq {
namespace {

std::size_t width_of(const TensorInfo& tensor) noexcept { return bits(tensor.dtype) / 8; }

std::vector<std::uint64_t> grid_of(const TensorInfo& tensor, const Placement& placement) {
  std::vector<std::uint64_t> grid(tensor.shape.size());
  for (std::size_t d = 0; d < grid.size(); ++d) grid[d] = ceil_div(tensor.shape[d], placement.chunk[d]);
  return grid;
}

std::string range_fault(const TensorInfo& tensor, std::uint64_t file_bytes) {
  if (tensor.offset <= file_bytes && tensor.bytes <= file_bytes - tensor.offset) return {};
  return fmt::format("{} bytes at {} reach over the file's {}", tensor.bytes, tensor.offset, file_bytes);
}

std::string block_fault(const TensorInfo& tensor, const Placement& placement, std::uint64_t file_bytes) {
  const BlockType* const type = block_type(placement.block_type);
  if (type == nullptr || type->decode == nullptr) return fmt::format("blocks of type {}", placement.block_type);
  if (tensor.dtype != DType::f32) return "blocks that stand for no F32 values";
  if (tensor.shape.empty() || tensor.shape.back() % type->elements != 0)
    return fmt::format("rows that are no whole blocks of {}", type->elements);
  Placement plain;
  plain.block_type = placement.block_type;
  if (placement != plain) return "blocks that do not lie in a row";
  return range_fault(tensor, file_bytes);
}

/// Bytes of a whole chunk; nothing when they are too many.
std::optional<std::uint64_t> chunk_bytes(const TensorInfo& tensor, const Placement& placement) {
  std::uint64_t bytes = width_of(tensor);
  for (const std::uint64_t length : placement.chunk)
    if (length == 0 || !checked_mul(bytes, length, bytes) || bytes > kMaxChunkBytes) return std::nullopt;
  return bytes;
}

std::string chunk_fault(const TensorInfo& tensor, const Placement& placement, std::uint64_t file_bytes) {
  if (placement.chunk.size() != tensor.shape.size()) return "its chunks have another number of dimensions";
  const auto whole = chunk_bytes(tensor, placement);
  if (!whole || placement.lead > kMaxChunkBytes)
    return fmt::format("chunks of more than {} bytes, or of none", kMaxChunkBytes);
  if (placement.lead > 0 && placement.shuffled) return "a shuffled chunk with bytes before it";
  std::uint64_t count = 1;
  for (const std::uint64_t length : grid_of(tensor, placement))
    if (!checked_mul(count, length, count)) return "more chunks than can be counted";
  if (count != placement.pieces.size()) return fmt::format("{} chunks, expected {}", placement.pieces.size(), count);
  for (const Placement::Piece& piece : placement.pieces) {
    if (piece.offset > file_bytes || piece.bytes > file_bytes - piece.offset)
      return fmt::format("a chunk of {} bytes at {} reaches over the file's {}", piece.bytes, piece.offset, file_bytes);
    // A deflate stream grows by at most 1032 times, LZF by 88.
    if (piece.bytes > 0 && (*whole + placement.lead) / 1032 > piece.bytes)
      return fmt::format("a chunk of {} bytes cannot come from {} packed ones", *whole, piece.bytes);
  }
  return {};
}

}  // namespace

const Placement* placement_of(const Catalogue& catalogue, std::size_t tensor) noexcept {
  if (catalogue.placements == nullptr) return nullptr;
  const auto& list = catalogue.placements->list;
  const auto at = std::ranges::lower_bound(list, tensor, {}, &std::pair<std::uint32_t, Placement>::first);
  return at != list.end() && at->first == tensor ? &at->second : nullptr;
}

std::string stored_type(const Catalogue& catalogue, std::size_t tensor) {
  const std::string plain(name(catalogue.tensors[tensor].dtype));
  const Placement* const placement = placement_of(catalogue, tensor);
  if (placement == nullptr) return plain;
  if (const BlockType* const type = block_type(placement->block_type)) return std::string(type->name);
  return plain + (placement->swapped ? " big-endian" : placement->chunk.empty() ? " strided" : " in chunks");
}

std::uint64_t placed_bytes(const TensorInfo& tensor, const Placement& placement) {
  constexpr std::uint64_t kMax = std::uint64_t{1} << 62;
  std::uint64_t sum = 0;
  if (!placement.chunk.empty()) {
    for (const Placement::Piece& piece : placement.pieces) sum = std::min(kMax, sum + std::min(kMax, piece.bytes));
    return sum;
  }
  if (tensor.count() == 0) return 0;
  if (placement.block_type != 0) {
    const BlockType* const type = block_type(placement.block_type);
    return type == nullptr ? kMax : tensor.count() / type->elements * type->bytes;  // less than 4 bytes an element
  }
  if (placement.strides.empty()) return tensor.count() * width_of(tensor);
  for (std::size_t d = 0; d < tensor.shape.size() && d < placement.strides.size(); ++d) {
    std::uint64_t far = 0;
    if (!checked_mul(tensor.shape[d] - 1, placement.strides[d], far) || far > kMax) return kMax;
    sum = std::min(kMax, sum + far);
  }
  return std::min(kMax / 16, sum + 1) * width_of(tensor);
}

std::string placement_fault(const TensorInfo& tensor, const Placement& placement, std::uint64_t file_bytes) {
  if (bits(tensor.dtype) % 8 != 0) return "elements that are no whole bytes";
  if (const std::uint64_t bytes = placed_bytes(tensor, placement); bytes != tensor.bytes)
    return fmt::format("{} bytes, expected {}", tensor.bytes, bytes);
  if (placement.block_type != 0) return block_fault(tensor, placement, file_bytes);
  if (!placement.chunk.empty()) {
    if (!placement.strides.empty()) return "chunks and strides";
    return chunk_fault(tensor, placement, file_bytes);
  }
  if (placement.packing != Placement::Packing::none || placement.shuffled || placement.summed ||
      !placement.pieces.empty())
    return "packed without chunks";
  if (!placement.strides.empty() && placement.strides.size() != tensor.shape.size())
    return "its strides have another number of dimensions";
  return range_fault(tensor, file_bytes);
}

void TensorList::give(Catalogue& catalogue, const std::string& source) {
  std::ranges::sort(list_, {}, [](const auto& entry) -> const std::string& { return entry.first.name; });
  static_cast<void>(narrow<std::uint32_t>(list_.size(), "number of tensors"));
  auto placements = std::make_shared<Placements>();
  for (std::size_t i = 0; i < list_.size(); ++i) {
    auto& [tensor, placement] = list_[i];
    const auto refuse = [&](const std::string& what) {
      fail(Errc::malformed, fmt::format("{}: tensor '{}': {}", source, printable(tensor.name), what));
    };
    if (tensor.name.size() > kNameLimit || !is_clean_utf8(tensor.name))
      refuse(fmt::format("the name is no UTF-8 without NUL of at most {} bytes", kNameLimit));
    if (i > 0 && catalogue.tensors.back().name == tensor.name) refuse("is there twice");
    if (placement != Placement{}) {
      const std::string fault = placement_fault(tensor, placement, catalogue.shards[tensor.shard].bytes);
      if (!fault.empty()) refuse(fault);
      placements->list.emplace_back(static_cast<std::uint32_t>(i), std::move(placement));
    }
    catalogue.tensors.push_back(std::move(tensor));
  }
  if (!placements->list.empty()) catalogue.placements = std::move(placements);
  list_.clear();
}

}  // namespace lmq
