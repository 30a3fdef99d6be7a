#include "pickle.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <map>
#include <string_view>

#include "lmq/base/bytes.hpp"
#include "lmq/base/error.hpp"
#include "lmq/base/text.hpp"

namespace lmq {
namespace {

using Kind = PickleValue::Kind;
constexpr std::uint64_t kLongestText = std::uint64_t{1} << 20;
constexpr std::size_t kMaxValues = std::size_t{1} << 23;

class Machine {
 public:
  Machine(std::span<const std::byte> bytes, const std::string& source, bool (*allowed)(std::string_view))
      : in_(bytes, source), source_(source), allowed_(allowed) {}

  Pickle run() {
    while (!step(in_.le<std::uint8_t>("opcode"))) {
    }
    if (stack_.size() != 1) in_.refuse(fmt::format("{} values are left at the end, expected 1", stack_.size()));
    out_.root = stack_[0];
    return std::move(out_);
  }

 private:
  PickleValue& at(std::uint32_t index) { return out_.values[index]; }

  std::uint32_t make(Kind kind) {
    if (out_.values.size() == kMaxValues) in_.refuse(fmt::format("more than {} values", kMaxValues));
    out_.values.emplace_back().kind = kind;
    return static_cast<std::uint32_t>(out_.values.size() - 1);
  }
  void push(Kind kind) { stack_.push_back(make(kind)); }
  void push_integer(std::int64_t value) { push(Kind::integer), at(stack_.back()).integer = value; }
  void push_text(std::uint64_t bytes) {
    if (bytes > kLongestText) in_.refuse(fmt::format("a text of {} bytes", bytes));
    const auto raw = in_.raw(bytes, "text");
    push(Kind::text);
    at(stack_.back()).text.assign(reinterpret_cast<const char*>(raw.data()), raw.size());
  }
  std::uint32_t pop() {
    if (stack_.empty() || at(stack_.back()).kind == Kind::mark) in_.refuse("the stack is empty");
    const std::uint32_t top = stack_.back();
    stack_.pop_back();
    return top;
  }
  /// What lies above the last mark; the mark goes too.
  std::vector<std::uint32_t> pop_marked() {
    auto mark = stack_.size();
    while (mark > 0 && at(stack_[mark - 1]).kind != Kind::mark) --mark;
    if (mark == 0) in_.refuse("no mark on the stack");
    std::vector<std::uint32_t> items(stack_.begin() + static_cast<std::ptrdiff_t>(mark), stack_.end());
    stack_.resize(mark - 1);
    return items;
  }
  /// What is on top of the stack and takes items.
  PickleValue& container(Kind kind) {
    if (stack_.empty() || at(stack_.back()).kind != kind)
      in_.refuse(kind == Kind::list ? "items for what is no list" : "items for what is no dictionary");
    return at(stack_.back());
  }
  void extend(Kind kind, const std::vector<std::uint32_t>& items) {
    PickleValue& to = container(kind);
    if (kind == Kind::dictionary && items.size() % 2 != 0) in_.refuse("a key without a value");
    to.items.insert(to.items.end(), items.begin(), items.end());
  }
  void collect(Kind kind, std::vector<std::uint32_t> items) {
    push(kind);
    at(stack_.back()).items = std::move(items);
  }
  void tuple(int count) {
    std::vector<std::uint32_t> items(static_cast<std::size_t>(count));
    for (auto item = items.rbegin(); item != items.rend(); ++item) *item = pop();
    collect(Kind::tuple, std::move(items));
  }
  void remember(std::uint64_t place) {
    if (stack_.empty()) in_.refuse("nothing to remember");
    memo_[place] = stack_.back();
  }
  void recall(std::uint64_t place) {
    const auto found = memo_.find(place);
    if (found == memo_.end()) in_.refuse(fmt::format("memo {} is not there", place));
    stack_.push_back(found->second);
  }

  std::string line() {
    std::string text;
    for (char c = in_.le<char>("text"); c != '\n'; c = in_.le<char>("text")) {
      text.push_back(c);
      if (text.size() > 1000) in_.refuse("a name without an end");
    }
    return text;
  }
  void global(std::string name) {
    if (!allowed_(name))
      fail(Errc::unsupported, fmt::format("{} at byte {}: the pickle names {}, which is no part of plain weights",
                                          source_, in_.offset(), printable(name)));
    push(Kind::global);
    at(stack_.back()).text = std::move(name);
  }
  void stack_global() {
    const std::uint32_t name = pop(), module = pop();
    if (at(name).kind != Kind::text || at(module).kind != Kind::text) in_.refuse("a global whose name is no text");
    global(at(module).text + "." + at(name).text);
  }
  /// An OrderedDict is a dictionary, a torch.Size a tuple; other calls stay calls.
  void reduce() {
    const std::uint32_t arguments = pop(), callee = pop();
    if (at(arguments).kind != Kind::tuple || at(callee).kind != Kind::global) in_.refuse("a call of what is no name");
    const std::vector<std::uint32_t> items = at(arguments).items;
    if (at(callee).text == "collections.OrderedDict") {
      push(Kind::dictionary);
      if (!items.empty()) in_.refuse("an OrderedDict made of something");
    } else if (at(callee).text == "torch.Size" && items.size() == 1) {
      stack_.push_back(items[0]);
    } else {
      collect(Kind::call, {callee, arguments});
    }
  }
  void integer_of(std::uint64_t bytes) {
    if (bytes > 8) in_.refuse(fmt::format("an integer of {} bytes, expected at most 8", bytes));
    const auto raw = in_.raw(bytes, "integer");
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < raw.size(); ++i) value |= std::to_integer<std::uint64_t>(raw[i]) << 8 * i;
    if (bytes > 0 && bytes < 8 && (value >> (8 * bytes - 1) & 1) != 0) value |= ~std::uint64_t{0} << 8 * bytes;
    push_integer(static_cast<std::int64_t>(value));
  }
  void real() {
    std::uint64_t bits = 0;
    for (const std::byte byte : in_.raw(8, "number")) bits = bits << 8 | std::to_integer<std::uint64_t>(byte);
    push(Kind::real);
    at(stack_.back()).real = std::bit_cast<double>(bits);
  }
  void boolean(bool value) { push(Kind::boolean), at(stack_.back()).integer = value; }

  bool step(std::uint8_t opcode) {
    switch (opcode) {
      case 0x80: {  // PROTO
        const auto protocol = in_.le<std::uint8_t>("protocol");
        if (protocol < 2 || protocol > 5)
          fail(Errc::unsupported, fmt::format("{}: a pickle of protocol {}, expected 2 to 5", source_, protocol));
        return false;
      }
      case 0x95:  // FRAME
        return static_cast<void>(in_.le<std::uint64_t>("frame")), false;
      case '.':
        return true;
      case '(':
        return push(Kind::mark), false;
      case '0':
        return static_cast<void>(pop()), false;
      case 'N':
        return push(Kind::none), false;
      case 0x88:
        return boolean(true), false;
      case 0x89:
        return boolean(false), false;
      case 'K':
        return push_integer(in_.le<std::uint8_t>("integer")), false;
      case 'M':
        return push_integer(in_.le<std::uint16_t>("integer")), false;
      case 'J':
        return push_integer(in_.le<std::int32_t>("integer")), false;
      case 0x8A:  // LONG1
        return integer_of(in_.le<std::uint8_t>("length")), false;
      case 'G':
        return real(), false;
      case 0x8C:
        return push_text(in_.le<std::uint8_t>("length")), false;
      case 'X':
        return push_text(in_.le<std::uint32_t>("length")), false;
      case 0x8D:
        return push_text(in_.le<std::uint64_t>("length")), false;
      default:
        return structure(opcode);
    }
  }

  bool structure(std::uint8_t opcode) {
    switch (opcode) {
      case '}':
        return push(Kind::dictionary), false;
      case ']':
        return push(Kind::list), false;
      case ')':
        return push(Kind::tuple), false;
      case 't':
        return collect(Kind::tuple, pop_marked()), false;
      case 0x85:
      case 0x86:
      case 0x87:
        return tuple(opcode - 0x84), false;
      case 'a': {
        const std::uint32_t item = pop();
        return extend(Kind::list, {item}), false;
      }
      case 'e': {
        const auto items = pop_marked();
        return extend(Kind::list, items), false;
      }
      case 's': {
        const std::uint32_t value = pop(), key = pop();
        return extend(Kind::dictionary, {key, value}), false;
      }
      case 'u': {
        const auto items = pop_marked();
        return extend(Kind::dictionary, items), false;
      }
      default:
        return refer(opcode);
    }
  }

  /// Memo, names and calls.
  bool refer(std::uint8_t opcode) {
    switch (opcode) {
      case 'q':
        return remember(in_.le<std::uint8_t>("memo")), false;
      case 'r':
        return remember(in_.le<std::uint32_t>("memo")), false;
      case 0x94:
        return remember(memo_.size()), false;
      case 'h':
        return recall(in_.le<std::uint8_t>("memo")), false;
      case 'j':
        return recall(in_.le<std::uint32_t>("memo")), false;
      case 'Q': {
        const std::uint32_t id = pop();
        return collect(Kind::reference, {id}), false;
      }
      case 'c': {
        const std::string module = line();
        return global(module + "." + line()), false;
      }
      case 0x93:
        return stack_global(), false;
      case 'R':
        return reduce(), false;
      case 'b':  // BUILD: the attributes of a dictionary are left aside
        static_cast<void>(pop());
        return static_cast<void>(container(Kind::dictionary)), false;
      default:
        fail(Errc::unsupported, fmt::format("{} at byte {}: the pickle's opcode 0x{:02x} is no part of plain weights",
                                            source_, in_.offset() - 1, opcode));
    }
  }

  ByteReader in_;
  const std::string& source_;
  bool (*allowed_)(std::string_view);
  Pickle out_;
  std::vector<std::uint32_t> stack_;
  std::map<std::uint64_t, std::uint32_t> memo_;
};

}  // namespace

Pickle read_pickle(std::span<const std::byte> bytes, const std::string& source, bool (*allowed)(std::string_view)) {
  return Machine(bytes, source, allowed).run();
}

}  // namespace lmq
