#include "file_cursor.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "lmq/base/error.hpp"
#include "lmq/base/text.hpp"

namespace lmq {

void FileCursor::refuse(const std::string& what) const {
  fail(Errc::malformed, fmt::format("{} at byte {}: {}", printable(file_.path().native()), offset_, what));
}

void FileCursor::take(std::span<std::byte> bytes, std::string_view field) {
  if (bytes.size() > left())
    refuse(fmt::format("{}: {} bytes are needed, the file has {} more", field, bytes.size(), left()));
  const bool held = offset_ >= buffer_begin_ && offset_ - buffer_begin_ <= buffer_.size() &&
                    bytes.size() <= buffer_.size() - (offset_ - buffer_begin_);
  if (!held && bytes.size() <= kBuffer) {
    buffer_.resize(static_cast<std::size_t>(std::min<std::uint64_t>(kBuffer, left())));
    file_.read(offset_, buffer_);
    buffer_begin_ = offset_;
  }
  if (bytes.size() > kBuffer)
    file_.read(offset_, bytes);
  else
    std::ranges::copy_n(buffer_.begin() + static_cast<std::ptrdiff_t>(offset_ - buffer_begin_),
                        static_cast<std::ptrdiff_t>(bytes.size()), bytes.begin());
  offset_ += bytes.size();
}

std::string FileCursor::text(std::uint64_t bytes, std::uint64_t most, std::string_view field) {
  if (bytes > most) refuse(fmt::format("{}: a text of {} bytes, expected at most {}", field, bytes, most));
  if (bytes > left()) refuse(fmt::format("{}: {} bytes are needed, the file has {} more", field, bytes, left()));
  std::string value(static_cast<std::size_t>(bytes), '\0');
  take(std::as_writable_bytes(std::span(value)), field);
  return value;
}

void FileCursor::skip(std::uint64_t count, std::uint64_t size, std::string_view field) {
  if (size > 0 && count > left() / size)
    refuse(fmt::format("{}: {} of {} bytes each are needed, the file has {} bytes more", field, count, size, left()));
  offset_ += count * size;
}

}  // namespace lmq
