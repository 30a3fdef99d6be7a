#include "coders.hpp"

#include <algorithm>
#include <array>

namespace lmq {
namespace {
#define LMQ_CODER(name, number, whole_bits, coder) &coder,
constexpr std::array kCoders{
#include "lmq/base/coders.inc"
};
#undef LMQ_CODER
#define LMQ_CODER(name, number, whole_bits, coder) #name,
constexpr std::array<std::string_view, kCoders.size()> kNames{
#include "lmq/base/coders.inc"
};
#undef LMQ_CODER
}  // namespace

std::span<const Coder* const> coders() noexcept { return kCoders; }

std::string_view name_of(const Coder& coder) noexcept {
  return kNames[static_cast<std::size_t>(std::ranges::find(kCoders, &coder) - kCoders.begin())];
}

const Coder* find_coder(CoderChoice id) noexcept {
  const auto at = std::ranges::find(kCoders, id, [](const Coder* coder) { return coder->id; });
  return at == kCoders.end() ? nullptr : *at;
}

DecodeTables& decode_tables() noexcept {
  thread_local DecodeTables tables;
  return tables;
}

}  // namespace lmq
