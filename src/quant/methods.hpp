#pragma once
#include "lmq/quant/quantizer.hpp"

namespace lmq {

// One line per method; each is defined in the source file of its name. registry.cpp lists them in order.
extern const QuantizerEntry kUniform;
extern const QuantizerEntry kKmeans;
extern const QuantizerEntry kSlsL1;
extern const QuantizerEntry kSlsL1L2;
extern const QuantizerEntry kSlsL0;
extern const QuantizerEntry kSlsIter;
extern const QuantizerEntry kSlsCluster;
extern const QuantizerEntry kEcsq;
extern const QuantizerEntry kEcsqIter;
extern const QuantizerEntry kEcsqUniform;
extern const QuantizerEntry kAsq;
extern const QuantizerEntry kAsqIpWorst;
extern const QuantizerEntry kAsqIpMean;
extern const QuantizerEntry kBinary1;
extern const QuantizerEntry kTernary;
extern const QuantizerEntry kBinary2;
extern const QuantizerEntry kBinaryK;

/// Codebooks [K] of the best partitions into K cells, by E3. For QuantizerEntry::all.
[[nodiscard]] std::vector<Codebook> every_partition(const Group& group, std::size_t most_levels);

/// Codebooks [K] of a method whose single fits are quick. For QuantizerEntry::all.
template <const QuantizerEntry& kMethod>
[[nodiscard]] std::vector<Codebook> every_fit(const Group& group, std::size_t most_levels) {
  std::vector<Codebook> books(1);
  for (std::size_t levels = 1; levels <= most_levels; ++levels)
    books.push_back(kMethod.make(default_options(kMethod, levels))->fit(group).codebook);
  return books;
}

}  // namespace lmq
