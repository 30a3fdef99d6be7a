#include "lmq/quant/gram_use.hpp"

namespace lmq {

bool looks_at_gram(const Traits& traits) noexcept { return traits.sees == Sees::rows && traits.numbered.numbers == 0; }

}  // namespace lmq
