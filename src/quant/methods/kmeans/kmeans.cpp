#include <memory>

#include "free_levels.hpp"
#include "lmq/base/error.hpp"

namespace lmq {
namespace {

enum class Curvature : std::uint8_t { diagonal, full };
struct KmeansOptions {
  ZeroRule zero = ZeroRule::automatic;
  std::optional<Curvature> curvature = {};  // diagonal; not said, recipes are as they were before there was another
};
constexpr std::string_view kZeroWords[] = {"auto", "off", "on"};
constexpr std::string_view kCurvatureWords[] = {"diagonal", "full"};
constexpr auto kOptions = option_table(
    word_option<&KmeansOptions::zero>("zero", "a level of exactly 0 for zeros (auto: where they stand out)",
                                      kZeroWords),
    word_option<&KmeansOptions::curvature>(
        "curvature", "what errors weigh: diagonal (each for itself), full (by the Gram matrix; rows and groups)",
        kCurvatureWords));

void complete(const KmeansOptions& options, std::size_t, bool) {
  if (options.curvature == Curvature::full && options.zero == ZeroRule::on)
    fail(Errc::usage, "\"zero\": levels are free with curvature \"full\", so none stays at 0");
}

std::unique_ptr<Quantizer> make(std::size_t levels, const KmeansOptions& options) {
  if (options.curvature == Curvature::full) return std::make_unique<FreeLevelQuantizer>(levels);
  return std::make_unique<PartitionQuantizer>(levels, options.zero);
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
    .make = make_with<kOptions, make>,
    .options = kOptions,
    .complete = change_with<kOptions, complete>,
    .all = every_partition_with_zero};

}  // namespace lmq
