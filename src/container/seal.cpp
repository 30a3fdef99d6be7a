#include "seal.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "lmq/base/bytes.hpp"
#include "lmq/base/digest.hpp"
#include "lmq/container/names.hpp"
#include "lmq/container/quantized_file.hpp"

namespace lmq {
namespace {

constexpr std::array<char, 4> kMagic{'L', 'M', 'Q', 'S'};
constexpr std::uint64_t kTail = sizeof(std::uint64_t) + sizeof(std::uint32_t) + kMagic.size();  // digest, bytes, magic
constexpr std::uint64_t kFixed = 2 * sizeof(std::uint64_t) + kTail;
constexpr std::uint64_t kPiece = std::uint64_t{1} << 22;  // bytes digested at once

/// What lies between the payload: the metadata.
std::vector<Extent> between(const std::vector<Extent>& payload, std::uint64_t end) {
  std::vector<Extent> gaps;
  std::uint64_t at = 0;
  for (const Extent& extent : payload) {
    if (extent.begin > at) gaps.push_back({at, extent.begin});
    at = extent.end;
  }
  if (end > at) gaps.push_back({at, end});
  return gaps;
}

/// Digest of the digests of all pieces of at most kPiece bytes, and of the seal's own first bytes.
std::uint64_t metadata_digest(const File& file, const std::vector<Extent>& metadata, std::span<const std::byte> head) {
  ByteWriter digests;
  std::vector<std::byte> bytes;
  for (const Extent& extent : metadata)
    for (std::uint64_t at = extent.begin; at < extent.end; at += bytes.size()) {
      bytes.resize(static_cast<std::size_t>(std::min(kPiece, extent.end - at)));
      file.read(at, bytes);
      digests.le(digest64(bytes));
    }
  digests.le(digest64(head));
  return digest64(digests.bytes());
}

Seal broken(std::string what) {
  Seal seal;
  seal.state = Seal::State::broken;
  seal.what = std::move(what);
  return seal;
}

/// The extents of a seal's head, or nothing when they are none of a file of `hdf5_bytes`.
bool take_extents(ByteReader& in, std::uint64_t count, std::uint64_t hdf5_bytes, std::vector<Extent>& metadata) {
  std::uint64_t at = 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    const auto begin = in.le<std::uint64_t>("begin"), end = in.le<std::uint64_t>("end");
    if (begin < at || end <= begin || end > hdf5_bytes) return false;
    metadata.push_back({begin, end});
    at = end;
  }
  return true;
}

}  // namespace

std::vector<Extent> payload_of(const FileLayout& layout, const FilePlaces& places) {
  std::vector<Extent> pieces, joined;
  const std::string ours = std::string(container::kGroup) + "/";
  for (std::size_t d = 0; d < layout.datasets.size(); ++d) {
    if (layout.datasets[d].path.starts_with(ours)) continue;
    for (std::size_t p = 0; p < places.offsets[d].size(); ++p)
      if (const std::uint64_t bytes = layout.datasets[d].piece_bytes[p]; bytes > 0)
        pieces.push_back({places.offsets[d][p], places.offsets[d][p] + bytes});
  }
  std::ranges::sort(pieces, {}, &Extent::begin);
  for (const Extent& piece : pieces)
    if (!joined.empty() && joined.back().end == piece.begin)
      joined.back().end = piece.end;
    else
      joined.push_back(piece);
  return joined;
}

std::uint64_t stored_digest_of(std::span<const std::uint64_t> unit_digests) {
  return digest64(std::as_bytes(unit_digests));
}

std::uint64_t seal_bytes(std::uint64_t hdf5_bytes, const std::vector<Extent>& payload) {
  return kFixed + 2 * sizeof(std::uint64_t) * between(payload, hdf5_bytes).size();
}

void write_seal(const File& file, std::uint64_t hdf5_bytes, const std::vector<Extent>& payload,
                std::span<const std::uint64_t> unit_digests) {
  const std::vector<Extent> metadata = between(payload, hdf5_bytes);
  ByteWriter out;
  for (const Extent& extent : metadata) out.le(extent.begin), out.le(extent.end);
  out.le(hdf5_bytes);
  out.le(stored_digest_of(unit_digests));
  const std::uint64_t digest = metadata_digest(file, metadata, out.bytes());
  out.le(digest);
  out.le(static_cast<std::uint32_t>(out.size() + sizeof(std::uint32_t) + kMagic.size()));
  out.raw(std::as_bytes(std::span(kMagic)));
  file.write(hdf5_bytes, out.bytes());
}

Seal read_seal(const File& file) {
  const std::uint64_t size = file.size();
  std::array<std::byte, sizeof(std::uint32_t) + kMagic.size()> end{};
  if (size < kFixed) return {};
  file.read(size - end.size(), end);
  ByteReader tail(end, "seal");
  const auto bytes = tail.le<std::uint32_t>("bytes");
  if (!std::ranges::equal(tail.raw(kMagic.size(), "magic"), std::as_bytes(std::span(kMagic)))) return {};
  if (bytes < kFixed || bytes > size || (bytes - kFixed) % (2 * sizeof(std::uint64_t)) != 0)
    return broken(fmt::format("its seal of {} bytes is damaged", bytes));
  std::vector<std::byte> all(bytes);
  file.read(size - bytes, all);
  ByteReader in(all, "seal");
  Seal seal;
  std::vector<Extent> metadata;
  if (!take_extents(in, (bytes - kFixed) / (2 * sizeof(std::uint64_t)), size - bytes, metadata))
    return broken("its seal is damaged");
  seal.hdf5_bytes = in.le<std::uint64_t>("bytes of HDF5");
  seal.stored_digest = in.le<std::uint64_t>("digest of all units");
  if (seal.hdf5_bytes != size - bytes)
    return broken(fmt::format("its seal is that of a file of {} bytes", seal.hdf5_bytes + bytes));
  const std::uint64_t found = metadata_digest(file, metadata, std::span(all).first(all.size() - kTail));
  const auto recorded = in.le<std::uint64_t>("digest");
  if (found != recorded)
    return broken(
        fmt::format("its metadata have digest {}, recorded is {}: they are damaged", hex(found), hex(recorded)));
  seal.state = Seal::State::whole;
  return seal;
}

}  // namespace lmq
