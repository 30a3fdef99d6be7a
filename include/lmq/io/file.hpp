#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <utility>

namespace lmq {

/// A POSIX file descriptor with an owner. Calls are positioned and complete (short transfers are continued, EINTR
/// repeated). Errors are one line with path, offset and the system's words; no space is Errc::io.
class File {
 public:
  enum class Mode { read, create, create_new, append, update };
  File() = default;
  /// read: Errc::missing when it cannot be opened; else Errc::cannot_create. `create` truncates.
  File(std::filesystem::path path, Mode mode);
  File(File&& other) noexcept : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)) {}
  File& operator=(File&& other) noexcept { std::swap(path_, other.path_), std::swap(fd_, other.fd_); return *this; }
  ~File();

  [[nodiscard]] std::uint64_t size() const;
  /// Exactly bytes.size() bytes; Errc::io when the file ends before.
  void read(std::uint64_t offset, std::span<std::byte> bytes) const;
  void write(std::uint64_t offset, std::span<const std::byte> bytes) const;
  /// Reserves space (posix_fallocate where the file system can), so that running out of it is noticed now.
  void reserve(std::uint64_t bytes) const;
  void truncate(std::uint64_t bytes) const;
  void sync() const;            ///< fdatasync
  void advise_soon(std::uint64_t offset, std::uint64_t bytes) const noexcept;
  [[nodiscard]] int fd() const noexcept { return fd_; }
  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }
  void close();                 ///< reports what the destructor cannot

 private:
  std::filesystem::path path_;
  int fd_ = -1;
};

/// fsync of a directory, rename with the same: both Errc::io.
void sync_directory(const std::filesystem::path& folder);
void rename_durably(const std::filesystem::path& from, const std::filesystem::path& to);

}  // namespace lmq
