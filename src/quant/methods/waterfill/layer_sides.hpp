#pragma once
#include <cstddef>
#include <span>
#include <vector>

#include "lmq/quant/quantizer.hpp"
#include "lmq/quant/trellis_layer.hpp"

namespace lmq {

/// Shares of the mean diagonal that are added to it: what is asked for, and what the noise of few samples asks for. An
/// average of N samples misses the matrix of n variables by n / N of its mean; factors by measurement (docs/quality.md).
struct SideDamping {
  double inputs = 0.003, outputs = 0.2;
  double samples = 0;  ///< behind S and F; 0: as many as it takes

  [[nodiscard]] double of_inputs(std::size_t cols) const { return inputs + noise(0.5, cols); }
  [[nodiscard]] double of_outputs(std::size_t rows) const { return outputs + noise(2, rows); }

 private:
  [[nodiscard]] double noise(double factor, std::size_t size) const {
    return samples > 0 ? factor * static_cast<double>(size) / samples : 0;
  }
};

/// The factor of a layer's inputs, kept in the workspace for its next windows.
struct InputFactor {
  std::uint64_t key = 0;
  double share = 0;
  CurvatureFactor factor;
  std::vector<double> gain;  ///< noise_gain, once it was asked for
};

/// Curvature on both sides of a window as far as its importance knows it:
/// outputs  blocks of F, several of them to a lane; where passing errors on between rows saves less than .02 bit, or
///          there are no blocks, the curvature of each row; where neither that nor S is known prior_of_rows and, where
///          rows are tokens, prior_of_tokens to the power of token_prior
/// inputs   the factor of S, or the curvature of each column
/// kept     holds the factor of S afterwards; used where it is that of the window's gram
/// Errors: those of factor_curvature. Cost: factoring S and F.
[[nodiscard]] LayerSides sides_of(const RowWindow& window, std::span<const float> weights, const SideDamping& damping,
                                  double token_prior, InputFactor& kept);

/// Sums of the squares of each row and each column of a window, and of all: doubles in fixed order.
struct SquareSums {
  std::vector<double> row, col;
  double all = 0;
};
[[nodiscard]] SquareSums square_sums(std::span<const float> weights, std::size_t cols);

/// (mean square of the row / that of the window)^(-1/4), 1 for rows of zeros: rows of large weights count less.
[[nodiscard]] std::vector<double> prior_of_rows(std::span<const float> weights, std::size_t cols);

/// ((1 + t / 1000) ^ -power) / its mean over the vocabulary, for tokens t = first_row, ...: the n-th word of a language
/// comes about 1/n as often as the first (Zipf 1949, ch. 2), tokenizers number tokens in about that order, and the error of
/// a token's row counts as often as the token is read or foretold. Measured: docs/quality.md. Cost: O(vocabulary).
[[nodiscard]] std::vector<double> prior_of_tokens(std::uint64_t vocabulary, std::uint64_t first_row, std::size_t rows,
                                                  double power);

}  // namespace lmq
