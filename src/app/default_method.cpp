#include "default_method.hpp"

#include <algorithm>
#include <string>
#include <vector>

#include "lmq/io/curvature_names.hpp"
#include "lmq/io_hdf5/hdf5_catalogue.hpp"
#include "lmq/quant/layer_methods.hpp"

namespace lmq::app {
namespace {

// Part of their mean added to diagonals that are all that is known: as they are they cost more than they give
// (docs/quality.md).
constexpr double kDiagonalDamping = 1;

/// The method that sees layers and takes the rule's options; nullptr: none.
const QuantizerEntry* method_for(const Rule& rule) {
  std::vector<std::string_view> names;
  for (const auto& [name, value] : rule.options)
    if (name != "cuts") names.push_back(name);  // of with_method, dropped below
  return layer_method(names);
}

/// The rule is what is made where nothing is said but how many bits are spent, and numbers are taken as they are.
bool is_open(const Options& options, const Recipe& recipe) {
  const Rule& rule = options.rule;
  if (options.recipe_file)
    return recipe.target && !decides_all(recipe) && recipe.allocation == Allocation::slope &&
           recipe.importance_power.value_or(1) == 1;
  if (options.method_given || options.allocation != Allocation::slope) return false;
  if (options.importance_power.value_or(1) != 1) return false;
  return !rule.levels && !rule.granularity && !rule.group && !rule.coder && !rule.level_type;
}

}  // namespace

double samples_behind(const Options& options, const Catalogue& checkpoint) {
  if (!options.importance) return 0;
  return facts_of_importance(*options.importance, checkpoint, {.read_hdf5 = read_hdf5_catalogue}).samples;
}

bool decides_all(const Recipe& recipe) {
  return std::ranges::any_of(recipe.rules, [](const Rule& rule) {
    return rule.place.text != kRest && !rule.match.empty() && rule.match.find_first_not_of('*') == std::string::npos;
  });
}

std::optional<Options> with_layer_method(const Options& options, const Recipe& recipe, const Catalogue& checkpoint) {
  const QuantizerEntry* const method = method_for(options.rule);
  if (method == nullptr || !is_open(options, recipe)) return std::nullopt;
  if (!options.importance && !recipe.target) return std::nullopt;
  Options changed = options;
  if (options.importance) {
    if (!facts_of_importance(*options.importance, checkpoint, {.read_hdf5 = read_hdf5_catalogue}).curvature) {
      changed.rule.options.try_emplace("damping-inputs", kDiagonalDamping);
      changed.rule.options.try_emplace("damping-outputs", kDiagonalDamping);
    }
  }
  const bool rate_said = std::ranges::any_of(options.recipe_arguments, [](const std::string& argument) {
    return argument == "--rate" || argument == "--step";
  });
  changed.rule.method = method->name;
  changed.rule.options.erase("cuts");
  if (!rate_said) changed.rule.options.erase("rate");
  if (!rate_said && !recipe.target) changed.target = Target{0, kDefaultRate};
  return changed;
}

}  // namespace lmq::app
