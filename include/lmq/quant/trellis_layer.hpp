#pragma once
#include <cstddef>
#include <span>
#include <vector>

#include "lmq/base/trellis_unit.hpp"
#include "lmq/quant/curvature_factor.hpp"

namespace lmq {

/// A layer's weights, [rows][cols], row-major.
struct LayerWeights {
  std::span<const float> values;
  std::size_t rows = 0, cols = 0;
};

/// What is known of the loss on both sides. Outputs: a factor for each block of rows, or the curvature of each row
/// alone, or nothing (rows alike). Inputs: a factor, or the curvature of each column alone, or nothing.
struct LayerSides {
  std::vector<CurvatureFactor> outputs;  ///< of blocks of outputs[0].size rows, the last one of what is left
  std::vector<double> row_curvature;     ///< [rows], > 0, damped; where there are no outputs
  const CurvatureFactor* inputs = nullptr;
  std::vector<double> col_curvature;  ///< [cols], > 0, damped; where there are no inputs
};

struct LayerCoding {
  unsigned states = 8;  ///< 1, 4, 8, 16, 32
  float step = 1;       ///< c: the step of a weight whose pivots are 1
  std::size_t lane_rows =
      256;              ///< rows of a lane where outputs do not say; fewer where the record cannot hold the lanes
  unsigned passes = 2;  ///< spread classes come from the weights first, then from the targets of the pass before; where
                        ///< no errors are passed on targets are known beforehand, and one pass gives the same
  /// Where no errors are passed on: the step is made larger afterwards, so that values have the scale of the weights
  /// (sum h w v = sum h w^2, h: the curvatures), at most doubled. Codes are as before, the squared error grows by its
  /// share of the weights' squares.
  bool keep_scale = false;
  bool coarsen = false;  ///< a step so fine that a weight is more than 2^18 away from 0 is made coarser, until none is
};

struct CodedLayer {
  TrellisUnit unit;           ///< what a record holds (lmq/codec/trellis_record.hpp)
  std::vector<float> values;  ///< [rows][cols], as decoders have them
  double squared_steps = 0;   ///< loss forecast: half of it times step^2, in the unit of the curvatures
};

/// Codes a layer: steps c / (A_ii B_jj) on a grid of 1/8 octave, spread classes of rows and columns, lanes one by one
/// (cancel), on all threads. Same bits for any threads and instruction set.
/// Errors: Errc::internal where sizes contradict each other; Errc::usage where the step is so fine that a weight lies
/// more than 2^20 steps from 0. Cost: passes times that of cancel.
[[nodiscard]] CodedLayer code_layer(const LayerWeights& weights, const LayerSides& sides, const LayerCoding& coding);

}  // namespace lmq
