#include "learned_quantizer.hpp"

namespace lmq {
namespace {
struct GptqOptions {
  ZeroPoint zero_point = ZeroPoint::automatic;
  ColumnOrder order = ColumnOrder::curvature;
  double damping_inputs = 0.01;
};
constexpr std::string_view kOrderWords[] = {"curvature", "natural"};
constexpr auto kOptions = option_table(
    kZeroPointOption<GptqOptions>,
    word_option<&GptqOptions::order>(
        "order", "which inputs' weights are rounded first: those of largest curvature, or as they come", kOrderWords),
    number_option<&GptqOptions::damping_inputs>("damping-inputs",
                                                "part of its mean added to the curvature of the inputs", 0, 100));

std::unique_ptr<Quantizer> make(std::size_t levels, const GptqOptions& options) {
  GridSearch search;
  search.single_pass = true;
  search.use = {.damping = options.damping_inputs, .order = options.order};
  const double cost = search_cost(levels);
  return std::make_unique<LearnedQuantizer>(levels, options.zero_point, search,
                                            MethodCost{.row_weight = cost, .solve_bin = cost, .solve_level = 1e7});
}
}  // namespace

extern const QuantizerEntry kGptq;
const QuantizerEntry kGptq{
    .id = 21,  // written to files: never reused, never renumbered
    .name = "gptq",
    .summary = "uniform grids of rows or groups, rounding errors passed on once to the weights still to come",
    .source = "Frantar, Ashkboos, Hoefler & Alistarh 2023, GPTQ; docs/methods/learned-grids.md",
    .make = make_with<kOptions, make>,
    .options = kOptions};

}  // namespace lmq
