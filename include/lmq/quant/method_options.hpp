#pragma once
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string_view>
#include <type_traits>
#include <variant>
#include <vector>

namespace lmq {

/// A word that an option takes, by its place among them.
struct OptionWord {
  std::uint8_t index = 0;
  friend bool operator==(const OptionWord&, const OptionWord&) = default;
};
/// What an option is set to: nothing, a number, a whole number (all 64 bits of it), a word.
using OptionValue = std::variant<std::monostate, double, std::uint64_t, OptionWord>;

/// An option of a method beside the number of levels: a member of the method's own struct of options, told once. The
/// command line (`--name VALUE`), the keys of recipes ("name": VALUE), help, manual pages and docs are made of this.
struct MethodOption {
  std::string_view name;   ///< lower case, words joined by '-'; one meaning for all methods that have it
  std::string_view help;   ///< one line
  OptionValue low, high;   ///< of numbers and whole numbers: the bounds, both allowed
  OptionValue fallback;    ///< the member's initial value; nothing: the method decides
  bool sets_rate = false;  ///< says how many bits are spent: where it is given, a budget over all tensors does not
  OptionValue (*get)(const void* options) = nullptr;  ///< of the struct it is a member of
  void (*set)(void* options, const OptionValue& value) = nullptr;
  std::span<const std::string_view> words = {};  ///< not empty: the words that are allowed

  [[nodiscard]] constexpr bool whole() const noexcept { return std::holds_alternative<std::uint64_t>(low); }
};

/// What a method is asked for. Only the method's table reads the values; the method gets its struct.
struct QuantizerOptions {
  std::size_t levels = 16;               ///< wanted levels, 2..256; where an option implies the number: at most so many
  std::vector<OptionValue> values = {};  ///< of the method's options, in their order; empty: the fallbacks
  friend bool operator==(const QuantizerOptions&, const QuantizerOptions&) = default;
};

namespace option_member {

template <class T>
inline constexpr bool kOptional = false;
template <class T>
inline constexpr bool kOptional<std::optional<T>> = true;

template <class T>
[[nodiscard]] constexpr OptionValue value_of(const T& member) {
  if constexpr (kOptional<T>)
    return member ? value_of(*member) : OptionValue{};
  else if constexpr (std::is_enum_v<T>)
    return OptionWord{static_cast<std::uint8_t>(member)};
  else if constexpr (std::floating_point<T>)
    return double{member};
  else
    return std::uint64_t{member};
}

template <class T>
void assign(T& member, const OptionValue& value) {
  if constexpr (kOptional<T>)
    assign(member.emplace(), value);
  else if constexpr (std::is_enum_v<T>)
    member = static_cast<T>(std::get<OptionWord>(value).index);
  else if constexpr (std::floating_point<T>)
    member = std::get<double>(value);
  else
    member = static_cast<T>(std::get<std::uint64_t>(value));
}

template <class S, class T>
S struct_of(T S::*);

}  // namespace option_member

/// An option of a method whose options are an S.
template <class S>
struct OptionOf {
  MethodOption option;
  [[nodiscard]] constexpr OptionOf spending() const {
    OptionOf made = *this;
    made.option.sets_rate = true;
    return made;
  }
};

/// The row of a member; std::optional: nothing is said, and the method decides.
template <auto kMember>
[[nodiscard]] constexpr auto option_row(std::string_view name, std::string_view help, OptionValue low,
                                        OptionValue high) {
  using S = decltype(option_member::struct_of(kMember));
  OptionOf<S> row;
  row.option.name = name, row.option.help = help, row.option.low = low, row.option.high = high;
  row.option.fallback = option_member::value_of(S{}.*kMember);
  row.option.get = [](const void* options) {
    return option_member::value_of(static_cast<const S*>(options)->*kMember);
  };
  row.option.set = [](void* options, const OptionValue& value) {
    option_member::assign(static_cast<S*>(options)->*kMember, value);
  };
  return row;
}
/// A number in [low, high].
template <auto kMember>
[[nodiscard]] constexpr auto number_option(std::string_view name, std::string_view help, double low, double high) {
  return option_row<kMember>(name, help, low, high);
}
/// A whole number, low..high.
template <auto kMember>
[[nodiscard]] constexpr auto whole_option(std::string_view name, std::string_view help, std::uint64_t low = 0,
                                          std::uint64_t high = std::numeric_limits<std::uint64_t>::max()) {
  return option_row<kMember>(name, help, low, high);
}
/// A word; the member is an enumeration whose values count them in their order.
template <auto kMember>
[[nodiscard]] constexpr auto word_option(std::string_view name, std::string_view help,
                                         std::span<const std::string_view> words) {
  auto row = option_row<kMember>(name, help, {}, {});
  row.option.words = words;
  return row;
}

/// All options of a method, in the order of help.
template <class S, std::size_t N>
struct OptionTable {
  using Options = S;
  std::array<MethodOption, N> rows;
  [[nodiscard]] constexpr operator std::span<const MethodOption>() const noexcept { return rows; }
};
template <class S, std::same_as<OptionOf<S>>... More>
[[nodiscard]] constexpr OptionTable<S, 1 + sizeof...(More)> option_table(const OptionOf<S>& first,
                                                                         const More&... more) {
  return {{first.option, more.option...}};
}

/// Sets what the options say in a struct of the table's.
void read_options(std::span<const MethodOption> table, const QuantizerOptions& options, void* made);
/// The values of a struct of the table's.
[[nodiscard]] std::vector<OptionValue> option_values(std::span<const MethodOption> table, const void* options);
/// Value of option `index`; the fallback where nothing is said.
[[nodiscard]] OptionValue option_at(std::span<const MethodOption> table, const QuantizerOptions& options,
                                    std::size_t index);

/// QuantizerEntry::make of `make(levels, options)`, which takes the struct of the table.
template <const auto& kTable, auto kMake>
[[nodiscard]] auto make_with(const QuantizerOptions& options) {
  typename std::remove_cvref_t<decltype(kTable)>::Options said;
  read_options(kTable, options, &said);
  return kMake(options.levels, said);
}
/// QuantizerEntry::complete and at_slope of `change(options, levels, argument)`, which may change both.
template <const auto& kTable, auto kChange, class Argument>
void change_with(QuantizerOptions& options, Argument argument) {
  typename std::remove_cvref_t<decltype(kTable)>::Options said;
  read_options(kTable, options, &said);
  kChange(said, options.levels, argument);
  options.values = option_values(kTable, &said);
}

}  // namespace lmq
