#pragma once
#include <cstdint>

#include "lmq/base/quantized_unit.hpp"
#include "lmq/base/tensor.hpp"
#include "lmq/quant/importance.hpp"
#include "lmq/quant/quantizer.hpp"
#include "lmq/quant/unit_stats.hpp"

namespace lmq {

enum class Granularity : std::uint8_t { model = 0, tensor = 1, row = 2, group = 3 };

/// How one tensor is to be quantized.
struct QuantSpec {
  std::uint16_t method = 0;  ///< registry id
  QuantizerOptions options;
  Granularity granularity = Granularity::tensor;
  std::uint64_t group = 0;  ///< weights per codebook for Granularity::group (a row's last group may be shorter)
  LevelType level_type = LevelType::f32;
  CoderChoice coder = CoderChoice::cheapest;
  bool budgeted = false;  ///< how many bits it gets is decided by a budget over all tensors
  bool widths = false;    ///< which gives whole bits: a power of two of levels
};

struct UnitOutcome {
  QuantizedUnit unit;
  UnitStats stats;
};

/// Where a window stands among the draws of stochastic rounding.
struct Draws {
  std::uint64_t tensor = 0;  ///< stands for the tensor: a digest of its name
  std::uint64_t first = 0;   ///< element of the tensor with which the window begins
};

/// Quantizes one window of a tensor: fits codebooks per row or group, or takes `shared` (granularity model and tensor),
/// assigns, measures. cols: row length of the tensor (row and group windows are whole rows). The view holds finite
/// values (see first_nonfinite). With a shared codebook of prices the importance's quantum is that of its fit. Parallel
/// inside over fixed blocks; same bits for any thread count and instruction set. `recycle` gives back the buffers of an
/// earlier outcome (fresh pages are the dearest bytes).
[[nodiscard]] UnitOutcome quantize_unit(const RowWindow& window, const QuantSpec& spec, const Codebook* shared,
                                        QuantizedUnit&& recycle = {}, const Draws& draws = {});

struct LayerOutcome {
  TrellisUnit unit;
  UnitStats stats;
};
/// The same for methods that see layers: a window of whole rows of one layer. Errors: Errc::malformed where the
/// curvature cannot be one.
[[nodiscard]] LayerOutcome quantize_layer_unit(const RowWindow& window, const QuantSpec& spec);
/// What a budget needs to know of the window.
[[nodiscard]] SpreadHistogram layer_spreads(const RowWindow& window, const QuantSpec& spec);
[[nodiscard]] LayerNeeds layer_needs(const QuantSpec& spec, const LayerShape& shape);

/// The traits of a spec's method with its options. Errc::internal when no method has that id, Errc::usage when the
/// method refuses the options (never for complete ones).
[[nodiscard]] Traits traits_of(const QuantSpec& spec);

/// Bins the statistics behind a shared codebook have in the end (see expected_bins of a histogram); weighted: there is
/// importance, whose layers a method may want apart. Errors: those of traits_of.
[[nodiscard]] std::uint64_t expected_bins(DType dtype, const QuantSpec& spec, bool weighted);

/// Numbers that are stored for the codebooks of a unit of `count` weights in rows of `cols`. Errors: those of
/// traits_of.
[[nodiscard]] std::uint64_t stored_numbers(const QuantSpec& spec, std::uint64_t count, std::uint64_t cols);

/// Bytes of scratch quantize_unit holds beside view and outcome, for a window of `count` weights and `threads` threads.
/// Errors: those of traits_of.
[[nodiscard]] std::uint64_t quantize_scratch_bytes(DType dtype, const QuantSpec& spec, std::uint64_t count,
                                                   std::uint64_t cols, std::size_t threads, bool weighted = false);

}  // namespace lmq
