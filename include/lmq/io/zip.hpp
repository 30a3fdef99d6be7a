#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "lmq/io/file.hpp"

namespace lmq {

/// One member of a zip archive.
struct ZipEntry {
  std::string name;
  std::uint64_t offset = 0;    ///< of its bytes in the file
  std::uint64_t bytes = 0;     ///< as stored
  std::uint64_t size = 0;      ///< unpacked
  bool deflated = false;       ///< else stored as it is
  std::uint32_t checksum = 0;  ///< CRC-32 of the unpacked bytes
};

/// True when the file begins like an archive with a member.
[[nodiscard]] bool is_zip(const File& file);
/// The members, in the order of the directory; folders are left out. Directory and local headers agree, members do not
/// overlap, names are there once, are clean UTF-8 and stay inside; the directory is the last thing in the file.
/// Errc::malformed; Errc::unsupported for encrypted members, several disks, other packings than deflate.
[[nodiscard]] std::vector<ZipEntry> read_zip(const File& file);
/// A member unpacked, its checksum compared. Errc::malformed; Errc::unsupported when it is longer than `most`.
[[nodiscard]] std::vector<std::byte> read_member(const File& file, const ZipEntry& entry, std::uint64_t most);
/// Digest of names, sizes and checksums: what is in the archive, wherever it lies.
[[nodiscard]] std::string zip_digest(const std::vector<ZipEntry>& entries);

}  // namespace lmq
