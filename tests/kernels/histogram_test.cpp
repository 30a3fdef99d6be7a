#include "lmq/kernels/histogram.hpp"

#include <catch2/catch.hpp>

#include "kernels/samples.hpp"
#include "lmq/kernels/keys.hpp"

using lmq::DType;

TEST_CASE("16-bit histograms count every pattern, at any address, over several windows") {
  lmq::Histogram16 histogram;
  std::vector<std::uint64_t> fast(65536), plain(65536);
  std::vector<std::byte> room;
  for (const std::size_t length : samples::kLengths)
    for (const int kind : {0, 1, 2, 3, 4}) {
      const auto bytes = samples::bytes(DType::bf16, length, kind, 3);
      histogram.add(bytes.data(), length);
      histogram.add(samples::shifted(bytes, room).data(), length);
      lmq::reference::add_histogram16(bytes.data(), length, plain);
      lmq::reference::add_histogram16(bytes.data(), length, plain);
      if (kind % 2 == 0) histogram.drain(fast);
    }
  histogram.drain(fast);
  CHECK((fast == plain));
  histogram.drain(fast);
  CHECK((fast == plain));
}

TEST_CASE("8-bit histograms count every byte") {
  std::vector<std::uint64_t> fast(256), plain(256);
  for (const std::size_t length : samples::kLengths) {
    const auto bytes = samples::bytes(DType::f32, length, 2, 4);
    lmq::add_histogram8(bytes.data(), bytes.size(), fast);
    lmq::reference::add_histogram8(bytes.data(), bytes.size(), plain);
  }
  CHECK((fast == plain));
}

TEST_CASE("moments are exact integers") {
  lmq::MomentHistogram histogram;
  std::vector<lmq::Moments> fast(65536), plain(65536);
  std::vector<std::byte> room;
  for (const std::size_t length : samples::kLengths)
    for (const int kind : {0, 2, 3, 4}) {
      const auto bytes = samples::bytes(DType::f32, length, kind, 6);
      histogram.add(samples::shifted(bytes, room).data(), length);
      lmq::reference::add_moments(bytes.data(), length, plain);
      if (kind == 3) (void)histogram.drain(fast);
    }
  (void)histogram.drain(fast);
  bool same = true;
  for (std::size_t bin = 0; bin < 65536; ++bin)
    same = same && fast[bin].count == plain[bin].count && fast[bin].first == plain[bin].first &&
           fast[bin].second == plain[bin].second;
  CHECK(same);
}

TEST_CASE("moments survive more weights than a cell holds", "[slow]") {
  // 2^25 equal values with offset 65535: the packed sums of a cell hold 2^24 - 1 of them.
  const std::size_t count = (std::size_t{1} << 25) + 3;
  const std::vector<float> values(count, std::bit_cast<float>(0x3F80FFFFu));
  lmq::MomentHistogram histogram;
  histogram.add(reinterpret_cast<const std::byte*>(values.data()), count);
  std::vector<lmq::Moments> totals(65536);
  const lmq::KeyExtremes extremes = histogram.drain(totals);
  CHECK((extremes.lowest == 0xBF80FFFFu && extremes.highest == 0xBF80FFFFu));
  const lmq::Moments& bin = totals[0xBF80];
  CHECK(bin.count == count);
  CHECK(bin.first == count * 65535u);
  CHECK(bin.second == static_cast<unsigned __int128>(count) * 65535u * 65535u);
}

TEST_CASE("extremes are those of the finite floats") {
  for (const std::size_t length : samples::kLengths)
    for (const int kind : {0, 2, 3}) {
      auto values = samples::floats(length, kind, 14);
      for (const bool spoiled : {false, true}) {
        if (spoiled)
          for (std::size_t i = 0; i < length; i += 11)
            values[i] = std::vector{std::nanf(""), -std::nanf(""), INFINITY, -INFINITY}[i % 4];
        lmq::KeyExtremes plain;
        for (const float value : values)
          if (std::isfinite(value)) {
            plain.lowest = std::min(plain.lowest, lmq::float_key(value));
            plain.highest = std::max(plain.highest, lmq::float_key(value));
          }
        lmq::MomentHistogram histogram;
        std::vector<lmq::Moments> totals(65536);
        histogram.add(reinterpret_cast<const std::byte*>(values.data()), length / 2);
        histogram.add(reinterpret_cast<const std::byte*>(values.data() + length / 2), length - length / 2);
        const lmq::KeyExtremes extremes = histogram.drain(totals);
        CHECK((extremes.lowest == plain.lowest && extremes.highest == plain.highest));
      }
    }
}

TEST_CASE("filtered keys are those of the reference, in order, at any address") {
  for (const std::size_t length : samples::kLengths)
    for (const int kind : {0, 2, 3}) {
      const auto bytes = samples::bytes(DType::f32, length, kind, 15);
      lmq::KeyFilter filter{};
      std::mt19937 random(4);
      for (auto& word : filter) word = static_cast<std::uint32_t>(random()) & static_cast<std::uint32_t>(random());
      std::vector<std::byte> room;
      std::vector<std::uint32_t> fast(length + lmq::kFilterSlack), plain(length + lmq::kFilterSlack);
      fast.resize(lmq::filter_keys(samples::shifted(bytes, room).data(), length, filter, fast.data()));
      plain.resize(lmq::reference::filter_keys(bytes.data(), length, filter, plain.data()));
      CHECK((fast == plain));
    }
}
