#include "json_events.hpp"

#include <fmt/format.h>

#include "lmq/base/text.hpp"

namespace lmq {

void JsonEvents::refuse(const std::string& what, Errc code) const { fail(code, fmt::format("{}: {}", source_, what)); }

void JsonEvents::refuse_text(std::size_t bytes_read, std::string_view last) const {
  const std::uint64_t byte = offset_ + (bytes_read > 0 ? bytes_read - 1 : 0);
  refuse(fmt::format("no valid JSON at byte {}, after '{}'", byte, printable(last, 60)));
}

bool JsonEvents::parse_error(std::size_t position, const std::string& last, const nlohmann::json::exception&) {
  refuse_text(position, last);
}

void parse_json(std::string_view text, JsonEvents& events) {
  if (const auto at = text.find('\0'); at != text.npos) events.refuse_text(at + 1, text.substr(at, 1));
  if (!nlohmann::json::sax_parse(text.begin(), text.end(), &events))
    fail(Errc::internal, "a JSON handler stopped in silence");
}

}  // namespace lmq
