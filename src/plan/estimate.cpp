#include <algorithm>
#include <bit>

#include "lmq/base/math.hpp"
#include "lmq/plan/costs.hpp"
#include "lmq/plan/plan.hpp"
#include "lmq/quant/value_histogram.hpp"

namespace lmq {
namespace {

struct UnitBytes {
  std::uint64_t view = 0, importance = 0, work = 0, output = 0;
};

bool shared(const QuantSpec& spec) noexcept {
  return spec.granularity == Granularity::model || spec.granularity == Granularity::tensor;
}

/// A histogram on its way to the coordinator; the scratch of making it is in quantize_scratch_bytes.
std::uint64_t histogram_bytes(const TensorInfo& tensor, const TensorPlan& planned, std::uint64_t count) {
  if (planned.scope < 0 || !shared(planned.spec)) return 0;
  return std::min(count, expected_bins(tensor.value_type(), planned.spec, planned.importance.present())) *
         (kHistogramBinBytes + kMessageBinBytes);
}

/// What ImportanceWindow holds for a unit.
std::uint64_t importance_bytes(const ImportanceInfo& importance, std::uint64_t count) noexcept {
  if (!importance.present()) return 0;
  if (importance.kind == ImportanceKind::weights) return count * sizeof(float);
  const std::uint64_t rows = count / std::max<std::uint64_t>(1, importance.length) + 2;
  const std::uint64_t blocks = importance.block_rows == 0 ? 1 : rows / importance.block_rows + 2;
  return (blocks * importance.length + (importance.kind == ImportanceKind::columns ? 0 : rows)) * sizeof(float);
}

/// The matrices of ImportanceWindow.
std::uint64_t curvature_bytes(const LayerShape& shape) noexcept {
  const std::uint64_t outer =
      shape.outer_rows == 0 ? 0 : ceil_div(shape.rows, shape.outer_rows) * shape.outer_rows * shape.outer_rows;
  return ((shape.gram ? shape.cols * shape.cols : 0) + outer) * sizeof(float);
}

/// Scratch of a method that sees rows for a Gram matrix, which comes with the importance.
std::uint64_t by_gram(const TensorPlan& planned, std::uint64_t count, UnitBytes& out) {
  if (!planned.importance.gram) return 0;
  const LayerShape shape = layer_shape(planned, count);
  out.importance += curvature_bytes(shape);
  return layer_needs(planned.spec, shape).scratch_bytes;
}

bool by_rows(const QuantSpec& spec) noexcept {
  return spec.granularity == Granularity::row || spec.granularity == Granularity::group;
}

/// Bits a weight that a size leaves to those tensors it is spent on; 0 without a size.
double bits_to_spend(const std::vector<TensorInfo>& tensors, const Plan& plan) {
  std::uint64_t weights = 0;
  for (const TensorPlan& planned : plan.tensors)
    if (planned.spec.budgeted) weights += tensors[planned.tensor].count();
  return weights == 0 ? 0.0 : 8 * static_cast<double>(plan.target_bytes) / static_cast<double>(weights);
}

/// The spec with the levels that codebooks of rows and groups have at most: as many as a codebook has weights; where a
/// size is spent, a power of two whose codes and numbers take a bit more than there is for a weight (L levels
/// over the range of n normal weights have codes of about log2 L - 1 bits).
QuantSpec with_likely_levels(QuantSpec spec, std::uint64_t cols, double bits_a_weight) {
  // Codebooks found at a slope begin with all levels.
  if (!by_rows(spec) || find_quantizer(spec.method)->at_slope != nullptr) return spec;
  constexpr double kMore = 1, kLess = 1;
  const std::uint64_t weights = spec.granularity == Granularity::row ? cols : std::min(cols, spec.group);
  std::size_t& levels = spec.options.levels;
  levels = std::min<std::size_t>(levels, std::bit_ceil(std::max<std::uint64_t>(2, weights)));
  const double number_bits = spec.level_type == LevelType::f16 ? 16 : 32;
  const auto bits_of = [&](std::size_t with) {
    spec.options.levels = with;
    return static_cast<double>(std::bit_width(with - 1)) - kLess +
           number_bits * static_cast<double>(stored_numbers(spec, weights, weights)) / static_cast<double>(weights);
  };
  if (!spec.budgeted || weights == 0) return spec;
  std::size_t likely = levels;
  while (likely > 2 && bits_of(likely) > bits_a_weight + kMore) likely = std::bit_ceil(likely) / 2;
  levels = likely;
  return spec;
}

UnitBytes bytes_of(const TensorInfo& tensor, const TensorPlan& planned, std::uint64_t count, std::size_t threads,
                   double bits_a_weight) {
  const std::uint64_t in_file = ceil_div(count * bits(tensor.dtype), 8);
  if (planned.treatment != Treatment::quantize) return {.view = in_file, .importance = 0, .work = 0, .output = in_file};
  UnitBytes out;
  out.view = in_file + (tensor.scale >= 0 ? count * sizeof(float) : 0);
  out.importance = importance_bytes(planned.importance, count);
  if (planned.lane_rows > 0) {
    const LayerShape shape = layer_shape(planned, count);
    out.importance += curvature_bytes(shape);
    const std::uint64_t scratch = layer_needs(planned.spec, shape).scratch_bytes, coding = kTrellisRecordBytes * count;
    out.work = count * sizeof(std::int32_t) + scratch;
    // Coding a record takes the place of making it; what is made of matrices is kept for the units that follow.
    const bool kept = shape.gram || shape.outer_rows > 0;
    out.output = (kept ? coding : std::max(coding, scratch + count) - scratch) + (std::uint64_t{64} << 10);
    return out;
  }
  const QuantSpec spec = with_likely_levels(planned.spec, planned.cols, bits_a_weight);
  const std::uint64_t numbers = stored_numbers(spec, count, planned.cols);
  const auto scratch_of = [&](const QuantSpec& of, std::uint64_t weights) {
    return quantize_scratch_bytes(tensor.value_type(), of, weights, planned.cols, threads,
                                  planned.importance.present());
  };
  std::uint64_t scratch =
      scratch_of(spec, count) + histogram_bytes(tensor, planned, count) + by_gram(planned, count, out);
  // For what bits would buy all numbers of levels are tried on a part.
  if (by_rows(spec) && spec.budgeted)
    scratch = std::max(scratch, scratch_of(planned.spec, std::min(count, tried_weights(count))) + kTrialBytes);
  out.work = numbers * sizeof(float) + scratch;
  const auto code_bits = static_cast<std::uint64_t>(std::bit_width(spec.options.levels - 1));
  out.output = kRecordBytes * count + ceil_div(count * std::max<std::uint64_t>(1, code_bits), 8) +
               numbers * sizeof(float) + (std::uint64_t{64} << 10);
  return out;
}

/// Catalogue and plan, which every rank holds.
std::uint64_t plan_bytes(const std::vector<TensorInfo>& tensors, const Plan& plan) {
  std::uint64_t bytes = plan.units.size() * sizeof(WorkUnit) + plan.scopes.size() * sizeof(Scope);
  for (const TensorInfo& tensor : tensors)
    bytes +=
        sizeof(TensorInfo) + sizeof(TensorPlan) + tensor.name.size() + 2 * sizeof(std::uint64_t) * tensor.shape.size();
  return bytes;
}

/// Bytes of the numbers that the file lists of codebooks which serve whole tensors.
std::uint64_t listed_bytes(const Plan& plan) {
  std::uint64_t numbers = 0;
  const auto add = [&](const QuantSpec& spec) {
    numbers += std::min<std::uint64_t>(spec.options.levels, stored_numbers(spec, 1, 1));
  };
  for (const TensorPlan& tensor : plan.tensors)
    if (tensor.treatment == Treatment::quantize && tensor.scope < 0 && tensor.units == 1 && tensor.lane_rows == 0 &&
        shared(tensor.spec))
      add(tensor.spec);
  for (const Scope& scope : plan.scopes)
    if (!scope.layers && shared(scope.spec)) add(scope.spec);
  return numbers * sizeof(float);
}

std::uint64_t coordinator_bytes(const std::vector<TensorInfo>& tensors, const Plan& plan, std::size_t ranks) {
  std::uint64_t bins = 0;
  for (const Scope& scope : plan.scopes) {
    if (scope.layers || by_rows(scope.spec)) continue;  // spreads take 16 KiB a scope, what is tried on rows less
    for (const std::uint32_t index : scope.tensors)
      bins = std::max(bins,
                      expected_bins(tensors[index].value_type(), scope.spec, plan.tensors[index].importance.present()));
  }
  const std::uint64_t open =
      std::min<std::uint64_t>(kOpenScopesPerRank * std::max<std::size_t>(1, ranks), plan.scopes.size());
  // Half of the scopes are looked at more closely, as a rule, and hold what was found beside what they had. An arriving
  // histogram is held beside the sum it is merged into, and the solver's view beside both.
  const std::uint64_t arriving = open > 0 ? bins * (2 * kHistogramBinBytes + kMessageBinBytes + kGroupBinBytes) : 0;
  const auto budgeted = static_cast<std::uint64_t>(
      std::ranges::count_if(plan.scopes, [](const Scope& scope) { return scope.spec.budgeted; }));
  std::uint64_t names = 0;
  for (const TensorInfo& tensor : tensors) names += tensor.name.size();
  const std::uint64_t listed = listed_bytes(plan);
  const std::uint64_t file = std::max(
      kListsEstimated * listed, kListsLaidOut * listed + std::min(tensors.size() * kLayoutBytes, kMaxLayoutBytes));
  return kRankZeroBytes + plan.units.size() * kResultBytes + tensors.size() * kTensorBytes + 4 * names +
         budgeted * kCurveBytes + file + open * bins * (kHistogramBinBytes + kHistogramBinBytes / 2) + arriving;
}

/// The largest two of some numbers of bytes.
class TwoLargest {
 public:
  void add(std::uint64_t bytes, bool twice) noexcept {
    for (int i = 0; i < (twice ? 2 : 1); ++i) {
      second_ = std::max(second_, std::min(first_, bytes));
      first_ = std::max(first_, bytes);
    }
  }
  [[nodiscard]] std::uint64_t sum() const noexcept { return first_ + second_; }

 private:
  std::uint64_t first_ = 0, second_ = 0;
};

}  // namespace

MemoryEstimate estimate_memory(const std::vector<TensorInfo>& tensors, const Plan& plan, std::size_t threads,
                               std::size_t ranks) {
  UnitBytes most;
  TwoLargest input;
  std::uint64_t codes = 0;  // of the largest unit, whose room is kept for all
  const double bits_a_weight = bits_to_spend(tensors, plan);
  for (const TensorPlan& planned : plan.tensors) {
    if (planned.units == 0) continue;
    const auto units = std::span(plan.units).subspan(planned.first_unit, planned.units);
    const std::uint64_t count = std::ranges::max(units, {}, &WorkUnit::count).count;
    const UnitBytes bytes =
        bytes_of(tensors[planned.tensor], planned, count, std::max<std::size_t>(1, threads), bits_a_weight);
    // Of several units, or of one that is read once more for its statistics, both buffers may hold the largest.
    input.add(bytes.view + bytes.importance, planned.units > 1 || (planned.scope >= 0 && !by_rows(planned.spec)));
    if (planned.treatment == Treatment::quantize && planned.lane_rows == 0) codes = std::max(codes, count);
    if (bytes.work + bytes.output > most.work + most.output) most.work = bytes.work, most.output = bytes.output;
  }
  return {.program = kProgramBytes + (ranks > 1 ? kMpiBytes : 0) + plan_bytes(tensors, plan),
          .input = input.sum(),
          .work = most.work + codes,
          .output = most.output,
          .coordinator = coordinator_bytes(tensors, plan, ranks)};
}

double estimate_seconds(const Plan& plan, std::size_t ranks, std::size_t threads) {
  const auto workers = static_cast<double>(std::max<std::size_t>(1, ranks)),
             cores = static_cast<double>(std::max<std::size_t>(1, threads));
  double total = 0, longest = 0, solve = 0;
  const bool twice = plan.allocation != Allocation::slope && plan.allocation != Allocation::uniform;
  for (const WorkUnit& unit : plan.units) {
    // Widths are chosen once uniform ones were made; few scopes keep those.
    total += unit.seconds * (twice && plan.tensors[unit.tensor].spec.widths ? 2 : 1);
    longest = std::max(longest, unit.seconds);
  }
  for (const Scope& scope : plan.scopes) solve += scope.seconds;
  total += static_cast<double>(plan.units.size()) * kCosts.unit * 1e-9;
  // Units are dealt one by one, so ranks end within one unit of each other; a solver runs on one core of some rank.
  return std::max(total / (workers * cores) + solve / workers, longest / cores) + kCosts.start * 1e-9;
}

}  // namespace lmq
