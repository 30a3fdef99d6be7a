#pragma once
#include "lmq/quant/quantizer.hpp"

namespace lmq {

// One line per method; each is defined in the source file of its name. registry.cpp lists them in order.
extern const QuantizerEntry kUniform;
extern const QuantizerEntry kKmeans;

}  // namespace lmq
