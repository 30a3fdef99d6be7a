#include "one_file.hpp"

#include <fmt/format.h>

#include <charconv>
#include <system_error>

#include "lmq/base/digest.hpp"
#include "lmq/base/error.hpp"
#include "lmq/base/math.hpp"
#include "lmq/base/text.hpp"

namespace lmq {
namespace fs = std::filesystem;

Catalogue folder_catalogue(const fs::path& path, std::string format) {
  std::error_code ignored;
  Catalogue catalogue;
  catalogue.format = std::move(format);
  catalogue.folder = fs::absolute(path, ignored).lexically_normal().parent_path();
  return catalogue;
}

std::uint32_t add_shard(Catalogue& catalogue, const File& file, std::string digest) {
  const File::Stamp stamp = file.stamp();
  catalogue.shards.push_back({.name = file.path().filename().native(),
                              .bytes = stamp.bytes,
                              .modified_ns = stamp.modified_ns,
                              .header_digest = std::move(digest),
                              .metadata = {}});
  return narrow<std::uint32_t>(catalogue.shards.size() - 1, "number of files");
}

std::string table_digest(const Catalogue& catalogue) {
  Catalogue table;  // without folder, names of files and times
  table.format = catalogue.format;
  table.tensors = catalogue.tensors;
  table.placements = catalogue.placements;
  return digest128_hex(table.to_bytes());
}

std::vector<fs::path> numbered_set(const fs::path& path) {
  const std::string name = path.filename().native();
  const auto dot = name.rfind('.'), of = name.rfind("-of-", dot);
  if (dot == name.npos || of == name.npos || of < 2) return {path};
  const auto dash = name.rfind('-', of - 1);
  const std::string digits = name.substr(of + 4, dot - of - 4);
  if (dash == name.npos || digits.empty() || of - dash - 1 != digits.size()) return {path};
  unsigned number = 0, count = 0;
  const auto read = [](std::string_view text, unsigned& value) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    return error == std::errc{} && end == text.data() + text.size();
  };
  if (!read(std::string_view(name).substr(dash + 1, of - dash - 1), number) || !read(digits, count) || number < 1 ||
      number > count || count > 100000)
    return {path};
  std::vector<fs::path> parts;
  for (unsigned i = 1; i <= count; ++i) {
    fs::path part = path.parent_path() /
                    fmt::format("{}-{:0{}}-of-{}{}", name.substr(0, dash), i, digits.size(), digits, name.substr(dot));
    std::error_code ignored;
    if (!fs::is_regular_file(part, ignored))
      fail(Errc::missing,
           fmt::format("{}: the file is missing, {} is one of {}", printable(part.native()), printable(name), count));
    parts.push_back(std::move(part));
  }
  return parts;
}

}  // namespace lmq
