#include <array>

#include "learned_quantizer.hpp"

namespace lmq {
namespace {
constexpr std::string_view kOrderWords[] = {"curvature", "natural"};
enum Place : std::size_t { kZero, kOrder, kDamping };
constexpr std::array kOptions{
    kZeroPointOption,
    MethodOption{.name = "order",
                 .help = "which inputs' weights are rounded first: those of largest curvature, or as they come",
                 .words = kOrderWords},
    MethodOption{"damping-inputs", "part of its mean added to the curvature of the inputs", 0, 100, 0.01}};

GridSearch search_of(const QuantizerOptions& options) {
  GridSearch search;
  search.single_pass = true;
  search.use = {.damping = option(options, kOptions, kDamping),
                .order = static_cast<ColumnOrder>(option(options, kOptions, kOrder))};
  return search;
}
}  // namespace

extern const QuantizerEntry kGptq;
const QuantizerEntry kGptq{
    .id = 21,  // written to files: never reused, never renumbered
    .name = "gptq",
    .summary = "uniform grids of rows or groups, rounding errors passed on once to the weights still to come",
    .source = "Frantar, Ashkboos, Hoefler & Alistarh 2023, GPTQ; docs/methods/learned-grids.md",
    .make = [](const QuantizerOptions& options) -> std::unique_ptr<Quantizer> {
      const auto zero = static_cast<ZeroPoint>(option(options, kOptions, kZero));
      const double cost = search_cost(options.levels);
      return std::make_unique<LearnedQuantizer>(options.levels, zero, search_of(options),
                                                MethodCost{.row_weight = cost, .solve_bin = cost, .solve_level = 1e7});
    },
    .options = kOptions};

}  // namespace lmq
