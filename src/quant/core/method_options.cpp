#include "lmq/quant/method_options.hpp"

namespace lmq {

OptionValue option_at(std::span<const MethodOption> table, const QuantizerOptions& options, std::size_t index) {
  const bool said = index < options.values.size() && options.values[index] != OptionValue{};
  return said ? options.values[index] : table[index].fallback;
}

void read_options(std::span<const MethodOption> table, const QuantizerOptions& options, void* made) {
  for (std::size_t i = 0; i < table.size() && i < options.values.size(); ++i)
    if (options.values[i] != OptionValue{}) table[i].set(made, options.values[i]);
}

std::vector<OptionValue> option_values(std::span<const MethodOption> table, const void* options) {
  std::vector<OptionValue> values;
  for (const MethodOption& known : table) values.push_back(known.get(options));
  return values;
}

}  // namespace lmq
