#pragma once
#include "lmq/io/importance_file.hpp"
#include "lmq/quant/importance.hpp"

namespace lmq {

/// What was read of an importance file, as the quantizer takes it. Points into `window`.
[[nodiscard]] inline Importance view_of(const ImportanceWindow& window, double quantum = 1) noexcept {
  using Kind = Importance::Kind;
  Importance importance;
  importance.kind = window.kind == ImportanceKind::weights                             ? Kind::weights
                    : window.kind == ImportanceKind::columns && window.block_rows == 0 ? Kind::columns
                                                                                       : Kind::outer;
  importance.values = window.values;
  importance.rows = window.rows;
  importance.first_column = window.first_column;
  importance.length = window.length;
  importance.block_rows = window.block_rows;
  importance.first_row = window.first_row;
  importance.quantum = quantum;
  importance.gram = window.gram;
  importance.gram_key = window.gram_key;
  importance.outer = window.outer;
  importance.outer_rows = window.outer.empty() ? 0 : window.outer_rows;
  importance.outer_mean = window.outer.empty() ? 0 : window.outer_mean;
  return importance;
}

}  // namespace lmq
