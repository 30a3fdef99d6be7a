#pragma once
#include <cstddef>
#include <functional>
#include <map>
#include <set>
#include <span>
#include <string>

#include "lmq/container/quantized_file.hpp"

namespace lmq::app {

/// Takes the stored bytes of each unit of a tensor in order. Errc::malformed where they do not have the recorded
/// digest, Errc::interrupted after a signal.
void each_stored_unit(const QuantizedFile& file, const StoredTensor& tensor, std::vector<std::byte>& scratch,
                      const std::function<void(const StoredUnit&, std::span<const std::byte>)>& take);

/// The 8-bit floats that a file of ours keeps beside their scales, as the numbers they stand for. `file` outlives it.
class KeptFp8 {
 public:
  explicit KeptFp8(const QuantizedFile& file);
  [[nodiscard]] bool empty() const noexcept { return pairs_.empty(); }
  /// Names of these weights, and of the tensors that scale them.
  [[nodiscard]] const std::set<std::string>& weights() const noexcept { return weights_; }
  [[nodiscard]] const std::set<std::string>& scales() const noexcept { return scales_; }
  /// The values with their scales applied, unit by unit. tensor: of weights().
  void floats(const StoredTensor& tensor, const std::function<void(std::span<const float>)>& take) const;

 private:
  struct Pair {
    TensorInfo weight, scale;
    std::size_t scale_index = 0;  // in the file's tensors
  };
  const QuantizedFile& file_;
  std::map<std::string, Pair> pairs_;
  std::set<std::string> weights_, scales_;
};

}  // namespace lmq::app
