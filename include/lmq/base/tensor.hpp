#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "lmq/base/dtype.hpp"

namespace lmq {

/// One named array of a checkpoint, as its catalogue lists it.
struct TensorInfo {
  std::string name;                    ///< valid UTF-8 without NUL, unique in the checkpoint
  DType dtype = DType::f32;            ///< type on disk
  std::vector<std::uint64_t> shape;    ///< row-major; empty: a scalar (one element)
  std::uint32_t shard = 0;             ///< index into Catalogue::shards
  std::uint64_t offset = 0;            ///< first byte, from the start of the shard's file
  std::uint64_t bytes = 0;             ///< length in the file
  std::int64_t scale = -1;             ///< index of the tensor that scales this one by blocks (block-scaled FP8), or -1
  std::int64_t scales = -1;            ///< index of the tensor that this one scales, or -1
  std::uint64_t scale_block_rows = 0;  ///< rows of one block of the scale, 0 without a scale
  std::uint64_t scale_block_cols = 0;  ///< columns of one block of the scale, 0 without a scale

  /// Number of elements: the product of `shape` (checked by the reader), 1 for a scalar.
  [[nodiscard]] std::uint64_t count() const noexcept {
    std::uint64_t product = 1;
    for (const std::uint64_t dim : shape) product *= dim;
    return product;
  }
  /// Type of the values a reader's view gives: that on disk, F32 where a scale is applied.
  [[nodiscard]] DType value_type() const noexcept { return scale >= 0 ? DType::f32 : dtype; }
};

/// Untyped window on consecutive elements of a tensor (row-major), valid as long as the bytes behind it.
struct TensorView {
  DType dtype = DType::f32;
  std::span<const std::byte> bytes;  ///< count * bits(dtype) / 8, little-endian
  std::size_t count = 0;             ///< elements
};

}  // namespace lmq
