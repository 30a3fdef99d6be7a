#include <array>
#include <cmath>
#include <limits>

#include "learned_quantizer.hpp"
#include "lmq/base/error.hpp"

namespace lmq {
namespace {
constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
constexpr std::string_view kBackwardWords[] = {"cpq", "mean", "lsq", "free-logits"};
constexpr std::string_view kSchemeWords[] = {"ends", "bits"};
enum Place : std::size_t { kZero, kEffort, kBackward, kSteps, kNoise, kLastNoise, kDrop, kScheme, kDescent, kSeed };
constexpr std::array kOptions{
    kZeroPointOption,
    kEffortOption,
    MethodOption{.name = "backward",
                 .help = "gradient: cpq (of the nearest class alone, as published), mean (of the mean over classes), "
                         "lsq (1 inside the range), free-logits (logits of their own, annealed)",
                 .words = kBackwardWords},
    MethodOption{.name = "steps",
                 .help = "steps of Adam (default: 30, 100 or 400 by effort)",
                 .high = 100000,
                 .fallback = kNone,
                 .whole = true},
    MethodOption{
        .name = "noise", .help = "scale of the noise in grid steps", .low = 0.01, .high = 10, .fallback = 1.0 / 3},
    MethodOption{.name = "last-noise",
                 .help = "the same at the last step, geometric between (default: as at the first)",
                 .low = 0.01,
                 .high = 10,
                 .fallback = kNone},
    MethodOption{.name = "drop", .help = "DropBits: probability that a gate is closed in a step", .high = 0.9},
    MethodOption{.name = "drop-by",
                 .help = "what a gate of DropBits closes: the outer end points pair by pair, or bit by bit",
                 .words = kSchemeWords},
    MethodOption{.name = "descent",
                 .help = "rounds of descent on the codes in the end (--importance with a Gram matrix)",
                 .high = 20,
                 .whole = true},
    MethodOption{.name = "seed", .help = "of random draws (default 0)", .high = 9007199254740991.0, .whole = true}};

GridSearch search_of(const QuantizerOptions& options) {
  const auto value = [&](Place place) { return option(options, kOptions, place); };
  constexpr std::array<std::size_t, 3> kStepsByEffort{30, 100, 400};
  GridSearch search;
  search.trains = true;
  Training& training = search.training;
  training.backward = static_cast<Backward>(value(kBackward));
  training.steps = std::isnan(value(kSteps)) ? kStepsByEffort[static_cast<std::size_t>(value(kEffort))]
                                             : static_cast<std::size_t>(value(kSteps));
  training.noise = value(kNoise);
  training.last_noise = std::isnan(value(kLastNoise)) ? training.noise : value(kLastNoise);
  training.drop = value(kDrop);
  training.scheme = static_cast<MaskScheme>(value(kScheme));
  training.seed = static_cast<std::uint64_t>(value(kSeed));
  search.descents = static_cast<std::size_t>(value(kDescent));
  return search;
}

void settle(QuantizerOptions& options, bool) {
  const auto value = [&](Place place) { return option(options, kOptions, place); };
  if (value(kDrop) > 0 && value(kBackward) != static_cast<double>(Backward::cpq) &&
      value(kBackward) != static_cast<double>(Backward::lsq))
    fail(Errc::usage, "drop: bits are dropped with backward \"cpq\" or \"lsq\"");
}
}  // namespace

extern const QuantizerEntry kCpq;
const QuantizerEntry kCpq{
    .id = 19,  // written to files: never reused, never renumbered
    .name = "cpq",
    .summary = "uniform grids learned with cluster-promoting quantization, with DropBits if wanted",
    .source =
        "Lee, Yun, Hwang & Yang 2021, Cluster-Promoting Quantization with Bit-Drop for Minimizing Network "
        "Quantization Loss (arXiv 2109.02100); Louizos et al. 2019, Relaxed Quantization",
    .make = [](const QuantizerOptions& options) -> std::unique_ptr<Quantizer> {
      const GridSearch search = search_of(options);
      constexpr std::array kEach{115.0, 600.0, 32.0, 310.0};  // nanoseconds a weight and step, by backward
      const Training& training = search.training;
      const double each = training.drop > 0 ? 560 : kEach[static_cast<std::size_t>(training.backward)];
      const double cost = search_cost(options.levels) + each * static_cast<double>(training.steps);
      return std::make_unique<LearnedQuantizer>(
          options.levels, static_cast<ZeroPoint>(option(options, kOptions, kZero)), search,
          MethodCost{.row_weight = cost, .solve_bin = cost, .solve_level = 65536 * cost / 16});
    },
    .options = kOptions,
    .settle = settle};

}  // namespace lmq
