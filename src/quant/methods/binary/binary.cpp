#include <algorithm>
#include <array>
#include <bit>

#include "binary_method.hpp"
#include "lmq/base/error.hpp"
#include "lmq/kernels/binary_scan.hpp"

namespace lmq {
namespace {

enum class Mode : std::uint8_t { greedy, refine, exact };
struct Binary1Options {
  Sees scale = Sees::values;
};
struct BinaryOptions {
  Mode mode = Mode::refine;
};
constexpr std::array<std::string_view, 3> kModes{"greedy", "refine", "exact"};
constexpr auto kBinary1Options = option_table(kScaleOption<Binary1Options>);
constexpr auto kBinaryOptions = option_table(word_option<&BinaryOptions::mode>(
    "mode", "how bases are found: greedy (as published), refine (alternating, never worse) or exact (1 or 2 bits)",
    kModes));

constexpr double kMaxSum = 0x1.fep127;

constexpr const char* kSource = "Pouransari, Tu & Tuzel 2020, Least squares binary quantization of neural networks";

std::size_t bases_of(std::size_t levels) { return static_cast<std::size_t>(std::bit_width(levels)) - 1; }

class BinaryQuantizer final : public SignQuantizer {
 public:
  BinaryQuantizer(std::size_t bases, Mode mode, Sees sees = Sees::values)
      : SignQuantizer({CodebookKind::bases, std::size_t{1} << bases, bases,
                       effective(bases, mode) == Mode::greedy ? SignRule::greedy : SignRule::nearest},
                      sees),
        bases_(bases),
        mode_(effective(bases, mode)) {}
  void fit_numbers(std::span<const float> values, std::span<const float> importance, Workspace& scratch,
                   std::span<float> numbers) const override {
    if (bases_ == 1 && (importance.empty() || !(std::ranges::max(importance) > 0))) {
      numbers[0] = static_cast<float>(binary_scans().magnitude_sum(values.data(), nullptr, values.size()) /
                                      static_cast<double>(values.size()));
      return;
    }
    solve(sorted_magnitudes(values, importance, scratch.get<MagnitudeScratch>()),
          scratch.get<MagnitudeScratch>().residual, numbers);
  }

 protected:
  [[nodiscard]] std::vector<std::uint32_t> fit_folded(const Magnitudes& y, std::span<float> numbers) const override {
    std::vector<double> residual;
    const auto bases = solve(y, residual, numbers);
    const auto used = std::span(bases).first(bases_);
    if (bases_ == 1) return {};
    if (mode_ == Mode::exact) return open_two_means(y);
    return straddled(y, mode_ == Mode::greedy ? greedy_thresholds(used) : nearest_thresholds(used));
  }

 private:
  static Mode effective(std::size_t bases, Mode mode) {
    return bases <= 2 && mode == Mode::refine ? Mode::exact : mode;
  }
  std::array<double, kMaxBases> solve(const Magnitudes& y, std::vector<double>& residual,
                                      std::span<float> numbers) const {
    std::array<double, kMaxBases> bases{};
    const auto used = std::span(bases).first(bases_);
    if (mode_ == Mode::greedy) {
      greedy_bases(y, used, residual);
    } else if (bases_ == 1) {
      bases[0] = one_bit(y);
    } else if (mode_ == Mode::exact) {
      const TwoMeans two = two_means(y);
      bases[0] = (two.high + two.low) / 2, bases[1] = (two.high - two.low) / 2;
    } else {
      (void)best_refined(y, used, residual);
    }
    // Sums of all bases stay floats, also when bases are rounded to halves.
    double sum = 0;
    for (const double base : used) sum += base;
    const double scale = sum > kMaxSum ? kMaxSum / sum : 1;
    std::ranges::transform(used, numbers.begin(), [&](double base) { return static_cast<float>(base * scale); });
    return bases;
  }

  std::size_t bases_;
  Mode mode_;
};

template <std::size_t kLevels>
void complete_levels(QuantizerOptions& options, bool levels_given) {
  if (levels_given && options.levels != kLevels)
    fail(Errc::usage, "the method has " + std::to_string(kLevels) + " levels, not " + std::to_string(options.levels));
  options.levels = kLevels;
}

void complete_binary_k(const BinaryOptions& options, std::size_t levels, bool) {
  if (!std::has_single_bit(levels) || levels < 2 || levels > 256)
    fail(Errc::usage, "binary-k has 2^k levels with k = 1 to 8, not " + std::to_string(levels));
  if (levels > 4 && options.mode == Mode::exact)
    fail(Errc::usage, "mode exact is for 1 or 2 bits, not " + std::to_string(bases_of(levels)));
}

std::unique_ptr<Quantizer> make_binary_1(std::size_t, const Binary1Options& options) {
  return std::make_unique<BinaryQuantizer>(1, Mode::exact, options.scale);
}

std::unique_ptr<Quantizer> make_binary_k(std::size_t levels, const BinaryOptions& options) {
  return std::make_unique<BinaryQuantizer>(bases_of(levels), options.mode);
}

}  // namespace

extern const QuantizerEntry kBinary1;
const QuantizerEntry kBinary1{.id = 8,  // written to files: never reused, never renumbered
                              .name = "binary-1",
                              .summary = "signs times the mean magnitude: the exact least-squares 1-bit code",
                              .source = kSource,
                              .make = make_with<kBinary1Options, make_binary_1>,
                              .options = kBinary1Options,
                              .complete = complete_levels<2>};

extern const QuantizerEntry kBinary2;
const QuantizerEntry kBinary2{.id = 10,  // written to files: never reused, never renumbered
                              .name = "binary-2",
                              .summary = "two scaled signs, exact least squares: two means of the magnitudes",
                              .source = kSource,
                              .make = [](const QuantizerOptions&) -> std::unique_ptr<Quantizer> {
                                return std::make_unique<BinaryQuantizer>(2, Mode::exact);
                              },
                              .complete = complete_levels<4>};

extern const QuantizerEntry kBinaryK;
const QuantizerEntry kBinaryK{
    .id = 11,  // written to files: never reused, never renumbered
    .name = "binary-k",
    .summary = "k scaled signs (2^k levels), greedy as published, refined by alternation, or exact for k <= 2",
    .source = kSource,
    .make = make_with<kBinaryOptions, make_binary_k>,
    .options = kBinaryOptions,
    .complete = change_with<kBinaryOptions, complete_binary_k>};

}  // namespace lmq
