#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "lmq/quant/unit.hpp"
#include "lmq/quant/width_allocation.hpp"

namespace lmq {

/// What a rule leaves open, and what applies to tensors that no rule names.
inline constexpr std::string_view kDefaultMethod = "kmeans";
/// Method and its cuts where a size or an entropy is asked for, and the rule says neither levels nor rows or groups.
inline constexpr std::string_view kBudgetMethod = "ecsq-uniform", kBudgetCuts = "plain";
/// Method where a size is shared out in widths of whole bits, and the rule says none.
inline constexpr std::string_view kWidthMethod = "learned";
/// Entropy of the codes in bits per weight where the command line says nothing of bits, levels or a size.
inline constexpr double kDefaultRate = 4;
inline constexpr double kDefaultDamping = 1, kMaxDamping = 1e6;
inline constexpr std::size_t kDefaultLevels = 16;
inline constexpr std::uint64_t kDefaultGroup = 128;
/// Allowed bits of a Target.
inline constexpr double kMinTargetBits = 0.01, kMaxTargetBits = 64;

/// What a rule says of a method's option: a number, a whole number that is written as one, or a word.
using SaidValue = std::variant<double, std::uint64_t, std::string>;

/// Where a rule was said, for messages.
struct RulePlace {
  std::string text = {};      ///< "r.json: rules[2]", "--tensor *embed*=6"; empty: made by the program
  bool command_line = false;  ///< the rule of the command line's options: its fields are options
};

/// What to do with the tensors a pattern names; unset fields take the defaults.
struct Rule {
  std::string match = "*";                        ///< glob over the whole tensor name: * ? [abc] [!abc]
  bool keep = false;                              ///< store raw
  std::optional<std::string> method = {};         ///< default: see with_method
  std::optional<std::size_t> levels = {};         ///< 2..256, default 16; "bits" b of the JSON text is 2^b levels
  std::map<std::string, SaidValue> options = {};  ///< of the method, by name; see `lmq methods`
  std::optional<Granularity> granularity = {};    ///< default tensor
  std::optional<std::uint64_t> group = {};        ///< 8..65536, default 128; only with Granularity::group
  std::optional<LevelType> level_type = {};       ///< default f32 for model and tensor, f16 for row and group
  std::optional<CoderChoice> coder = {};          ///< default cheapest
  std::optional<std::uint64_t> row_axes = {};  ///< leading axes that make a row index, for three dimensions and more;
                                               ///< default 2 for stacks of experts with three dimensions, else 1
  bool optional = false;                       ///< may match no tensor
  RulePlace place = {};
};

/// How large the whole file shall be, everything counted: a number of bytes, or of bits for each weight of the
/// checkpoint.
struct Target {
  std::uint64_t bytes = 0;  ///< 0: bits say it
  double bits = 0;
};

/// What the user wants. The first rule that matches a tensor decides; a tensor that none matches is quantized by the
/// defaults. `min_elements`, `keep_vectors` and the types that cannot be quantized come before the rules.
struct Recipe {
  std::vector<Rule> rules;
  std::uint64_t min_elements = 1024;  ///< smaller tensors are kept
  bool keep_vectors = true;           ///< tensors of fewer than two dimensions are kept
  enum class Nonfinite : std::uint8_t { refuse, keep } nonfinite = Nonfinite::refuse;
  /// 8-bit floats whose scale is not known: values on their own, or what is left of a checkpoint that lost its scales?
  enum class Fp8 : std::uint8_t { refuse, plain } fp8 = Fp8::refuse;
  /// Exponent of all numbers of the importance file, in (0, 2], a multiple of 2^-24; unset: the default of their kind.
  std::optional<double> importance_power = {};
  /// How far the numbers of the importance file are drawn to the mean of their tensor: h becomes (h + d mean) / (1 +
  /// d), in 0..1e6; measured (docs/importance.md). A recipe of an earlier file that does not say it has 0.
  double importance_damping = kDefaultDamping;
  std::optional<Target> target = {};  ///< shared out among the tensors whose rules do not say how many bits they get
  Allocation allocation = Allocation::slope;  ///< how; only with a target

  /// JSON text (docs/recipe.md); default_rules() where it has no "rules". Errc::usage with `source`, the place, what
  /// was found and what is allowed.
  [[nodiscard]] static Recipe parse(std::string_view json, const std::string& source);
  /// Canonical JSON: equal recipes give equal text. Keys sorted, defaults written out, rules that can never apply left
  /// out, the last rule matches everything. Parsing it gives the same text again.
  [[nodiscard]] std::string canonical_json() const;
};

/// Gives the option "samples" to rules that do not say it and whose method has it.
/// samples  tokens behind the numbers of the importance file; 0: not known
void tell_samples(Recipe& recipe, double samples);

/// The rule with a method where it says none: one that sees layers, where the rule has an option of its that the default
/// methods have not; else kBudgetMethod with kBudgetCuts when it shares in a target (budgeted) or
/// has the option "rate", and one codebook serves a tensor or model; kWidthMethod when the target is shared out in
/// widths; else kDefaultMethod.
[[nodiscard]] Rule with_method(Rule rule, bool budgeted, Allocation allocation = Allocation::slope);

/// Errc::usage where widths are asked for without a target, or with one that no width between 1 and 8 bits can be.
/// option, bits: what the user calls both ("--bit-allocation", "r.json: target_bits").
void check_allocation(Allocation allocation, const std::optional<Target>& target, const std::string& option,
                      const std::string& bits);

/// What practitioners keep whatever the method: the routers of mixture-of-experts models (small, and an error there
/// sends tokens to the wrong expert). A recipe file with "rules" replaces them.
[[nodiscard]] std::vector<Rule> default_rules();
/// The recipe of a command without options: default_rules(), then the defaults.
[[nodiscard]] Recipe default_recipe();
/// The recipe of the command line's options: default_rules(), then this rule, which names its method. Errc::usage for
/// values out of range.
[[nodiscard]] Recipe one_rule(Rule rule);

/// Whether the rule itself says how many bits its tensors get: levels, bits, or an option such as a slope.
[[nodiscard]] bool sets_rate(const Rule& rule);

/// The rule with its defaults, checked. Errc::usage begins with the rule's place. For a rule that keeps: only checked.
[[nodiscard]] QuantSpec resolve(const Rule& rule);
/// Sets a field of a rule from a text, as a command line has it. key: as in the JSON text ("level_type", "bits", an
/// option of a method). Errc::usage begins with field_of; what fields say together is for resolve.
void set_field(Rule& rule, const std::string& key, const std::string& text);
/// The rule of --tensor "PATTERN=WHAT": a number of bits, "keep", a method, or fields of a rule ("levels=12"), several
/// with commas between them. What it leaves open is as in `base` (the command line's other options), but how many bits
/// are spent and, where it names a method, the options of base's. Errc::usage begins with "--tensor PATTERN=WHAT".
[[nodiscard]] Rule tensor_rule(const std::string& text, const Rule& base);
/// The rule's place in a message: "r.json: rules[2]"; rule "*.w" when the program made it.
[[nodiscard]] std::string place_of(const Rule& rule);
/// A field of it: "r.json: rules[2].level_type", of the command line "--level-type".
[[nodiscard]] std::string field_of(const Rule& rule, std::string_view field);

/// Options that any method has, each name once, in the order of the methods.
[[nodiscard]] std::vector<const MethodOption*> method_options();
/// Names of the methods that have an option: "sls-l1, sls-l0".
[[nodiscard]] std::string methods_with_option(std::string_view name);

/// Glob match of a whole name, by UTF-8 characters; '*' also crosses dots and slashes; a backslash takes the next
/// character as it is; '[' without its ']' is itself. O(pattern * name), no recursion.
[[nodiscard]] bool glob_match(std::string_view pattern, std::string_view name) noexcept;

/// The exponent as it is taken: the nearest multiple of 2^-24. Errc::usage names `place` when it is not in (0, 2].
[[nodiscard]] double importance_power(double wanted, const std::string& place);

/// Names as in the JSON text.
[[nodiscard]] std::string_view name(Granularity granularity) noexcept;
[[nodiscard]] std::string_view name(LevelType type) noexcept;
[[nodiscard]] std::string_view name(CoderChoice coder) noexcept;
[[nodiscard]] std::string_view name(Allocation allocation) noexcept;

}  // namespace lmq
