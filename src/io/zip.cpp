#include "lmq/io/zip.hpp"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <set>

#include "gather.hpp"
#include "lmq/base/bytes.hpp"
#include "lmq/base/digest.hpp"
#include "lmq/base/error.hpp"
#include "lmq/base/math.hpp"
#include "lmq/base/text.hpp"

namespace lmq {
namespace {

constexpr std::uint32_t kLocal = 0x04034B50, kCentral = 0x02014B50, kEnd = 0x06054B50, kEnd64 = 0x06064B50,
                        kLocator64 = 0x07064B50;
constexpr std::uint64_t kEndBytes = 22, kCentralBytes = 46, kLocalBytes = 30, kLocatorBytes = 20, kEnd64Bytes = 56;
constexpr std::uint64_t kMaxDirectory = std::uint64_t{1} << 30;
constexpr std::uint32_t kAll32 = 0xFFFFFFFF;
constexpr std::uint16_t kAll16 = 0xFFFF, kEncrypted = 1, kSizesFollow = 8, kStored = 0, kDeflated = 8, kZip64 = 1;

std::string shown(const File& file) { return printable(file.path().native()); }

[[noreturn]] void refuse(const File& file, const std::string& what) {
  fail(Errc::malformed, fmt::format("{}: {}", shown(file), what));
}

std::vector<std::byte> bytes_at(const File& file, std::uint64_t offset, std::uint64_t count, const char* what) {
  if (offset > file.size() || count > file.size() - offset)
    refuse(file, fmt::format("{}: {} bytes at {} reach over the file's {}", what, count, offset, file.size()));
  std::vector<std::byte> bytes(static_cast<std::size_t>(count));
  file.read(offset, bytes);
  return bytes;
}

struct Directory {
  std::uint64_t offset = 0, bytes = 0, entries = 0;
};

/// Place of the last record: behind it there is nothing but its comment.
std::uint64_t find_end(const File& file) {
  const std::uint64_t size = file.size(), most = std::min<std::uint64_t>(size, kEndBytes + kAll16);
  const std::vector<std::byte> tail = bytes_at(file, size - most, most, "end of the archive");
  for (std::uint64_t back = kEndBytes; back <= most; ++back) {
    const std::span<const std::byte> record = tail;
    ByteReader in(record.last(static_cast<std::size_t>(back)), shown(file));
    if (in.le<std::uint32_t>("signature") != kEnd) continue;
    static_cast<void>(in.raw(16, "end of the archive"));
    if (in.le<std::uint16_t>("length of the comment") == back - kEndBytes) return size - back;
  }
  refuse(file, "the directory of the zip archive is missing: the file was cut, or something follows it");
}

Directory read_end64(const File& file, std::uint64_t end) {
  if (end < kLocatorBytes) refuse(file, "the zip archive has no room for its 64-bit directory");
  const auto locator = bytes_at(file, end - kLocatorBytes, kLocatorBytes, "locator of the directory");
  ByteReader in(locator, shown(file));
  if (in.le<std::uint32_t>("signature") != kLocator64) refuse(file, "the locator of the 64-bit directory is missing");
  static_cast<void>(in.le<std::uint32_t>("disk"));
  const auto record = bytes_at(file, in.le<std::uint64_t>("place"), kEnd64Bytes, "64-bit end of the archive");
  ByteReader fields(record, shown(file));
  if (fields.le<std::uint32_t>("signature") != kEnd64) refuse(file, "the 64-bit end of the archive is missing");
  static_cast<void>(fields.raw(28, "64-bit end of the archive"));
  Directory directory;
  directory.entries = fields.le<std::uint64_t>("members");
  directory.bytes = fields.le<std::uint64_t>("bytes of the directory");
  directory.offset = fields.le<std::uint64_t>("place of the directory");
  return directory;
}

Directory find_directory(const File& file) {
  const std::uint64_t end = find_end(file);
  const auto record = bytes_at(file, end, kEndBytes, "end of the archive");
  ByteReader in(record, shown(file));
  static_cast<void>(in.le<std::uint32_t>("signature"));
  const auto disk = in.le<std::uint16_t>("disk"), first = in.le<std::uint16_t>("first disk");
  static_cast<void>(in.le<std::uint16_t>("members of this disk"));
  Directory directory;
  directory.entries = in.le<std::uint16_t>("members");
  directory.bytes = in.le<std::uint32_t>("bytes of the directory");
  directory.offset = in.le<std::uint32_t>("place of the directory");
  if (directory.entries == kAll16 || directory.bytes == kAll32 || directory.offset == kAll32)
    directory = read_end64(file, end);
  else if (disk != 0 || first != 0)
    fail(Errc::unsupported, fmt::format("{}: a zip archive of several disks", shown(file)));
  if (directory.bytes > kMaxDirectory || directory.entries > directory.bytes / kCentralBytes)
    refuse(file, fmt::format("{} members cannot be in a directory of {} bytes", directory.entries, directory.bytes));
  return directory;
}

/// The 64-bit fields of a member, in the order of the short ones that are full.
void read_extra(const File& file, std::span<const std::byte> extra, ZipEntry& entry, std::uint64_t& local) {
  ByteReader in(extra, shown(file));
  while (in.left() >= 4) {
    const auto id = in.le<std::uint16_t>("extra field");
    ByteReader field(in.raw(in.le<std::uint16_t>("length of an extra field"), "extra field"), shown(file));
    if (id != kZip64) continue;
    for (std::uint64_t* value : {&entry.size, &entry.bytes, &local})
      if (*value == kAll32) *value = field.le<std::uint64_t>("64-bit extra field");
  }
}

/// The local header says the same as the directory; sets the offset of the bytes.
void check_local(const File& file, const ZipEntry& member, std::uint64_t local, std::uint16_t method,
                 std::uint64_t& offset) {
  const auto header = bytes_at(file, local, kLocalBytes, "header of a member");
  ByteReader in(header, shown(file));
  const auto differs = [&](const char* what) {
    refuse(file, fmt::format("member '{}': its header and the directory differ in {}", printable(member.name), what));
  };
  if (in.le<std::uint32_t>("signature") != kLocal) differs("place");
  static_cast<void>(in.le<std::uint16_t>("version"));
  const auto flags = in.le<std::uint16_t>("flags");
  if (in.le<std::uint16_t>("packing") != method) differs("packing");
  static_cast<void>(in.le<std::uint32_t>("time"));
  const auto checksum = in.le<std::uint32_t>("checksum");
  ZipEntry said;
  said.bytes = in.le<std::uint32_t>("bytes"), said.size = in.le<std::uint32_t>("size");
  const auto name = in.le<std::uint16_t>("length of the name"), extra = in.le<std::uint16_t>("length of extra fields");
  const auto rest = bytes_at(file, local + kLocalBytes, std::uint64_t{name} + extra, "header of a member");
  if (name != member.name.size() || std::memcmp(rest.data(), member.name.data(), name) != 0) differs("name");
  std::uint64_t none = 0;
  read_extra(file, std::span(rest).subspan(name), said, none);
  const bool follows = (flags & kSizesFollow) != 0 && said.bytes == 0 && said.size == 0;
  if (!follows && (said.bytes != member.bytes || said.size != member.size)) differs("size");
  if (!follows && checksum != member.checksum) differs("checksum");
  offset = local + kLocalBytes + name + extra;
}

ZipEntry read_entry(const File& file, ByteReader& in, std::uint64_t& local) {
  if (in.le<std::uint32_t>("signature") != kCentral) in.refuse("no member of a zip directory");
  static_cast<void>(in.le<std::uint32_t>("versions"));
  const auto flags = in.le<std::uint16_t>("flags"), method = in.le<std::uint16_t>("packing");
  static_cast<void>(in.le<std::uint32_t>("time"));
  ZipEntry entry;
  entry.checksum = in.le<std::uint32_t>("checksum");
  entry.bytes = in.le<std::uint32_t>("bytes"), entry.size = in.le<std::uint32_t>("size");
  const auto name = in.le<std::uint16_t>("length of the name"), extra = in.le<std::uint16_t>("length of extra fields"),
             comment = in.le<std::uint16_t>("length of the comment");
  static_cast<void>(in.raw(8, "attributes"));
  local = in.le<std::uint32_t>("place");
  const auto text = in.raw(name, "name");
  entry.name.assign(reinterpret_cast<const char*>(text.data()), text.size());
  read_extra(file, in.raw(extra, "extra fields"), entry, local);
  static_cast<void>(in.raw(comment, "comment"));
  const std::string what = fmt::format("member '{}'", printable(entry.name));
  if (!is_clean_utf8(entry.name)) refuse(file, what + ": the name is not UTF-8 without NUL");
  if (entry.name.empty() || entry.name.front() == '/' || ("/" + entry.name + "/").find("/../") != std::string::npos)
    refuse(file, what + ": the name leads out of the archive");
  if ((flags & kEncrypted) != 0) fail(Errc::unsupported, fmt::format("{}: {} is encrypted", shown(file), what));
  if (method != kStored && method != kDeflated)
    fail(Errc::unsupported, fmt::format("{}: {} is packed by method {}, expected 0 or 8", shown(file), what, method));
  entry.deflated = method == kDeflated;
  if (!entry.deflated && entry.size != entry.bytes) refuse(file, what + ": stored, but of another size");
  if (entry.deflated && entry.size / 1032 > entry.bytes)
    refuse(file, fmt::format("{}: {} bytes cannot come from {} deflated ones", what, entry.size, entry.bytes));
  check_local(file, entry, local, method, entry.offset);
  return entry;
}

void check_ranges(const File& file, const std::vector<ZipEntry>& entries, std::vector<std::uint64_t> locals,
                  std::uint64_t directory) {
  std::vector<std::size_t> order(entries.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::ranges::sort(order, {}, [&](std::size_t i) { return locals[i]; });
  std::uint64_t end = 0;
  for (const std::size_t i : order) {
    std::uint64_t after = 0;
    if (locals[i] < end || !checked_add(entries[i].offset, entries[i].bytes, after) || after > directory)
      refuse(file, fmt::format("member '{}': its bytes lie over others", printable(entries[i].name)));
    end = after;
  }
}

}  // namespace

bool is_zip(const File& file) {
  std::array<std::byte, 4> start{};
  if (file.size() < kEndBytes + start.size()) return false;
  file.read(0, start);
  return std::memcmp(start.data(), "PK\x03\x04", start.size()) == 0;
}

std::vector<ZipEntry> read_zip(const File& file) {
  const Directory directory = find_directory(file);
  const auto bytes = bytes_at(file, directory.offset, directory.bytes, "directory of the zip archive");
  ByteReader in(bytes, shown(file) + ", directory");
  std::vector<ZipEntry> entries;
  std::vector<std::uint64_t> locals;
  std::set<std::string_view> names;
  for (std::uint64_t i = 0; i < directory.entries; ++i) {
    std::uint64_t local = 0;
    entries.push_back(read_entry(file, in, local));
    locals.push_back(local);
  }
  if (in.left() != 0) in.refuse(fmt::format("{} bytes behind the last member", in.left()));
  check_ranges(file, entries, locals, directory.offset);
  for (const ZipEntry& entry : entries)
    if (!names.insert(entry.name).second)
      refuse(file, fmt::format("the member '{}' is there twice", printable(entry.name)));
  std::erase_if(entries, [](const ZipEntry& entry) { return entry.name.ends_with('/'); });
  return entries;
}

std::vector<std::byte> read_member(const File& file, const ZipEntry& entry, std::uint64_t most) {
  const std::string what = fmt::format("{}: member '{}'", shown(file), printable(entry.name));
  if (entry.size > most)
    fail(Errc::unsupported, fmt::format("{}: {} bytes, at most {} are read", what, entry.size, most));
  const auto stored = bytes_at(file, entry.offset, entry.bytes, "member");
  std::vector<std::byte> bytes(static_cast<std::size_t>(entry.size));
  if (!unpack(entry.deflated ? Placement::Packing::deflate : Placement::Packing::none, stored, bytes))
    fail(Errc::malformed, fmt::format("{}: its packed bytes are damaged", what));
  const auto sum = ::crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size());
  if (sum != entry.checksum)
    fail(Errc::malformed,
         fmt::format("{}: its bytes do not have its checksum: {:08x}, expected {:08x}", what, sum, entry.checksum));
  return bytes;
}

std::string zip_digest(const std::vector<ZipEntry>& entries) {
  ByteWriter out;
  for (const ZipEntry& entry : entries) {
    out.text(entry.name);
    out.le(entry.size), out.le(entry.checksum);
  }
  return digest128_hex(out.bytes());
}

}  // namespace lmq
