#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace lmq {

/// What a pickle stands for: plain values, and names of things that are looked up and never called.
struct PickleValue {
  enum class Kind : std::uint8_t {
    none,
    boolean,
    integer,
    real,
    text,
    list,        ///< items
    tuple,       ///< items
    dictionary,  ///< items: key, value, key, value, ... (an OrderedDict too)
    global,      ///< text: "module.name"
    reference,   ///< a persistent id: items[0]
    call,        ///< items: the thing called, its arguments
    mark,
  };
  Kind kind = Kind::none;
  std::int64_t integer = 0;
  double real = 0;
  std::string text;
  std::vector<std::uint32_t> items;  ///< indexes of other values
};

/// All values of one pickle; the last one is what it stands for.
struct Pickle {
  std::vector<PickleValue> values;
  std::uint32_t root = 0;
};

/// Interprets a pickle of protocol 2 to 5 with a machine that knows dictionaries, lists, tuples, numbers, texts,
/// persistent ids, the empty collections.OrderedDict and torch.Size. Other globals are names; calls of them are kept as
/// calls. Nothing is imported or run; an opcode that would need it is Errc::unsupported with its byte. `allowed` says
/// which globals may be named; others are Errc::unsupported. Errc::malformed for a stack that runs dry, a memo that is
/// not there, items for what takes none, deep nesting. Cost: one pass; at most
/// 2^23 values of some 100 bytes.
[[nodiscard]] Pickle read_pickle(std::span<const std::byte> bytes, const std::string& source,
                                 bool (*allowed)(std::string_view global));

}  // namespace lmq
