#include <limits>
#include <memory>

#include "free_levels.hpp"
#include "lmq/base/error.hpp"

namespace lmq {
namespace {

constexpr std::string_view kZeroWords[] = {"auto", "off", "on"};
constexpr std::string_view kCurvatureWords[] = {"diagonal", "full"};
enum Place : std::size_t { kZero, kCurvature };
constexpr MethodOption kOptions[] = {
    {.name = "zero", .help = "a level of exactly 0 for zeros (auto: where they stand out)", .words = kZeroWords},
    {.name = "curvature",
     .help = "what errors weigh: diagonal (each for itself), full (by the Gram matrix; rows and groups)",
     .fallback = std::numeric_limits<double>::quiet_NaN(),  // diagonal; not said, recipes are as they were before
     .words = kCurvatureWords}};

bool full(const QuantizerOptions& options) { return option(options, kOptions, kCurvature) == 1; }

void settle(QuantizerOptions& options, bool) {
  if (full(options) && option(options, kOptions, kZero) == 2)
    fail(Errc::usage, "\"zero\": levels are free with curvature \"full\", so none stays at 0");
}

}  // namespace

extern const QuantizerEntry kKmeans;
const QuantizerEntry kKmeans{
    .id = 2,  // written to files: never reused, never renumbered
    .name = "kmeans",
    .summary = "least squared error, weighted by importance: the exact optimum",
    .source =
        "Choi, El-Khamy & Lee 2017, Towards the Limit of Network Quantization, section 3 (Hessian-weighted k-means); "
        "Bruce 1964 (exact, by dynamic programming)",
    .make = [](const QuantizerOptions& options) -> std::unique_ptr<Quantizer> {
      if (full(options)) return std::make_unique<FreeLevelQuantizer>(options.levels);
      return std::make_unique<PartitionQuantizer>(options.levels,
                                                  static_cast<ZeroRule>(option(options, kOptions, kZero)));
    },
    .options = kOptions,
    .settle = settle,
    .all = every_partition_with_zero};

}  // namespace lmq
