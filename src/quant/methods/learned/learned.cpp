#include "learned_quantizer.hpp"

namespace lmq {
namespace {
struct LearnedOptions {
  ZeroPoint zero_point = ZeroPoint::automatic;
  Effort effort = Effort::normal;
};
constexpr auto kOptions = option_table(kZeroPointOption<LearnedOptions>, kEffortOption<LearnedOptions>);

GridSearch search_of(Effort effort) {
  GridSearch search;
  if (effort == Effort::quick) search.factors = 4, search.descents = 1, search.again = 0;
  if (effort == Effort::thorough) search.factors = 16, search.descents = 6, search.again = 4;
  return search;
}

std::unique_ptr<Quantizer> make(std::size_t levels, const LearnedOptions& options) {
  const double cost = search_cost(levels);
  return std::make_unique<LearnedQuantizer>(levels, options.zero_point, search_of(options.effort),
                                            MethodCost{.row_weight = cost, .solve_bin = cost, .solve_level = 1e7});
}
}  // namespace

extern const QuantizerEntry kLearned;
const QuantizerEntry kLearned{
    .id = 20,  // written to files: never reused, never renumbered
    .name = "learned",
    .summary =
        "uniform grids of least layer loss: steps tried by passing errors on, descent on the codes, closed-form steps",
    .source =
        "docs/methods/learned-grids.md; Frantar et al. 2023, GPTQ (errors passed on); Esser et al. 2020, Learned "
        "Step Size Quantization (the objective)",
    .make = make_with<kOptions, make>,
    .options = kOptions};

}  // namespace lmq
