#include <memory>

#include "partition/partition_quantizer.hpp"

namespace lmq {
namespace {

constexpr std::string_view kZeroWords[] = {"auto", "off", "on"};
constexpr MethodOption kOptions[] = {
    {.name = "zero", .help = "a level of exactly 0 for zeros (auto: where they stand out)", .words = kZeroWords}};

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
      return std::make_unique<PartitionQuantizer>(options.levels, static_cast<ZeroRule>(option(options, kOptions, 0)));
    },
    .options = kOptions,
    .all = every_partition_with_zero};

}  // namespace lmq
