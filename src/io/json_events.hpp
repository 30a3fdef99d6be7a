#pragma once
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>

#include "lmq/base/error.hpp"

namespace lmq {

/// Base of a streaming JSON handler: nothing is kept but what the handler keeps, so a header of 100 MB costs no tree.
/// Every event is refused until a handler overrides it; handlers throw. Nesting costs one bit a level, and handlers
/// stop at the depth they know.
class JsonEvents : public nlohmann::json_sax<nlohmann::json> {
 public:
  /// `source` is what messages begin with; `offset` is the byte of the file at which the text begins.
  JsonEvents(std::string source, std::uint64_t offset) : source_(std::move(source)), offset_(offset) {}
  bool null() override { return unexpected("null"); }
  bool boolean(bool value) override { return unexpected(value ? "true" : "false"); }
  bool number_integer(std::int64_t value) override { return unexpected(std::to_string(value)); }
  bool number_unsigned(std::uint64_t value) override { return unexpected(std::to_string(value)); }
  bool number_float(double, const std::string& text) override { return unexpected(text); }
  bool string(std::string&) override { return unexpected("a text"); }
  bool binary(nlohmann::json::binary_t&) override { return unexpected("binary data"); }
  bool start_object(std::size_t) override { return unexpected("an object"); }
  bool start_array(std::size_t) override { return unexpected("an array"); }
  bool parse_error(std::size_t position, const std::string& last, const nlohmann::json::exception& error) override;
  /// Errc::malformed: after so many bytes, the last of them `last`, this is no JSON.
  [[noreturn]] void refuse_text(std::size_t bytes_read, std::string_view last) const;

 protected:
  /// Goes from the state `at` to the one that an opening bracket leads to; false where none is expected.
  template <class State>
  static bool enter(State& at, std::initializer_list<std::pair<State, State>> ways) {
    for (const auto& [from, to] : ways)
      if (at == from) {
        at = to;
        return true;
      }
    return false;
  }
  /// Errc::malformed: what was found, where, and what is expected there.
  virtual bool unexpected(const std::string& found) = 0;
  [[nodiscard]] const std::string& source() const noexcept { return source_; }
  [[noreturn]] void refuse(const std::string& what, Errc code = Errc::malformed) const;

 private:
  std::string source_;
  std::uint64_t offset_;
};

/// Sends the events of a complete JSON text to the handler. A NUL byte is refused (the JSON library takes it as the
/// end, and what follows would go unseen). Errc::malformed with the byte.
void parse_json(std::string_view text, JsonEvents& events);

}  // namespace lmq
