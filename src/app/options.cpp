#include "options.hpp"

#include <fmt/format.h>
#include <algorithm>
#include <boost/program_options/parsers.hpp>
#include <boost/program_options/positional_options.hpp>
#include <boost/program_options/variables_map.hpp>
#include <charconv>
#include <cmath>
#include <map>

#include "export_formats.hpp"
#include "format_grids.hpp"
#include "lmq/base/error.hpp"
#include "lmq/base/text.hpp"
#include "lmq/base/words.hpp"
#include "lmq/quant/quantizer.hpp"
#include "option_table.hpp"

namespace lmq::app {
namespace fs = std::filesystem;
namespace {

namespace po = boost::program_options;

constexpr std::size_t kAnyWidth = 80;              // of help that is asked for its errors only
constexpr std::uint64_t kMaxSimulated = 1u << 16;  // ranks

/// Option values of one command, taken by name; each complaint names the option and the value.
class Values {
 public:
  explicit Values(po::variables_map values) : values_(std::move(values)) {}
  [[nodiscard]] bool has(const char* name) const { return values_.count(name) > 0; }
  [[nodiscard]] std::string text(const char* name) const {
    const auto& value = values_[name].as<std::string>();
    if (value.empty()) fail(Errc::usage, fmt::format("--{}: the value is empty", name));
    return value;
  }
  [[nodiscard]] std::uint64_t whole(const char* name, std::uint64_t least, std::uint64_t most) const {
    return whole_of(name, text(name), least, most);
  }
  /// Whole numbers between commas.
  [[nodiscard]] std::vector<std::size_t> whole_list(const char* name, std::uint64_t least, std::uint64_t most) const {
    const std::string value = text(name);
    std::vector<std::size_t> numbers;
    for (std::size_t at = 0; at <= value.size();) {
      const std::size_t comma = std::min(value.find(',', at), value.size());
      numbers.push_back(whole_of(name, value.substr(at, comma - at), least, most));
      at = comma + 1;
    }
    return numbers;
  }
  [[nodiscard]] double number(const char* name) const {
    const std::string value = text(name);
    double found = 0;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), found);
    if (error != std::errc{} || end != value.data() + value.size() || !std::isfinite(found))
      fail(Errc::usage, fmt::format("--{} {}: a number is expected", name, value));
    return found;
  }
  [[nodiscard]] std::vector<std::string> texts(const char* name) const {
    return has(name) ? values_[name].as<std::vector<std::string>>() : std::vector<std::string>{};
  }
  template <class T>
  [[nodiscard]] T choice(const char* name, const std::vector<std::pair<std::string_view, T>>& choices) const {
    const std::string value = text(name);
    std::vector<std::string_view> words;
    for (const auto& [word, meaning] : choices) {
      if (word == value) return meaning;
      words.push_back(word);
    }
    const std::string near = nearest(value, words);
    fail(Errc::usage, fmt::format("--{} {}: expected one of {}{}", name, printable(value), fmt::join(words, ", "),
                                  near.empty() ? "" : fmt::format(" (did you mean {}?)", near)));
  }

 private:
  static std::uint64_t whole_of(const char* name, const std::string& value, std::uint64_t least, std::uint64_t most) {
    std::uint64_t number = 0;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
    if (error != std::errc{} || end != value.data() + value.size() || number < least || number > most)
      fail(Errc::usage, fmt::format("--{} {}: a whole number from {} to {} is expected", name, value, least, most));
    return number;
  }

  po::variables_map values_;
};

[[noreturn]] void refuse_unknown(const CommandEntry& entry, const std::string& option) {
  const std::string name = option.substr(0, option.find('='));
  const std::vector<std::string> known = option_names(entry.command);
  const std::string near = nearest(name, std::vector<std::string_view>(known.begin(), known.end()));
  fail(Errc::usage, fmt::format("{}: unknown option '{}'{}", entry.name, name,
                                near.empty() ? fmt::format("; lmq {} --help lists its options", entry.name)
                                             : fmt::format("; did you mean {}?", near)));
}

/// "--json INPUT": the parser takes any word behind --json for its file. It is the input when the command has no other,
/// and the report goes to standard output. Where no input is needed (methods) it is a file unless it names a method.
void give_back_input(Command command, po::parsed_options& parsed) {
  auto& options = parsed.options;
  if (std::ranges::any_of(options, [](const po::option& option) { return option.position_key >= 0; })) return;
  for (std::size_t i = 0; i < options.size(); ++i) {
    if (options[i].string_key != "json" || options[i].original_tokens.size() != 2 || options[i].value.at(0) == "-")
      continue;
    if (command == Command::methods &&
        std::ranges::find(quantizers(), options[i].value.at(0), &QuantizerEntry::name) == quantizers().end())
      continue;
    po::option input("input", options[i].value);
    input.position_key = 0;
    options[i].value = {"-"};
    options.push_back(std::move(input));
    return;
  }
}

/// Strict: whole names only, each option once, every word used.
po::variables_map parse_values(const CommandEntry& entry, const std::vector<std::string>& words) {
  namespace style = po::command_line_style;
  constexpr int kStyle = style::allow_long | style::long_allow_adjacent | style::long_allow_next | style::allow_short |
                         style::allow_dash_for_short | style::short_allow_adjacent | style::short_allow_next;
  po::options_description table = option_table(entry.command);
  table.add_options()("input", po::value<std::vector<std::string>>());
  po::positional_options_description positional;
  positional.add("input", -1);
  try {
    auto parsed = po::command_line_parser(words).options(table).positional(positional).style(kStyle).run();
    give_back_input(entry.command, parsed);
    for (const auto& option : parsed.options)
      if (option.position_key < 0 && option.string_key == "input") refuse_unknown(entry, "--input");
    po::variables_map values;
    po::store(parsed, values);
    return values;
  } catch (const po::unknown_option& error) {
    refuse_unknown(entry, error.get_option_name());
  } catch (const po::multiple_occurrences& error) {
    fail(Errc::usage, fmt::format("{}: option '{}' is given more than once", entry.name, error.get_option_name()));
  } catch (const po::error& error) {
    fail(Errc::usage, fmt::format("{}: {}", entry.name, error.what()));
  }
}

/// Bits of the whole file for each weight, whatever the method.
Target bits_target(const Values& values) {
  const double bits = values.number("bits");
  if (!(bits >= kMinTargetBits && bits <= kMaxTargetBits))
    fail(Errc::usage, fmt::format("--bits {}: a number from {} to {} is expected", values.text("bits"), kMinTargetBits,
                                  kMaxTargetBits));
  return {0, bits};
}

/// What is done with numbers of the checkpoint and of the importance file.
void take_inputs(const Values& values, Options& options) {
  if (values.has("nonfinite"))
    options.nonfinite = values.choice<Recipe::Nonfinite>(
        "nonfinite", {{"refuse", Recipe::Nonfinite::refuse}, {"keep", Recipe::Nonfinite::keep}});
  if (values.has("fp8"))
    options.fp8 = values.choice<Recipe::Fp8>("fp8", {{"refuse", Recipe::Fp8::refuse}, {"plain", Recipe::Fp8::plain}});
  if (values.has("importance-power"))
    options.importance_power = importance_power(values.number("importance-power"), "--importance-power");
  if (values.has("importance-damping")) {
    options.importance_damping = values.number("importance-damping") + 0.0;
    if (!(*options.importance_damping >= 0 && *options.importance_damping <= kMaxDamping))
      fail(Errc::usage, fmt::format("--importance-damping {}: a number from 0 (as it is) to {} is expected",
                                    values.text("importance-damping"), kMaxDamping));
  }
}

/// How large the file shall be, and how that is shared out.
void take_size(const Values& values, Options& options) {
  if (values.has("bits")) options.target = bits_target(values);
  if (values.has("target-size")) {
    if (options.target || options.rule.levels)
      fail(Errc::usage, "--target-size and --bits or --levels both say how many bits are spent: give one of them");
    options.target = Target{parse_size(values.text("target-size"), "--target-size"), 0};
    if (options.target->bytes == 0) fail(Errc::usage, "--target-size 0: nothing fits into no bytes");
  }
  if (values.has("bit-allocation"))
    options.allocation = values.choice<Allocation>("bit-allocation", {{"slope", Allocation::slope},
                                                                      {"lagrangian", Allocation::lagrangian},
                                                                      {"exact", Allocation::exact},
                                                                      {"uniform", Allocation::uniform},
                                                                      {"dropbits", Allocation::dropbits}});
  check_allocation(options.allocation, options.target, "--bit-allocation", "--bits");
}

/// The rule as it is said; options.rule is that with a method.
Rule take_rule(const Values& values, Options& options) {
  Rule& rule = options.rule;
  rule.place.command_line = true;
  options.method_given = values.has("method");
  if (values.has("method")) {
    rule.method = values.text("method");
    static_cast<void>(find_quantizer(*rule.method));
  }
  if (values.has("bits") && values.has("levels"))
    fail(Errc::usage, "--bits (of the file) and --levels both say how many bits are spent: give one of them");
  if (values.has("group") && values.has("granularity") && values.text("granularity") != "group")
    fail(Errc::usage, fmt::format("--group {} belongs to --granularity group, not to --granularity {}",
                                  values.text("group"), values.text("granularity")));
  if (values.has("group")) rule.granularity = Granularity::group;
  if (values.has("for")) {
    for (const char* other : {"bits", "levels", "target-size", "granularity", "group", "level-type", "zero-point"})
      if (values.has(other))
        fail(Errc::usage,
             fmt::format("--for {} says what --{} says, too: give one of them", values.text("for"), other));
    options.format = values.text("for");
    take_format_grid(rule, options.format);
  }
  for (const OptionEntry* entry : options_of(options.command)) {
    const std::string option(entry->name);
    if (!entry->field.empty() && values.has(option.c_str()))
      set_field(rule, std::string(entry->field), values.text(option.c_str()));
  }
  for (const MethodOption* known : method_options()) {
    const std::string name(known->name);
    if (values.has(name.c_str())) set_field(rule, name, values.text(name.c_str()));
  }
  take_size(values, options);
  const Rule said = rule;
  const bool shared = rule.granularity.value_or(Granularity::tensor) <= Granularity::tensor;
  if (!rule.method && !options.target && !sets_rate(rule) && shared) rule.options["rate"] = kDefaultRate;
  rule = with_method(std::move(rule), options.target.has_value(), options.allocation);
  take_inputs(values, options);
  return said;
}

/// The options that say what a recipe says, as words of a command line; none may stand beside --recipe.
void take_recipe_arguments(const Values& values, Options& options) {
  std::vector<std::string> names;
  for (const OptionEntry* entry : options_of(options.command))
    if (entry->of_recipe) names.emplace_back(entry->name);
  for (const MethodOption* known : method_options()) names.emplace_back(known->name);
  for (const std::string& option : names) {
    const char* name = option.c_str();
    if (!values.has(name)) continue;
    if (values.has("recipe"))
      fail(Errc::usage, fmt::format("--{} contradicts --recipe {}: the recipe decides for every tensor; say it there, "
                                    "or for some tensors with --tensor",
                                    name, values.text("recipe")));
    options.recipe_arguments.insert(options.recipe_arguments.end(), {fmt::format("--{}", name), values.text(name)});
  }
  for (const std::string& text : values.texts("tensor"))
    options.recipe_arguments.insert(options.recipe_arguments.end(), {"--tensor", text});
}

/// What quantize and plan share.
void take_job(const Values& values, Options& options) {
  take_recipe_arguments(values, options);
  Rule said;
  if (values.has("recipe"))
    options.recipe_file = values.text("recipe");
  else
    said = take_rule(values, options);
  for (const std::string& text : values.texts("tensor")) {
    if (!options.tensor_rules.empty() && options.tensor_rules.back().match == "*")
      fail(Errc::usage, fmt::format("--tensor {}: never applies, because {} matches every tensor", printable(text),
                                    place_of(options.tensor_rules.back())));
    options.tensor_rules.push_back(tensor_rule(text, said));
  }
  if (values.has("importance")) options.importance = values.text("importance");
  for (const char* name : {"importance-power", "importance-damping"})
    if (values.has(name) && !values.has("importance"))
      fail(Errc::usage, fmt::format("--{} belongs to --importance FILE, which is not given", name));
  for (const char* name : {"recipe", "importance", "memory"})
    if (values.has(name))
      options.recipe_arguments.insert(options.recipe_arguments.end(), {fmt::format("--{}", name), values.text(name)});
}

void take_quantize(const Values& values, Options& options) {
  options.dry_run = values.has("dry-run");
  if (options.output.empty() && !options.dry_run) fail(Errc::usage, "quantize: -o OUT.h5 is missing: the file to make");
  take_job(values, options);
  options.work_dir = values.has("work-dir") ? values.text("work-dir") : options.output.string() + ".lmq-work";
  if (values.has("resume")) options.resume = values.choice<bool>("resume", {{"auto", true}, {"never", false}});
  if (values.has("max-time")) options.max_minutes = parse_duration(values.text("max-time"), "--max-time") / 60;
  options.force = values.has("force");
}

void take_plan(const Values& values, Options& options) {
  take_job(values, options);
  if (values.has("curve")) options.curve_tensor = values.text("curve");
  if (values.has("ranks")) options.ranks = static_cast<std::size_t>(values.whole("ranks", 1, 1u << 20));
  if (values.has("simulate")) options.simulate = values.whole_list("simulate", 1, kMaxSimulated);
  if (values.has("cores")) options.cores = static_cast<std::size_t>(values.whole("cores", 1, 1u << 20));
  for (const char* name : {"cores", "storage", "rank-io"})
    if (values.has(name) && options.simulate.empty())
      fail(Errc::usage, fmt::format("--{} belongs to --simulate N, which is not given", name));
  for (const auto& [name, rate] : {std::pair{"storage", &options.storage}, {"rank-io", &options.rank_io}}) {
    if (!values.has(name)) continue;
    *rate = parse_size(values.text(name), fmt::format("--{}", name));
    if (*rate == 0) fail(Errc::usage, fmt::format("--{} 0: nothing could be read", name));
  }
}

void take_export(const Values& values, Options& options) {
  std::string names;
  for (const ExportFormat& format : export_formats())
    names += fmt::format("{}{}", names.empty() ? "" : ", ", format.name);
  if (!values.has("to")) fail(Errc::usage, fmt::format("export: --to FORMAT is missing: {}", names));
  options.format = values.text("to");
  std::string variant;
  const ExportFormat& format = find_export_format(options.format, variant);
  if (options.output.empty()) fail(Errc::usage, fmt::format("export: -o PATH is missing: {}", format.path));
}

void take_input(const CommandEntry& entry, const po::variables_map& values, Options& options) {
  const auto inputs =
      values.count("input") > 0 ? values["input"].as<std::vector<std::string>>() : std::vector<std::string>{};
  if (entry.command == Command::methods) {
    if (inputs.size() > 1) fail(Errc::usage, fmt::format("methods: one method is expected, found '{}'", inputs[1]));
    if (!inputs.empty()) options.method = find_quantizer(inputs[0]).name;
    return;
  }
  if (inputs.empty() || inputs[0].empty())
    fail(Errc::usage,
         fmt::format("{}: the first argument is missing; usage: lmq {} {}", entry.name, entry.name, entry.arguments));
  if (inputs.size() > 1)
    fail(Errc::usage, fmt::format("{}: one input is expected, found '{}' and '{}'", entry.name, inputs[0], inputs[1]));
  options.input = inputs[0];
}

/// The file that a link at `path` leads to, so that it and the link are one output; other paths as they are.
fs::path behind_link(const fs::path& path) {
  std::error_code error;
  return fs::is_symlink(path, error) && fs::is_regular_file(path, error) ? fs::canonical(path) : path;
}

/// What several commands share.
void take_shared(const Values& values, Options& options) {
  if (values.has("output")) options.output = behind_link(values.text("output"));
  if (options.output == "-")
    fail(Errc::usage,
         "-o -: the file is written in many places at once, so it cannot go to a pipe; name a file (./- when "
         "it shall be called so)");
  if (values.has("memory")) {
    options.memory = parse_size(values.text("memory"), "--memory");
    if (*options.memory == 0) fail(Errc::usage, "--memory 0: nothing can be done without memory");
  }
  if (values.has("threads")) options.threads = static_cast<std::size_t>(values.whole("threads", 1, 4096));
  if (values.has("against")) options.against = values.text("against");
  if (values.has("repeat")) options.repeat = values.whole("repeat", 1, 1u << 20);
  if (values.has("codebook")) options.codebook = values.text("codebook");
  if (values.has("source")) options.source = values.text("source");
  if (values.has("progress"))
    options.progress = values.choice<ProgressMode>(
        "progress", {{"auto", ProgressMode::automatic}, {"plain", ProgressMode::plain}, {"none", ProgressMode::none}});
  if (values.has("json")) options.json = values.text("json");
  options.summary = values.has("summary");
  options.quiet = values.has("quiet");
  if (options.quiet) options.progress = ProgressMode::none;
}

/// A first word that is an option: one of the program's own was meant, or of a command that is missing.
[[noreturn]] void refuse_first(const std::string& name) {
  const std::string near = nearest(name, std::vector<std::string_view>{"--help", "--version"});
  fail(Errc::usage, fmt::format("unknown option '{}'{}", name,
                                near.empty() ? ": a command comes first; lmq --help lists them, lmq --version tells "
                                               "which lmq this is"
                                             : fmt::format("; did you mean {}?", near)));
}

}  // namespace

Options parse_options(int argc, char** argv) {
  std::vector<std::string> words(argv + std::min(argc, 1), argv + argc);
  Options options;
  if (words.empty()) fail(Errc::usage, "a command is missing");
  const std::string name = words[0];
  if (name == "--version" || name == "-V" || name == "version") {
    if (words.size() > 1) fail(Errc::usage, fmt::format("{} takes no argument, found '{}'", name, words[1]));
    options.command = Command::version;
    return options;
  }
  if (name == "--help" || name == "-h" || name == "help") {
    if (words.size() > 1) options.topic = words[1];
    static_cast<void>(help_text(options.topic, kAnyWidth));
    return options;
  }
  if (name.starts_with('-')) refuse_first(name);
  const CommandEntry* entry = find_command(name);
  if (entry == nullptr) static_cast<void>(help_text(name, kAnyWidth));  // throws with the nearest command
  words.erase(words.begin());
  const auto map = parse_values(*entry, words);
  const Values values(map);
  if (values.has("help")) {
    options.topic = name;
    return options;
  }
  options.command = entry->command;
  take_input(*entry, map, options);
  take_shared(values, options);
  if (entry->command == Command::quantize) take_quantize(values, options);
  if (entry->command == Command::plan) take_plan(values, options);
  if (entry->command == Command::export_) take_export(values, options);
  if (entry->command == Command::verify && values.has("importance")) options.importance = values.text("importance");
  return options;
}

}  // namespace lmq::app
