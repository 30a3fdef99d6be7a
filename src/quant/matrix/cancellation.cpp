#include "lmq/quant/cancellation.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "free_codes.hpp"
#include "lmq/kernels/product.hpp"

namespace lmq {
namespace {
using Signed = std::ptrdiff_t;
constexpr Signed kBand = 200;  // anti-diagonals whose columns' sums are prepared together
constexpr Signed kGroup = 36;  // rows prepared together: they share kBand + kGroup - 1 columns
constexpr Signed kPanel = 32;  // columns of B' that lie together

/// Weights of an anti-diagonal: rows first .. last, columns at - row.
struct Diagonal {
  std::size_t at, first, last;
  [[nodiscard]] std::size_t count() const noexcept { return last - first + 1; }
};
Diagonal diagonal_of(const CancellationUnit& unit, std::size_t at) noexcept {
  return {at, at >= unit.cols ? at - (unit.cols - 1) : 0, std::min(at, unit.rows - 1)};
}

/// Sums from plain loops.
class PlainSums {
 public:
  explicit PlainSums(const CancellationUnit& unit)
      : unit_(unit), errors_(unit.rows * unit.cols), seen_(unit.rows * unit.cols) {}
  void of_diagonal(const Diagonal& diagonal, std::span<float> columns, std::span<float> rows) const {
    for (std::size_t i = diagonal.first; i <= diagonal.last; ++i) {
      columns[i - diagonal.first] = of_columns(i, diagonal.at - i);
      rows[i - diagonal.first] = of_rows(i, diagonal.at - i);
    }
  }
  void coded(std::size_t row, std::size_t col, float error, float seen) {
    errors_[row * unit_.cols + col] = error;
    seen_[row * unit_.cols + col] = seen;
  }

 private:
  [[nodiscard]] float of_columns(std::size_t row, std::size_t col) const {
    float sum = 0;
    if (!unit_.inputs.empty())
      for (std::size_t j = unit_.cols; --j > col;)
        sum = std::fma(errors_[row * unit_.cols + j], unit_.inputs[j * unit_.cols + col], sum);
    return sum;
  }
  [[nodiscard]] float of_rows(std::size_t row, std::size_t col) const {
    float sum = 0;
    if (!unit_.outputs.empty())
      for (std::size_t i = unit_.rows; --i > row;)
        sum = std::fma(seen_[i * unit_.cols + col], unit_.outputs[i * unit_.rows + row], sum);
    return sum;
  }

  const CancellationUnit& unit_;
  std::vector<float> errors_, seen_;  ///< [rows][cols]
};

/// The same sums: of columns outside the band by products, inside it and of rows along whole anti-diagonals. What lies
/// on an anti-diagonal is kept together; what is not there, or not coded yet, is 0 and changes no sum.
class BandedSums {
 public:
  explicit BandedSums(const CancellationUnit& unit)
      : unit_(unit), rows_(static_cast<Signed>(unit.rows)), cols_(static_cast<Signed>(unit.cols)) {
    const std::size_t slanted = (unit.rows + unit.cols) * unit.rows;
    if (!unit.inputs.empty()) {
      if (unit.panels.empty()) own_panels_ = in_panels(unit.inputs, unit.cols);
      panels_ = unit.panels.empty() ? std::span<const float>(own_panels_) : unit.panels;
      row_step_ = padded(cols_), band_step_ = padded(cols_);
      errors_.resize(unit.rows * static_cast<std::size_t>(row_step_));
      prepared_.resize(slanted), error_.resize(slanted);
      near_.resize(static_cast<std::size_t>(kBand * band_step_));
      for (Signed k = 0; k < kBand; ++k)
        for (Signed j = 0; j + k < cols_; ++j)
          near_[static_cast<std::size_t>(k * band_step_ + cols_ - 1 - j)] =
              unit.inputs[static_cast<std::size_t>((j + k) * cols_ + j)];
    }
    if (!unit.outputs.empty()) {
      seen_.resize(slanted + unit.rows), below_.resize(unit.rows * unit.rows);
      for (Signed k = 0; k < rows_; ++k)
        for (Signed i = 0; i + k < rows_; ++i)
          below_[static_cast<std::size_t>(k * rows_ + i)] = unit.outputs[static_cast<std::size_t>((i + k) * rows_ + i)];
    }
  }
  void of_diagonal(const Diagonal& diagonal, std::span<float> columns, std::span<float> rows) {
    const auto at = static_cast<Signed>(diagonal.at), first = static_cast<Signed>(diagonal.first);
    std::ranges::fill(columns, 0.0F);
    std::ranges::fill(rows, 0.0F);
    if (!unit_.inputs.empty()) {
      if (at < low_) begin_band(at);
      std::copy_n(prepared_.data() + at * rows_ + first, columns.size(), columns.data());
      const Signed depth = high_ - at;
      add_products(static_cast<std::size_t>(depth), columns.size(), {error_.data() + high_ * rows_ + first, -rows_, 1},
                   {near_.data() + depth * band_step_ + cols_ - 1 - at + first, -band_step_, 1}, columns.data());
    }
    if (!unit_.outputs.empty()) {
      const Signed depth = std::min(rows_ - 1 - first, rows_ + cols_ - 2 - at);
      add_products(static_cast<std::size_t>(depth), rows.size(),
                   {seen_.data() + (at + depth) * rows_ + first + depth, -(rows_ + 1), 1},
                   {below_.data() + depth * rows_ + first, -rows_, 1}, rows.data());
    }
  }
  void coded(std::size_t row, std::size_t col, float error, float seen) {
    const std::size_t slanted = (row + col) * unit_.rows + row;
    if (!errors_.empty()) errors_[row * static_cast<std::size_t>(row_step_) + col] = error, error_[slanted] = error;
    if (!seen_.empty()) seen_[slanted] = seen;
  }

 private:
  /// No power of two: the rows would share a few sets of the cache.
  static Signed padded(Signed cols) noexcept { return (cols + 15) / 16 * 16 + 16; }
  void begin_band(Signed diagonal) {
    high_ = diagonal;
    low_ = std::max<Signed>(diagonal - kBand + 1, 0);
    for (Signed row = 0; row < rows_; row += kGroup) prepare(row, std::min(row + kGroup, rows_));
  }
  /// Sums of rows [begin, end) over the columns that are done, for the band's columns of each. Columns that are done
  /// for some of the rows only have errors of 0 in the others, which change no sum.
  void prepare(Signed begin, Signed end) {
    const Signed first = std::max<Signed>(low_ - (end - 1), 0), last = std::min(high_ - begin, cols_ - 1);
    const Signed done = std::max<Signed>(high_ - (end - 1) + 1, 0);
    if (last < first || done >= cols_) return;
    std::array<float, kGroup*(kBand + kGroup)> sums{};
    const Signed width = last - first + 1;
    for (Signed col = first; col <= last;) {
      const Signed panel = col / kPanel, next = std::min((panel + 1) * kPanel, last + 1);
      add_product({static_cast<std::size_t>(end - begin), static_cast<std::size_t>(cols_ - done),
                   static_cast<std::size_t>(next - col)},
                  {errors_.data() + begin * row_step_ + cols_ - 1, row_step_, -1},
                  {panels_.data() + (panel * cols_ + cols_ - 1) * kPanel + col % kPanel, -kPanel, 1},
                  {sums.data() + (col - first), width, 1});
      col = next;
    }
    for (Signed row = begin; row < end; ++row) {
      const Signed from = std::max<Signed>(low_ - row, 0), to = std::min(high_ - row, cols_ - 1);
      for (Signed col = from; col <= to; ++col)
        prepared_[static_cast<std::size_t>((row + col) * rows_ + row)] =
            sums[static_cast<std::size_t>((row - begin) * width + col - first)];
    }
  }

  const CancellationUnit& unit_;
  std::span<const float> panels_;
  std::vector<float> own_panels_;
  Signed rows_, cols_, high_ = 0, low_ = PTRDIFF_MAX, row_step_ = 0, band_step_ = 0;
  std::vector<float> errors_;        ///< [rows][row_step]
  std::vector<float> prepared_;      ///< [diagonals][rows]: sums over columns outside the band
  std::vector<float> error_, seen_;  ///< [diagonals][rows]
  std::vector<float> near_, below_;  ///< [k]: B' of columns j + k and j, j descending; A' of rows i + k and i
};

/// Between [rows][cols] and [diagonals][rows], in tiles.
template <class Number, class Move>
void for_slanted(std::size_t rows, std::size_t cols, std::span<Number> slanted, const Move& move) {
  constexpr std::size_t kTile = 16;
  for (std::size_t i0 = 0; i0 < rows; i0 += kTile)
    for (std::size_t j0 = 0; j0 < cols; j0 += kTile)
      for (std::size_t i = i0; i < std::min(i0 + kTile, rows); ++i)
        for (std::size_t j = j0; j < std::min(j0 + kTile, cols); ++j) move(i * cols + j, slanted[(i + j) * rows + i]);
}

template <class Sums>
class Canceller {
 public:
  Canceller(const CancellationUnit& unit, const TrellisRates& rates)
      : unit_(unit),
        rates_(rates),
        sums_(unit),
        row_scale_(row_scales(unit.row_step)),
        col_scale_(col_scales(unit.col_step)) {
    const std::size_t slanted = (unit.rows + unit.cols) * unit.rows;
    weight_in_.resize(slanted), codes_.resize(slanted), targets_.resize(slanted), values_.resize(slanted);
    for_slanted(unit.rows, unit.cols, std::span(weight_in_),
                [&](std::size_t at, float& to) { to = unit_.weights[at]; });
    std::ranges::reverse(col_scale_);
    for (const float weight : unit.row_weight) row_weight_.push_back(256.0 * weight);
  }
  Canceller(const Canceller&) = delete;

  CancelledCodes run() {
    const bool depends = !unit_.inputs.empty() || !unit_.outputs.empty();
    for (std::size_t at = unit_.rows == 0 || unit_.cols == 0 ? 0 : unit_.rows + unit_.cols - 1; at-- > 0;) {
      add(diagonal_of(unit_, at));
      if (depends || target_.size() >= kFreeRun) decide();
    }
    decide();
    return result();
  }

 private:
  void add(const Diagonal& diagonal) {
    const std::size_t before = target_.size(), count = diagonal.count();
    columns_.resize(before + count), rows_.resize(count);
    const auto columns = std::span(columns_).subspan(before);
    sums_.of_diagonal(diagonal, columns, rows_);
    set_targets(diagonal, columns);
    target_.resize(before + count), spread_.resize(before + count);
    if (!row_weight_.empty()) weight_.resize(before + count);
    const std::int32_t* targets = targets_.data() + diagonal.at * unit_.rows;
    for (std::size_t p = before, i = diagonal.last; p < before + count; ++p, --i) {  // the path begins at the last row
      const std::size_t j = diagonal.at - i;
      target_[p] = targets[i];
      spread_[p] = spread_class(unit_.row_spread[i], unit_.col_spread[j]);
      if (!row_weight_.empty()) weight_[p] = search_weight(row_weight_[i], unit_.col_weight[j]);
    }
    diagonals_.push_back(diagonal);
  }

  void set_targets(const Diagonal& diagonal, std::span<const float> columns) {
    const std::size_t count = diagonal.count(), from = diagonal.at * unit_.rows + diagonal.first;
    const float *weights = weight_in_.data() + from, *rows = rows_.data();
    const double* row_scale = row_scale_.data() + diagonal.first;
    const double* col_scale = col_scale_.data() + (unit_.cols - 1 + diagonal.first - diagonal.at);
    std::int32_t* targets = targets_.data() + from;
    for (std::size_t i = 0; i < count; ++i)
      targets[i] = target_of(double{weights[i] + columns[i] + rows[i]} * row_scale[i] * col_scale[i]);
  }

  /// Codes of the weights since the last decision, and their errors.
  void decide() {
    const std::size_t count = target_.size();
    scratch_.reserve(count);
    code_.resize(count);
    unsigned state = state_;
    state_ = trellis_search(rates_, {target_, spread_, weight_}, state_, scratch_, code_);
    const TrellisTaps taps = trellis_taps(rates_.states);
    std::size_t begin = 0;
    for (const Diagonal& diagonal : diagonals_) {
      for (std::size_t p = begin, i = diagonal.last; p < begin + diagonal.count(); ++p, --i) {
        take(p, i, diagonal.at - i, columns_[begin + i - diagonal.first], state & 1);
        if (rates_.states > 1) state = trellis_next(taps, state, code_[p]);
      }
      begin += diagonal.count();
    }
    diagonals_.clear(), columns_.clear(), target_.clear(), spread_.clear(), weight_.clear();
  }

  void take(std::size_t p, std::size_t row, std::size_t col, float columns, unsigned quantizer) {
    const std::size_t at = (row + col) * unit_.rows + row;
    const std::int32_t value = trellis_value(rates_.states, quantizer, spread_[p], code_[p]);
    const float stored = static_cast<float>(value) * unit_.row_step[row] * unit_.col_step[col];
    const float error = weight_in_[at] - stored;
    codes_[at] = code_[p];
    values_[at] = stored;
    sums_.coded(row, col, error, columns + error);
    clamped_ += std::abs(target_[p]) == kMaxTrellisTarget ? 1 : 0;
    const double off = target_[p] / double{kTrellisOne} - value;
    squared_steps_ += (weight_.empty() ? 1.0 : weight_[p] / 256.0) * off * off;
  }

  [[nodiscard]] CancelledCodes result() {
    CancelledCodes made;
    const std::size_t count = unit_.rows * unit_.cols;
    made.codes.resize(count), made.targets.resize(count), made.values.resize(count);
    for_slanted(unit_.rows, unit_.cols, std::span(codes_), [&](std::size_t at, int code) { made.codes[at] = code; });
    for_slanted(unit_.rows, unit_.cols, std::span(targets_), [&](std::size_t at, int y) { made.targets[at] = y; });
    for_slanted(unit_.rows, unit_.cols, std::span(values_), [&](std::size_t at, float q) { made.values[at] = q; });
    made.squared_steps = squared_steps_, made.clamped = clamped_;
    return made;
  }

  const CancellationUnit& unit_;
  const TrellisRates& rates_;
  Sums sums_;
  std::vector<float> weight_in_, values_;  ///< [diagonals][rows], as what follows
  std::vector<std::int32_t> codes_, targets_;
  std::vector<double> row_scale_, col_scale_;  ///< columns: the last first
  std::vector<double> row_weight_;
  double squared_steps_ = 0;
  std::size_t clamped_ = 0;
  unsigned state_ = 0;
  std::vector<Diagonal> diagonals_;    ///< since the last decision
  std::vector<float> columns_, rows_;  ///< by ascending row in each diagonal
  std::vector<std::int32_t> target_, code_;
  std::vector<std::uint8_t> spread_;
  std::vector<std::uint16_t> weight_;
  TrellisScratch scratch_;
};
}  // namespace

std::vector<float> in_panels(std::span<const float> inputs, std::size_t cols) {
  constexpr auto kWide = static_cast<std::size_t>(kPanel);
  const std::size_t panels = (cols + kWide - 1) / kWide;
  std::vector<float> made(panels * cols * kWide);
  for (std::size_t panel = 0; panel < panels; ++panel) {
    const std::size_t first = panel * kWide, width = std::min(kWide, cols - first);
    for (std::size_t k = first; k < cols; ++k)  // above the diagonal all is 0
      std::copy_n(inputs.data() + k * cols + first, width, made.data() + (panel * cols + k) * kWide);
  }
  return made;
}

CancelledCodes cancel(const CancellationUnit& unit, const TrellisRates& rates) {
  if (unit.inputs.empty() && unit.outputs.empty()) {
    CancelledCodes coded;
    const std::size_t count = unit.rows * unit.cols;
    coded.codes.resize(count), coded.targets.resize(count), coded.values.resize(count);
    free_targets(unit, coded.targets);
    FreeCodes made{coded.targets, coded.codes, coded.values, {}};
    free_codes(unit, rates, made);
    coded.squared_steps = made.squared_steps, coded.clamped = made.clamped;
    return coded;
  }
  return Canceller<BandedSums>(unit, rates).run();
}

CancelledCodes cancel_reference(const CancellationUnit& unit, const TrellisRates& rates) {
  return Canceller<PlainSums>(unit, rates).run();
}

}  // namespace lmq
