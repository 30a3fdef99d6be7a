#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "lmq/io/file.hpp"
#include "lmq/io/layout.hpp"

namespace lmq {

/// The last bytes of our file, behind HDF5's: a digest of everything but the tensors' own bytes, to be checked before
/// HDF5 looks at any of it, since damaged metadata crash its library. Layout in docs/format.md, section 1.2.
struct Seal {
  enum class State : std::uint8_t { whole, missing, broken };
  State state = State::missing;
  std::string what;                 ///< broken: what differs
  std::uint64_t hdf5_bytes = 0;     ///< of the file before the seal
  std::uint64_t stored_digest = 0;  ///< stored_digest_of all units
};

/// Usual bytes of one: metadata in three places.
inline constexpr std::uint64_t kSealBytes = 80;

/// Bytes [begin, end) of the file.
struct Extent {
  std::uint64_t begin = 0, end = 0;
  friend bool operator==(const Extent&, const Extent&) = default;
};
/// Where the bytes of tensors lie: all pieces but those of datasets below /lmq, ascending, touching ones joined.
[[nodiscard]] std::vector<Extent> payload_of(const FileLayout& layout, const FilePlaces& places);

[[nodiscard]] std::uint64_t seal_bytes(std::uint64_t hdf5_bytes, const std::vector<Extent>& payload);
/// Reads the metadata back from `file` and writes the seal at hdf5_bytes. Cost: that of reading them.
void write_seal(const File& file, std::uint64_t hdf5_bytes, const std::vector<Extent>& payload,
                std::span<const std::uint64_t> unit_digests);
/// Never throws for what the file holds; Errc::io.
[[nodiscard]] Seal read_seal(const File& file);

}  // namespace lmq
