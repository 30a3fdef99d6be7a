#include "lmq/kernels/pack.hpp"

#include <catch2/catch.hpp>

#include "units.hpp"

using namespace lmq;

TEST_CASE("pack: both twins write the same bytes and read the codes back, for every width and length", "[pack][twin]") {
  const unsigned bits = GENERATE(range(1u, 9u));
  const std::size_t count = GENERATE(0u, 1u, 7u, 8u, 9u, 15u, 16u, 17u, 63u, 64u, 65u, 200u, 4099u);
  CAPTURE(bits, count);
  const auto codes = bell_codes(count, 1U << bits, 1, count + bits);
  std::vector<std::byte> packed(packed_bytes(count, bits), std::byte{0xAA}), plain(packed.size(), std::byte{0x55});
  REQUIRE(packed.size() == (count * bits + 7) / 8);
  pack_codes(codes, bits, packed);
  pack_codes_reference(codes, bits, plain);
  REQUIRE(packed == plain);
  std::vector<Code> back(count), back_plain(count);
  unpack_codes(packed, bits, back);
  unpack_codes_reference(packed, bits, back_plain);
  REQUIRE((back == codes && back_plain == codes));
}

TEST_CASE("pack: planes of both twins are the same, and together they are the codes", "[pack][twin]") {
  const std::size_t count = GENERATE(0u, 1u, 7u, 8u, 9u, 64u, 65u, 4099u);
  const auto codes = bell_codes(count, 256, 1, count);
  std::vector<Code> back(count, 0), back_plain(count, 0);
  for (unsigned bit = 0; bit < 8; ++bit) {
    std::vector<std::byte> plane(packed_bytes(count, 1), std::byte{0xAA}), plain(plane.size(), std::byte{0x55});
    pack_plane(codes, bit, plane), pack_plane_reference(codes, bit, plain);
    REQUIRE(plane == plain);
    unpack_plane(plane, bit, back), unpack_plane_reference(plane, bit, back_plain);
  }
  REQUIRE((back == codes && back_plain == codes));
}

TEST_CASE("pack: the first code lies in the lowest bits of the first byte", "[pack]") {
  const std::vector<Code> codes{1, 2, 3, 4};
  std::vector<std::byte> packed(2);
  pack_codes(codes, 3, packed);  // 100 011 010 001
  REQUIRE(packed[0] == std::byte{0b11010001});
  REQUIRE(packed[1] == std::byte{0b1000});
}

TEST_CASE("count_codes adds to the counts", "[pack]") {
  const std::size_t count = GENERATE(0u, 1u, 9u, 1003u);
  const auto codes = bell_codes(count, 256, 2, 5);
  std::array<std::uint64_t, 256> counts{}, expected{};
  counts[3] = expected[3] = 40;
  for (const Code code : codes) ++expected[code];
  count_codes(codes, counts);
  REQUIRE(counts == expected);
}

TEST_CASE("values: table and grid give the definition's floats on every length, bit for bit", "[pack][twin]") {
  const std::size_t count = GENERATE(0u, 1u, 15u, 16u, 17u, 64u, 1001u);
  const unsigned levels = GENERATE(1u, 2u, 16u, 17u, 32u, 33u, 256u);
  CAPTURE(count, levels);
  const auto codes = bell_codes(count, levels, 1, 3);
  std::vector<float> book, actual(count), expected(count);
  for (unsigned k = 0; k < levels; ++k) book.push_back(1.0F / static_cast<float>(k + 3));
  table_values(codes, book, actual);
  for (std::size_t i = 0; i < count; ++i) expected[i] = book[codes[i]];
  REQUIRE(actual == expected);
  const float low = -0.7313F, step = 0.0123457F;
  grid_values(codes, low, step, actual);
  for (std::size_t i = 0; i < count; ++i) {
    const volatile float scaled = static_cast<float>(codes[i]) * step;
    expected[i] = low + scaled;
  }
  REQUIRE(actual == expected);
}
