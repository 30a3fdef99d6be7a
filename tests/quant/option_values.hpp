#pragma once
#include <algorithm>
#include <string_view>

#include "lmq/base/error.hpp"
#include "lmq/quant/quantizer.hpp"

namespace samples {

/// A value as the option takes it: of words their place.
inline lmq::OptionValue value_for(const lmq::MethodOption& known, double value) {
  if (!known.words.empty()) return lmq::OptionWord{static_cast<std::uint8_t>(value)};
  return known.whole() ? lmq::OptionValue(static_cast<std::uint64_t>(value)) : lmq::OptionValue(value);
}

/// Sets an option of a method by its name; what is not set yet takes its fallback.
inline void set_option(lmq::QuantizerOptions& options, const lmq::QuantizerEntry& entry, std::string_view name,
                       double value) {
  for (std::size_t i = options.values.size(); i < entry.options.size(); ++i)
    options.values.push_back(entry.options[i].fallback);
  const auto known = std::ranges::find(entry.options, name, &lmq::MethodOption::name);
  if (known == entry.options.end()) lmq::fail(lmq::Errc::internal, "no option " + std::string(name));
  options.values[static_cast<std::size_t>(known - entry.options.begin())] = value_for(*known, value);
}

}  // namespace samples
