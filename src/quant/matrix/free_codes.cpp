#include "free_codes.hpp"

#include <cmath>

namespace lmq {
namespace {

/// Codes along the anti-diagonals, last to first, each from its last row on.
class FreeCoder {
 public:
  FreeCoder(const CancellationUnit& unit, const TrellisRates& rates, FreeCodes& made)
      : unit_(unit), rates_(rates), made_(made), taps_(trellis_taps(rates.states)) {
    const std::size_t room = kFreeRun + std::min(unit.rows, unit.cols);
    place_.resize(room), target_.resize(room), code_.resize(room), spread_.resize(room);
    if (!unit.row_weight.empty()) weight_.resize(room);
    for (const float weight : unit.row_weight) row_weight_.push_back(256.0 * weight);
    targets_.resize(unit.rows * kCols), codes_.resize(unit.rows * kCols), values_.resize(unit.rows * kCols);
    if (!made.multiples.empty()) multiples_.resize(unit.rows * kCols);
  }

  void run() {
    for (std::size_t at = unit_.rows + unit_.cols - 1; at-- > 0;) {
      const std::size_t first = at >= unit_.cols ? at - (unit_.cols - 1) : 0, last = std::min(at, unit_.rows - 1);
      for (std::size_t i = last + 1; i-- > first;) add(i, at - i);
      if (count_ >= kFreeRun) decide();
    }
    decide();
    made_.squared_steps = squared_steps_, made_.clamped = clamped_;
  }

 private:
  void add(std::size_t row, std::size_t col) noexcept {
    const std::size_t p = count_++, in_tile = row * kCols + col % kCols, first = col / kCols * kCols;
    if (col % kCols == kCols - 1 || col + 1 == unit_.cols)
      std::copy_n(made_.targets.data() + row * unit_.cols + first, col - first + 1, targets_.data() + row * kCols);
    place_[p] = {static_cast<std::uint32_t>(row), static_cast<std::uint32_t>(col)};
    target_[p] = targets_[in_tile];
    spread_[p] = spread_class(unit_.row_spread[row], unit_.col_spread[col]);
    if (!weight_.empty()) weight_[p] = search_weight(row_weight_[row], unit_.col_weight[col]);
  }

  void decide() {
    scratch_.reserve(count_);
    const auto weights = std::span<const std::uint16_t>(weight_).first(weight_.empty() ? 0 : count_);
    unsigned state = state_;
    state_ = trellis_search(rates_, {std::span(target_).first(count_), std::span(spread_).first(count_), weights},
                            state_, scratch_, std::span(code_).first(count_));
    for (std::size_t p = 0; p < count_; ++p) {
      take(p, state & 1);
      if (rates_.states > 1) state = trellis_next(taps_, state, code_[p]);
    }
    count_ = 0;
  }

  void take(std::size_t p, unsigned quantizer) noexcept {
    const std::size_t row = place_[p].row, col = place_[p].col, in_tile = row * kCols + col % kCols;
    const std::int32_t value = trellis_value(rates_.states, quantizer, spread_[p], code_[p]);
    codes_[in_tile] = code_[p];
    if (!multiples_.empty()) multiples_[in_tile] = value;
    values_[in_tile] = static_cast<float>(value) * unit_.row_step[row] * unit_.col_step[col];
    if (col % kCols == 0) {
      const std::size_t width = std::min(kCols, unit_.cols - col), to = row * unit_.cols + col;
      std::copy_n(codes_.data() + row * kCols, width, made_.codes.data() + to);
      std::copy_n(values_.data() + row * kCols, width, made_.values.data() + to);
      if (!multiples_.empty()) std::copy_n(multiples_.data() + row * kCols, width, made_.multiples.data() + to);
    }
    clamped_ += std::abs(target_[p]) == kMaxTrellisTarget ? 1 : 0;
    const double off = target_[p] / double{kTrellisOne} - value;
    squared_steps_ += (weight_.empty() ? 1.0 : weight_[p] / 256.0) * off * off;
  }

  struct Place {
    std::uint32_t row, col;
  };
  static constexpr std::size_t kCols = 16;  ///< of the tiles: a diagonal touches a line of memory for every weight
  const CancellationUnit& unit_;
  const TrellisRates& rates_;
  FreeCodes& made_;
  const TrellisTaps taps_;
  std::vector<double> row_weight_;
  double squared_steps_ = 0;
  std::size_t clamped_ = 0, count_ = 0;  ///< count_: weights since the last decision
  unsigned state_ = 0;
  std::vector<std::int32_t> targets_, codes_, multiples_;  ///< [rows][kCols], columns of a row from the last on
  std::vector<float> values_;
  std::vector<Place> place_;
  std::vector<std::int32_t> target_, code_;
  std::vector<std::uint8_t> spread_;
  std::vector<std::uint16_t> weight_;
  TrellisScratch scratch_;
};
}  // namespace

std::vector<double> row_scales(std::span<const float> row_step) {
  std::vector<double> scales;
  for (const float step : row_step) scales.push_back(kTrellisOne / double{step});
  return scales;
}

std::vector<double> col_scales(std::span<const float> col_step) {
  std::vector<double> scales;
  for (const float step : col_step) scales.push_back(1 / double{step});
  return scales;
}

void free_targets(const CancellationUnit& unit, std::span<std::int32_t> targets) {
  const std::vector<double> rows = row_scales(unit.row_step), cols = col_scales(unit.col_step);
  for (std::size_t i = 0; i < unit.rows; ++i) {
    const float* const weights = unit.weights.data() + i * unit.cols;
    std::int32_t* const to = targets.data() + i * unit.cols;
    for (std::size_t j = 0; j < unit.cols; ++j) to[j] = target_of(double{weights[j]} * rows[i] * cols[j]);
  }
}

void free_codes(const CancellationUnit& unit, const TrellisRates& rates, FreeCodes& made) {
  if (unit.rows > 0 && unit.cols > 0) FreeCoder(unit, rates, made).run();
}

}  // namespace lmq
