#include "lmq/kernels/rans.hpp"

#include <hwy/highway.h>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>

#include "lmq/codec/model.hpp"
#include "lmq/kernels/pack.hpp"
#include "units.hpp"

using namespace lmq;

namespace {
struct Coded {
  std::vector<std::uint32_t> states;
  std::vector<std::uint16_t> words;
};
using Encode = std::size_t (*)(const RansEncodeTable&, std::span<const std::uint8_t>, std::span<std::uint32_t>,
                               std::span<std::uint16_t>) noexcept;
using Decode = bool (*)(const RansDecodeTable&, RansCursor&, std::span<std::uint8_t>) noexcept;

Coded encode_by(Encode encode, const RansModel& model, std::span<const Code> codes, std::size_t lanes) {
  RansEncodeTable table;
  make_rans_encode_table(model, table);
  Coded coded{std::vector<std::uint32_t>(lanes), std::vector<std::uint16_t>(codes.size() + kRansSlackWords)};
  for (std::size_t lane = 0; lane < lanes; ++lane)
    coded.states[lane] = kRansLow + static_cast<std::uint32_t>(lane * 991);
  const std::size_t begin = encode(table, codes, coded.states, coded.words);
  coded.words.erase(coded.words.begin(), coded.words.begin() + static_cast<std::ptrdiff_t>(begin));
  return coded;
}

RansCursor cursor_of(const Coded& coded) {
  RansCursor cursor;
  cursor.lanes = coded.states.size();
  std::memcpy(cursor.state.data(), coded.states.data(), 4 * cursor.lanes);
  cursor.word = std::as_bytes(std::span(coded.words)).data();
  cursor.end = cursor.word + 2 * coded.words.size();
  return cursor;
}

RansModel model_of(std::span<const Code> codes, unsigned levels, unsigned bits) {
  CodeCounts counts{};
  count_codes(codes, counts);
  for (unsigned s = 0; s < levels; ++s) counts[s] = std::max<std::uint64_t>(counts[s], 1);
  return fit_model(counts, bits);
}

/// Vector kernels run on no more than these instruction sets until the end of the scope.
struct Targets {
  explicit Targets(std::int64_t targets) { set(targets); }
  ~Targets() { set(0); }
  Targets(const Targets&) = delete;
  Targets& operator=(const Targets&) = delete;
  static void set(std::int64_t targets) {
    hwy::SetSupportedTargetsForTest(targets);
    hwy::GetChosenTarget().DeInit();
  }
};
}  // namespace

TEST_CASE("rans: coding and decoding restore the codes and the 16 bits of every lane, and the twins agree",
          "[rans][twin]") {
  const std::size_t count = GENERATE(0u, 1u, 15u, 16u, 63u, 64u, 65u, 1000u, 4096u, 20011u);
  const unsigned levels = GENERATE(2u, 3u, 15u, 16u, 17u, 32u, 33u, 100u, 256u);
  const std::size_t lanes = GENERATE(1u, 4u, 16u, 64u);
  const unsigned bits = GENERATE(8u, 12u, 13u, 15u), dice = GENERATE(1u, 6u);
  const bool best = GENERATE(true, false);
  CAPTURE(count, levels, lanes, bits, dice, best);
  const Targets targets(best ? 0 : HWY_AVX2 | HWY_SSE4 | HWY_SSSE3 | HWY_SCALAR | HWY_NEON | HWY_EMU128);
  const auto codes = bell_codes(count, levels, dice, count + levels);
  const RansModel model = model_of(codes, levels, bits);
  const Coded coded = encode_by(rans_encode, model, codes, lanes);
  const Coded plain = encode_by(rans_encode_reference, model, codes, lanes);
  REQUIRE((coded.states == plain.states && coded.words == plain.words));

  RansDecodeTable table;
  make_rans_decode_table(model, table);
  for (const Decode decode : {Decode{rans_decode}, Decode{rans_decode_reference}}) {
    RansCursor cursor = cursor_of(coded);
    std::vector<Code> back(count, 0xEE);
    const std::size_t portion = count / 2 / lanes * lanes;  // in two portions
    REQUIRE(decode(table, cursor, std::span(back).first(portion)));
    REQUIRE(decode(table, cursor, std::span(back).subspan(portion)));
    REQUIRE(back == codes);
    REQUIRE(rans_finished(cursor));
    for (std::size_t lane = 0; lane < lanes; ++lane) REQUIRE(cursor.state[lane] == kRansLow + lane * 991);
  }
}

TEST_CASE("rans: the last codes are as many as there is room for, and decode as one lane", "[rans]") {
  const std::size_t count = GENERATE(0u, 1u, 2u, 100u, 5000u), room = GENERATE(0u, 1u, 2u, 14u, 62u);
  const unsigned levels = GENERATE(2u, 16u, 200u), bits = GENERATE(8u, 12u, 15u), dice = GENERATE(1u, 9u);
  CAPTURE(count, room, levels, bits, dice);
  const auto codes = bell_codes(count, levels, dice, count + room);
  const RansModel model = model_of(codes, levels, bits);
  RansEncodeTable table;
  make_rans_encode_table(model, table);
  std::vector<std::uint16_t> words(room, 0xEEEE);
  std::uint32_t state = kRansLow;
  const RansLast last = rans_encode_last(table, codes, state, words);
  REQUIRE(last.symbols <= count);
  // The same by the coder of whole runs; with one code more it needs a word more.
  for (const std::size_t more : {0u, 1u}) {
    if (last.symbols + more > count) continue;
    std::vector<std::uint32_t> one{kRansLow};
    std::vector<std::uint16_t> all(count + kRansSlackWords);
    const std::size_t begin = rans_encode_reference(table, std::span(codes).last(last.symbols + more), one, all);
    REQUIRE(all.size() - begin == (more == 0 ? room - last.begin : room + 1));
    if (more == 1) continue;
    REQUIRE(one[0] == state);
    REQUIRE(std::equal(all.begin() + static_cast<std::ptrdiff_t>(begin), all.end(),
                       words.begin() + static_cast<std::ptrdiff_t>(last.begin)));
  }
  RansDecodeTable decode_table;
  make_rans_decode_table(model, decode_table);
  words.erase(words.begin(), words.begin() + static_cast<std::ptrdiff_t>(last.begin));
  const Coded coded{{state}, words};
  for (const Decode decode : {Decode{rans_decode}, Decode{rans_decode_reference}}) {
    RansCursor cursor = cursor_of(coded);
    std::vector<Code> back(last.symbols);
    REQUIRE(decode(decode_table, cursor, back));
    REQUIRE(std::equal(back.begin(), back.end(), codes.end() - static_cast<std::ptrdiff_t>(last.symbols)));
    REQUIRE((rans_finished(cursor) && cursor.state[0] == kRansLow));
  }
}

TEST_CASE("rans: codes that are nearly all the same still decode, with few words", "[rans]") {
  const unsigned levels = GENERATE(2u, 20u, 200u);
  auto codes = std::vector<Code>(200'000, 1);
  for (std::size_t i = 0; i < codes.size(); i += 9973) codes[i] = 0;
  const RansModel model = model_of(codes, levels, 15);
  const Coded coded = encode_by(rans_encode, model, codes, 64);
  REQUIRE(coded.words.size() < 400);
  RansDecodeTable table;
  make_rans_decode_table(model, table);
  RansCursor cursor = cursor_of(coded);
  std::vector<Code> back(codes.size());
  REQUIRE(rans_decode(table, cursor, back));
  REQUIRE((back == codes && rans_finished(cursor)));
}

TEST_CASE("rans: any states and words give codes of the alphabet or false, alike in both twins", "[rans][hostile]") {
  const unsigned levels = GENERATE(2u, 16u, 30u, 256u), bits = GENERATE(8u, 12u, 15u);
  const std::size_t lanes = GENERATE(1u, 4u, 16u, 64u), words = GENERATE(0u, 1u, 100u, 3000u);
  Random random{levels * 1000 + bits + words};
  const RansModel model = model_of(bell_codes(5000, levels, 3, 9), levels, bits);
  RansDecodeTable table;
  make_rans_decode_table(model, table);
  Coded noise{std::vector<std::uint32_t>(lanes), std::vector<std::uint16_t>(words)};
  for (auto& state : noise.states) state = static_cast<std::uint32_t>(random());
  for (auto& word : noise.words) word = static_cast<std::uint16_t>(random());
  RansCursor fast = cursor_of(noise), plain = cursor_of(noise);
  std::vector<Code> a(8192), b(8192);
  const bool ended = rans_decode(table, fast, a);
  REQUIRE(ended == rans_decode_reference(table, plain, b));
  if (ended) REQUIRE((a == b && fast.word == plain.word));
  REQUIRE(std::ranges::all_of(a, [&](Code code) { return code < levels; }));
}

TEST_CASE("rans: the quotient of every frequency is exact at and around every multiple", "[rans]") {
  const unsigned bits = GENERATE(8u, 11u, 12u, 15u);
  CAPTURE(bits);
  const std::uint32_t whole = 1U << bits;
  std::uint64_t wrong = 0;
  for (std::uint32_t f = 1; f < whole; ++f) {
    RansModel model{.bits = bits, .symbols = 2, .freq = {}};
    model.freq[0] = static_cast<std::uint16_t>(f);
    model.freq[1] = static_cast<std::uint16_t>(whole - f);
    RansEncodeTable table;
    make_rans_encode_table(model, table);
    const std::uint64_t bound = std::uint64_t{f} << (32 - bits);
    const auto check = [&](std::uint64_t x) {
      if (x < 1 || x >= bound) return;
      const auto quotient = static_cast<std::uint32_t>((x + table.increment) * table.reciprocal[0] >> 32) >>
                            (table.complement_shift[0] & 31);
      const std::uint64_t next =
          x + (table.limit_bias[0] & 0x1FFFF) + std::uint64_t{quotient} * (table.complement_shift[0] >> 16);
      wrong += next != (x / f << bits) + x % f;  // start of symbol 0 is 0
    };
    Random random{f};
    const std::uint64_t multiples = bound / f;
    for (int k = 0; k < 20; ++k) {
      const std::uint64_t multiple =
          (k < 4 ? multiples - static_cast<std::uint64_t>(k) : random.below(multiples + 1)) * f;
      check(multiple - 1), check(multiple), check(multiple + 1);
    }
  }
  REQUIRE(wrong == 0);
}

TEST_CASE("rans: a model is valid only with frequencies below and summing to 2^bits", "[rans]") {
  RansModel model{.bits = 8, .symbols = 2, .freq = {}};
  model.freq[0] = 200, model.freq[1] = 56;
  REQUIRE(is_valid(model));
  model.freq[1] = 57;
  REQUIRE(!is_valid(model));
  model.freq[0] = 256, model.freq[1] = 0;
  REQUIRE(!is_valid(model));
  model.freq[0] = 200, model.freq[2] = 56;  // beyond the alphabet
  REQUIRE(!is_valid(model));
  model.symbols = 3;
  REQUIRE(is_valid(model));
  model.bits = 16;
  REQUIRE(!is_valid(model));
}

TEST_CASE("rans: what integer states cost is foreseen, where codes mix the states", "[rans][model]") {
  const unsigned levels = GENERATE(2u, 4u, 5u, 16u, 30u), bits = GENERATE(13u, 14u, 15u), dice = GENERATE(2u, 12u);
  CAPTURE(levels, bits, dice);
  const std::size_t count = 1'000'000, lanes = 64;
  const auto codes = bell_codes(count, levels, dice, levels);
  CodeCounts counts{};
  count_codes(codes, counts);
  const RansModel model = fit_model(counts, bits);
  const Coded coded = encode_by(rans_encode, model, codes, lanes);
  double stored = 16.0 * double(coded.words.size());
  for (std::size_t lane = 0; lane < lanes; ++lane)
    stored += std::log2(coded.states[lane]) - std::log2(kRansLow + lane * 991);
  const double rounding = stored - double(coded_bits(counts, model)), foreseen = double(rounding_bits(counts, model));
  CAPTURE(rounding, foreseen);
  const double chance = 2e-5 * double(count);
  REQUIRE(rounding <= 1.5 * foreseen + chance);
  if (levels > 4) REQUIRE(rounding >= foreseen / 1.5 - chance);  // two halves of M leave the low bits as they are
}
