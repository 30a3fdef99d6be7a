#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "commands.hpp"
#include "lmq/plan/recipe.hpp"
#include "lmq/quant/quantizer.hpp"
#include "table.hpp"
#include "terminal.hpp"
#include "yardstick.hpp"

namespace lmq::app {

namespace {
/// A value of an option; nothing that is said: the first of its words, or what the method makes of that.
nlohmann::json value_json(const MethodOption& known, const OptionValue& value) {
  if (const auto* whole = std::get_if<std::uint64_t>(&value)) return *whole;
  if (const auto* number = std::get_if<double>(&value)) return *number;
  if (const auto* word = std::get_if<OptionWord>(&value)) return known.words[word->index];
  return nullptr;
}

std::string value_text(const MethodOption& known, const OptionValue& value) {
  if (const auto* whole = std::get_if<std::uint64_t>(&value)) return fmt::format("{}", *whole);
  if (const auto* number = std::get_if<double>(&value)) return fmt::format("{:.6g}", *number);
  if (const auto* word = std::get_if<OptionWord>(&value)) return std::string(known.words[word->index]);
  return known.words.empty() ? "decided by the method" : std::string(known.words[0]);
}

std::string allowed_text(const MethodOption& known) {
  if (known.words.empty())
    return fmt::format("{} to {}{}", value_text(known, known.low), value_text(known, known.high),
                       known.whole() ? ", whole" : "");
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

/// What to say for what is wanted, for those who do not know the methods. Figures: yardstick.hpp, docs/quality.md, SmolLM2-135M.
std::string advice_text(std::size_t width) {
  Table table({{"say", Table::Align::left}, {"for", Table::Align::left}});
  table.row(
      {"--bits 4", fmt::format("the best file of 4 bits a weight, all bytes counted, without any data (waterfill): "
                               "KL {:g}; --bits 3: {:g}; --target-size 2G: the same for a size",
                               smollm2_kl(Known::nothing, 4), smollm2_kl(Known::nothing, 3))});
  table.row({"--bits 3 --importance FILE",
             fmt::format(
                 "fewer bits for the same loss, with statistics that lmq-calibrate collects (docs/calibration.md): KL "
                 "{:g} at 3 bits, {:g} at 2.5; with means of squared inputs and gradients alone {:g} at 3, with those "
                 "of inputs, as an imatrix has them, {:g}",
                 smollm2_kl(Known::matrices, 3), smollm2_kl(Known::matrices, 2.5), smollm2_kl(Known::diagonals, 3),
                 smollm2_kl(Known::columns, 3))});
  table.row({"--bits 4 --method ecsq-uniform --cuts plain",
             "two thirds of the time: one step for all weights, entropy-coded: KL .29; --bits 3: 1.11"});
  table.row({"--method kmeans --levels 16 --granularity row",
             "a few seconds: 16 levels for each row, 4.1 bits a weight: KL .52"});
  table.row({"--method kmeans --levels 256", "256 levels for each tensor, 8 bits a weight at most"});
  table.row(
      {"--method asq --levels 16", "sums and means that stay right (gradients): rounding that is true on average"});
  table.row({"--method ternary, binary-1", "codes of 1 to 2 bits, for models that were trained for them"});
  return fmt::format(
      "What to take\n{}{}", table.text(width),
      wrap("KL: how far predictions move, nats a token (SmolLM2-135M; docs/quality.md has more)", width, 0));
}

std::string all_methods_text() {
  const std::size_t width = output_width();
  Table table({{"method", Table::Align::left}, {"levels found by (source)", Table::Align::left}});
  for (const QuantizerEntry& entry : quantizers())
    table.row({std::string(entry.name), fmt::format("{} ({})", entry.summary, entry.source)});
  Table options({{"option", Table::Align::left}, {"of", Table::Align::left}});
  for (const MethodOption* known : method_options())
    for (const OptionMeaning& meaning : meanings_of(known->name))
      options.row({fmt::format("--{}", known->name),
                   fmt::format("{}: {} ({})", meaning.methods, meaning.option->help, allowed_text(*meaning.option))});
  return fmt::format("{}\n{}\n{}\nlmq methods METHOD: its options with their defaults\n", advice_text(width),
                     table.text(width), options.text(width));
}

std::string method_text(const QuantizerEntry& entry) {
  const std::size_t width = output_width();
  std::string text =
      fmt::format("{}\n{}", entry.name, wrap(fmt::format("{} ({})", entry.summary, entry.source), width, 2));
  Table options({{"option", Table::Align::left}, {"values", Table::Align::left}});
  for (const MethodOption& known : entry.options)
    options.row({fmt::format("--{}", known.name), fmt::format("{}; {} (default: {})", allowed_text(known), known.help,
                                                              value_text(known, known.fallback))});
  return text + (entry.options.empty() ? "  no options of its own\n" : "\n" + options.text(width));
}

nlohmann::json option_json(const MethodOption& known) {
  nlohmann::json item{{"name", known.name}, {"help", known.help}, {"sets_rate", known.sets_rate}};
  if (!known.words.empty()) {
    item["words"] = std::vector<std::string>(known.words.begin(), known.words.end());
  } else {
    item["low"] = value_json(known, known.low), item["high"] = value_json(known, known.high);
    item["whole"] = known.whole();
  }
  if (known.fallback != OptionValue{}) item["default"] = value_json(known, known.fallback);
  return item;
}

/// A method with its options and what its traits are by default.
nlohmann::json method_json(const QuantizerEntry& entry) {
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
  return item;
}

}  // namespace

int methods(const Options& options) {
  nlohmann::json list = nlohmann::json::array();
  for (const QuantizerEntry& entry : quantizers())
    if (options.method.empty() || options.method == entry.name) list.push_back(method_json(entry));
  if (options.json) print_json(*options.json, {{"methods", std::move(list)}});
  if (options.json != "-" && !options.quiet)
    print(options.method.empty() ? all_methods_text() : method_text(find_quantizer(options.method)));
  return 0;
}

}  // namespace lmq::app
