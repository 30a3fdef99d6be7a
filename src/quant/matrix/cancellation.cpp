#include "lmq/quant/cancellation.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "lmq/kernels/product.hpp"

namespace lmq {
namespace {
using Signed = std::ptrdiff_t;
constexpr std::size_t kFreeRun = 4096;  // weights between decisions where nothing depends on them
constexpr Signed kBand = 116;           // anti-diagonals whose columns' sums are prepared together
constexpr Signed kGroup = 12;           // rows prepared together: they share kBand + kGroup - 1 columns

/// A weight on its path.
struct Place {
  std::size_t row, col;
};

/// Sums from plain loops.
class PlainSums {
 public:
  PlainSums(const CancellationUnit& unit, const std::vector<float>& errors, const std::vector<float>& seen)
      : unit_(unit), errors_(errors), seen_(seen) {}
  void begin_diagonal(Signed) {}
  [[nodiscard]] float of_columns(Place p) const {
    float sum = 0;
    if (!unit_.inputs.empty())
      for (std::size_t j = unit_.cols; --j > p.col;)
        sum = std::fma(errors_[p.row * unit_.cols + j], unit_.inputs[j * unit_.cols + p.col], sum);
    return sum;
  }
  [[nodiscard]] float of_rows(Place p) const {
    float sum = 0;
    if (!unit_.outputs.empty())
      for (std::size_t i = unit_.rows; --i > p.row;)
        sum = std::fma(seen_[p.col * unit_.rows + i], unit_.outputs[i * unit_.rows + p.row], sum);
    return sum;
  }
  void passed_on(Place, float, float) {}

 private:
  const CancellationUnit& unit_;
  const std::vector<float>& errors_;
  const std::vector<float>& seen_;
};

/// The same sums: columns outside the band by products, inside it and of rows as errors come.
class BandedSums {
 public:
  BandedSums(const CancellationUnit& unit, const std::vector<float>& errors, const std::vector<float>&)
      : unit_(unit),
        errors_(errors),
        rows_(static_cast<Signed>(unit.rows)),
        cols_(static_cast<Signed>(unit.cols)),
        columns_(unit.inputs.empty() ? 0 : unit.rows * unit.cols),
        below_(unit.outputs.empty() ? 0 : unit.rows * unit.cols) {}
  void begin_diagonal(Signed diagonal) {
    if (unit_.inputs.empty() || diagonal >= low_) return;
    high_ = diagonal;
    low_ = std::max<Signed>(diagonal - kBand + 1, 0);
    for (Signed row = 0; row < rows_; row += kGroup) prepare(row, std::min(row + kGroup, rows_));
  }
  [[nodiscard]] float of_columns(Place p) const { return columns_.empty() ? 0 : columns_[p.row * unit_.cols + p.col]; }
  [[nodiscard]] float of_rows(Place p) const { return below_.empty() ? 0 : below_[p.col * unit_.rows + p.row]; }
  void passed_on(Place p, float error, float seen) {
    const auto first = static_cast<std::size_t>(std::max<Signed>(low_ - static_cast<Signed>(p.row), 0));
    if (!columns_.empty() && p.col > first)
      add_scaled(error, unit_.inputs.data() + p.col * unit_.cols + first, columns_.data() + p.row * unit_.cols + first,
                 p.col - first);
    if (!below_.empty())
      add_scaled(seen, unit_.outputs.data() + p.row * unit_.rows, below_.data() + p.col * unit_.rows, p.row);
  }

 private:
  /// Sums of rows [begin, end) over the columns that are done, for the band's columns of each. Columns that are done
  /// for some of the rows only have errors of 0 in the others, which change no sum.
  void prepare(Signed begin, Signed end) {
    const Signed first = std::max<Signed>(low_ - (end - 1), 0), last = std::min(high_ - begin, cols_ - 1);
    const Signed done = std::max<Signed>(high_ - (end - 1) + 1, 0);
    if (last < first || done >= cols_) return;
    std::array<float, kGroup*(kBand + kGroup)> sums{};
    const Signed width = last - first + 1;
    add_product({static_cast<std::size_t>(end - begin), static_cast<std::size_t>(cols_ - done),
                 static_cast<std::size_t>(width)},
                {errors_.data() + begin * cols_ + cols_ - 1, cols_, -1},
                {unit_.inputs.data() + (cols_ - 1) * cols_ + first, -cols_, 1}, {sums.data(), width, 1});
    for (Signed row = begin; row < end; ++row) {
      const Signed from = std::max<Signed>(low_ - row, 0), to = std::min(high_ - row, cols_ - 1);
      for (Signed col = from; col <= to; ++col)
        columns_[static_cast<std::size_t>(row * cols_ + col)] =
            sums[static_cast<std::size_t>((row - begin) * width + col - first)];
    }
  }

  const CancellationUnit& unit_;
  const std::vector<float>& errors_;
  Signed rows_, cols_, high_ = 0, low_ = PTRDIFF_MAX;
  std::vector<float> columns_;  ///< [rows][cols]: sums over columns so far
  std::vector<float> below_;    ///< [cols][rows]: sums over rows so far
};

std::int32_t target_of(float y, double step) noexcept {
  const double scaled = std::clamp(double{y} / step * kTrellisOne, -1.0 * kMaxTrellisTarget, 1.0 * kMaxTrellisTarget);
  return static_cast<std::int32_t>(std::floor(scaled + 0.5));
}

template <class Sums>
class Canceller {
 public:
  Canceller(const CancellationUnit& unit, const TrellisRates& rates)
      : unit_(unit), rates_(rates), sums_(unit, result_.errors, seen_) {
    result_.codes.resize(unit.rows * unit.cols);
    result_.values.resize(unit.rows * unit.cols);
    result_.errors.resize(unit.rows * unit.cols);
    result_.targets.resize(unit.rows * unit.cols);
    seen_.resize(unit.outputs.empty() ? 0 : unit.rows * unit.cols);
  }
  Canceller(const Canceller&) = delete;

  CancelledCodes run() {
    const bool depends = !unit_.inputs.empty() || !unit_.outputs.empty();
    if (unit_.rows == 0 || unit_.cols == 0) return std::move(result_);
    for (std::size_t d = unit_.rows + unit_.cols - 1; d-- > 0;) {
      sums_.begin_diagonal(static_cast<Signed>(d));
      const std::size_t last = d >= unit_.cols ? d - (unit_.cols - 1) : 0;
      for (std::size_t row = std::min(d, unit_.rows - 1) + 1; row-- > last;) {
        add({row, d - row});
        if (!depends && places_.size() == kFreeRun) decide();
      }
      if (depends) decide();
    }
    decide();
    return std::move(result_);
  }

 private:
  void add(Place p) {
    const float columns = sums_.of_columns(p), rows = sums_.of_rows(p);
    const float y = unit_.weights[p.row * unit_.cols + p.col] + columns + rows;
    const double step = double{unit_.row_step[p.row]} * unit_.col_step[p.col];
    places_.push_back(p);
    columns_.push_back(columns);
    target_.push_back(target_of(y, step));
    result_.clamped += std::abs(target_.back()) == kMaxTrellisTarget ? 1 : 0;
    spread_.push_back(static_cast<std::uint8_t>(
        std::clamp(unit_.row_spread[p.row] + unit_.col_spread[p.col], 0, static_cast<int>(kSpreadClasses) - 1)));
    if (!unit_.row_weight.empty())
      weight_.push_back(static_cast<std::uint16_t>(
          std::clamp(std::floor(256.0 * unit_.row_weight[p.row] * unit_.col_weight[p.col] + 0.5), 1.0, 511.0)));
  }

  /// Codes of the weights since the last decision, and their errors.
  void decide() {
    const std::size_t count = places_.size();
    scratch_.reserve(count);
    code_.resize(count);
    unsigned state = state_;
    state_ = trellis_search(rates_, {target_, spread_, weight_}, state_, scratch_, code_);
    for (std::size_t i = 0; i < count; ++i) {
      take(i, state & 1);
      if (rates_.states > 1) state = trellis_next(trellis_taps(rates_.states), state, code_[i]);
    }
    places_.clear(), columns_.clear(), target_.clear(), spread_.clear(), weight_.clear();
  }

  void take(std::size_t i, unsigned quantizer) {
    const Place p = places_[i];
    const std::size_t at = p.row * unit_.cols + p.col;
    const std::int32_t value = trellis_value(rates_.states, quantizer, spread_[i], code_[i]);
    const float stored = static_cast<float>(value) * unit_.row_step[p.row] * unit_.col_step[p.col];
    const float error = unit_.weights[at] - stored;
    result_.codes[at] = code_[i];
    result_.values[at] = stored;
    result_.errors[at] = error;
    result_.targets[at] = target_[i];
    if (!seen_.empty()) seen_[p.col * unit_.rows + p.row] = columns_[i] + error;
    sums_.passed_on(p, error, columns_[i] + error);
    const double off = target_[i] / double{kTrellisOne} - value;
    result_.squared_steps += (weight_.empty() ? 1.0 : weight_[i] / 256.0) * off * off;
  }

  const CancellationUnit& unit_;
  const TrellisRates& rates_;
  CancelledCodes result_;
  std::vector<float> seen_;  ///< [cols][rows]: error plus sum over columns, what rows above see
  Sums sums_;
  unsigned state_ = 0;
  std::vector<Place> places_;
  std::vector<float> columns_;
  std::vector<std::int32_t> target_, code_;
  std::vector<std::uint8_t> spread_;
  std::vector<std::uint16_t> weight_;
  TrellisScratch scratch_;
};
}  // namespace

CancelledCodes cancel(const CancellationUnit& unit, const TrellisRates& rates) {
  return Canceller<BandedSums>(unit, rates).run();
}

CancelledCodes cancel_reference(const CancellationUnit& unit, const TrellisRates& rates) {
  return Canceller<PlainSums>(unit, rates).run();
}

}  // namespace lmq
