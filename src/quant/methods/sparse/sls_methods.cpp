// The methods that find their cells along sums of |alpha|: sls-l1, sls-l1l2 and sls-iter.
#include <fmt/format.h>

#include <cmath>

#include "core/every_fit.hpp"
#include "lmq/base/error.hpp"
#include "partition/cell_means.hpp"
#include "sls_options.hpp"
#include "sls_quantizer.hpp"

namespace lmq {
namespace {

constexpr std::string_view kSource =
    "Wang, Yang, Fei, Zhou, Gong, Du & Luo 2019, Scalar Quantization as Sparse Least Square Optimization";

// A little more than `lambda`, so that printed digits and rounding still do.
double beyond(double lambda) { return lambda * (1 + 1e-5); }

// ---- l1 ----

struct L1Options {
  std::optional<double> lambda = {}, lambda_relative = {};
  Counting counting = Counting::weights;
  Assign assign = Assign::nearest;
  SparseOffset offset = SparseOffset::free;
};
constexpr std::string_view kOffsets[] = {"free", "penalised"};
constexpr auto kL1Options =
    option_table(kLambda<L1Options>, kLambdaRelative<L1Options>, kCounting<L1Options>, kAssign<L1Options>,
                 word_option<&L1Options::offset>(
                     "offset", "is the first level penalised too, as the paper's letters have it, or free", kOffsets));

class SparseL1Quantizer final : public SparseQuantizer {
 public:
  SparseL1Quantizer(std::size_t levels, const L1Options& options)
      : SparseQuantizer(levels, options.counting, options.assign),
        lambda_(options.lambda),
        relative_(options.lambda_relative),
        offset_(options.offset) {}

 private:
  void find_cells(SparseScratch& s) const override {
    const SparseData data = s.stage(counting());
    if (!lambda_ && !relative_) {
      if (offset_ == SparseOffset::free)
        cell_ends(s.l1.path(data, levels()), levels(), s.u.size(), s.ends);
      else
        take(s, s.l1.solve(data, least_lambda(s.l1, data), offset_));
      return;
    }
    const double most = SparseL1::lambda_max(data);
    const double lambda = lambda_ ? *lambda_ : *relative_ * most;
    take(s, s.l1.solve(data, lambda, offset_));
    if (const std::size_t found = s.ends.size() - 1; found > levels()) {
      const double enough =
          offset_ == SparseOffset::free ? s.l1.path(data, levels() + 1)[levels() - 1].lambda : least_lambda(s.l1, data);
      too_many(lambda_text(lambda_, relative_), found, beyond(enough), beyond(enough) / most);
    }
  }

  void take(SparseScratch& s, std::span<const PooledBlock> blocks) const {
    cell_ends(blocks, s.ends);
    s.zero_cell = offset_ == SparseOffset::penalised && blocks[0].value == 0 ? 0 : -1;
  }

  // The least lambda that leaves few enough levels with the offset penalised, by bisection to the last bit or so.
  double least_lambda(SparseL1& l1, SparseData data) const {
    const auto few = [&](double lambda) { return l1.solve(data, lambda, offset_).size() <= levels(); };
    if (few(0)) return 0;
    double high = SparseL1::lambda_max(data);
    for (; !few(high); high *= 2) {
    }
    double low = high * 0x1p-80;
    while (high - low > 0x1p-46 * high) {
      const double middle = std::sqrt(low * high);
      if (!(middle > low && middle < high)) break;
      (few(middle) ? high : low) = middle;
    }
    return high;
  }

  std::optional<double> lambda_, relative_;
  SparseOffset offset_;
};

// ---- l1 + l2 ----

constexpr std::string_view kPenalties[] = {"alpha", "jump"};
constexpr double kSecondPart = 1e-3;  // of lambda_max, when nothing is said
struct L1L2Options {
  std::optional<double> lambda = {}, lambda_relative = {};
  Counting counting = Counting::weights;
  Assign assign = Assign::nearest;
  std::optional<double> lambda2 = {}, lambda2_relative = {};
  SecondPenalty penalty = SecondPenalty::alpha;
};
constexpr auto kL1L2Options = option_table(
    kLambda<L1L2Options>, kLambdaRelative<L1L2Options>, kCounting<L1L2Options>, kAssign<L1L2Options>,
    number_option<&L1L2Options::lambda2>(
        "lambda2",
        "weight of the squares: more than 0 keeps more levels, less than 0 works against shrinking (lambda2-relative "
        "0.001 where nothing is said)",
        -1e300, 1e300),
    number_option<&L1L2Options::lambda2_relative>(
        "lambda2-relative",
        "the same as a part of the lambda that leaves one level; below 0 as a part of the largest that is convex", -1,
        1e6),
    word_option<&L1L2Options::penalty>(
        "penalty", "what is squared: alpha (the jump in units of the gap), or the jump itself", kPenalties));

class SparseL1L2Quantizer final : public SparseQuantizer {
 public:
  SparseL1L2Quantizer(std::size_t levels, const L1L2Options& options)
      : SparseQuantizer(levels, options.counting, options.assign), options_(options) {
    if (!options.lambda2 && !options.lambda2_relative) options_.lambda2_relative = kSecondPart;
  }

 private:
  void find_cells(SparseScratch& s) const override {
    const auto& [lambda, relative, counting, assign, second_said, second_relative, penalty] = options_;
    const SparseData data = s.stage(counting);
    s.l1l2.set_penalty(penalty);
    s.zero_cell = -1;
    const double most = SparseL1::lambda_max(data), second = second_penalty(s.l1l2, data, most);
    if (!lambda && !relative) {
      (void)s.l1l2.lambda_for(data, second, levels());
      s.ends = s.l1l2.ends();
      return;
    }
    s.ends = s.l1l2.solve(data, lambda ? *lambda : *relative * most, second);
    if (const std::size_t found = s.ends.size() - 1; found > levels()) {
      const double enough = beyond(s.l1l2.lambda_for(data, second, levels()));
      too_many(lambda_text(lambda, relative), found, enough, enough / most);
    }
  }

  double second_penalty(const SparseL1L2& solver, SparseData data, double most) const {
    if (options_.lambda2.value_or(-1) >= 0) return *options_.lambda2;
    if (!options_.lambda2 && *options_.lambda2_relative >= 0) return *options_.lambda2_relative * most;
    const double limit = solver.convex_limit(data);
    if (data.u.size() < 2) return 0;
    // At the very limit the quadratic form is singular.
    if (!options_.lambda2) return *options_.lambda2_relative * limit * (1 - 1e-6);
    if (-*options_.lambda2 < limit) return *options_.lambda2;
    fail(Errc::usage,
         fmt::format("lambda2 {:.6g}: the problem is not convex for these values and need not have a minimum; lambda2 "
                     "must be above {:.6g} here (their least gap is small: penalty \"jump\" does not depend on gaps, "
                     "lambda2-relative from -1 to 0 always fits)",
                     *options_.lambda2, -limit));
  }

  L1L2Options options_;
};

void complete_second(const L1L2Options& options, std::size_t& levels, bool levels_given) {
  complete_lambda(options, levels, levels_given);
  if (options.lambda2 && options.lambda2_relative)
    fail(Errc::usage, "lambda2 and lambda2-relative say the same thing: give one of them");
}

// ---- the path ----

struct PathOptions {
  Counting counting = Counting::weights;
  Assign assign = Assign::nearest;
  std::optional<double> max_error = {};
};
constexpr auto kPathOptions = option_table(
    kCounting<PathOptions>, kAssign<PathOptions>,
    number_option<&PathOptions::max_error>(
        "max-error",
        "as few levels as keep the squared error below this part of the weights' squares (importance counts)", 0, 1)
        .spending());

class SparsePathQuantizer final : public SparseQuantizer {
 public:
  SparsePathQuantizer(std::size_t levels, const PathOptions& options)
      : SparseQuantizer(levels, options.counting, options.assign), max_error_(options.max_error) {}

 private:
  void find_cells(SparseScratch& s) const override {
    const auto path = s.l1.path(s.stage(counting()), levels());
    s.zero_cell = -1;
    std::size_t wanted = levels();
    if (max_error_) {
      const std::vector<double> errors = path_errors(s, path);
      double energy = 0;
      for (std::size_t k = 0; k < s.u.size(); ++k) energy += s.mass[k] * (s.u[k] * s.u[k]);
      for (const double scatter : s.scatter) energy += scatter;
      const auto enough = std::ranges::find_if(errors, [&](double e) { return e <= *max_error_ * energy; });
      if (enough == errors.end())
        fail(Errc::usage, fmt::format("max-error {:.6g}: {} levels leave {:.6g} of the squares", *max_error_, levels(),
                                      errors.back() / energy));
      wanted = static_cast<std::size_t>(enough - errors.begin()) + 1;
    }
    cell_ends(path, wanted, s.u.size(), s.ends);
  }

  std::optional<double> max_error_;
};

void complete_path(const PathOptions& options, std::size_t& levels, bool levels_given) {
  if (options.max_error && !levels_given) levels = 256;
}

// One path for all numbers of levels.
std::vector<Codebook> every_state(const Group& group, std::size_t most_levels) {
  SparseScratch s;
  load_points(group, s);
  const auto path = s.l1.path(s.data(), most_levels);
  std::vector<Codebook> books(1);
  for (std::size_t levels = 1; levels <= path.size() + 1; ++levels) {
    cell_ends(path, levels, s.u.size(), s.ends);
    cell_means(s.u, s.mass, s.ends, -1, s.levels);
    books.push_back(Codebook::table({s.levels.begin(), s.levels.end()}));
  }
  return books;
}

}  // namespace

std::vector<double> path_errors(const SparseScratch& s, std::span<const VanishingEdge> path) {
  double inside = 0;
  for (const double scatter : s.scatter) inside += scatter;
  CellEnds ends;
  const std::size_t most = path.size() + 1;
  cell_ends(path, most, s.u.size(), ends);
  struct Cell {
    double weight = 0, rise = 0;  // sum of a, of a (u - u_begin)
  };
  std::vector<Cell> cells(most);
  double loss = inside;
  for (std::size_t t = 0; t < most; ++t) {
    for (std::size_t k = ends[t]; k < ends[t + 1]; ++k)
      cells[t].weight += s.mass[k], cells[t].rise += s.mass[k] * (s.u[k] - s.u[ends[t]]);
    const double mean = cells[t].rise / cells[t].weight;
    for (std::size_t k = ends[t]; k < ends[t + 1]; ++k) {
      const double e = (s.u[k] - s.u[ends[t]]) - mean;
      loss += s.mass[k] * (e * e);
    }
  }
  std::vector<double> errors(most);
  errors[most - 1] = loss;
  for (std::size_t levels = most - 1; levels > 0; --levels) {  // the edge that vanishes next
    const auto at = static_cast<std::size_t>(std::ranges::lower_bound(ends, path[levels - 1].edge) - ends.begin());
    Cell &left = cells[at - 1], &right = cells[at];
    const double gap = s.u[ends[at]] - s.u[ends[at - 1]];
    const double apart = gap + right.rise / right.weight - left.rise / left.weight;
    loss += left.weight * right.weight / (left.weight + right.weight) * (apart * apart);
    left.rise += right.rise + right.weight * gap;
    left.weight += right.weight;
    cells.erase(cells.begin() + static_cast<std::ptrdiff_t>(at));
    ends.erase(ends.begin() + static_cast<std::ptrdiff_t>(at));
    errors[levels - 1] = loss;
  }
  return errors;
}

extern const QuantizerEntry kSlsL1;
const QuantizerEntry kSlsL1{.id = 3,  // written to files: never reused, never renumbered
                            .name = "sls-l1",
                            .summary = "l1 sparse least squares: exact pooling, then least squares levels",
                            .source = kSource,
                            .make = make_with<kL1Options, make_sparse<SparseL1Quantizer, L1Options>>,
                            .options = kL1Options,
                            .complete = change_with<kL1Options, complete_lambda<L1Options>>,
                            .all = every_state};
extern const QuantizerEntry kSlsL1L2;
const QuantizerEntry kSlsL1L2{.id = 4,
                              .name = "sls-l1l2",
                              .summary = "l1 and squared l2 of either sign: exact Newton steps, or convex-concave",
                              .source = kSource,
                              .make = make_with<kL1L2Options, make_sparse<SparseL1L2Quantizer, L1L2Options>>,
                              .options = kL1L2Options,
                              .complete = change_with<kL1L2Options, complete_second>,
                              .all = every_fit<kSlsL1L2>};
extern const QuantizerEntry kSlsIter;
const QuantizerEntry kSlsIter{.id = 6,
                              .name = "sls-iter",
                              .summary = "iterative l1: the exact path, by number of levels or by a bound on the error",
                              .source = kSource,
                              .make = make_with<kPathOptions, make_sparse<SparsePathQuantizer, PathOptions>>,
                              .options = kPathOptions,
                              .complete = change_with<kPathOptions, complete_path>,
                              .all = every_state};

}  // namespace lmq
