#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "layout.hpp"
#include "lmq/kernels/rans.hpp"

namespace lmq {

/// A block of codes by rans (docs/format.md, section 2.4): what its decoder starts from, then words.
struct RansBlock {
  /// u16 tail, up to 4 + 15 bits per lane, u16 per lane.
  static constexpr std::size_t kMaxStart = 2 + (19 * kRansMaxLanes + 7) / 8 + 2 * kRansMaxLanes;
  std::array<std::byte, kMaxStart> room;
  std::size_t start_bytes = 0;
  std::span<const std::uint16_t> words;
  [[nodiscard]] std::span<const std::byte> start() const noexcept { return std::span(room).first(start_bytes); }
  [[nodiscard]] std::size_t size() const noexcept { return start_bytes + words.size_bytes(); }
};
/// Codes 1 to kBlockCodes codes; `words` has room for codes.size() + kRansSlackWords and is what the block points into.
void encode_rans_block(const RansEncodeTable& table, std::span<const Code> codes, std::span<std::uint16_t> words,
                       RansBlock& block) noexcept;

/// The start of a block of so many codes; nothing where its bytes cannot be one.
[[nodiscard]] std::optional<RansStart> read_rans_start(std::span<const std::byte> block, std::uint64_t codes) noexcept;
/// The codes of the tail, from the states where coding began; false unless every bit of theirs is accounted for.
[[nodiscard]] bool decode_rans_tail(const RansDecodeTable& table, const RansCursor& ended,
                                    std::span<Code> codes) noexcept;

}  // namespace lmq
