#include "layer_sides.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "lmq/kernels/rate_cells.hpp"

namespace lmq {
namespace {
constexpr double kWorthwhile = 0.02;  // bits a weight that passing errors on between rows must save

/// Curvature of each row and each column alone; empty: nothing is known of that side.
struct Diagonals {
  std::vector<double> rows, cols;
};

/// The product of a row and a column number that is nearest to numbers for each weight, sums kept.
Diagonals of_weights(std::span<const float> values, std::size_t cols) {
  const std::size_t rows = values.size() / cols;
  Diagonals made{std::vector(rows, 0.0), std::vector(cols, 0.0)};
  double all = 0;
  for (std::size_t i = 0; i < rows; ++i)
    for (std::size_t j = 0; j < cols; ++j) {
      const double h = values[i * cols + j];
      made.rows[i] += h, made.cols[j] += h, all += h;
    }
  for (double& r : made.rows) r /= static_cast<double>(cols);
  for (double& c : made.cols) c *= all > 0 ? static_cast<double>(cols) / all : 0;  // mean 1: rows carry the size
  return made;
}

/// Mean over the window's rows of the column numbers of their blocks.
std::vector<double> mean_columns(const Importance& importance, std::size_t rows, std::size_t cols) {
  std::vector<double> mean(cols, 0.0);
  if (importance.block_rows == 0) {
    mean.assign(importance.values.begin(), importance.values.begin() + static_cast<std::ptrdiff_t>(cols));
    return mean;
  }
  for (std::size_t i = 0; i < rows; ++i) {
    const std::size_t block = (importance.first_row + i) / importance.block_rows;
    for (std::size_t j = 0; j < cols; ++j) mean[j] += importance.values[block * cols + j];
  }
  for (double& h : mean) h /= static_cast<double>(rows);
  return mean;
}

Diagonals diagonals_of(const Importance& importance, std::size_t rows, std::size_t cols) {
  if (importance.kind == Importance::Kind::none) return {};
  if (importance.kind == Importance::Kind::weights) return of_weights(importance.values, cols);
  Diagonals made;
  made.cols = mean_columns(importance, rows, cols);
  made.rows.assign(importance.rows.begin(), importance.rows.end());
  return made;
}

double mean_of(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return values.empty() ? 0 : sum / static_cast<double>(values.size());
}

/// A diagonal with a share of its mean added; one of zeros counts as ones.
void damp(std::vector<double>& diagonal, double share, double mean) {
  if (!(mean > 0)) {
    std::ranges::fill(diagonal, 1.0);
    return;
  }
  for (double& h : diagonal) h += std::max(share, 1e-9) * mean;
}

std::vector<double> in_double(std::span<const float> values) { return {values.begin(), values.end()}; }

/// Factors of F's blocks, and what passing errors on between their rows saves.
struct OutputBlocks {
  std::vector<CurvatureFactor> factors;
  std::vector<double> curvature;  ///< of each row, damped
  double gain = 0;                ///< bits a weight
};
OutputBlocks output_blocks(const Importance& importance, std::size_t rows, const SideDamping& damping) {
  OutputBlocks made;
  const auto full = static_cast<std::size_t>(importance.outer_rows);
  for (std::size_t first = 0; first < rows; first += full) {
    const std::size_t size = std::min(full, rows - first);
    const auto stored = importance.outer.subspan(first / full * full * full, full * full);
    std::vector<double> block(size * size);
    for (std::size_t i = 0; i < size; ++i)
      for (std::size_t j = 0; j < size; ++j) block[i * size + j] = stored[i * full + j];
    made.factors.push_back(
        factor_curvature(block, size, damping.of_outputs(size), importance.outer_mean, "curvature of the outputs"));
    made.gain += feedback_gain(made.factors.back(), block) * static_cast<double>(size) / static_cast<double>(rows);
    for (std::size_t i = 0; i < size; ++i)
      made.curvature.push_back(made.factors.back().is_identity ? 1 : block[i * size + i] + made.factors.back().damping);
  }
  return made;
}

/// Factors of lanes: blocks of `lane_rows` rows beside each other.
std::vector<CurvatureFactor> joined(std::vector<CurvatureFactor> blocks, std::size_t lane_rows) {
  std::vector<CurvatureFactor> lanes;
  for (std::size_t next = 0; next < blocks.size();) {
    std::size_t end = next, size = 0;
    while (end < blocks.size() && (end == next || size + blocks[end].size <= lane_rows)) size += blocks[end++].size;
    if (end == next + 1) {
      lanes.push_back(std::move(blocks[next++]));
      continue;
    }
    CurvatureFactor lane;
    lane.size = size;
    lane.unit.assign(size * size, 0.0F);
    for (std::size_t at = 0; next < end; at += blocks[next++].size) {
      const CurvatureFactor& block = blocks[next];
      for (std::size_t i = 0; i < block.size; ++i)
        std::copy_n(block.unit.begin() + static_cast<std::ptrdiff_t>(i * block.size), block.size,
                    lane.unit.begin() + static_cast<std::ptrdiff_t>((at + i) * size + at));
      lane.pivot.insert(lane.pivot.end(), block.pivot.begin(), block.pivot.end());
    }
    lanes.push_back(std::move(lane));
  }
  return lanes;
}

const CurvatureFactor* input_factor(const RowWindow& window, std::size_t cols, double share, InputFactor& kept) {
  const Importance& importance = window.importance;
  if (importance.gram_key != 0 && kept.key == importance.gram_key && kept.share == share && kept.factor.size == cols)
    return &kept.factor;
  const std::vector<double> gram = in_double(importance.gram);
  kept = {};  // its memory first
  kept.factor = factor_curvature(gram, cols, share, mean_diagonal(gram, cols), "curvature of the inputs");
  kept.key = importance.gram_key, kept.share = share;
  return &kept.factor;
}
}  // namespace

SquareSums square_sums(std::span<const float> weights, std::size_t cols) {
  constexpr std::size_t kLanes = 16;
  SquareSums sums{std::vector<double>(weights.size() / cols), std::vector<double>(cols)};
  double* const col = sums.col.data();
  for (std::size_t i = 0; i < sums.row.size(); ++i) {
    const float* const w = weights.data() + i * cols;
    std::array<double, kLanes> lane{};
    std::size_t j = 0;
    for (; j + kLanes <= cols; j += kLanes)
      for (std::size_t k = 0; k < kLanes; ++k) {
        const double square = double{w[j + k]} * w[j + k];
        lane[k] += square, col[j + k] += square;
      }
    for (; j < cols; ++j) {
      const double square = double{w[j]} * w[j];
      lane[j % kLanes] += square, col[j] += square;
    }
    for (const double part : lane) sums.row[i] += part;
    sums.all += sums.row[i];
  }
  return sums;
}

std::vector<double> prior_of_rows(std::span<const float> weights, std::size_t cols) {
  std::vector<double> prior = square_sums(weights, cols).row;
  const double mean = mean_of(prior);
  for (double& p : prior) p = p > 0 ? std::sqrt(std::sqrt(mean / p)) : 1;
  return prior;
}

std::vector<double> prior_of_tokens(std::uint64_t vocabulary, std::uint64_t first_row, std::size_t rows, double power) {
  constexpr double kFrequent = 1000;
  const auto unscaled = [&](std::uint64_t token) {
    return plain_exp2(-power * plain_log2(1 + static_cast<double>(token) / kFrequent));
  };
  double sum = 0;
  for (std::uint64_t token = 0; token < vocabulary; ++token) sum += unscaled(token);
  std::vector<double> prior(rows);
  for (std::size_t i = 0; i < rows; ++i) prior[i] = unscaled(first_row + i) * static_cast<double>(vocabulary) / sum;
  return prior;
}

LayerSides sides_of(const RowWindow& window, std::span<const float> weights, const SideDamping& damping,
                    double token_prior, InputFactor& kept) {
  const Importance& importance = window.importance;
  const auto cols = static_cast<std::size_t>(window.cols), rows = weights.size() / cols;
  LayerSides sides;
  Diagonals known = diagonals_of(importance, rows, cols);
  if (!importance.gram.empty()) {
    sides.inputs = input_factor(window, cols, damping.of_inputs(cols), kept);
  } else if (!known.cols.empty()) {
    sides.col_curvature = std::move(known.cols);
    damp(sides.col_curvature, damping.inputs, mean_of(sides.col_curvature));
  }
  if (!importance.outer.empty()) {
    OutputBlocks blocks = output_blocks(importance, rows, damping);
    if (blocks.gain >= kWorthwhile)
      sides.outputs = joined(std::move(blocks.factors), static_cast<std::size_t>(window.lane_rows));
    else
      sides.row_curvature = std::move(blocks.curvature);
  } else if (!known.rows.empty()) {
    sides.row_curvature = std::move(known.rows);
    damp(sides.row_curvature, damping.outputs, mean_of(sides.row_curvature));
  } else if (importance.gram.empty()) {
    sides.row_curvature = prior_of_rows(weights, cols);
    if (window.vocabulary > 0) {
      const std::vector<double> tokens = prior_of_tokens(window.vocabulary, window.first_row, rows, token_prior);
      for (std::size_t i = 0; i < rows; ++i) sides.row_curvature[i] *= tokens[i];
    }
  }
  return sides;
}

}  // namespace lmq
