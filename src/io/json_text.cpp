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

namespace {
constexpr std::string_view kPythonNumbers[] = {"-Infinity", "Infinity", "NaN"};
constexpr std::string_view kMark = "@python-number:";

std::string read_text(const std::filesystem::path& path, std::uint64_t most, const std::string& source) {
  const File file(path, File::Mode::read);
  const std::uint64_t bytes = file.size();
  if (bytes > most)
    fail(Errc::malformed, fmt::format("{}: {}, expected at most {}", source, format_bytes(bytes), format_bytes(most)));
  std::string text(static_cast<std::size_t>(bytes), '\0');
  file.read(0, std::as_writable_bytes(std::span(text)));
  return text;
}

std::string_view python_number_at(std::string_view rest) {
  for (const std::string_view number : kPythonNumbers)
    if (rest.starts_with(number)) return number;
  return {};
}
}  // namespace

std::string quote_python_numbers(std::string_view text) {
  std::string out;
  bool in_text = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_text && c == '\\') {
      out += text.substr(i++, 2);
      continue;
    }
    if (c == '"') in_text = !in_text;
    if (const std::string_view number = in_text ? "" : python_number_at(text.substr(i)); !number.empty()) {
      out += fmt::format("\"{}{}\"", kMark, number);
      i += number.size() - 1;
    } else {
      out += c;
    }
  }
  return out;
}

std::string bare_python_numbers(std::string text) {
  for (const std::string_view number : kPythonNumbers) {
    const std::string quoted = fmt::format("\"{}{}\"", kMark, number);
    for (std::size_t at = 0; (at = text.find(quoted, at)) != text.npos; at += number.size())
      text.replace(at, quoted.size(), number);
  }
  return text;
}

template <class Tree>
Tree read_json_file(const std::filesystem::path& path, std::uint64_t most) {
  const std::string source = printable(path.native());
  return parse_json_text<Tree>(read_text(path, most, source), source);
}

template <class Tree>
Tree read_python_json_file(const std::filesystem::path& path, std::uint64_t most) {
  const std::string source = printable(path.native());
  return parse_json_text<Tree>(quote_python_numbers(read_text(path, most, source)), source);
}

template nlohmann::json parse_json_text(std::string_view, const std::string&);
template nlohmann::ordered_json parse_json_text(std::string_view, const std::string&);
template nlohmann::json read_json_file(const std::filesystem::path&, std::uint64_t);
template nlohmann::ordered_json read_json_file(const std::filesystem::path&, std::uint64_t);

template nlohmann::json read_python_json_file(const std::filesystem::path&, std::uint64_t);
template nlohmann::ordered_json read_python_json_file(const std::filesystem::path&, std::uint64_t);

}  // namespace lmq
