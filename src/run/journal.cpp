#include "lmq/run/journal.hpp"

#include <algorithm>
#include <cstring>
#include <string_view>
#include <utility>

#include "lmq/base/bytes.hpp"
#include "lmq/base/digest.hpp"

namespace lmq {
namespace {

constexpr std::string_view kMagic = "LMQJRNL\n";

void sign(ByteWriter& out) { out.le(digest64(std::span<const std::byte>(out.bytes()))); }

/// Length of the header at the beginning of `bytes`, 0 when it is not whole.
std::size_t read_header(std::span<const std::byte> bytes, const std::string& source, JournalContents& contents) {
  ByteReader in(bytes, source);
  const auto magic = in.raw(kMagic.size(), "magic");
  if (std::memcmp(magic.data(), kMagic.data(), kMagic.size()) != 0) return 0;
  contents.version = in.le<std::uint32_t>("version");
  contents.header.run = in.le<std::uint32_t>("run");
  contents.header.rank = in.le<std::uint32_t>("rank");
  contents.header.plan_digest = in.text("plan digest");
  contents.header.input_stamp = in.text("input stamp");
  const std::size_t signed_bytes = in.offset();
  return in.le<std::uint64_t>("digest") == digest64(bytes.first(signed_bytes)) ? in.offset() : 0;
}

/// Length of the entry at the beginning of `bytes`, 0 when it is not whole.
template <class Use>
std::size_t read_entry(std::span<const std::byte> bytes, const std::string& source, const Use& use) {
  ByteReader in(bytes, source);
  const auto length = in.le<std::uint32_t>("length");
  const auto body = in.raw(length, "entry");
  if (in.le<std::uint64_t>("digest") != digest64(bytes.first(sizeof length + body.size()))) return 0;
  use(Finished::from_bytes(body, source), length);
  return in.offset();
}

/// A file seen through a window that moves forwards.
class FileWindow {
 public:
  explicit FileWindow(const File& file) : file_(file), size_(file.size()) {}
  /// The bytes from `offset` on, as many as asked for where the file has them, or more.
  std::span<const std::byte> at(std::uint64_t offset, std::uint64_t bytes) {
    const std::uint64_t wanted = std::min(bytes, size_ - offset);
    if (offset < begin_ || offset + wanted > begin_ + window_.size()) {
      begin_ = offset;
      window_.resize(static_cast<std::size_t>(std::min(std::max(wanted, kWindow), size_ - offset)));
      file_.read(begin_, window_);
    }
    return std::span<const std::byte>(window_).subspan(static_cast<std::size_t>(offset - begin_));
  }
  [[nodiscard]] std::uint64_t size() const noexcept { return size_; }

 private:
  static constexpr std::uint64_t kWindow = std::uint64_t{1} << 20;
  const File& file_;
  std::uint64_t size_, begin_ = 0;
  std::vector<std::byte> window_;
};

}  // namespace

std::vector<std::byte> JournalHeader::to_bytes() const {
  ByteWriter out;
  out.raw(std::as_bytes(std::span(kMagic)));
  out.le(kJournalVersion);
  out.le(run);
  out.le(rank);
  out.text(plan_digest);
  out.text(input_stamp);
  sign(out);
  return out.take();
}

bool can_be_journal(std::span<const std::byte> first_bytes) noexcept {
  static_assert(kMagic.size() == kJournalMagicBytes);
  const std::size_t length = std::min(first_bytes.size(), kMagic.size());
  return length == 0 || std::memcmp(first_bytes.data(), kMagic.data(), length) == 0;
}

std::vector<std::byte> journal_entry(const Finished& finished) {
  const std::vector<std::byte> body = finished.to_bytes();
  ByteWriter out;
  out.le(static_cast<std::uint32_t>(body.size()));
  out.raw(body);
  sign(out);
  return out.take();
}

JournalContents read_journal(std::span<const std::byte> bytes, const std::string& source) {
  JournalContents contents;
  std::size_t at = 0;
  try {
    at = read_header(bytes, source, contents);
    contents.readable = at > 0;
    for (std::size_t length = at; length > 0; at += length) {
      length = read_entry(bytes.subspan(at), source,
                          [&](Finished&& finished, std::uint32_t) { contents.entries.push_back(std::move(finished)); });
      if (length == 0) break;
    }
  } catch (const Error&) {
    // Too short for what it says: the tail was not written to its end. What came before holds.
  }
  contents.ignored_bytes = bytes.size() - at;
  return contents;
}

void scan_journal(const File& file, JournalContents& about, const JournalUse& use) {
  constexpr std::uint64_t kLongestHeader = std::uint64_t{1} << 16,
                          kFrame = sizeof(std::uint32_t) + sizeof(std::uint64_t);
  const std::string source = file.path().string();
  FileWindow window(file);
  about = {};
  std::uint64_t at = 0;
  try {
    at = read_header(window.at(0, kLongestHeader), source, about);
    about.readable = at > 0;
    for (std::size_t length = static_cast<std::size_t>(at); length > 0; at += length) {
      ByteReader first(window.at(at, sizeof(std::uint32_t)), source);
      const std::uint64_t whole = kFrame + first.le<std::uint32_t>("length");
      length = read_entry(window.at(at, whole), source, [&](Finished&& finished, std::uint32_t bytes) {
        use(std::move(finished), at + sizeof bytes, bytes);
      });
      if (length == 0) break;
    }
  } catch (const Error& error) {
    if (error.code == Errc::io) throw;
    // Too short for what it says, as above.
  }
  about.ignored_bytes = window.size() - at;
}

}  // namespace lmq
