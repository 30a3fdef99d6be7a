#include "rans_blocks.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

namespace lmq {
namespace {

/// The coded tail lies in the free low halves of the states where the lanes begin: its own state in two, then words.
constexpr std::size_t kTailState = 2;
static_assert(kRansLow == 1U << 16);

/// The last codes as one lane; returns how many there was room for.
std::size_t encode_tail(const RansEncodeTable& table, std::span<const Code> codes, std::span<std::uint32_t> states) {
  std::array<std::uint16_t, kRansMaxLanes> words;
  const auto room = std::span(words).first(states.size() - kTailState);
  const auto last = codes.last(std::min(codes.size(), kMaxTail));
  std::uint32_t state = kRansLow;
  const RansLast coded = rans_encode_last(table, last, state, room);
  std::ranges::fill(states, kRansLow);
  states[0] |= state & 0xFFFF;
  states[1] |= state >> 16;
  for (std::size_t w = coded.begin; w < room.size(); ++w) states[kTailState + w - coded.begin] |= room[w];
  return coded.symbols;
}

/// States as 4 bits for the width of the high half and the bits below its highest; then the low halves.
std::size_t write_states(std::span<const std::uint32_t> states, std::byte* to) {
  std::byte* at = to;
  std::uint64_t pending = 0;
  unsigned bits = 0;
  const auto put = [&](unsigned until) {
    for (; bits >= until && bits > 0; pending >>= 8, bits -= std::min(bits, 8U))
      *at++ = static_cast<std::byte>(pending);
  };
  for (const std::uint32_t state : states) {
    const std::uint32_t high = state >> 16;
    const auto below = static_cast<unsigned>(std::bit_width(high)) - 1;
    pending |= (std::uint64_t{high ^ (1U << below)} << 4 | below) << bits;
    bits += 4 + below;
    put(8);
  }
  put(1);
  for (const std::uint32_t state : states) {
    const auto low = static_cast<std::uint16_t>(state);
    std::memcpy(at, &low, sizeof low);
    at += sizeof low;
  }
  return static_cast<std::size_t>(at - to);
}

/// The reverse; the bytes it took, 0 where these bytes are no states.
std::size_t read_states(std::span<const std::byte> from, std::span<std::uint32_t> states) {
  std::size_t bit = 0;
  for (std::uint32_t& state : states) {
    std::uint32_t window;  // 7 + 19 bits at most; low halves follow the last
    if (bit / 8 + sizeof window > from.size()) return 0;
    std::memcpy(&window, from.data() + bit / 8, sizeof window);
    window >>= bit % 8;
    const unsigned below = window & 15;
    state = ((window >> 4 & ((1U << below) - 1)) | 1U << below) << 16;
    bit += 4 + below;
  }
  if (bit % 8 != 0 && std::to_integer<unsigned>(from[bit / 8]) >> bit % 8 != 0) return 0;
  std::size_t end = (bit + 7) / 8;
  if (end + 2 * states.size() > from.size()) return 0;
  for (std::uint32_t& state : states) {
    std::uint16_t low;
    std::memcpy(&low, from.data() + end, sizeof low);
    state |= low;
    end += sizeof low;
  }
  return end;
}

}  // namespace

void encode_rans_block(const RansEncodeTable& table, std::span<const Code> codes, std::span<std::uint16_t> words,
                       RansBlock& block) noexcept {
  std::array<std::uint32_t, kRansMaxLanes> room;
  const std::span<std::uint32_t> states = std::span(room).first(rans_lanes(codes.size()));
  const auto tail = static_cast<std::uint16_t>(encode_tail(table, codes, states));
  block.words = words.subspan(rans_encode(table, codes.first(codes.size() - tail), states, words));
  std::memcpy(block.room.data(), &tail, sizeof tail);
  block.start_bytes = sizeof tail + write_states(states, block.room.data() + sizeof tail);
}

std::optional<RansStart> read_rans_start(std::span<const std::byte> block, std::uint64_t codes) noexcept {
  RansStart start;
  std::uint16_t tail;
  if (block.size() < sizeof tail) return {};
  std::memcpy(&tail, block.data(), sizeof tail);
  const auto rest = block.subspan(sizeof tail);
  if (tail > std::min<std::uint64_t>(codes, kMaxTail)) return {};
  start.tail = tail;
  start.cursor.lanes = rans_lanes(codes);
  const std::size_t size = read_states(rest, std::span(start.cursor.state).first(start.cursor.lanes));
  const std::size_t words = rest.size() - size;
  if (size == 0 || words % 2 != 0 || words / 2 > codes - tail) return {};
  start.cursor.word = rest.data() + size;
  start.cursor.end = rest.data() + rest.size();
  return start;
}

bool decode_rans_tail(const RansDecodeTable& table, const RansCursor& ended, std::span<Code> codes) noexcept {
  if (!rans_finished(ended)) return false;
  std::array<std::uint16_t, kRansMaxLanes> words;
  const auto free = std::span(words).first(ended.lanes);
  std::ranges::transform(std::span(ended.state).first(ended.lanes), free.begin(),
                         [](std::uint32_t state) { return static_cast<std::uint16_t>(state); });
  RansCursor lane;
  lane.lanes = 1;
  lane.state[0] = free[0] | std::uint32_t{free[1]} << 16;
  lane.word = std::as_bytes(free.subspan(kTailState)).data();
  lane.end = lane.word + free.subspan(kTailState).size_bytes();
  return lane.state[0] >= kRansLow && rans_decode(table, lane, codes) && lane.state[0] == kRansLow &&
         std::all_of(lane.word, lane.end, [](std::byte byte) { return byte == std::byte{0}; });
}

}  // namespace lmq
