#pragma once
#include <vector>

#include "methods/sparse/sls_l1.hpp"
#include "partition_twin.hpp"

using Doubles = std::vector<double>;

/// Distinct values of a source that the seed chooses, and their weights.
inline lmq::twin::Distinct problem(std::uint64_t seed, std::size_t n, bool weighted) {
  return lmq::twin::distinct(lmq::twin::draw(lmq::twin::kSources[seed % std::size(lmq::twin::kSources)], n, seed),
                             weighted ? lmq::twin::random_weights(n, seed + 1) : std::vector<float>{});
}

inline lmq::SparseData data_of(const lmq::twin::Distinct& d) { return {d.values, d.weights}; }
