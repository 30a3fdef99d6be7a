#include "guard.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <new>
#include <span>
#include <string_view>

#include "lmq/base/bytes.hpp"
#include "lmq/io/layout.hpp"
#include "lmq/io/system_words.hpp"

namespace lmq::h5 {
namespace {

/// Ends of a pipe, closed at the end.
struct Pipe {
  int read = -1, write = -1;
  Pipe() {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) == 0) read = ends[0], write = ends[1];
  }
  ~Pipe() { close_read(), close_write(); }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  void close_read() noexcept { shut(read); }
  void close_write() noexcept { shut(write); }

 private:
  static void shut(int& end) noexcept {
    if (end >= 0) ::close(end);
    end = -1;
  }
};

void bound(int resource, std::uint64_t most) noexcept {
  struct rlimit limit {};
  if (getrlimit(static_cast<__rlimit_resource_t>(resource), &limit) != 0) return;
  limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, most);
  setrlimit(static_cast<__rlimit_resource_t>(resource), &limit);
}

/// Address space that this process has.
std::uint64_t mapped_bytes() noexcept {
  unsigned long long pages = 0;
  std::FILE* const file = std::fopen("/proc/self/statm", "r");
  if (file == nullptr) return 0;
  if (std::fscanf(file, "%llu", &pages) != 1) pages = 0;
  std::fclose(file);
  return pages * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
}

/// What a child is allowed, and no signal handler of its parent's.
void confine() noexcept {
  for (const int number : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGXCPU, SIGTERM, SIGINT, SIGUSR1, SIGPIPE})
    ::signal(number, SIG_DFL);
  const int nowhere = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  if (nowhere >= 0) ::dup2(nowhere, STDERR_FILENO), ::dup2(nowhere, STDOUT_FILENO);
  bound(RLIMIT_CORE, 0);
  bound(RLIMIT_CPU, kGuardedSeconds);
#if !defined(__SANITIZE_ADDRESS__)  // a sanitizer maps terabytes
  if (const std::uint64_t mapped = mapped_bytes(); mapped > 0) bound(RLIMIT_AS, mapped + kGuardedBytes);
#endif
}

void write_all(int to, std::span<const std::byte> bytes) noexcept {
  while (!bytes.empty()) {
    const ssize_t done = ::write(to, bytes.data(), bytes.size());
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) _exit(1);
    bytes = bytes.subspan(static_cast<std::size_t>(done));
  }
}

std::vector<std::byte> refusal(Errc code, std::string_view what) {
  ByteWriter out;
  out.le(static_cast<std::int32_t>(code));
  out.text(what);
  return out.take();
}

/// Result: code 0 and the bytes, or an error's code and text.
[[noreturn]] void run_child(int to, const std::string& file, const std::function<std::vector<std::byte>()>& body) {
  confine();
  try {
    const std::vector<std::byte> bytes = body();
    constexpr std::int32_t kDone = 0;
    write_all(to, std::as_bytes(std::span(&kDone, 1)));
    write_all(to, bytes);
  } catch (const Error& error) {
    write_all(to, refusal(error.code, error.what()));
  } catch (const std::bad_alloc&) {
    write_all(to, refusal(Errc::malformed, file + ": reading its metadata takes more memory than they can be worth"));
  } catch (const std::exception& error) {
    write_all(to, refusal(Errc::internal, error.what()));
  }
  _exit(0);
}

std::vector<std::byte> read_all(int from) {
  std::vector<std::byte> bytes;
  std::vector<std::byte> part(std::size_t{1} << 16);
  for (;;) {
    const ssize_t done = ::read(from, part.data(), part.size());
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) return bytes;
    bytes.insert(bytes.end(), part.begin(), part.begin() + done);
  }
}

int wait_for(pid_t child) noexcept {
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return status;
}

std::string ending(int status) {
  if (!WIFSIGNALED(status)) return fmt::format("with status {}", WEXITSTATUS(status));
  if (WTERMSIG(status) == SIGXCPU || WTERMSIG(status) == SIGKILL)
    return fmt::format("after {} s of processor time or for want of memory", kGuardedSeconds);
  return fmt::format("by signal {} ({})", WTERMSIG(status), strsignal(WTERMSIG(status)));
}

}  // namespace

std::vector<std::byte> run_guarded(const std::string& file, const std::function<std::vector<std::byte>()>& body) {
  Pipe pipe;
  const pid_t child = pipe.write < 0 ? -1 : ::fork();
  if (child < 0) fail(Errc::io, fmt::format("{}: no child process to read it: {}", file, system_words(errno)));
  if (child == 0) run_child(pipe.write, file, body);
  pipe.close_write();
  std::vector<std::byte> bytes = read_all(pipe.read);
  const int status = wait_for(child);
  if (status != 0 || bytes.size() < sizeof(std::int32_t))
    fail(Errc::malformed,
         fmt::format("{}: its metadata are damaged: HDF5 ended {} while it read them", file, ending(status)));
  ByteReader in(bytes, file);
  const auto code = in.le<std::int32_t>("code");
  if (code != 0) fail(static_cast<Errc>(code), in.text("error"));
  bytes.erase(bytes.begin(), bytes.begin() + sizeof(std::int32_t));
  return bytes;
}

}  // namespace lmq::h5
