#include <fmt/format.h>

#include "commands.hpp"
#include "lmq/plan/recipe.hpp"
#include "lmq/quant/quantizer.hpp"
#include "table.hpp"
#include "terminal.hpp"

namespace lmq::app {

namespace {
std::string allowed_text(const MethodOption& known) {
  if (known.words.empty()) return fmt::format("{} to {}{}", known.low, known.high, known.whole ? ", whole" : "");
  return fmt::format("{}", fmt::join(known.words, ", "));
}
}  // namespace

int methods() {
  Table table(
      {{"method", Table::Align::left}, {"levels found by", Table::Align::left}, {"source", Table::Align::left}});
  for (const QuantizerEntry& entry : quantizers())
    table.row({std::string(entry.name), std::string(entry.summary), std::string(entry.source)});
  print(table.text());
  Table options({{"option", Table::Align::left},
                 {"of", Table::Align::left},
                 {"values", Table::Align::left},
                 {"meaning", Table::Align::left}});
  for (const MethodOption* known : method_options())
    options.row({fmt::format("--{}", known->name), methods_with_option(known->name), allowed_text(*known),
                 std::string(known->help)});
  if (!method_options().empty()) print("\n" + options.text());
  return 0;
}

}  // namespace lmq::app
