#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "lmq/io/layout.hpp"

namespace lmq {

/// OUT.part-ORIGIN-RUN, the output until it is whole. ORIGIN is the run that made the file, RUN the one that works on
/// it: 16 hex digits that no other run has.
[[nodiscard]] std::filesystem::path part_path(const std::filesystem::path& output, const std::string& origin,
                                              const std::string& run);
/// ORIGIN of a plain name that is a part file of the output; empty for any other name.
[[nodiscard]] std::string origin_of_part(const std::filesystem::path& output, const std::string& name);

/// An output before it has its name: made exclusively, laid out, and looked at again before it is renamed. Rank 0. What
/// is given up (destroyed before `rename` or `keep`) is removed.
class PartFile {
 public:
  /// Creates the file, which must not exist, and lays it out. Errors of File and LayoutFormat::create.
  PartFile(std::filesystem::path path, LayoutFormat& format, const FileLayout& layout);
  /// As above; but when the metadata of a part file of an earlier run are byte for byte the same, that one is gone on
  /// with, under the name `adopted`.
  struct Earlier {
    std::filesystem::path path, adopted;
  };
  PartFile(std::filesystem::path path, LayoutFormat& format, const FileLayout& layout, const Earlier& earlier);
  PartFile(const PartFile&) = delete;
  PartFile& operator=(const PartFile&) = delete;
  ~PartFile();

  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }
  /// It is the earlier file.
  [[nodiscard]] bool adopted() const noexcept { return adopted_; }
  [[nodiscard]] const FilePlaces& places() const noexcept { return places_; }
  /// Writes datasets of one piece each, by index into the layout, and makes them durable. Errc::io.
  void write(const std::map<std::size_t, std::span<const std::byte>>& datasets) const;
  /// Errc::io when the file has another length, its metadata (all bytes between the pieces) are not what was laid out,
  /// or one of these datasets does not hold these bytes. Cost: reads as many bytes.
  void check(const std::map<std::size_t, std::span<const std::byte>>& datasets) const;
  /// What is given up stays, for a later run.
  void keep() noexcept { keep_ = true; }
  /// Durably.
  void rename(const std::filesystem::path& output);

 private:
  void create(LayoutFormat& format, const FileLayout& layout);
  void adopt(const Earlier& earlier);
  [[nodiscard]] std::uint64_t digest_of_metadata(const std::filesystem::path& path) const;
  std::filesystem::path path_;
  FilePlaces places_;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> gaps_;  // begin, end: ascending
  std::uint64_t metadata_digest_ = 0;
  bool keep_ = false, adopted_ = false;
};

}  // namespace lmq
