#include "importance_match.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>

#include "importance_axes.hpp"
#include "importance_curvature.hpp"
#include "importance_names.hpp"
#include "importance_owner.hpp"
#include "lmq/base/error.hpp"
#include "lmq/base/text.hpp"

namespace lmq {
namespace {

using Shape = std::vector<std::uint64_t>;

constexpr std::string_view kGram = ".gram", kGramOf = ".gram_of";

std::uint64_t product(std::span<const std::uint64_t> dims) {
  return std::accumulate(dims.begin(), dims.end(), std::uint64_t{1}, std::multiplies<>());
}

/// Weights of a row, the first axis counting rows; all of a vector.
std::uint64_t row_length(const Shape& shape) { return product(std::span(shape).subspan(shape.size() < 2 ? 0 : 1)); }

/// Names of the tensors that importance is wanted for.
std::vector<std::string_view> names_of(const Wanted& wanted) {
  std::vector<std::string_view> names;
  for (std::size_t i = 0; i < wanted.checkpoint.tensors.size(); ++i)
    if (!wanted.tensor || wanted.tensor(i)) names.push_back(wanted.checkpoint.tensors[i].name);
  return names;
}

class Matcher {
 public:
  Matcher(const Catalogue& file, const Wanted& wanted, double power, std::vector<ImportanceStack>& stacks,
          const ReadNumbers& read)
      : file_(file),
        checkpoint_(wanted.checkpoint),
        wanted_(wanted),
        decoder_(names_of(wanted), wanted.config),
        power_(power),
        stacks_(stacks),
        read_(read),
        source_(printable((file.folder / file.shards.front().name).native())),
        seen_(file.tensors.size(), false) {
    for (const ShardInfo& shard : file.shards)
      for (const auto& [key, of] : shard.metadata)
        if (key.ends_with(kGramOf)) gram_of_.emplace(with_dots(key), with_dots(of));
    for (std::size_t i = 0; i < file.tensors.size(); ++i) {
      const std::string key = with_dots(file.tensors[i].name);
      if (!by_name_.emplace(key, i).second)
        fail(Errc::malformed, fmt::format("{}: two tensors have the name '{}'", source_, printable(key)));
      if (const auto parameter = adam_parameter(key); parameter && !moments_.emplace(*parameter, i).second)
        fail(Errc::malformed, fmt::format("{}: two second moments belong to '{}'", source_, printable(*parameter)));
    }
  }

  ImportanceMatch run() {
    for (std::size_t i = 0; i < checkpoint_.tensors.size(); ++i) {
      const TensorInfo& weight = checkpoint_.tensors[i];
      if (!is_float(weight.value_type()) || weight.scales >= 0 || weight.shape.empty() || weight.count() == 0) continue;
      if (wanted_.tensor && !wanted_.tensor(i)) continue;
      ImportanceEntry entry;
      entry.weight = weight.name;
      const bool curvature = power_ != 1 && power_ >= 0 ? false : wanted_.curvature && wanted_.curvature(i);
      if (stacks_.empty() ? from_schema(weight, curvature, entry) : from_imatrix(weight, entry))
        out_.entries.push_back(std::move(entry));
    }
    const bool asked = !wanted_.tensor || any_wanted();
    const ImportanceOwner owner{file_, wanted_, decoder_, !stacks_.empty(), by_name_};
    if (asked && out_.entries.empty() && out_.unknown.empty() && !owner.speaks_of_kept()) owner.refuse();
    for (std::size_t i = 0; i < seen_.size(); ++i)
      if (!seen_[i] && (moments_.empty() || !is_other_optimizer_state(with_dots(file_.tensors[i].name))))
        out_.unused.push_back(file_.tensors[i].name);
    return std::move(out_);
  }

 private:
  [[nodiscard]] const TensorInfo& tensor(std::int64_t index) const {
    return file_.tensors[static_cast<std::size_t>(index)];
  }

  /// Index of a tensor of the file by name, or -1; it counts as known.
  std::int64_t take(const std::string& name) {
    const auto at = by_name_.find(name);
    if (at == by_name_.end()) return -1;
    seen_[at->second] = true;
    return static_cast<std::int64_t>(at->second);
  }

  [[nodiscard]] ImportancePart part(std::int64_t index, double fallback = 1) const {
    return {.tensor = index, .first = 0, .count = tensor(index).count(), .power = power_ < 0 ? fallback : power_};
  }

  [[noreturn]] void refuse(std::int64_t index, const TensorInfo& weight, const std::string& expected) const {
    fail(Errc::malformed,
         fmt::format("{}: tensor '{}': importance has shape [{}], but '{}' has shape [{}]: expected {}", source_,
                     printable(tensor(index).name), fmt::join(tensor(index).shape, ", "), printable(weight.name),
                     fmt::join(weight.shape, ", "), expected));
  }

  bool from_schema(const TensorInfo& weight, bool curvature, ImportanceEntry& entry) {
    const std::string key = with_dots(weight.name);
    std::int64_t weights = take(key + ".weights"), columns = take(key + ".columns");
    const std::int64_t plain = take(key), gram = take_gram_name(key), rows = take(key + ".rows");
    const std::int64_t outer = take(key + ".outer");
    const auto moment = moments_.find(key);
    if (moment != moments_.end()) seen_[moment->second] = true;
    if (plain >= 0) (tensor(plain).shape == weight.shape ? weights : columns) = plain;
    const bool curved = curvature && (gram >= 0 || outer >= 0);
    if (!curved && (weights >= 0 || moment != moments_.end())) {
      const bool adam = weights < 0;
      const std::int64_t index = adam ? static_cast<std::int64_t>(moment->second) : weights;
      if (tensor(index).shape != weight.shape) refuse(index, weight, "that shape");
      entry.info.kind = ImportanceKind::weights;
      entry.values = part(index, adam ? 0.5 : 1.0);
      return true;
    }
    if (columns < 0 && gram < 0 && rows < 0 && outer < 0) return false;
    if (columns >= 0) take_columns(columns, weight, entry);
    if (gram >= 0) take_gram(gram, weight, columns < 0, entry);
    if (rows >= 0) take_rows(rows, weight, entry);
    if (outer >= 0) take_outer(outer, weight, rows < 0, entry);
    if (!curvature) entry.gram = entry.outer = {};
    return true;
  }

  /// A tensor's own Gram matrix, or that of another one with the same inputs.
  std::int64_t take_gram_name(const std::string& key) {
    const auto named = gram_of_.find(key + std::string(kGramOf));
    if (named == gram_of_.end()) return take(key + std::string(kGram));
    const std::int64_t own = take(key + std::string(kGram)), other = take(named->second + std::string(kGram));
    if (own >= 0)
      fail(Errc::malformed, fmt::format("{}: tensor '{}{}' is there, and '{}' says that it is that of '{}'", source_,
                                        printable(key), kGram, printable(named->first), printable(named->second)));
    if (other < 0)
      fail(Errc::malformed,
           fmt::format("{}: '{}' is '{}', expected a tensor '{}{}' in the file", source_, printable(named->first),
                       printable(named->second), printable(named->second), kGram));
    return other;
  }

  /// Shapes [length], or [experts, length] for a stack of experts.
  void take_columns(std::int64_t index, const TensorInfo& weight, ImportanceEntry& entry) const {
    const Shape& shape = tensor(index).shape;
    const std::uint64_t whole = row_length(weight.shape), last = weight.shape.back();
    const bool stack = weight.shape.size() == 3;
    entry.info.kind = ImportanceKind::columns;
    entry.values = part(index);
    if (shape == Shape{whole} || shape == Shape(weight.shape.begin() + 1, weight.shape.end())) {
      entry.info.length = whole;
    } else if (stack && shape == Shape{last}) {
      entry.info.length = last;
    } else if (stack && shape == Shape{weight.shape[0], last}) {
      entry.info.length = last;
      entry.info.block_rows = weight.shape[1];
    } else {
      refuse(index, weight,
             fmt::format("[{}] (a value for each column), {}or [{}] (one for each weight)", whole,
                         stack ? fmt::format("[{}] or [{}, {}] (for each expert), ", last, weight.shape[0], last) : "",
                         fmt::join(weight.shape, ", ")));
    }
  }

  /// serves: its diagonal stands for the columns.
  void take_gram(std::int64_t index, const TensorInfo& weight, bool serves, ImportanceEntry& entry) const {
    const auto found = gram_of_shape(tensor(index).shape, weight.shape);
    if (!found) refuse(index, weight, gram_shapes(weight.shape));
    entry.gram = *found;
    entry.gram.tensor = index;
    if (!serves) return;
    entry.info.kind = ImportanceKind::columns;
    entry.values = diagonal(index, entry.gram);
    entry.info.length = entry.gram.size;
    if (entry.gram.blocks > 1) entry.info.block_rows = weight.shape[1];
  }

  /// One value for each row: the first axis counts rows, in a stack of experts the first two.
  void take_rows(std::int64_t index, const TensorInfo& weight, ImportanceEntry& entry) const {
    const Shape &shape = tensor(index).shape, &of = weight.shape;
    const std::uint64_t whole = row_length(of);
    const auto fits = [&](std::size_t axes) {
      return of.size() > axes && (shape == Shape(of.begin(), of.begin() + static_cast<std::ptrdiff_t>(axes)) ||
                                  shape == Shape{product(std::span(of).first(axes))});
    };
    const bool stacked = of.size() == 3 && fits(2) && (entry.info.length == of[2] || entry.info.length == 0);
    const bool plain = fits(1) && (entry.info.length == whole || entry.info.length == 0);
    if (!stacked && !plain)
      refuse(index, weight, of.size() < 2 ? "none: it has no rows" : fmt::format("[{}] (a value for each row)", of[0]));
    entry.rows = part(index);
    entry.info.kind = entry.values.tensor < 0 ? ImportanceKind::rows : ImportanceKind::outer;
    entry.info.length = stacked && !plain ? of[2] : whole;
  }

  /// serves: the diagonals of its blocks stand for the rows.
  void take_outer(std::int64_t index, const TensorInfo& weight, bool serves, ImportanceEntry& entry) const {
    const auto found = outer_of_shape(tensor(index).shape, weight.shape, entry.info.length);
    if (!found) refuse(index, weight, outer_shapes(weight.shape));
    entry.outer = *found;
    entry.outer.tensor = index;
    if (entry.info.length == 0) entry.info.length = found->blocks > 1 ? weight.shape.back() : row_length(weight.shape);
    if (!serves) return;
    entry.rows = diagonal(index, entry.outer);
    entry.info.kind = entry.values.tensor < 0 ? ImportanceKind::rows : ImportanceKind::outer;
  }

  [[nodiscard]] ImportancePart diagonal(std::int64_t index, const ImportanceMatrices& matrices) const {
    ImportancePart made = diagonal_of(matrices);
    made.power = part(index).power;
    return made;
  }

  bool from_imatrix(const TensorInfo& weight, ImportanceEntry& entry) {
    std::vector<GgufName> names;
    if (decoder_.has(weight.name)) names = gguf_names(weight.name);
    names.push_back({weight.name, -1});
    for (const GgufName& known : names) {
      const std::int64_t index = take(known.name);
      if (index < 0) continue;
      if (known.name != weight.name && !decoder_.candidates().empty()) refuse_ambiguous(index, weight);
      if (take_matrix(index, known.expert, weight, entry)) return true;
      out_.unknown.push_back(weight.name);
      return false;
    }
    return false;
  }

  /// False when nothing at all is known of it.
  bool take_matrix(std::int64_t index, std::int64_t expert, const TensorInfo& weight, ImportanceEntry& entry) {
    const Shape& of = weight.shape;
    cut_stack(index, expert, weight);
    const ImportanceStack& stack = stacks_[static_cast<std::size_t>(index)];
    const std::uint64_t matrices = stack.divisors.size(), columns = stack.length;
    entry.values = part(index);
    entry.values.stack = index;
    entry.info.kind = ImportanceKind::columns;
    entry.info.length = row_length(of);
    if (expert >= 0 && columns == row_length(of) && static_cast<std::uint64_t>(expert) < matrices) {
      entry.values.first = static_cast<std::uint64_t>(expert) * columns;
      entry.values.count = columns;
    } else if (expert >= 0) {
      refuse_matrix(index, weight, matrices, columns);
    } else if (of.size() == 3) {
      take_stack(index, weight, matrices, columns, entry);
    } else if (of.size() == 2 && matrices == 1) {
      take_plain(index, weight, columns, entry);
    } else if (matrices != 1 || columns != row_length(of)) {
      refuse_matrix(index, weight, matrices, columns);
    }
    return note_pooled(stack, expert, entry);
  }

  /// A matrix: its columns are the inputs, or its rows.
  void take_plain(std::int64_t index, const TensorInfo& weight, std::uint64_t columns, ImportanceEntry& entry) const {
    const Shape& of = weight.shape;
    const InputAxis axis = input_axis(weight, checkpoint_, wanted_.config);
    if (axis == InputAxis::unknown && of[0] == of[1] && columns == of[0]) refuse_axis(index, weight);
    if (axis != InputAxis::first && columns == of[1]) return;
    if (axis == InputAxis::last || columns != of[0]) refuse_matrix(index, weight, 1, columns);
    by_rows(of[1], entry);
  }

  /// A tensor of three dimensions: a matrix for each expert with statistics of its own or of all, or one row for each
  /// entry of the first axis. Where both extents of a matrix fit, the kind of tensor decides.
  void take_stack(std::int64_t index, const TensorInfo& weight, std::uint64_t matrices, std::uint64_t columns,
                  ImportanceEntry& entry) const {
    const Shape& of = weight.shape;
    InputAxis axis = columns == of[2] ? InputAxis::last : InputAxis::first;
    if (of[1] == of[2] && columns == of[1]) axis = input_axis(weight, checkpoint_, wanted_.config);
    if (axis == InputAxis::unknown) refuse_axis(index, weight);
    if (axis == InputAxis::last && columns == of[2] && (matrices == of[0] || matrices == 1)) {
      entry.info.length = columns;
      entry.info.block_rows = matrices > 1 ? of[1] : 0;
    } else if (axis == InputAxis::first && columns == of[1] && matrices == of[0]) {
      by_rows(of[2], entry);
    } else if (matrices != 1 || columns != row_length(of)) {
      refuse_matrix(index, weight, matrices, columns);
    }
  }

  /// A matrix stored [inputs, outputs]: the inputs are its rows.
  static void by_rows(std::uint64_t length, ImportanceEntry& entry) {
    entry.info.kind = ImportanceKind::rows;
    entry.info.length = length;
    std::swap(entry.rows, entry.values);
    entry.values = {};
  }

  /// The older format's numbers as one slice for each expert; those that are all 1 were never reached.
  void cut_stack(std::int64_t index, std::int64_t expert, const TensorInfo& weight) {
    ImportanceStack& stack = stacks_[static_cast<std::size_t>(index)];
    if (tensor(index).shape.size() != 1 || stack.divisors.size() != 1 || stack.divisors[0] == 0) return;
    const std::uint64_t count = tensor(index).count();
    std::uint64_t length = count;
    if (expert >= 0) length = row_length(weight.shape);
    if (weight.shape.size() == 3 && count % weight.shape[0] == 0 && count != weight.shape[2])
      length = count / weight.shape[0];
    if (length == 0 || length >= count || count % length != 0) return;
    std::vector<float> numbers(static_cast<std::size_t>(count));
    read_(static_cast<std::uint32_t>(index), 0, numbers);
    const float calls = stack.divisors[0];
    stack.length = length;
    stack.divisors.assign(static_cast<std::size_t>(count / length), calls);
    for (std::size_t i = 0; i < stack.divisors.size(); ++i) {
      const auto slice =
          std::span(numbers).subspan(i * static_cast<std::size_t>(length), static_cast<std::size_t>(length));
      const auto all = [&](float value) { return std::ranges::all_of(slice, [&](float x) { return x == value; }); };
      if (all(calls) || all(1.0f)) stack.divisors[i] = 0;
    }
  }

  static bool note_pooled(const ImportanceStack& stack, std::int64_t expert, ImportanceEntry& entry) {
    if (std::ranges::all_of(stack.divisors, [](float divisor) { return divisor == 0; })) return false;
    for (std::size_t i = 0; i < stack.divisors.size(); ++i)
      if (stack.divisors[i] == 0 && (expert < 0 || static_cast<std::size_t>(expert) == i))
        entry.pooled.push_back(static_cast<std::uint32_t>(i));
    return true;
  }

  [[noreturn]] void refuse_matrix(std::int64_t index, const TensorInfo& weight, std::uint64_t matrices,
                                  std::uint64_t columns) const {
    fail(Errc::malformed, fmt::format("{}: entry '{}' has {} of {} columns, but '{}' has shape [{}]: is it the imatrix "
                                      "of another model? (a recipe that keeps the tensor needs none)",
                                      source_, printable(tensor(index).name),
                                      matrices == 1 ? "a matrix" : fmt::format("{} matrices", matrices), columns,
                                      printable(weight.name), fmt::join(weight.shape, ", ")));
  }

  /// Square, and nothing says which axis counts the inputs.
  [[noreturn]] void refuse_axis(std::int64_t index, const TensorInfo& weight) const {
    const std::string shown = printable(weight.name);
    fail(Errc::unsupported,
         fmt::format(
             "{}: entry '{}' weighs inputs, but '{}' is square [{}] and nothing says which axis they are: {}keep "
             "it by a recipe, or give '{}.columns' or '{}.rows'",
             source_, printable(tensor(index).name), shown, fmt::join(weight.shape, ", "),
             axis_advice(wanted_.config.model_types), shown, shown));
  }

  /// Two parts of the model count blocks, and the entry may speak of either.
  [[noreturn]] void refuse_ambiguous(std::int64_t index, const TensorInfo& weight) const {
    fail(Errc::unsupported,
         fmt::format("{}: entry '{}' may speak of '{}' or of another part of the model (blocks below {}): keep the "
                     "others by a recipe, or name the entry as the checkpoint names its tensor",
                     source_, printable(tensor(index).name), printable(weight.name),
                     listed_prefixes(decoder_.candidates())));
  }

  [[nodiscard]] bool any_wanted() const {
    for (std::size_t i = 0; i < checkpoint_.tensors.size(); ++i)
      if (wanted_.tensor(i)) return true;
    return false;
  }

  const Catalogue& file_;
  const Catalogue& checkpoint_;
  const Wanted& wanted_;
  const TextDecoder decoder_;
  const double power_;
  std::vector<ImportanceStack>& stacks_;
  const ReadNumbers& read_;
  const std::string source_;
  std::map<std::string, std::size_t> by_name_, moments_;
  std::map<std::string, std::string> gram_of_;
  std::vector<bool> seen_;
  ImportanceMatch out_;
};

}  // namespace

ImportanceMatch match_importance(const Catalogue& file, const Wanted& wanted, double power,
                                 std::vector<ImportanceStack>& stacks, const ReadNumbers& read) {
  return Matcher(file, wanted, power, stacks, read).run();
}

}  // namespace lmq
