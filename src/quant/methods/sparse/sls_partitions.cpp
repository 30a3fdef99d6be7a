// The methods that cut the sorted values where that is best, or where Lloyd stops: sls-l0 and sls-cluster.
#include <fmt/format.h>

#include "core/every_fit.hpp"
#include "lmq/base/error.hpp"
#include "partition/partition_quantizer.hpp"
#include "sls_options.hpp"
#include "sls_quantizer.hpp"

namespace lmq {

std::string lambda_text(std::optional<double> lambda, std::optional<double> relative) {
  return lambda ? fmt::format("lambda {:.6g}", *lambda) : fmt::format("lambda-relative {:.6g}", relative.value_or(0));
}

namespace {

constexpr std::string_view kSource =
    "Wang, Yang, Fei, Zhou, Gong, Du & Luo 2019, Scalar Quantization as Sparse Least Square Optimization";

// ---- l0 ----

struct L0Options {
  std::optional<double> lambda = {}, lambda_relative = {};
  Counting counting = Counting::weights;
  ZeroLevel zero = ZeroLevel::off;
};
constexpr std::string_view kZeroWords[] = {"off", "first", "exact"};
constexpr auto kL0Options = option_table(
    kLambda<L0Options>, kLambdaRelative<L0Options>, kCounting<L0Options>,
    word_option<&L0Options::zero>(
        "zero", "a level at exactly 0: off, first (where alpha_1 = 0 pays, as published), exact (always)", kZeroWords));

// The problem is that of kmeans: no price, no level at 0, all weights count.
bool is_plain(const L0Options& options) {
  return !options.lambda && !options.lambda_relative && options.counting == Counting::weights &&
         options.zero == ZeroLevel::off;
}

class SparseL0Quantizer final : public SparseQuantizer {
 public:
  SparseL0Quantizer(std::size_t levels, const L0Options& options)
      : SparseQuantizer(levels, options.counting, Assign::nearest,
                        is_plain(options) ? Traits().few_weights : kFewWeights),
        options_(options) {
    if (is_plain(options)) exact_ = std::make_unique<PartitionQuantizer>(levels, ZeroRule::automatic);
  }
  // The constrained problem is the exact partition: what finds it, and proves it on bins, is there already.
  [[nodiscard]] Fit fit(const Group& group) const override {
    return exact_ ? exact_->fit(group) : SparseQuantizer::fit(group);
  }
  [[nodiscard]] Codebook fit_values(std::span<const float> values, std::span<const float> importance,
                                    Workspace& scratch) const override {
    return exact_ ? exact_->fit_values(values, importance, scratch)
                  : SparseQuantizer::fit_values(values, importance, scratch);
  }

 private:
  void find_cells(SparseScratch& s) const override {
    const auto& [price, relative, counting, zero] = options_;
    const SparseData data = s.stage(counting);
    if (!price && !relative) {
      s.ends = s.l0.solve(data, levels(), zero);
    } else {
      const double single = loss_of_one(s.l0, data);
      const double lambda = price ? *price : *relative * single;
      s.ends = s.l0.solve_penalised(data, lambda, zero);
      if (const std::size_t found = s.ends.size() - 1; found > levels()) {
        double enough = std::max(lambda, single * 0x1p-60);
        while (s.l0.solve_penalised(data, enough, zero).size() - 1 > levels()) enough *= 1.25;
        too_many(lambda_text(price, relative), found, enough * (1 + 1e-5), enough / single);
      }
    }
    s.zero_cell = s.l0.zero_cell();
  }

  // From this price on, one level (or only the one at 0) is left.
  static double loss_of_one(SparseL0& solver, SparseData data) {
    (void)solver.solve(data, 1, ZeroLevel::exact);
    return solver.loss(data);
  }

  L0Options options_;
  std::unique_ptr<Quantizer> exact_;
};

// ---- clustering ----

struct ClusterOptions {
  Counting counting = Counting::weights;
  std::uint64_t seed = 0;
  std::size_t rounds = 1000, restarts = 1;
};
constexpr auto kClusterOptions = option_table(
    kCounting<ClusterOptions>, whole_option<&ClusterOptions::seed>("seed", "of random draws"),
    whole_option<&ClusterOptions::rounds>("rounds", "of assignment and means at most", 1, 1'000'000),
    whole_option<&ClusterOptions::restarts>("restarts", "starts from other seeds, of which the best counts", 1, 1000));

class SparseClusterQuantizer final : public SparseQuantizer {
 public:
  SparseClusterQuantizer(std::size_t levels, const ClusterOptions& options)
      : SparseQuantizer(levels, options.counting, Assign::nearest), options_(options) {}

 private:
  void find_cells(SparseScratch& s) const override {
    s.ends = s.lloyd.solve(s.stage(options_.counting), levels(), options_.seed, options_.rounds, options_.restarts);
    s.zero_cell = -1;
  }
  ClusterOptions options_;
};

}  // namespace

extern const QuantizerEntry kSlsL0;
const QuantizerEntry kSlsL0{.id = 5,  // written to files: never reused, never renumbered
                            .name = "sls-l0",
                            .summary = "l0 sparse least squares: the exact optimum, with or without a level at 0",
                            .source = kSource,
                            .make = make_with<kL0Options, make_sparse<SparseL0Quantizer, L0Options>>,
                            .options = kL0Options,
                            .complete = change_with<kL0Options, complete_lambda<L0Options>>,
                            .all = every_partition};
extern const QuantizerEntry kSlsCluster;
const QuantizerEntry kSlsCluster{
    .id = 7,
    .name = "sls-cluster",
    .summary = "clustering least squares as published: seeded Lloyd, a local optimum",
    .source = kSource,
    .make = make_with<kClusterOptions, make_sparse<SparseClusterQuantizer, ClusterOptions>>,
    .options = kClusterOptions,
    .all = every_fit<kSlsCluster>};

}  // namespace lmq
