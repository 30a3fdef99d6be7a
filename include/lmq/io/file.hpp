#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <utility>

namespace lmq {

/// A POSIX file descriptor with an owner. Calls are positioned and complete (short transfers are continued, EINTR
/// repeated), so several threads may use one File. Errors are one line with path, offset and the system's words; no
/// space is Errc::io.
class File {
 public:
  enum class Mode {
    read,        ///< must exist and be readable
    create,      ///< read and write; emptied when it exists
    create_new,  ///< read and write; must not exist
    append,      ///< read and write; made when missing, its bytes stay (write at size() to extend it)
    update,      ///< read and write; must exist
  };
  File() = default;
  /// read: Errc::missing when it cannot be opened or is a folder; else Errc::cannot_create (no space: Errc::io).
  File(std::filesystem::path path, Mode mode);
  /// As create_new; nothing when something of that name is there.
  [[nodiscard]] static std::optional<File> make_new(const std::filesystem::path& path);
  File(File&& other) noexcept : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)) {}
  File& operator=(File&& other) noexcept {
    std::swap(path_, other.path_), std::swap(fd_, other.fd_);
    return *this;
  }
  ~File();

  [[nodiscard]] std::uint64_t size() const;
  /// Size and modification time (nanoseconds since 1970) in one call.
  struct Stamp {
    std::uint64_t bytes = 0;
    std::int64_t modified_ns = 0;
    bool operator==(const Stamp&) const = default;
  };
  [[nodiscard]] Stamp stamp() const;
  /// Exactly bytes.size() bytes; Errc::io when the file ends before.
  void read(std::uint64_t offset, std::span<std::byte> bytes) const;
  void write(std::uint64_t offset, std::span<const std::byte> bytes) const;
  /// Reserves space (fallocate) so that running out of it is noticed now, and makes the file at least that long. Where
  /// the file system cannot reserve, the file is only made that long. Never shrinks it, never touches its bytes.
  void reserve(std::uint64_t bytes) const;
  void truncate(std::uint64_t bytes) const;
  void sync() const;  ///< fdatasync
  /// Tells the system that these bytes will be wanted soon; returns at once.
  void advise_soon(std::uint64_t offset, std::uint64_t bytes) const noexcept;
  [[nodiscard]] int fd() const noexcept { return fd_; }
  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }
  void close();  ///< reports what the destructor cannot

 private:
  [[nodiscard]] std::string place(std::uint64_t offset) const;
  std::filesystem::path path_;
  int fd_ = -1;
};

/// Size and modification time of the file that the path names now. Errc::missing.
[[nodiscard]] File::Stamp stamp_of(const std::filesystem::path& path);

/// fsync of a directory, rename with the same: both Errc::io.
void sync_directory(const std::filesystem::path& folder);
void rename_durably(const std::filesystem::path& from, const std::filesystem::path& to);
/// What names of files that are being made have behind their final name.
inline constexpr const char* kPartial = ".lmq-partial-";
/// A name beside `path` that nothing has, other for each process: path + kPartial + its number.
[[nodiscard]] std::filesystem::path free_name_beside(const std::filesystem::path& path);
/// Makes the file `path` whole or not at all: `write` fills a new one beside it (free_name_beside), which takes the name
/// last. It is removed when anything fails.
void write_whole(const std::filesystem::path& path, const std::function<void(const File&)>& write);

}  // namespace lmq
