#include "lmq/io/file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <system_error>

#include "lmq/base/error.hpp"
#include "lmq/base/text.hpp"
#include "lmq/io/system_words.hpp"

namespace lmq {
namespace {

std::string shown(const std::filesystem::path& path) { return printable(path.native()); }

/// Calls until it is not interrupted.
template <class Call>
auto uninterrupted(Call call) {
  for (;;) {
    const auto result = call();
    if (result >= 0 || errno != EINTR) return result;
  }
}

int flags(File::Mode mode) noexcept {
  switch (mode) {
    case File::Mode::read:
      return O_RDONLY;
    case File::Mode::create:
      return O_RDWR | O_CREAT | O_TRUNC;
    case File::Mode::create_new:
      return O_RDWR | O_CREAT | O_EXCL;
    case File::Mode::append:
      return O_RDWR | O_CREAT;  // not O_APPEND: Linux then ignores the offset of pwrite
    case File::Mode::update:
      return O_RDWR;
  }
  return O_RDONLY;
}

bool out_of_space(int number) noexcept { return number == ENOSPC || number == EDQUOT; }

[[noreturn]] void refuse_to_open(const std::filesystem::path& path, File::Mode mode, int error) {
  if (out_of_descriptors(error))
    fail(Errc::io, fmt::format("{}: cannot be opened: {}", shown(path), system_words(error)));
  if (mode == File::Mode::read)
    fail(Errc::missing, fmt::format("{}: cannot be opened: {}", shown(path), system_words(error)));
  fail(out_of_space(error) ? Errc::io : Errc::cannot_create,
       fmt::format("{}: cannot be {}: {}", shown(path), mode == File::Mode::update ? "opened for writing" : "created",
                   system_words(error)));
}

File::Stamp to_stamp(const struct stat& status) noexcept {
  return {.bytes = static_cast<std::uint64_t>(status.st_size),
          .modified_ns = std::int64_t{status.st_mtim.tv_sec} * 1'000'000'000 + status.st_mtim.tv_nsec};
}

/// An offset the system can express; larger ones are refused before the call.
constexpr std::uint64_t kLargestOffset = std::numeric_limits<off_t>::max();

}  // namespace

std::string system_words(int number) {
  const std::string words = std::generic_category().message(number);
  if (number == EFBIG) return words + ": a limit of this process on file sizes (ulimit -f), or of the file system";
  if (out_of_descriptors(number)) return words + ": a limit of this process (ulimit -n) or machine on open files";
  return words;
}

bool out_of_descriptors(int number) noexcept { return number == EMFILE || number == ENFILE; }

File::File(std::filesystem::path path, Mode mode) : path_(std::move(path)) {
  fd_ = uninterrupted([&] { return ::open(path_.c_str(), flags(mode) | O_CLOEXEC, 0666); });
  if (fd_ < 0) refuse_to_open(path_, mode, errno);
  struct stat status {};
  if (mode == Mode::read && ::fstat(fd_, &status) == 0 && S_ISDIR(status.st_mode)) {
    ::close(std::exchange(fd_, -1));
    fail(Errc::missing, fmt::format("{}: is a folder, expected a file", shown(path_)));
  }
}

std::optional<File> File::make_new(const std::filesystem::path& path) {
  const int fd = uninterrupted([&] { return ::open(path.c_str(), flags(Mode::create_new) | O_CLOEXEC, 0666); });
  if (fd < 0 && errno == EEXIST) return std::nullopt;
  File file;
  file.path_ = path;
  file.fd_ = fd;
  if (fd < 0) refuse_to_open(path, Mode::create_new, errno);
  return file;
}

File::~File() {
  if (fd_ >= 0) ::close(fd_);
}

std::string File::place(std::uint64_t offset) const { return fmt::format("{} at byte {}", shown(path_), offset); }

File::Stamp File::stamp() const {
  struct stat status {};
  if (::fstat(fd_, &status) != 0) fail(Errc::io, fmt::format("{}: no status: {}", shown(path_), system_words(errno)));
  return to_stamp(status);
}

std::uint64_t File::size() const { return stamp().bytes; }

void File::read(std::uint64_t offset, std::span<std::byte> bytes) const {
  if (offset > kLargestOffset || bytes.size() > kLargestOffset - offset)
    fail(Errc::io, fmt::format("{}: {} bytes cannot be addressed", place(offset), bytes.size()));
  while (!bytes.empty()) {
    const ssize_t got =
        uninterrupted([&] { return ::pread(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset)); });
    if (got < 0)
      fail(Errc::io, fmt::format("{}: reading {} bytes failed: {}", place(offset), bytes.size(), system_words(errno)));
    if (got == 0)
      fail(Errc::io, fmt::format("{}: the file ends here, {} more bytes were expected", place(offset), bytes.size()));
    bytes = bytes.subspan(static_cast<std::size_t>(got));
    offset += static_cast<std::uint64_t>(got);
  }
}

void File::write(std::uint64_t offset, std::span<const std::byte> bytes) const {
  if (offset > kLargestOffset || bytes.size() > kLargestOffset - offset)
    fail(Errc::io, fmt::format("{}: {} bytes cannot be addressed", place(offset), bytes.size()));
  while (!bytes.empty()) {
    const ssize_t put =
        uninterrupted([&] { return ::pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset)); });
    if (put <= 0)
      fail(Errc::io, fmt::format("{}: writing {} bytes failed: {}", place(offset), bytes.size(),
                                 system_words(put < 0 ? errno : ENOSPC)));
    bytes = bytes.subspan(static_cast<std::size_t>(put));
    offset += static_cast<std::uint64_t>(put);
  }
}

void File::reserve(std::uint64_t bytes) const {
  if (bytes == 0) return;
  if (bytes > kLargestOffset) fail(Errc::io, fmt::format("{}: {} bytes cannot be addressed", shown(path_), bytes));
  // Not posix_fallocate: where the file system cannot, it writes into every block, also into those others just filled.
  if (uninterrupted([&] { return ::fallocate(fd_, 0, 0, static_cast<off_t>(bytes)); }) == 0) return;
  if (errno == EOPNOTSUPP || errno == ENOSYS || errno == EINVAL) {
    if (size() < bytes) truncate(bytes);
    return;
  }
  fail(Errc::io, fmt::format("{}: reserving {} failed: {}", shown(path_), format_bytes(bytes), system_words(errno)));
}

void File::truncate(std::uint64_t bytes) const {
  const auto length = static_cast<off_t>(std::min(bytes, kLargestOffset));
  if (uninterrupted([&] { return ::ftruncate(fd_, length); }) != 0)
    fail(Errc::io,
         fmt::format("{}: setting its length to {} bytes failed: {}", shown(path_), bytes, system_words(errno)));
}

void File::sync() const {
  if (uninterrupted([&] { return ::fdatasync(fd_); }) == 0) return;
  if (errno != EINVAL && errno != ENOTSUP)  // a pipe or device has nothing to flush
    fail(Errc::io, fmt::format("{}: flushing to disk failed: {}", shown(path_), system_words(errno)));
}

void File::advise_soon(std::uint64_t offset, std::uint64_t bytes) const noexcept {
  if (bytes == 0 || offset > kLargestOffset || bytes > kLargestOffset - offset) return;  // 0 would mean: to the end
  (void)::posix_fadvise(fd_, static_cast<off_t>(offset), static_cast<off_t>(bytes), POSIX_FADV_WILLNEED);
}

void File::close() {
  if (fd_ < 0) return;
  // After EINTR the descriptor is gone on Linux; network file systems report late write errors here.
  if (::close(std::exchange(fd_, -1)) != 0 && errno != EINTR)
    fail(Errc::io, fmt::format("{}: closing failed: {}", shown(path_), system_words(errno)));
}

File::Stamp stamp_of(const std::filesystem::path& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0)
    fail(Errc::missing, fmt::format("{}: no such file: {}", shown(path), system_words(errno)));
  return to_stamp(status);
}

void sync_directory(const std::filesystem::path& folder) {
  const std::filesystem::path named = folder.empty() ? "." : folder;
  const int fd = uninterrupted([&] { return ::open(named.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); });
  if (fd < 0) fail(Errc::io, fmt::format("{}: the folder cannot be opened: {}", shown(named), system_words(errno)));
  const int result = uninterrupted([&] { return ::fsync(fd); });
  const int error = errno;
  ::close(fd);
  // Some file systems have no fsync of directories: there the rename is as durable as it gets.
  if (result != 0 && error != EINVAL && error != ENOTSUP)
    fail(Errc::io, fmt::format("{}: flushing the folder to disk failed: {}", shown(named), system_words(error)));
}

void rename_durably(const std::filesystem::path& from, const std::filesystem::path& to) {
  if (::rename(from.c_str(), to.c_str()) != 0)
    fail(Errc::io, fmt::format("{}: renaming to {} failed: {}", shown(from), shown(to), system_words(errno)));
  sync_directory(to.parent_path());
}

std::filesystem::path free_name_beside(const std::filesystem::path& path) {
  for (unsigned n = 0;; ++n) {
    std::filesystem::path name = path;
    name += fmt::format("{}{}", kPartial, ::getpid());
    if (n > 0) name += fmt::format("-{}", n);
    std::error_code error;
    if (std::filesystem::symlink_status(name, error).type() == std::filesystem::file_type::not_found || error)
      return name;
  }
}

void write_whole(const std::filesystem::path& path, const std::function<void(const File&)>& write) {
  const std::filesystem::path beside = free_name_beside(path);
  File file(beside, File::Mode::create_new);
  try {
    write(file);
    file.close();
    rename_durably(beside, path);
  } catch (...) {
    std::error_code ignored;
    std::filesystem::remove(beside, ignored);
    throw;
  }
}

}  // namespace lmq
