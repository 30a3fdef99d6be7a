// The methods that cut the sorted values where that is best, or where Lloyd stops: sls-l0 and sls-cluster.
#include <fmt/format.h>

#include <limits>

#include "core/every_fit.hpp"
#include "lmq/base/error.hpp"
#include "partition/partition_quantizer.hpp"
#include "sls_options.hpp"
#include "sls_quantizer.hpp"

namespace lmq {

void settle_lambda(QuantizerOptions& options, bool levels_given) {
  const bool given = options.values.size() > 1 && !std::isnan(options.values[0]);
  const bool relative = options.values.size() > 1 && !std::isnan(options.values[1]);
  if (given && relative) fail(Errc::usage, "lambda and lambda-relative say the same thing: give one of them");
  if ((given || relative) && !levels_given) options.levels = 256;
}

std::string lambda_text(double lambda, double relative) {
  return std::isnan(lambda) ? fmt::format("lambda-relative {:.6g}", relative) : fmt::format("lambda {:.6g}", lambda);
}

namespace {

constexpr std::string_view kSource =
    "Wang, Yang, Fei, Zhou, Gong, Du & Luo 2019, Scalar Quantization as Sparse Least Square Optimization";

// ---- l0 ----

constexpr std::string_view kZeroWords[] = {"off", "first", "exact"};
constexpr MethodOption kL0Options[] = {
    kLambda,
    kLambdaRelative,
    kCounting,
    {.name = "zero",
     .help = "a level at exactly 0: off, first (where alpha_1 = 0 pays, as published), exact (always) (default off)",
     .words = kZeroWords}};

// The problem is that of kmeans: no price, no level at 0, all weights count.
bool is_plain(const QuantizerOptions& options) {
  return std::isnan(option(options, kL0Options, 0)) && std::isnan(option(options, kL0Options, 1)) &&
         option(options, kL0Options, 2) == 0 && option(options, kL0Options, 3) == 0;
}

class SparseL0Quantizer final : public SparseQuantizer {
 public:
  explicit SparseL0Quantizer(const QuantizerOptions& options)
      : SparseQuantizer(options.levels, option(options, kL0Options, 2) != 0, false,
                        is_plain(options) ? Traits().few_weights : kFewWeights),
        lambda_(option(options, kL0Options, 0)),
        relative_(option(options, kL0Options, 1)),
        zero_(static_cast<ZeroLevel>(static_cast<int>(option(options, kL0Options, 3)))) {
    if (is_plain(options)) exact_ = std::make_unique<PartitionQuantizer>(options.levels, ZeroRule::automatic);
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
    const SparseData data = s.stage(ones_count());
    if (std::isnan(lambda_) && std::isnan(relative_)) {
      s.ends = s.l0.solve(data, levels(), zero_);
    } else {
      const double single = loss_of_one(s.l0, data);
      const double lambda = std::isnan(lambda_) ? relative_ * single : lambda_;
      s.ends = s.l0.solve_penalised(data, lambda, zero_);
      if (const std::size_t found = s.ends.size() - 1; found > levels()) {
        double enough = std::max(lambda, single * 0x1p-60);
        while (s.l0.solve_penalised(data, enough, zero_).size() - 1 > levels()) enough *= 1.25;
        too_many(lambda_text(lambda_, relative_), found, enough * (1 + 1e-5), enough / single);
      }
    }
    s.zero_cell = s.l0.zero_cell();
  }

  // From this price on, one level (or only the one at 0) is left.
  static double loss_of_one(SparseL0& solver, SparseData data) {
    (void)solver.solve(data, 1, ZeroLevel::exact);
    return solver.loss(data);
  }

  double lambda_, relative_;
  ZeroLevel zero_;
  std::unique_ptr<Quantizer> exact_;
};

// ---- clustering ----

constexpr MethodOption kClusterOptions[] = {
    kCounting,
    {.name = "seed", .help = "of random draws (default 0)", .low = 0, .high = 9007199254740991.0, .whole = true},
    {.name = "rounds",
     .help = "of assignment and means at most (default 1000)",
     .low = 1,
     .high = 1e6,
     .fallback = 1000,
     .whole = true},
    {.name = "restarts",
     .help = "starts from other seeds, of which the best counts (default 1)",
     .low = 1,
     .high = 1000,
     .fallback = 1,
     .whole = true}};

class SparseClusterQuantizer final : public SparseQuantizer {
 public:
  explicit SparseClusterQuantizer(const QuantizerOptions& options)
      : SparseQuantizer(options.levels, option(options, kClusterOptions, 0) != 0, false),
        seed_(static_cast<std::uint64_t>(option(options, kClusterOptions, 1))),
        rounds_(static_cast<std::size_t>(option(options, kClusterOptions, 2))),
        restarts_(static_cast<std::size_t>(option(options, kClusterOptions, 3))) {}

 private:
  void find_cells(SparseScratch& s) const override {
    s.ends = s.lloyd.solve(s.stage(ones_count()), levels(), seed_, rounds_, restarts_);
    s.zero_cell = -1;
  }
  std::uint64_t seed_;
  std::size_t rounds_, restarts_;
};

}  // namespace

extern const QuantizerEntry kSlsL0;
const QuantizerEntry kSlsL0{.id = 5,  // written to files: never reused, never renumbered
                            .name = "sls-l0",
                            .summary = "l0 sparse least squares: the exact optimum, with or without a level at 0",
                            .source = kSource,
                            .make = [](const QuantizerOptions& options) -> std::unique_ptr<Quantizer> {
                              return std::make_unique<SparseL0Quantizer>(options);
                            },
                            .options = kL0Options,
                            .settle = settle_lambda,
                            .all = every_partition};
extern const QuantizerEntry kSlsCluster;
const QuantizerEntry kSlsCluster{.id = 7,
                                 .name = "sls-cluster",
                                 .summary = "clustering least squares as published: seeded Lloyd, a local optimum",
                                 .source = kSource,
                                 .make = [](const QuantizerOptions& options) -> std::unique_ptr<Quantizer> {
                                   return std::make_unique<SparseClusterQuantizer>(options);
                                 },
                                 .options = kClusterOptions,
                                 .all = every_fit<kSlsCluster>};

}  // namespace lmq
