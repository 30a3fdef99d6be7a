#pragma once
#include <cstdint>
#include <vector>

#include "categorical.hpp"
#include "matrix/grid_rows.hpp"

namespace lmq {

/// How the derivative of the quantized weights is passed on to latent weights and steps.
enum class Backward : std::uint8_t {
  cpq,          ///< multi-class straight-through: of the nearest class's probability alone
  mean,         ///< of the mean over all classes
  lsq,          ///< 1 inside the range
  free_logits,  ///< logits of their own for the nearest points of each weight, their soft mean, annealed
};

struct Training {
  Backward backward = Backward::cpq;
  std::size_t steps = 300;
  double noise = 1.0 / 3, last_noise = 1.0 / 3;  ///< sigma / alpha at the first and last step; geometric between
  double drop = 0;                               ///< DropBits: probability that a gate is 0; 0: no masks
  MaskScheme scheme = MaskScheme::ends;
  std::uint64_t seed = 0;
};

/// Buffers of one worker.
struct TrainingScratch {
  std::vector<float> latent, first, second;  // [rows][cols]: x, Adam's moments
  std::vector<float> logits;                 // free logits: [rows][cols][choices], three times
  std::vector<double> log_step, step_first, step_second, offset_first, offset_second;  // [rows][groups]
  std::vector<double> norm;                                                            // [rows]
  std::vector<double> place, slope, point, share;                                      // of one group
};

/// Loss (e H e^T, per row over w H w^T / cols) by Adam over latent weights, ln steps and free offsets; codes by rounding
/// latent weights. Steps of Adam are a part of the grid's step, by a cosine. In: steps, offsets; the first step's codes
/// are rounding to nearest. best keeps every row's best codes and steps at full width: never worse than the start.
/// A fourth of the steps is at full width where bits are dropped; gates are the same for all rows.
/// Cost of a step: one measure_rows and about 115 ns a weight (cpq; 560 ns with bits dropped), 600 (mean), 32 (lsq).
void train_rows(GridRows& rows, const Training& training, BestRows& best, TrainingScratch& scratch);

}  // namespace lmq
