#pragma once
#include <map>

#include "../kernels/samples.hpp"
#include "lmq/base/parallel.hpp"
#include "lmq/quant/unit.hpp"
#include "lmq/quant/value_histogram.hpp"

namespace samples {

using lmq::DType;
using lmq::Importance;

inline constexpr DType kAllTypes[] = {DType::bf16,    DType::f16,     DType::f32,         DType::f64,
                                      DType::f8_e4m3, DType::f8_e5m2, DType::f8_e4m3fnuz, DType::f8_e5m2fnuz};

inline lmq::TensorView view_of(DType type, std::span<const std::byte> bytes) {
  return {type, bytes, bytes.size() * 8 / lmq::bits(type)};
}

inline std::vector<float> widened(const lmq::TensorView& view) {
  std::vector<float> values(view.count);
  lmq::reference::widen(view.dtype, view.bytes, values);
  return values;
}

/// Importance values: some zero, some large.
inline std::vector<float> importance(std::size_t count, unsigned seed) {
  auto made = floats(count, 0, seed);
  for (float& weight : made) weight = std::fabs(weight);
  for (std::size_t i = 0; i < count; i += 7) made[i] = 0;
  for (std::size_t i = 3; i < count; i += 101) made[i] *= 1000;
  return made;
}

/// Kind outer over `count` weights: rows of `length`, `block_rows` of them to a block (0: one block); factors from
/// `from`, which is long enough. More than 5 parameters: the members of Importance that a window sets.
inline Importance outer(std::span<const float> from, std::size_t count, std::size_t length, std::size_t block_rows,
                        std::size_t first_column, std::size_t first_row, double quantum) {
  const std::size_t rows = (first_column + count + length - 1) / length + 1;
  const std::size_t blocks = block_rows == 0 ? 1 : (first_row + rows) / block_rows + 1;
  static std::map<std::vector<std::size_t>, std::vector<float>> made;  // the spans have to live
  auto& values = made[{from.size(), count, length, block_rows, first_column, first_row}];
  values.resize(blocks * length + rows);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = from[i * 7 % from.size()];
  Importance importance{Importance::Kind::outer, std::span(values).first(blocks * length), first_column, quantum};
  importance.rows = std::span(values).subspan(blocks * length);
  importance.length = length, importance.block_rows = block_rows, importance.first_row = first_row;
  return importance;
}

/// What weight `i` of a window weighs, told plainly.
inline float weight_of(const Importance& importance, std::size_t i) {
  if (importance.kind == Importance::Kind::none) return 1;
  if (importance.kind == Importance::Kind::weights) return importance.values[i];
  const std::size_t at = importance.first_column + i;
  if (importance.kind == Importance::Kind::columns) return importance.values[at % importance.values.size()];
  const std::size_t row = at / importance.length;
  const std::size_t block = importance.block_rows == 0 ? 0 : (importance.first_row + row) / importance.block_rows;
  const float column = importance.values[block * importance.length + at % importance.length];
  return importance.rows.empty() ? column : importance.rows[row] * column;
}

/// Sets the number of threads for a scope.
struct Threads {
  explicit Threads(std::size_t count) { lmq::set_thread_count(count); }
  ~Threads() { lmq::set_thread_count(0); }
};

}  // namespace samples
