#pragma once
#include <vector>

#include "lmq/quant/quantizer.hpp"

namespace lmq {

/// Codebooks [K] of a method whose single fits are quick. For QuantizerEntry::all.
template <const QuantizerEntry& kMethod>
[[nodiscard]] std::vector<Codebook> every_fit(const Group& group, std::size_t most_levels) {
  std::vector<Codebook> books(1);
  for (std::size_t levels = 1; levels <= most_levels; ++levels)
    books.push_back(kMethod.make(default_options(kMethod, levels))->fit(group).codebook);
  return books;
}

}  // namespace lmq
