#include <array>

#include "learned_quantizer.hpp"

namespace lmq {
namespace {
constexpr std::array kOptions{kZeroPointOption, kEffortOption};

GridSearch search_of(Effort effort) {
  GridSearch search;
  if (effort == Effort::quick) search.factors = 4, search.descents = 1, search.again = 0;
  if (effort == Effort::thorough) search.factors = 16, search.descents = 6, search.again = 4;
  return search;
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
    .make = [](const QuantizerOptions& options) -> std::unique_ptr<Quantizer> {
      const auto zero = static_cast<ZeroPoint>(option(options, kOptions, 0));
      const auto effort = static_cast<Effort>(option(options, kOptions, 1));
      const double cost = search_cost(options.levels);
      return std::make_unique<LearnedQuantizer>(options.levels, zero, search_of(effort),
                                                MethodCost{.row_weight = cost, .solve_bin = cost, .solve_level = 1e7});
    },
    .options = kOptions};

}  // namespace lmq
