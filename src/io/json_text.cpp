#include "lmq/io/json_text.hpp"

#include <fmt/format.h>

#include <span>

#include "lmq/base/text.hpp"
#include "lmq/io/file.hpp"

namespace lmq {

template <class Tree>
Tree parse_json_text(std::string_view text, const std::string& source) {
  if (text.find('\0') != text.npos) fail(Errc::malformed, fmt::format("{}: no JSON: it holds a NUL byte", source));
  const auto guard = [&](int depth, typename Tree::parse_event_t event, Tree&) {
    using Event = typename Tree::parse_event_t;
    const bool opens = event == Event::object_start || event == Event::array_start;
    if (opens && depth >= static_cast<int>(kJsonDepth))
      fail(Errc::malformed, fmt::format("{}: the JSON nests deeper than {} levels", source, kJsonDepth));
    return true;
  };
  try {
    return Tree::parse(text.begin(), text.end(), guard);
  } catch (const typename Tree::exception& error) {
    std::string_view what = error.what();  // "[json.exception.parse_error.101] parse error at line 1, column 2: ..."
    if (const auto end = what.find("] "); end != what.npos) what.remove_prefix(end + 2);
    fail(Errc::malformed, fmt::format("{}: no JSON: {}", source, printable(what, 160)));
  }
}

template <class Tree>
Tree read_json_file(const std::filesystem::path& path, std::uint64_t most) {
  const std::string source = printable(path.native());
  const File file(path, File::Mode::read);
  const std::uint64_t bytes = file.size();
  if (bytes > most)
    fail(Errc::malformed, fmt::format("{}: {}, expected at most {}", source, format_bytes(bytes), format_bytes(most)));
  std::string text(static_cast<std::size_t>(bytes), '\0');
  file.read(0, std::as_writable_bytes(std::span(text)));
  return parse_json_text<Tree>(text, source);
}

template nlohmann::json parse_json_text(std::string_view, const std::string&);
template nlohmann::ordered_json parse_json_text(std::string_view, const std::string&);
template nlohmann::json read_json_file(const std::filesystem::path&, std::uint64_t);
template nlohmann::ordered_json read_json_file(const std::filesystem::path&, std::uint64_t);

}  // namespace lmq
