#pragma once
#include <cstdint>
#include <string>

namespace lmq {

/// Why a tensor is not to be quantized like others. Values travel between ranks: never renumbered.
enum class Fitness : std::uint8_t {
  companion = 1,    ///< belongs to a weight that is quantized already, or is such a weight: kept raw
  unscaled = 2,     ///< an 8-bit float whose scale is not known: refused, unless the recipe says it is plain
  unsupported = 3,  ///< scaled in a way that is not supported: refused
  malformed = 4,    ///< scaled by what does not fit it: refused
  nonfinite = 5,    ///< holds NaN or infinity: kept raw
};

/// What is known of one tensor of a checkpoint beside its header.
struct TensorNote {
  std::uint32_t tensor = 0;  ///< index into the catalogue's tensors
  Fitness fitness = Fitness::companion;
  std::string text = {};  ///< companion: the reason to keep it; refused: the whole line but for the ways out
  friend bool operator==(const TensorNote&, const TensorNote&) = default;
};

}  // namespace lmq
