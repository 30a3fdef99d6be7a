#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "block_scales.hpp"
#include "lmq/base/bytes.hpp"
#include "lmq/base/error.hpp"
#include "lmq/base/text.hpp"
#include "lmq/io/placement.hpp"
#include "lmq/io/reader.hpp"
#include "safetensors_header.hpp"
#include "shard_index.hpp"

namespace lmq {
namespace {

constexpr std::uint32_t kMagic = 0x4C51434D;  // "MCQL" on disk
constexpr std::uint32_t kVersion = 3;

void put_tensor(ByteWriter& out, const TensorInfo& tensor) {
  out.text(tensor.name);
  out.le(static_cast<std::uint8_t>(tensor.dtype));
  out.le(static_cast<std::uint8_t>(tensor.shape.size()));
  out.array(std::span<const std::uint64_t>(tensor.shape));
  out.le(tensor.shard);
  out.le(tensor.offset);
  out.le(tensor.bytes);
  out.le(tensor.scale);
  out.le(tensor.scales);
  out.le(tensor.scale_block_rows);
  out.le(tensor.scale_block_cols);
}

/// A count of things of at least `smallest` bytes each, compared with what is left.
std::uint32_t take_count(ByteReader& in, std::size_t smallest, const char* what) {
  const auto count = in.le<std::uint32_t>(what);
  if (count > in.left() / smallest) in.refuse(fmt::format("{} {} cannot be in {} bytes", count, what, in.left()));
  return count;
}

std::string take_name(ByteReader& in, const char* what) {
  std::string name = in.text(what);
  if (!is_clean_utf8(name)) in.refuse(fmt::format("{}: '{}' is not UTF-8 without NUL", what, printable(name)));
  return name;
}

TensorInfo take_tensor(ByteReader& in) {
  TensorInfo tensor;
  tensor.name = take_name(in, "tensor name");
  const auto dtype = dtype_from_id(in.le<std::uint8_t>("dtype"));
  if (!dtype) in.refuse("unknown dtype");
  tensor.dtype = *dtype;
  const auto rank = in.le<std::uint8_t>("rank");
  if (rank > kRankLimit) in.refuse(fmt::format("rank {}, expected at most {}", rank, kRankLimit));
  tensor.shape = in.array<std::uint64_t>(rank, "shape");
  tensor.shard = in.le<std::uint32_t>("shard");
  tensor.offset = in.le<std::uint64_t>("offset");
  tensor.bytes = in.le<std::uint64_t>("bytes");
  tensor.scale = in.le<std::int64_t>("scale");
  tensor.scales = in.le<std::int64_t>("scales");
  tensor.scale_block_rows = in.le<std::uint64_t>("scale_block_rows");
  tensor.scale_block_cols = in.le<std::uint64_t>("scale_block_cols");
  return tensor;
}

void put_numbers(ByteWriter& out, const std::vector<std::uint64_t>& numbers) {
  out.le(static_cast<std::uint32_t>(numbers.size()));
  out.array(std::span<const std::uint64_t>(numbers));
}

std::vector<std::uint64_t> take_numbers(ByteReader& in, const char* what) {
  return in.array<std::uint64_t>(in.le<std::uint32_t>(what), what);
}

void put_placement(ByteWriter& out, const Placement& placement) {
  out.le(placement.block_type);
  for (const bool flag : {placement.swapped, placement.shuffled, placement.summed}) out.le(std::uint8_t{flag});
  out.le(static_cast<std::uint8_t>(placement.packing));
  out.le(placement.lead);
  put_numbers(out, placement.strides);
  put_numbers(out, placement.chunk);
  out.le(std::uint64_t{placement.pieces.size()});
  for (const Placement::Piece& piece : placement.pieces) out.le(piece.offset), out.le(piece.bytes);
}

Placement take_placement(ByteReader& in) {
  Placement placement;
  placement.block_type = in.le<std::uint32_t>("block_type");
  for (bool* flag : {&placement.swapped, &placement.shuffled, &placement.summed}) {
    const auto value = in.le<std::uint8_t>("flag");
    if (value > 1) in.refuse(fmt::format("a flag of {}", value));
    *flag = value == 1;
  }
  const auto packing = in.le<std::uint8_t>("packing");
  if (packing > static_cast<std::uint8_t>(Placement::Packing::lzf)) in.refuse(fmt::format("packing {}", packing));
  placement.packing = static_cast<Placement::Packing>(packing);
  placement.lead = in.le<std::uint64_t>("lead");
  placement.strides = take_numbers(in, "strides");
  placement.chunk = take_numbers(in, "chunk");
  const auto pieces = in.le<std::uint64_t>("pieces");
  if (pieces > in.left() / 16) in.refuse(fmt::format("{} pieces cannot be in {} bytes", pieces, in.left()));
  placement.pieces.resize(static_cast<std::size_t>(pieces));
  for (Placement::Piece& piece : placement.pieces)
    piece.offset = in.le<std::uint64_t>("offset of a piece"), piece.bytes = in.le<std::uint64_t>("bytes of a piece");
  return placement;
}

void take_placements(ByteReader& in, Catalogue& catalogue) {
  auto placements = std::make_shared<Placements>();
  for (std::uint32_t left = take_count(in, 36, "placements"); left > 0; --left) {
    const auto tensor = in.le<std::uint32_t>("tensor of a placement");
    if (!placements->list.empty() && tensor <= placements->list.back().first) in.refuse("placements are not ascending");
    placements->list.emplace_back(tensor, take_placement(in));
  }
  if (placements->list.empty()) return;
  if (placements->list.back().first >= catalogue.tensors.size()) in.refuse("a placement of no tensor");
  catalogue.placements = std::move(placements);
}

using Metadata = std::map<std::string, std::string>;

void put_metadata(ByteWriter& out, const Metadata& metadata) {
  out.le(static_cast<std::uint32_t>(metadata.size()));
  for (const auto& [key, text] : metadata) out.text(key), out.text(text);
}

Metadata take_metadata(ByteReader& in) {
  Metadata metadata;
  for (std::uint32_t left = take_count(in, 8, "metadata entries"); left > 0; --left) {
    std::string key = in.text("metadata key");
    if (!metadata.empty() && !(metadata.rbegin()->first < key)) in.refuse("metadata keys are not ascending");
    metadata.emplace(std::move(key), in.text("metadata text"));
  }
  return metadata;
}

TensorNote take_note(ByteReader& in) {
  TensorNote note;
  note.tensor = in.le<std::uint32_t>("tensor of a note");
  const auto fitness = in.le<std::uint8_t>("fitness");
  if (fitness < static_cast<std::uint8_t>(Fitness::companion) ||
      fitness > static_cast<std::uint8_t>(Fitness::nonfinite))
    in.refuse(fmt::format("fitness {}", fitness));
  note.fitness = static_cast<Fitness>(fitness);
  note.text = in.text("note");
  return note;
}

void check_tensor(const ByteReader& in, const Catalogue& catalogue, std::size_t index) {
  const TensorInfo& tensor = catalogue.tensors[index];
  const auto refuse = [&](const std::string& what) {
    in.refuse(fmt::format("tensor '{}': {}", printable(tensor.name), what));
  };
  if (index > 0 && !(catalogue.tensors[index - 1].name < tensor.name)) refuse("names are not ascending");
  if (tensor.shard >= catalogue.shards.size())
    refuse(fmt::format("shard {} of {}", tensor.shard, catalogue.shards.size()));
  const std::uint64_t end = catalogue.shards[tensor.shard].bytes;
  std::uint64_t count = 0, bytes = 0;
  if (!count_elements(tensor.shape, count) || !count_bytes(tensor.dtype, count, bytes)) refuse("its size overflows");
  if (const Placement* const placement = placement_of(catalogue, index)) {
    if (const std::string fault = placement_fault(tensor, *placement, end); !fault.empty()) refuse(fault);
  } else {
    if (bytes != tensor.bytes) refuse("bytes and shape do not agree");
    if (tensor.offset > end || tensor.bytes > end - tensor.offset) refuse("its range is not in its shard");
  }
  const auto tensors = static_cast<std::int64_t>(catalogue.tensors.size());
  if (tensor.scales < -1 || tensor.scales >= tensors || tensor.scale < -1 || tensor.scale >= tensors)
    refuse("its scale is no tensor");
  if (tensor.scales >= 0 &&
      catalogue.tensors[static_cast<std::size_t>(tensor.scales)].scale != static_cast<std::int64_t>(index))
    refuse("scale and scaled tensor do not agree");
  if (tensor.scale < 0) {
    if (tensor.scale_block_rows != 0 || tensor.scale_block_cols != 0) refuse("a block without a scale");
    return;
  }
  if (catalogue.tensors[static_cast<std::size_t>(tensor.scale)].scales != static_cast<std::int64_t>(index))
    refuse("scale and scaled tensor do not agree");
  if (!scale_fits(tensor, catalogue.tensors[static_cast<std::size_t>(tensor.scale)]))
    refuse("its scale has another shape");
}

}  // namespace

std::int64_t Catalogue::find(std::string_view name) const noexcept {
  const auto at = std::ranges::lower_bound(tensors, name, {},
                                           [](const TensorInfo& tensor) { return std::string_view(tensor.name); });
  return at != tensors.end() && at->name == name ? at - tensors.begin() : -1;
}

std::vector<std::byte> Catalogue::to_bytes() const {
  ByteWriter out;
  out.le(kMagic);
  out.le(kVersion);
  out.text(format);
  out.text(folder.native());
  out.text(index_name);
  out.le(static_cast<std::uint32_t>(shards.size()));
  for (const ShardInfo& shard : shards) {
    out.text(shard.name);
    out.le(shard.bytes);
    out.le(shard.modified_ns);
    out.text(shard.header_digest);
    put_metadata(out, shard.metadata);
  }
  out.le(static_cast<std::uint32_t>(tensors.size()));
  for (const TensorInfo& tensor : tensors) put_tensor(out, tensor);
  out.le(static_cast<std::uint32_t>(placements == nullptr ? 0 : placements->list.size()));
  if (placements != nullptr)
    for (const auto& [tensor, placement] : placements->list) out.le(tensor), put_placement(out, placement);
  put_metadata(out, metadata);
  out.le(static_cast<std::uint32_t>(notes.size()));
  for (const TensorNote& note : notes) {
    out.le(note.tensor), out.le(static_cast<std::uint8_t>(note.fitness));
    out.text(note.text);
  }
  out.le(static_cast<std::uint32_t>(warnings.size()));
  for (const std::string& warning : warnings) out.text(warning);
  return out.take();
}

Catalogue Catalogue::from_bytes(std::span<const std::byte> bytes) {
  ByteReader in(bytes, "catalogue");
  if (in.le<std::uint32_t>("magic") != kMagic || in.le<std::uint32_t>("version") != kVersion)
    in.refuse("not a catalogue of this version");
  Catalogue catalogue;
  catalogue.format = in.text("format");
  catalogue.folder = in.text("folder");
  catalogue.index_name = in.text("index name");
  for (std::uint32_t left = take_count(in, 28, "shards"); left > 0; --left) {
    ShardInfo& shard = catalogue.shards.emplace_back();
    shard.name = take_name(in, "shard name");
    if (!is_inner_path(shard.name))
      in.refuse(fmt::format("shard '{}' is no file in or below the folder", printable(shard.name)));
    shard.bytes = in.le<std::uint64_t>("shard bytes");
    shard.modified_ns = in.le<std::int64_t>("modification time");
    shard.header_digest = in.text("header digest");
    shard.metadata = take_metadata(in);
  }
  for (std::uint32_t left = take_count(in, 58, "tensors"); left > 0; --left)
    catalogue.tensors.push_back(take_tensor(in));
  take_placements(in, catalogue);
  for (std::size_t i = 0; i < catalogue.tensors.size(); ++i) check_tensor(in, catalogue, i);
  catalogue.metadata = take_metadata(in);
  for (std::uint32_t left = take_count(in, 9, "notes"); left > 0; --left) catalogue.notes.push_back(take_note(in));
  for (std::size_t i = 0; i < catalogue.notes.size(); ++i)
    if (catalogue.notes[i].tensor >= catalogue.tensors.size() ||
        (i > 0 && catalogue.notes[i].tensor <= catalogue.notes[i - 1].tensor))
      in.refuse("notes are not ascending by tensor");
  for (std::uint32_t left = take_count(in, 4, "warnings"); left > 0; --left)
    catalogue.warnings.push_back(in.text("warning"));
  if (in.left() != 0) in.refuse(fmt::format("{} bytes behind the end", in.left()));
  return catalogue;
}

}  // namespace lmq
