#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

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

std::string_view name(Sees sees) noexcept {
  constexpr std::string_view kNames[] = {"values", "rows", "either", "layer"};
  return kNames[static_cast<std::size_t>(sees)];
}

nlohmann::json option_json(const MethodOption& known) {
  nlohmann::json item{{"name", known.name}, {"help", known.help}};
  if (!known.words.empty()) {
    item["words"] = std::vector<std::string>(known.words.begin(), known.words.end());
    if (!std::isnan(known.fallback)) item["default"] = known.words[static_cast<std::size_t>(known.fallback)];
    return item;
  }
  item["low"] = known.low, item["high"] = known.high, item["whole"] = known.whole;
  if (!std::isnan(known.fallback)) item["default"] = known.fallback;
  return item;
}

/// Every method with its options and what its traits are by default.
nlohmann::json methods_json() {
  nlohmann::json list = nlohmann::json::array();
  for (const QuantizerEntry& entry : quantizers()) {
    const Traits traits = entry.make(default_options(entry, kDefaultLevels))->traits();
    nlohmann::json item{{"name", entry.name},
                        {"id", entry.id},
                        {"summary", entry.summary},
                        {"source", entry.source},
                        {"sees", name(traits.sees)},
                        {"uses_importance", traits.importance},
                        {"stochastic", traits.rounding == Rounding::stochastic},
                        {"has_slope", entry.at_slope != nullptr},
                        {"options", nlohmann::json::array()}};
    for (const MethodOption& known : entry.options) item["options"].push_back(option_json(known));
    list.push_back(std::move(item));
  }
  return {{"methods", std::move(list)}};
}

std::string methods_text() {
  Table table(
      {{"method", Table::Align::left}, {"levels found by", Table::Align::left}, {"source", Table::Align::left}});
  for (const QuantizerEntry& entry : quantizers())
    table.row({std::string(entry.name), std::string(entry.summary), std::string(entry.source)});
  std::string text = table.text();
  Table options({{"option", Table::Align::left},
                 {"of", Table::Align::left},
                 {"values", Table::Align::left},
                 {"meaning", Table::Align::left}});
  for (const MethodOption* known : method_options())
    for (const OptionMeaning& meaning : meanings_of(known->name))
      options.row({fmt::format("--{}", known->name), meaning.methods, allowed_text(*meaning.option),
                   std::string(meaning.option->help)});
  if (!method_options().empty()) text += "\n" + options.text();
  return text;
}
}  // namespace

int methods(const Options& options) {
  print(options.json ? methods_json().dump(2) + '\n' : methods_text());
  return 0;
}

}  // namespace lmq::app
