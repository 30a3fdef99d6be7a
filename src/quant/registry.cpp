#include <array>
#include <string>

#include "lmq/base/error.hpp"
#include "lmq/quant/quantizer.hpp"
#include "methods.hpp"

namespace lmq {

std::span<const QuantizerEntry> quantizers() noexcept {
  static const std::array table{kUniform,    kKmeans,      kSlsL1,   kSlsL1L2,    kSlsL0,    kSlsIter,
                                kSlsCluster, kBinary1,     kTernary, kBinary2,    kBinaryK,  kEcsq,
                                kEcsqIter,   kEcsqUniform, kAsq,     kAsqIpWorst, kAsqIpMean};
  return table;
}

const QuantizerEntry& find_quantizer(std::string_view name) {
  std::string known;
  for (const QuantizerEntry& entry : quantizers()) {
    if (entry.name == name) return entry;
    known += (known.empty() ? "" : ", ") + std::string(entry.name);
  }
  fail(Errc::usage, "method '" + std::string(name) + "' is unknown (there are: " + known + ")");
}

const QuantizerEntry* find_quantizer(std::uint16_t id) noexcept {
  for (const QuantizerEntry& entry : quantizers())
    if (entry.id == id) return &entry;
  return nullptr;
}

}  // namespace lmq
