#include "coders.hpp"

#include <algorithm>
#include <array>

namespace lmq {
namespace {
constexpr std::array kCoders{&kFixedCoder, &kRansCoder, &kHuffmanCoder, &kPlanesCoder};
}  // namespace

std::span<const Coder* const> coders() noexcept { return kCoders; }

const Coder* find_coder(CoderChoice id) noexcept {
  const auto at = std::ranges::find(kCoders, id, [](const Coder* coder) { return coder->id; });
  return at == kCoders.end() ? nullptr : *at;
}

DecodeTables& decode_tables() noexcept {
  thread_local DecodeTables tables;
  return tables;
}

}  // namespace lmq
