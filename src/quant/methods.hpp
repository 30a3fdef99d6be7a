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

}  // namespace lmq
