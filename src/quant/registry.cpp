#include <fmt/format.h>

#include <array>
#include <string>
#include <vector>

#include "lmq/base/error.hpp"
#include "lmq/base/text.hpp"
#include "lmq/base/words.hpp"
#include "lmq/quant/quantizer.hpp"

namespace lmq {

// Declared for each source of the table, which defines it. LMQ_MORE_METHODS: a table of a test's own methods.
#define LMQ_METHOD(source, entry) extern const QuantizerEntry entry;
#include "methods.inc"
#ifdef LMQ_MORE_METHODS
#include LMQ_MORE_METHODS
#endif
#undef LMQ_METHOD

std::span<const QuantizerEntry> quantizers() noexcept {
#define LMQ_METHOD(source, entry) entry,
  static const std::array table{
#include "methods.inc"
#ifdef LMQ_MORE_METHODS
#include LMQ_MORE_METHODS
#endif
  };
#undef LMQ_METHOD
  return table;
}

const QuantizerEntry& find_quantizer(std::string_view name) {
  std::vector<std::string_view> known;
  for (const QuantizerEntry& entry : quantizers()) {
    if (entry.name == name) return entry;
    known.push_back(entry.name);
  }
  const std::string near = nearest(name, known);
  fail(Errc::usage, fmt::format("method '{}' is unknown{} (there are: {})", printable(name),
                                near.empty() ? "" : fmt::format("; did you mean {}?", near), fmt::join(known, ", ")));
}

const QuantizerEntry* find_quantizer(std::uint16_t id) noexcept {
  for (const QuantizerEntry& entry : quantizers())
    if (entry.id == id) return &entry;
  return nullptr;
}

}  // namespace lmq
