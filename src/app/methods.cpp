#include <fmt/format.h>

#include <algorithm>

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

struct OptionMeaning {
  const MethodOption* option;
  std::string methods;
};

/// An option's meanings and the methods that share each.
std::vector<OptionMeaning> meanings_of(std::string_view name) {
  std::vector<OptionMeaning> found;
  for (const QuantizerEntry& entry : quantizers()) {
    const auto option = std::ranges::find(entry.options, name, &MethodOption::name);
    if (option == entry.options.end()) continue;
    const auto same = std::ranges::find_if(found, [&](const OptionMeaning& known) {
      return known.option->help == option->help && std::ranges::equal(known.option->words, option->words);
    });
    if (same == found.end())
      found.push_back({&*option, std::string(entry.name)});
    else
      same->methods += fmt::format(", {}", entry.name);
  }
  return found;
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
    for (const OptionMeaning& meaning : meanings_of(known->name))
      options.row({fmt::format("--{}", known->name), meaning.methods, allowed_text(*meaning.option),
                   std::string(meaning.option->help)});
  if (!method_options().empty()) print("\n" + options.text());
  return 0;
}

}  // namespace lmq::app
