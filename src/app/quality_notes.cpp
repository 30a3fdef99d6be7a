#include "quality_notes.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "lmq/base/text.hpp"

namespace lmq::app {
namespace {

// Normal weights at their best 16 levels reach about 22 (a million weights): more than that is clipping.
constexpr double kClipped = 32;
// Mean SNR below which a model is likely to be bad (KL of .3 nats and more), chosen for the fewest wrong verdicts over 56
// files of six models (docs/quality.md): plain, and by importance that compares tensors.
constexpr double kBadDecibels = 18.5;
constexpr double kBadWeighted = 14;
constexpr std::size_t kNamed = 3;
// Bits a weight beside the codes from which the number of levels says little of the size.
constexpr double kMuchBeside = 1;

double decibels(const TensorLine& line) { return 10 * std::log10(line.energy / line.squared_error); }

double weighted_decibels(const TensorLine* line) {
  return 10 * std::log10(*line->weighted_energy / *line->weighted_error);
}

/// Largest error over root mean square error.
double crest(const TensorLine& line) {
  return line.largest_error /
         std::sqrt(line.squared_error / static_cast<double>(std::max<std::uint64_t>(1, line.weights)));
}

/// The first few of `of`, each with its number, and how many more there are.
template <class Number>
std::string list(const std::vector<const TensorLine*>& of, const Number& number) {
  std::string text;
  for (std::size_t i = 0; i < std::min(kNamed, of.size()); ++i)
    text += fmt::format("{}{} ({})", i == 0 ? "" : ", ", printable(of[i]->name), number(*of[i]));
  if (of.size() > kNamed) text += fmt::format(" and {} more", of.size() - kNamed);
  return text;
}

/// What is stored beside the codes where rows or groups have codebooks, in words; empty where it is little.
std::string beside_codes(const Options& options, const std::vector<TensorLine>& lines, const Plan& plan) {
  double weights = 0, stored = 0, codes = 0;
  std::uint64_t group = 0;  // of the tensors that have groups
  for (std::size_t t = 0; t < lines.size(); ++t) {
    const QuantSpec& spec = plan.tensors[t].spec;
    if (!lines[t].quantized() || plan.tensors[t].lane_rows > 0 || spec.granularity < Granularity::row) continue;
    const auto count = static_cast<double>(lines[t].weights);
    weights += count, stored += count * lines[t].bits_per_weight, codes += count * lines[t].entropy_bits;
    if (spec.granularity == Granularity::group) group = spec.group;
  }
  return app::beside_codes(options, group, weights, codes, stored);
}

/// Of the tensors that have importance: the least SNR by it, and which have the most of the error; empty without.
std::string weighted_note(const std::vector<TensorLine>& lines) {
  std::vector<const TensorLine*> weighted;
  double all = 0;
  for (const TensorLine& line : lines)
    if (line.quantized() && line.weighted_error.value_or(0) > 0 && line.weighted_energy.value_or(0) > 0)
      weighted.push_back(&line), all += *line.weighted_error;
  if (weighted.empty()) return {};
  const auto first = [&](const auto& key) {
    std::vector<const TensorLine*> some = weighted;
    std::ranges::stable_sort(some, {}, key);
    some.resize(std::min(some.size(), kNamed));
    return some;
  };
  return "least SNR by importance: " +
         list(first(weighted_decibels),
              [](const TensorLine& line) { return fmt::format("{:.1f} dB", weighted_decibels(&line)); }) +
         "; most of the error by importance: " +
         list(first([](const TensorLine* line) { return -*line->weighted_error; }),
              [&](const TensorLine& line) { return fmt::format("{:.0f} %", 100 * *line.weighted_error / all); });
}

/// Noise over signal of the tensors, averaged in two ways, each tensor counted once and by its weights: no tensor hides
/// the others, however large or loud. Tensors whose errors are passed on are left out: they cost less than the importance
/// of single weights says (babyllama105: KL .016 at 12.8 dB).
class MeanNoise {
 public:
  void add(const TensorLine& line, const TensorPlan& tensor) {
    const ImportanceInfo& known = tensor.importance;
    if (tensor.lane_rows > 0 && (known.gram || known.outer_rows > 0)) {
      passed_on_ += static_cast<double>(line.weights);
      return;
    }
    const bool compared =
        known.present() && known.kind != ImportanceKind::columns && line.weighted_energy.value_or(0) > 0;
    const double noise = compared ? line.weighted_error.value_or(0) / *line.weighted_energy
                                  : line.squared_error / std::max(line.energy, std::numeric_limits<double>::min());
    const double part = noise * std::pow(10, (compared ? kBadWeighted : kBadDecibels) / 10);  // of what is still good
    const auto weights = static_cast<double>(line.weights);
    tensors_ += 1, weights_ += weights, by_tensor_ += part, by_weight_ += part * weights;
    if (compared) compared_ += weights;
    codebooks_ = codebooks_ || tensor.lane_rows == 0;
  }
  [[nodiscard]] bool passed_on() const noexcept { return passed_on_ > 0; }

  /// A word of warning and what to do where the file is likely to be bad; empty where it is not.
  [[nodiscard]] std::string warning(const Options& options) const {
    if (!(weights_ > passed_on_)) return {};  // what is left says little
    const double part = std::max(by_tensor_ / tensors_, by_weight_ / weights_);
    if (!(part > 1)) return {};
    const bool weighted = compared_ > weights_ / 2;
    const double bad = weighted ? kBadWeighted : kBadDecibels;
    std::string advice = "more bits help";
    if (!options.importance)
      advice += ", so does --importance FILE (lmq-calibrate makes one)";
    else if (!weighted)
      advice += ", so do rows beside the columns of the importance, or matrices (lmq-calibrate makes them)";
    if (codebooks_ && options.format.empty()) advice += ", so does the default method (no --method)";
    return fmt::format(
        "a mean SNR of {:.1f} dB{} over the tensors: below {} dB a model is likely to have lost much of its quality; "
        "{}",
        bad - 10 * std::log10(part), weighted ? " by importance" : "", bad, advice);
  }

 private:
  double tensors_ = 0, weights_ = 0, compared_ = 0;  ///< compared_: weights of tensors that are compared by importance
  double by_tensor_ = 0, by_weight_ = 0, passed_on_ = 0;  ///< passed_on_: weights that were left out
  bool codebooks_ = false;
};

}  // namespace

std::string unused_size(const Options& options, const Plan& plan, std::uint64_t bytes) {
  const std::uint64_t target = plan.target_bytes;
  if (target == 0 || bytes > target / 20 * 19) return {};
  if (std::ranges::none_of(plan.tensors, [](const TensorPlan& tensor) { return tensor.spec.budgeted; })) return {};
  const bool chosen = options.method_given || options.rule.granularity || options.recipe_file;
  return fmt::format("{} of the {} that were asked for are used: {}", format_bytes(bytes), format_bytes(target),
                     chosen ? "this method spends no more here; without --method (and --granularity) more of them are"
                            : "this model needs no more, a larger size makes no difference");
}

std::string beside_codes(const Options& options, std::uint64_t group, double weights, double codes, double stored) {
  if (!(weights > 0) || (stored - codes) / weights < kMuchBeside) return {};
  const std::string what = group > 0 ? fmt::format("groups of {}", group) : std::string("rows");
  return fmt::format("codes of {:.1f} bits become {:.1f} bits a weight, because {} have codebooks of their own{}",
                     codes / weights, stored / weights, what,
                     options.format.empty()
                         ? ": --bits says bits of the whole file, codebooks counted; with granularity tensor nearly "
                           "all of them are spent on codes"
                         : fmt::format(", as --for {} asks", printable(options.format)));
}

QualityNotes quality_notes(const Options& options, const std::vector<TensorLine>& lines, const Plan& plan) {
  std::vector<const TensorLine*> all, clipped;
  MeanNoise noise;
  for (std::size_t t = 0; t < lines.size(); ++t) {
    const TensorLine& line = lines[t];
    if (!line.quantized() || line.weights == 0) continue;
    noise.add(line, plan.tensors[t]);
    if (!(line.squared_error > 0) || !(line.energy > 0)) continue;
    all.push_back(&line);
    if (plan.tensors[t].lane_rows == 0 && crest(line) > kClipped) clipped.push_back(&line);
  }
  QualityNotes out;
  if (all.empty()) return out;
  std::ranges::stable_sort(all, {}, [](const TensorLine* line) { return decibels(*line); });
  std::ranges::stable_sort(clipped, {}, [](const TensorLine* line) { return -crest(*line); });
  all.resize(std::min(all.size(), kNamed));
  out.notes.push_back("least SNR: " +
                      list(all, [](const TensorLine& l) { return fmt::format("{:.1f} dB", decibels(l)); }));
  if (std::string weighted = weighted_note(lines); !weighted.empty())
    out.notes.push_back(weighted +
                        (noise.passed_on() ? "; errors are passed on, so the loss is less than this says" : ""));
  if (std::string beside = beside_codes(options, lines, plan); !beside.empty()) out.notes.push_back(std::move(beside));
  if (!clipped.empty())
    out.warnings.push_back(
        "largest error many times the root mean square error, so the levels clip a few large weights: " +
        list(clipped, [](const TensorLine& l) { return fmt::format("{:.0f} times", crest(l)); }) +
        "; the default method (no --method) does not clip");
  if (std::string words = noise.warning(options); !words.empty()) out.warnings.push_back(std::move(words));
  return out;
}

}  // namespace lmq::app
