#include <array>

#include "binary_method.hpp"
#include "lmq/base/error.hpp"

namespace lmq {
namespace {

enum class Sides : std::uint8_t { symmetric, asymmetric };
struct TernaryOptions {
  Sides sides = Sides::symmetric;
  Sees scale = Sees::values;
};
constexpr std::array<std::string_view, 2> kSides{"symmetric", "asymmetric"};
constexpr auto kOptions = option_table(
    word_option<&TernaryOptions::sides>("sides", "symmetric: levels -t, 0, t; asymmetric: -a, 0, b", kSides),
    kScaleOption<TernaryOptions>);

class TernaryQuantizer final : public SignQuantizer {
 public:
  explicit TernaryQuantizer(Sees sees) : SignQuantizer({CodebookKind::centred, 3, 1}, sees) {}
  void fit_numbers(std::span<const float> values, std::span<const float> importance, Workspace& scratch,
                   std::span<float> numbers) const override {
    numbers[0] = static_cast<float>(top_mean(sorted_magnitudes(values, importance, scratch.get<MagnitudeScratch>())));
  }

 protected:
  [[nodiscard]] std::vector<std::uint32_t> fit_folded(const Magnitudes& y, std::span<float> numbers) const override {
    numbers[0] = static_cast<float>(top_mean(y));
    return open_top_mean(y);
  }
};

/// -a, 0, b: each side for itself.
class AsymmetricTernary final : public Quantizer {
 public:
  [[nodiscard]] Fit fit(const Group& group) const override {
    const FoldedGroup below = fold(group, Side::negative), above = fold(group, Side::positive);
    auto bins = members_of(group, below, open_top_mean(below.magnitudes));
    const auto more = members_of(group, above, open_top_mean(above.magnitudes));
    bins.insert(bins.end(), more.begin(), more.end());  // the negative side's bins come first
    return {levels(top_mean(below.magnitudes), top_mean(above.magnitudes)), refine_at(group, bins, kMaxFolded)};
  }
  [[nodiscard]] Codebook fit_values(std::span<const float> values, std::span<const float> importance,
                                    Workspace& scratch) const override {
    const double a = top_mean(sorted_side(values, importance, true, scratch.get<MagnitudeScratch>()));
    return levels(a, top_mean(sorted_side(values, importance, false, scratch.get<MagnitudeScratch>())));
  }

 private:
  static Codebook levels(double a, double b) {
    return Codebook::table({-static_cast<float>(a), 0.0F, static_cast<float>(b)});
  }
};

std::unique_ptr<Quantizer> make(std::size_t, const TernaryOptions& options) {
  if (options.sides == Sides::symmetric) return std::make_unique<TernaryQuantizer>(options.scale);
  return std::make_unique<AsymmetricTernary>();
}

void complete(const TernaryOptions& options, std::size_t& levels, bool levels_given) {
  if (levels_given && levels != 3) fail(Errc::usage, "the method has 3 levels, not " + std::to_string(levels));
  if (options.sides != Sides::symmetric && options.scale != Sees::values)
    fail(Errc::usage, "scale rank1 is for symmetric sides");
  levels = 3;
}

}  // namespace

extern const QuantizerEntry kTernary;
const QuantizerEntry kTernary{
    .id = 9,  // written to files: never reused, never renumbered
    .name = "ternary",
    .summary = "levels -t, 0, t (or -a, 0, b): the exact least-squares ternary code",
    .source = "Pouransari, Tu & Tuzel 2020, Least squares binary quantization of neural networks",
    .make = make_with<kOptions, make>,
    .options = kOptions,
    .complete = change_with<kOptions, complete>};

}  // namespace lmq
