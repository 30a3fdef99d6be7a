#include "lmq/plan/plan.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "chunks.hpp"
#include "growth.hpp"
#include "lmq/base/bytes.hpp"
#include "lmq/base/digest.hpp"
#include "lmq/base/error.hpp"
#include "lmq/base/math.hpp"
#include "lmq/base/text.hpp"
#include "lmq/base/words.hpp"
#include "lmq/plan/costs.hpp"
#include "lmq/plan/names.hpp"
#include "lmq/quant/gram_use.hpp"
#include "recipe_words.hpp"
#include "rule_use.hpp"
#include "token_rows.hpp"

namespace lmq {
namespace {

/// Why a tensor is kept that would not become smaller; bytes where their rounded numbers would be the same.
std::string growth_words(std::uint64_t now, std::uint64_t least) {
  if (least == now)
    return fmt::format("would not become smaller: {} as it is and at least so much quantized", format_bytes(now));
  const bool same = format_bytes(now) == format_bytes(least);
  return fmt::format("would grow: {} as it is, at least {} quantized", same ? counted(now, "byte") : format_bytes(now),
                     same ? counted(least, "byte") : format_bytes(least));
}

using ImportanceOf = std::function<ImportanceInfo(const TensorInfo&, std::uint64_t cols)>;

constexpr std::string_view kDigestTitle = "lmq plan 1";
constexpr std::uint64_t kMaxUnits = std::uint64_t{1} << 30;

std::uint64_t product(std::span<const std::uint64_t> dims) noexcept {
  return std::accumulate(dims.begin(), dims.end(), std::uint64_t{1}, std::multiplies<>());
}

/// Why a tensor is kept before any rule is asked; empty when a rule decides.
std::string reason_to_keep(const TensorInfo& tensor, const Recipe& recipe) {
  const std::uint64_t count = tensor.count();
  if (count == 0) return "no elements";
  if (!is_float(tensor.value_type())) return fmt::format("type {}", name(tensor.dtype));
  // A scalar cannot be chunked in HDF5, so it is kept whatever the recipe says.
  if (tensor.shape.empty()) return "0 dimensions";
  const auto extents = std::ranges::count_if(tensor.shape, [](std::uint64_t dim) { return dim > 1; });
  if (recipe.keep_vectors && extents < 2)
    return tensor.shape.size() == 1 ? "1 dimension" : "a vector: one dimension above 1";
  if (count < recipe.min_elements) return fmt::format("fewer than {} weights", recipe.min_elements);
  return {};
}

std::size_t row_axes_of(const TensorInfo& tensor, const Rule& rule) {
  const std::size_t rank = tensor.shape.size();
  if (rank < 3) return rank == 2 ? 1 : 0;
  if (!rule.row_axes) return rank == 3 && tensor.name.find("expert") != std::string::npos ? 2 : 1;
  if (*rule.row_axes > rank)
    fail(Errc::usage, fmt::format("{}: found {}, but tensor {} has {} dimensions", field_of(rule, "row_axes"),
                                  *rule.row_axes, in_quotes(tensor.name), rank));
  return static_cast<std::size_t>(*rule.row_axes);
}

class Planner {
 public:
  Planner(const std::vector<TensorInfo>& tensors, const Recipe& recipe, const ImportanceOf& importance,
          const std::vector<TensorNote>& notes)
      : tensors_(tensors),
        recipe_(recipe),
        importance_(importance),
        default_rule_(
            with_method({.place = {.text = "the default rule"}}, recipe.target.has_value(), recipe.allocation)),
        notes_(tensors.size(), nullptr),
        model_scopes_(recipe.rules.size() + 1, -1) {
    for (const Rule& rule : recipe.rules) add_spec(rule);
    add_spec(default_rule_);
    for (const TensorNote& note : notes) {
      if (note.tensor >= tensors.size())
        fail(Errc::internal, fmt::format("a note on tensor {} of {}", note.tensor, tensors.size()));
      notes_[note.tensor] = &note;
    }
  }

  Plan run() {
    plan_.tensors.resize(tensors_.size());
    for (std::size_t i = 0; i < tensors_.size(); ++i)
      plan_.tensors[i].tensor = narrow<std::uint32_t>(i, "tensor index");
    for (std::size_t i = 0; i < tensors_.size(); ++i)
      if (tensors_[i].scales < 0) treat(tensors_[i], plan_.tensors[i]);
    for (std::size_t i = 0; i < tensors_.size(); ++i)
      if (tensors_[i].scales >= 0) treat_scale(tensors_[i], plan_.tensors[i]);
    for (std::size_t i = 0; i < tensors_.size(); ++i) cut(tensors_[i], plan_.tensors[i]);
    for (Scope& scope : plan_.scopes) scope.quantum = importance_quantum(largest(scope), scope.weights);
    plan_.target_bytes = target_bytes();
    if (plan_.target_bytes > 0) plan_.allocation = recipe_.allocation;
    return std::move(plan_);
  }

 private:
  void add_spec(const Rule& rule) {
    QuantSpec spec = resolve(rule);
    spec.budgeted = recipe_.target && !rule.keep && !sets_rate(rule);
    spec.widths = spec.budgeted && recipe_.allocation != Allocation::slope;
    if (spec.widths) check_widths(rule, spec);
    if (spec.budgeted && find_quantizer(spec.method)->complete == nullptr) spec.options.levels = kMaxLevels;
    specs_.push_back(std::move(spec));
  }

  /// Widths are for methods that a number of levels tells how many bits they spend.
  void check_widths(const Rule& rule, const QuantSpec& spec) const {
    const QuantizerEntry& method = *find_quantizer(spec.method);
    if (method.at_slope == nullptr && traits_of(spec).sees != Sees::layer) return;
    fail(Errc::usage,
         fmt::format("{}: \"{}\" spends bits at a slope and has no widths, which bit allocation {} shares out: leave "
                     "that out, or take a method with levels such as {}",
                     field_of(rule, "method"), method.name, name(recipe_.allocation), kWidthMethod));
  }

  void treat(const TensorInfo& tensor, TensorPlan& out) {
    if (tensor.shape.size() > kMaxRank)
      fail(Errc::unsupported, fmt::format("tensor {} has {} dimensions, HDF5 has at most {}", in_quotes(tensor.name),
                                          tensor.shape.size(), kMaxRank));
    out.rows = tensor.shape.size() < 2 ? 1 : tensor.shape.front();
    out.cols = product(std::span(tensor.shape).subspan(tensor.shape.size() < 2 ? 0 : 1));
    const TensorNote* const note = notes_[out.tensor];
    const bool companion = note != nullptr && note->fitness == Fitness::companion;
    out.reason = companion ? note->text : reason_to_keep(tensor, recipe_);
    if (!out.reason.empty()) return;
    const auto matches = [&](const Rule& rule) { return glob_match(rule.match, tensor.name); };
    const auto at = std::ranges::find_if(recipe_.rules, matches);
    const Rule& rule = at == recipe_.rules.end() ? default_rule_ : *at;
    if (at != recipe_.rules.end()) out.rule = at - recipe_.rules.begin();
    if (rule.keep)
      out.reason = fmt::format("rule '{}' keeps it", rule.match);
    else if (note != nullptr && note->fitness == Fitness::nonfinite)
      out.reason = "holds NaN or infinity";
    else
      quantize(tensor, rule, out);
    if (out.treatment == Treatment::quantize && note != nullptr) refuse_unfit(*note);
  }

  void quantize(const TensorInfo& tensor, const Rule& rule, TensorPlan& out) {
    out.treatment = Treatment::quantize;
    out.spec = specs_[out.rule < 0 ? recipe_.rules.size() : static_cast<std::size_t>(out.rule)];
    const std::size_t row_axes = row_axes_of(tensor, rule);
    out.rows = product(std::span(tensor.shape).first(row_axes));
    out.cols = product(std::span(tensor.shape).subspan(row_axes));
    const bool whole_rows = out.spec.granularity == Granularity::row || out.spec.granularity == Granularity::group;
    if (whole_rows && out.cols > kLongestRow)
      fail(Errc::usage, fmt::format("{}: tensor {} has rows of {} weights, \"{}\" allows {}: use \"tensor\"",
                                    field_of(rule, "granularity"), in_quotes(tensor.name), out.cols,
                                    name(out.spec.granularity), kLongestRow));
    if (const std::uint64_t least = least_quantized_bytes(out.spec, out.rows, out.cols),
        now = tensor.bytes + (tensor.scale >= 0 ? tensors_[static_cast<std::size_t>(tensor.scale)].bytes : 0);
        least >= now) {
      out.treatment = Treatment::keep;
      out.reason = growth_words(now, least);
      out.spec = {};
      return;
    }
    out.token_rows = rows_are_tokens(tensor) && row_axes == 1;
    if (importance_) out.importance = importance_(tensor, out.cols);
    if (const Traits traits = traits_of(out.spec); traits.sees == Sees::layer)
      cut_lanes(tensor, lane_rows_of(traits.lane_rows, out.importance.outer_rows), row_axes, out);
    else
      cut_rows(tensor, whole_rows ? row_axes : tensor.shape.size(), out);
  }

  /// Of both sides' curvature such units get the inputs' alone, where the method looks at it; where each expert of a
  /// stack has its own, units are rows of one expert.
  void cut_rows(const TensorInfo& tensor, std::size_t row_axes, TensorPlan& out) const {
    const Traits traits = traits_of(out.spec);
    const bool by_rows = out.spec.granularity == Granularity::row || out.spec.granularity == Granularity::group;
    const bool looks = by_rows && looks_at_gram(traits);
    out.importance.gram = out.importance.gram && looks;
    out.importance.outer_rows = 0;
    const bool by_expert = out.importance.gram && out.importance.gram_each && row_axes == 2;
    out.chunk = chunk_dims(std::span(tensor.shape).subspan(by_expert ? 1 : 0), row_axes - (by_expert ? 1 : 0));
    if (by_expert) out.chunk.insert(out.chunk.begin(), 1);
  }

  /// Units of a method that sees layers are whole lanes.
  void cut_lanes(const TensorInfo& tensor, std::uint64_t lane_rows, std::size_t row_axes, TensorPlan& out) const {
    out.lane_rows = lane_rows;
    out.chunk = lane_chunk_dims(tensor.shape, row_axes, lane_rows, kMaxTrellisLanes);
    const std::uint64_t rows = row_axes == 0 ? 1 : std::min(lane_rows, tensor.shape[row_axes - 1]);
    if (out.cols > kLongestLane / rows)
      fail(Errc::usage,
           fmt::format("tensor {} has rows of {} weights: method \"{}\" codes {} of them at once and takes {} weights "
                       "at most: give it another method by a rule",
                       in_quotes(tensor.name), out.cols, find_quantizer(out.spec.method)->name, rows, kLongestLane));
  }

  /// What cannot be quantized rightly is refused, with the ways out.
  void refuse_unfit(const TensorNote& note) const {
    const bool unscaled = note.fitness == Fitness::unscaled;
    if (unscaled && recipe_.fp8 == Recipe::Fp8::plain) return;
    fail(note.fitness == Fitness::malformed ? Errc::malformed : Errc::unsupported,
         fmt::format("{}: start from the unquantized model, or keep it raw by a recipe{}", note.text,
                     unscaled ? ", or say --fp8 plain if its values need no scale" : ""));
  }

  /// A scale goes where its tensor goes: into the values of a quantized one, beside a kept one.
  void treat_scale(const TensorInfo& tensor, TensorPlan& out) {
    const auto target = static_cast<std::size_t>(tensor.scales);
    if (target >= tensors_.size() || tensors_[target].scales >= 0)
      fail(Errc::internal,
           fmt::format("tensor {} scales tensor number {}, which cannot be", in_quotes(tensor.name), tensor.scales));
    out.rows = tensor.shape.size() < 2 ? 1 : tensor.shape.front();
    out.cols = product(std::span(tensor.shape).subspan(tensor.shape.size() < 2 ? 0 : 1));
    const bool folded = plan_.tensors[target].treatment == Treatment::quantize;
    out.treatment = folded ? Treatment::fold : Treatment::keep;
    out.reason = fmt::format("{} '{}'", folded ? "folded into" : "scales the kept", tensors_[target].name);
  }

  void cut(const TensorInfo& tensor, TensorPlan& out) {
    out.first_unit = plan_.units.size();
    if (out.treatment == Treatment::quantize) {
      for_each_chunk(tensor.shape, out.chunk, [&](std::uint64_t begin, std::uint64_t count) {
        add_unit({out.tensor, begin, count, unit_seconds(tensor, out, begin, count)});
      });
    } else if (out.treatment == Treatment::keep) {
      // A multiple of 8 elements is a multiple of whole bytes for every type.
      const std::uint64_t count = tensor.count(), width = bits(tensor.dtype), most = kKeepUnitBytes * 8 / width / 8 * 8;
      for (std::uint64_t begin = 0; begin < count; begin += most) {
        const std::uint64_t length = std::min(most, count - begin);
        add_unit({out.tensor, begin, length, copy_seconds(ceil_div(length * width, 8))});
      }
    }
    out.units = plan_.units.size() - out.first_unit;
    if (out.treatment != Treatment::quantize) return;
    join_scope(tensor, out);
    const bool shared = out.spec.granularity == Granularity::model || out.spec.granularity == Granularity::tensor;
    if (shared && out.scope < 0 && out.units > 0)
      plan_.units[out.first_unit].seconds +=
          solve_seconds(tensor.value_type(), out.spec, tensor.count(), out.importance.present());
  }

  [[nodiscard]] static double unit_seconds(const TensorInfo& tensor, const TensorPlan& out, std::uint64_t begin,
                                           std::uint64_t count) {
    const std::uint64_t layer = out.importance.gram_each ? tensor.count() / tensor.shape.front() : tensor.count();
    if (out.lane_rows == 0) {
      const double seconds = quantize_seconds(tensor.value_type(), out.spec, count, out.cols, out.importance.present());
      if (!out.importance.gram) return seconds;
      const LayerNeeds needs = layer_needs(out.spec, layer_shape(out, count));
      return seconds + needs.seconds + (begin % layer == 0 ? needs.factor_seconds : 0);
    }
    // A layer's factor is made once by each rank that has units of it; here, once.
    return layer_seconds(layer_needs(out.spec, layer_shape(out, count)), count, begin % layer == 0,
                         out.importance.present());
  }

  void add_unit(const WorkUnit& unit) {
    if (plan_.units.size() == kMaxUnits)
      fail(Errc::unsupported,
           fmt::format("tensor {}: more than {} units in all", in_quotes(tensors_[unit.tensor].name), kMaxUnits));
    plan_.units.push_back(unit);
  }

  void join_scope(const TensorInfo& tensor, TensorPlan& out) {
    const bool model = out.spec.granularity == Granularity::model;
    const bool alone = out.spec.granularity != Granularity::tensor || out.units < 2;
    if (!model && alone && !out.spec.budgeted) return;
    std::int64_t& known = model_scopes_[out.rule < 0 ? recipe_.rules.size() : static_cast<std::size_t>(out.rule)];
    if (!model || known < 0) {
      out.scope = static_cast<std::int64_t>(plan_.scopes.size());
      plan_.scopes.push_back({.tensors = {}, .weights = 0, .spec = out.spec, .layers = out.lane_rows > 0});
      if (model) known = out.scope;
    } else {
      out.scope = known;
    }
    Scope& scope = plan_.scopes[static_cast<std::size_t>(out.scope)];
    if (out.lane_rows == 0 && !scope.tensors.empty()) check_partner(plan_.tensors[scope.tensors.front()], out);
    scope.tensors.push_back(out.tensor);
    scope.weights += tensor.count();
    if (out.lane_rows > 0) return;
    scope.seconds =
        std::max(scope.seconds,
                 solve_seconds(tensor.value_type(), out.spec, tensor.count(), out.importance.present()) +
                     curve_seconds(tensor.value_type(), out.spec, tensor.count(), out.cols, out.importance.present()));
  }

  /// Both share a codebook, so their statistics must add up: importance on both or on none, and the same resolution.
  void check_partner(const TensorPlan& first, const TensorPlan& other) const {
    const TensorInfo &a = tensors_[first.tensor], &b = tensors_[other.tensor];
    std::string why;
    if (first.importance.present() != other.importance.present()) why = "only one of them has importance";
    if ((bits(a.value_type()) <= 16) != (bits(b.value_type()) <= 16))
      why = fmt::format("one is {} and the other {}", name(a.value_type()), name(b.value_type()));
    if (!why.empty())
      fail(Errc::usage,
           fmt::format("tensors {} and {} share a codebook (granularity model), but {}: give them different rules",
                       in_quotes(a.name), in_quotes(b.name), why));
  }

  [[nodiscard]] std::uint64_t target_bytes() const {
    if (!recipe_.target) return 0;
    if (rules_say_all_bits(plan_.tensors, recipe_.rules))
      fail(Errc::usage, "a size is asked for, but no tensor is left whose bits may be chosen: every rule says its own");
    if (recipe_.target->bytes > 0) return recipe_.target->bytes;
    std::uint64_t weights = 0;
    for (const TensorInfo& tensor : tensors_)
      if (tensor.scales < 0) weights += tensor.count();
    return std::max<std::uint64_t>(1,
                                   static_cast<std::uint64_t>(recipe_.target->bits * static_cast<double>(weights) / 8));
  }

  [[nodiscard]] double largest(const Scope& scope) const {
    double largest = 0;
    for (const std::uint32_t index : scope.tensors)
      largest = std::max(largest, plan_.tensors[index].importance.largest);
    return largest;
  }

  const std::vector<TensorInfo>& tensors_;
  const Recipe& recipe_;
  const ImportanceOf& importance_;
  const Rule default_rule_;
  std::vector<QuantSpec> specs_;            // [rules + 1], the last one that of default_rule_
  std::vector<const TensorNote*> notes_;    // [tensors] nullptr: none
  std::vector<std::int64_t> model_scopes_;  // [rules + 1] scope of granularity model, -1: none yet
  Plan plan_;
};

/// Everything that decides the output bytes, and how it was cut: a program that cuts otherwise has other digests.
std::string digest_of(const std::vector<TensorInfo>& tensors, const std::string& catalogue_digest, const Recipe& recipe,
                      const Plan& plan) {
  ByteWriter out;
  out.text(kDigestTitle);
  out.text(catalogue_digest);
  out.text(recipe.canonical_json());
  out.le<std::uint64_t>(tensors.size());
  const auto list = [&out](const std::vector<std::uint64_t>& values) {
    out.le<std::uint64_t>(values.size());
    out.array<std::uint64_t>(values);
  };
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const TensorInfo& tensor = tensors[i];
    const TensorPlan& planned = plan.tensors[i];
    out.text(tensor.name);
    out.le(static_cast<std::uint8_t>(tensor.dtype));
    list(tensor.shape);
    for (const std::int64_t link : {tensor.scale, tensor.scales}) out.le(link);
    for (const std::uint64_t block : {tensor.scale_block_rows, tensor.scale_block_cols}) out.le(block);
    out.le(static_cast<std::uint8_t>(planned.treatment));
    out.text(planned.reason);
    out.le(std::uint8_t{planned.importance.present()});
    const bool weighs = planned.importance.present();
    out.le(static_cast<std::uint8_t>(weighs ? planned.importance.kind : ImportanceKind::columns));
    out.le(planned.importance.largest);
    for (const std::uint64_t value : {planned.importance.length, planned.importance.block_rows}) out.le(value);
    for (const std::uint64_t value : {planned.rows, planned.cols, planned.units}) out.le(value);
    if (planned.lane_rows > 0 || planned.importance.gram) {
      for (const std::uint64_t value : {planned.lane_rows, planned.importance.outer_rows}) out.le(value);
      out.le(std::uint8_t{planned.importance.gram});
    }
    out.le(planned.scope);
    out.le(static_cast<std::uint8_t>(planned.spec.budgeted));
    list(planned.chunk);
  }
  out.le(plan.target_bytes);
  return digest128_hex(out.bytes());
}

}  // namespace

Plan make_plan(const std::vector<TensorInfo>& tensors, const std::string& catalogue_digest, const Recipe& recipe,
               const ImportanceOf& importance, const std::vector<TensorNote>& notes) {
  check_names(tensors);
  check_rules_match(tensors, recipe);
  Plan plan = Planner(tensors, recipe, importance, notes).run();
  plan.digest = digest_of(tensors, catalogue_digest, recipe, plan);
  return plan;
}

TensorInfo as_stored(const TensorInfo& tensor, Treatment treatment) {
  TensorInfo stored = tensor;
  if (treatment == Treatment::keep) stored.scale = -1, stored.scale_block_rows = stored.scale_block_cols = 0;
  return stored;
}

LayerShape layer_shape(const TensorPlan& tensor, std::uint64_t count) noexcept {
  return {.rows = count / std::max<std::uint64_t>(1, tensor.cols),
          .cols = tensor.cols,
          .lane_rows = tensor.lane_rows,
          .gram = tensor.importance.gram,
          .outer_rows = tensor.importance.outer_rows};
}

double importance_quantum_of(const Plan& plan, const WorkUnit& unit) noexcept {
  const TensorPlan& tensor = plan.tensors[unit.tensor];
  return tensor.scope < 0 ? importance_quantum(tensor.importance.largest, unit.count)
                          : plan.scopes[static_cast<std::size_t>(tensor.scope)].quantum;
}

}  // namespace lmq
