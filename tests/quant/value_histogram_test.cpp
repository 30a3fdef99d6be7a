#include "lmq/quant/value_histogram.hpp"

#include <catch2/catch.hpp>
#include <cstring>
#include <limits>

#include "lmq/base/error.hpp"
#include "quant_samples.hpp"

using lmq::DType;
using lmq::Importance;
using lmq::KeyRange;
using lmq::ValueHistogram;

namespace {
using Wide = unsigned __int128;

Importance none() { return {}; }
Importance by_weight(std::span<const float> values, double quantum) {
  return {Importance::Kind::weights, values, 0, quantum};
}

std::uint64_t steps_of(const Importance& importance, std::size_t index) {
  if (importance.kind == Importance::Kind::none) return 1;
  return std::max<std::uint64_t>(
      1,
      static_cast<std::uint64_t>(std::nearbyint(double{samples::weight_of(importance, index)} / importance.quantum)));
}

std::vector<ValueHistogram::Bin> plain_bins(const lmq::TensorView& view, const Importance& importance,
                                            std::span<const KeyRange> ranges) {
  std::map<std::uint32_t, ValueHistogram::Bin> bins;
  const auto values = samples::widened(view);
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(values[i])) continue;
    const std::uint32_t key = lmq::ordered_key(values[i]);
    std::uint32_t span = lmq::bits(view.dtype) > 16 ? 16 : 0;
    if (!ranges.empty()) {
      const auto range =
          std::ranges::find_if(ranges, [&](const KeyRange& r) { return r.begin <= key && key <= r.end; });
      if (range == ranges.end()) continue;
      span = range->span_bits;
    }
    ValueHistogram::Bin& bin = bins[key >> span << span];
    const std::uint64_t steps = steps_of(importance, i), offset = key - (key >> span << span);
    bin.key = key >> span << span, bin.span_bits = span;
    bin.count += 1, bin.mass += steps;
    bin.first += Wide{steps} * offset, bin.second += Wide{steps} * offset * offset;
  }
  std::vector<ValueHistogram::Bin> ascending;
  for (const auto& [key, bin] : bins) ascending.push_back(bin);
  return ascending;
}

bool same(std::span<const ValueHistogram::Bin> a, const std::vector<ValueHistogram::Bin>& b) {
  return std::ranges::equal(a, b);
}

/// Every bin's mean and scatter against sums over the weights it holds, in long double.
void check_group(const lmq::Group& group, const lmq::TensorView& view, const Importance& importance) {
  const auto values = samples::widened(view);
  std::vector<long double> mass(group.size()), first(group.size()), second(group.size());
  std::vector<double> count(group.size());
  for (int pass = 0; pass < 2; ++pass)
    for (std::size_t i = 0; i < values.size(); ++i) {
      const float value = values[i] + 0.0f;
      const auto bin = static_cast<std::size_t>(std::ranges::lower_bound(group.high, value) - group.high.begin());
      if (bin >= group.size() || group.low[bin] > value) FAIL("no bin holds " << value);
      const long double h = static_cast<long double>(steps_of(importance, i)) * importance.quantum;
      if (pass == 0)
        count[bin] += 1, mass[bin] += h, first[bin] += h * value;
      else
        second[bin] += h * (value - first[bin] / mass[bin]) * (value - first[bin] / mass[bin]);
    }
  for (std::size_t bin = 0; bin < group.size(); ++bin) {
    REQUIRE(group.count[bin] == count[bin]);
    REQUIRE(group.mass[bin] == Approx(static_cast<double>(mass[bin])).epsilon(1e-12));
    const double mean = static_cast<double>(first[bin] / mass[bin]);
    const double width = double{group.high[bin]} - group.low[bin];
    REQUIRE(std::fabs(group.mean[bin] - mean) <= 1e-12 * std::fabs(mean));
    REQUIRE(std::fabs(group.scatter[bin] - static_cast<double>(second[bin])) <=
            1e-9 * static_cast<double>(second[bin]) + 1e-18 * group.mass[bin] * width * width);
    if (group.low[bin] == group.high[bin]) REQUIRE((group.scatter[bin] == 0 && group.mean[bin] == group.low[bin]));
    if (bin > 0) REQUIRE(group.high[bin - 1] < group.low[bin]);
  }
  const auto [low, high] = std::ranges::minmax(values);
  REQUIRE((group.minimum == low && group.maximum == high));
}
}  // namespace

TEST_CASE("a histogram counts every weight exactly, any type, length, thread count, with and without importance",
          "[slow]") {
  for (const DType type : samples::kAllTypes)
    for (const std::size_t length : {0, 1, 65, 4099, 200001})
      for (const int kind : {0, 1, 2, 3, 4}) {
        if (length > 5000 && (kind == 1 || lmq::bits(type) == 8)) continue;
        const auto bytes = samples::bytes(type, length, kind, 21);
        const auto view = samples::view_of(type, bytes);
        const auto weights = samples::importance(std::max<std::size_t>(length, 1), 22);
        const std::vector<float> columns(
            weights.begin(), weights.begin() + static_cast<std::ptrdiff_t>(std::min<std::size_t>(weights.size(), 37)));
        const Importance kinds[] = {none(),
                                    by_weight(std::span(weights).first(length), 0x1p-20),
                                    {Importance::Kind::columns, columns, 1, 0x1p-12},
                                    samples::outer(weights, length, 37, 5, 31, 2, 0x1p-24)};
        for (const Importance& importance : kinds) {
          const auto plain = plain_bins(view, importance, {});
          for (const std::size_t threads : {1, 2, 3, 7}) {
            const samples::Threads set(threads);
            const ValueHistogram histogram = ValueHistogram::of(view, importance, {});
            INFO(lmq::name(type) << " " << length << " kind " << kind << " threads " << threads);
            REQUIRE(same(histogram.bins(), plain));
            REQUIRE(histogram.count() == length);
            REQUIRE(histogram.nonfinite() == 0);
            if (threads == 2 && length > 0) check_group(histogram.group(importance.quantum), view, importance);
          }
        }
      }
}

// More than 40 lines: every type of weight and number of threads against one plain count.
TEST_CASE("layers counted apart are the histograms of their weights, and together the histogram of all") {
  for (const DType type : {DType::bf16, DType::f16, DType::f8_e4m3, DType::f32, DType::f64})
    for (const std::size_t threads : {1, 3}) {
      const samples::Threads set(threads);
      const std::size_t length = 150001, size = lmq::bits(type) / 8;
      const auto bytes = samples::bytes(type, length, 0, 31);
      const auto weights = samples::importance(length, 32);
      const double quantum = 0x1p-20;
      const std::vector<KeyRange> closer{{0x3F000000u, 0x7FFFFFFEu, 9}, {0x80000000u, 0xBF7FFFFFu, 4}};
      for (const bool near : {false, true}) {
        if (near && size <= 2) continue;
        const std::span<const KeyRange> ranges = near ? std::span<const KeyRange>(closer) : std::span<const KeyRange>();
        const ValueHistogram layered =
            ValueHistogram::of(samples::view_of(type, bytes), by_weight(weights, quantum), ranges, true);
        REQUIRE((ValueHistogram::from_bytes(layered.to_bytes(), "test") == layered));
        std::map<std::size_t, std::vector<std::size_t>> members;
        for (std::size_t i = 0; i < length; ++i) {
          const double steps = std::max(1.0, std::nearbyint(double{weights[i]} / quantum));
          members[lmq::layer_of(static_cast<std::uint64_t>(steps))].push_back(i);
        }
        std::vector<ValueHistogram::Bin> expected;
        for (const auto& [layer, indices] : members) {
          std::vector<std::byte> part;
          std::vector<float> of_part;
          for (const std::size_t i : indices) {
            part.insert(part.end(), bytes.begin() + static_cast<std::ptrdiff_t>(i * size),
                        bytes.begin() + static_cast<std::ptrdiff_t>((i + 1) * size));
            of_part.push_back(weights[i]);
          }
          const ValueHistogram one =
              ValueHistogram::of(samples::view_of(type, part), by_weight(of_part, quantum), ranges);
          for (ValueHistogram::Bin bin : one.bins())
            bin.layer = static_cast<std::uint16_t>(layer), expected.push_back(bin);
        }
        INFO(lmq::name(type) << " threads " << threads << " ranges " << near);
        REQUIRE(same(layered.bins(), expected));
        const lmq::Group group = layered.group(quantum);
        const lmq::Group plain =
            ValueHistogram::of(samples::view_of(type, bytes), by_weight(weights, quantum), ranges).group(quantum);
        CHECK((group.low == plain.low && group.high == plain.high && group.count == plain.count));
        CHECK((group.mass == plain.mass && group.mean == plain.mean && group.scatter == plain.scatter));
        CHECK((group.minimum == plain.minimum && group.maximum == plain.maximum));
        std::size_t points = 0;
        for (const lmq::GroupLayer& layer : group.layers) points += layer.group.size();
        CHECK(points == layered.bins().size());
      }
    }
}

TEST_CASE("layers merge and are refined like single histograms") {
  const auto bytes = samples::bytes(DType::f32, 30011, 0, 4);
  const auto weights = samples::importance(30011, 5);
  const auto count = [&](std::size_t begin, std::size_t end, std::span<const KeyRange> ranges) {
    return ValueHistogram::of(samples::view_of(DType::f32, std::span(bytes).subspan(begin * 4, (end - begin) * 4)),
                              by_weight(std::span(weights).subspan(begin, end - begin), 0x1p-30), ranges, true);
  };
  const std::vector<KeyRange> closer{{0x3F000000u, 0x7FFEFFFFu, 9}, {0x80000000u, 0xBF7FFFFFu, 0}};
  const std::vector<KeyRange> all{{0x00800000u, 0xFF7FFFFFu, 0}};
  ValueHistogram parts = count(0, 12345, {}), finer = count(0, 12345, closer);
  parts.merge(count(12345, 30011, {}));
  finer.merge(count(12345, 30011, closer));
  CHECK((parts == count(0, 30011, {})));
  CHECK((finer == count(0, 30011, closer)));
  parts.refine(finer, closer);
  const lmq::Group fine = parts.group(0x1p-30);
  CHECK(fine.layers.size() > 10);
  parts.refine(count(0, 30011, all), all);
  CHECK((parts.group(0x1p-30).low == count(0, 30011, all).group(0x1p-30).low));
  double before = 0, after = 0;
  for (const double n : fine.count) before += n;
  for (const double n : parts.group(0x1p-30).count) after += n;
  CHECK((before == 30011 && after == 30011));
}

TEST_CASE("windows merge to the histogram of the whole, in any order, also as bytes") {
  for (const DType type : {DType::bf16, DType::f32, DType::f8_e5m2}) {
    const auto bytes = samples::bytes(type, 30011, 0, 4);
    const auto weights = samples::importance(30011, 5);
    const std::size_t size = lmq::bits(type) / 8;
    for (const bool weighted : {false, true}) {
      const auto window = [&](std::size_t begin, std::size_t end) {
        const auto part = std::span(bytes).subspan(begin * size, (end - begin) * size);
        return ValueHistogram::of(
            samples::view_of(type, part),
            weighted ? by_weight(std::span(weights).subspan(begin, end - begin), 0x1p-30) : none(), {});
      };
      const ValueHistogram whole = window(0, 30011);
      const std::size_t cuts[] = {0, 1, 4097, 20000, 20000, 30011};
      ValueHistogram forwards, backwards;
      for (std::size_t k = 0; k + 1 < std::size(cuts); ++k) {
        forwards.merge(window(cuts[k], cuts[k + 1]));
        backwards.merge(ValueHistogram::from_bytes(window(cuts[4 - k], cuts[5 - k]).to_bytes(), "test"));
      }
      CHECK((forwards == whole));
      CHECK((backwards == whole));
    }
  }
}

TEST_CASE("refining ranges gives the bins of the finer resolution", "[slow]") {
  for (const DType type : {DType::f32, DType::f64})
    for (const bool weighted : {false, true})
      for (const int kind : {0, 3}) {
        const auto bytes = samples::bytes(type, 70001, kind, 31);
        const auto view = samples::view_of(type, bytes);
        const auto weights = samples::importance(70001, 32);
        const Importance importance = weighted ? by_weight(weights, 0x1p-20) : none();
        ValueHistogram histogram = ValueHistogram::of(view, importance, {});
        for (const std::uint32_t span : {11u, 4u, 0u}) {
          std::vector<KeyRange> ranges;
          const lmq::Group group = histogram.group(importance.quantum);
          for (std::size_t bin = 0; bin < group.size(); bin += 5)
            if (group.low[bin] != group.high[bin])
              ranges.push_back({lmq::ordered_key(group.low[bin]), lmq::ordered_key(group.high[bin]), span});
          if (ranges.empty()) break;
          for (const std::size_t threads : {1, 3}) {
            const samples::Threads set(threads);
            const ValueHistogram finer = ValueHistogram::of(view, importance, ranges);
            REQUIRE(same(finer.bins(), plain_bins(view, importance, ranges)));
            REQUIRE((ValueHistogram::from_bytes(finer.to_bytes(), "test") == finer));
            if (threads == 3) histogram.refine(finer, ranges);
          }
          REQUIRE(histogram.count() == 70001);
          check_group(histogram.group(importance.quantum), view, importance);
        }
      }
}

TEST_CASE("ragged ranges of any width, neighbours or far apart, hold just their keys") {
  const auto bytes = samples::bytes(DType::f32, 30001, 0, 33);
  const auto view = samples::view_of(DType::f32, bytes);
  std::mt19937 random(7);
  for (const std::uint32_t most : {0x4000u, 0x100000u, 0x8000000u})  // few slots to too many for sums
    for (int trial = 0; trial < 5; ++trial) {
      std::vector<KeyRange> ranges;
      for (std::uint64_t key = lmq::ordered_key(0.5f) - 50 * most + random() % 64; ranges.size() < 100;) {
        const std::uint32_t width = 1 + random() % most, span = random() % 17;
        // Ends at a bin's end, as ranges of whole bins do; the first may begin inside a bin.
        const std::uint64_t end = (key + width) >> span << span;
        if (end > 0xFF000000u) break;
        if (end > key) ranges.push_back({static_cast<std::uint32_t>(key), static_cast<std::uint32_t>(end - 1), span});
        key = std::max(key, end) + (random() % 3 == 0 ? 0 : random() % most);
      }
      // Bins of two ranges must not overlap.
      for (std::size_t r = 1; r < ranges.size(); ++r) {
        const std::uint32_t begin = ranges[r].begin >> ranges[r].span_bits << ranges[r].span_bits;
        if (begin <= ranges[r - 1].end) ranges[r].span_bits = 0;
      }
      const ValueHistogram found = ValueHistogram::of(view, none(), ranges);
      REQUIRE(same(found.bins(), plain_bins(view, none(), ranges)));
      REQUIRE((ValueHistogram::from_bytes(found.to_bytes(), "test") == found));
    }
}

TEST_CASE("everything refined to single keys is resolved") {
  const auto bytes = samples::bytes(DType::f32, 5000, 0, 8);
  const auto view = samples::view_of(DType::f32, bytes);
  const std::vector<KeyRange> all{{0x00800000u, 0xFF7FFFFFu, 0}};
  ValueHistogram histogram = ValueHistogram::of(view, none(), {});
  CHECK_FALSE(histogram.group(1).resolved());
  histogram.refine(ValueHistogram::of(view, none(), all), all);
  CHECK(histogram.group(1).resolved());
  auto values = samples::widened(view);
  std::ranges::sort(values);
  const auto distinct = std::unique(values.begin(), values.end()) - values.begin();
  CHECK(histogram.bins().size() == static_cast<std::size_t>(distinct));
}

TEST_CASE("bins of one repeated float are resolved at once") {
  const std::vector<float> values(1000, 0.1f);
  const ValueHistogram histogram =
      ValueHistogram::of(samples::view_of(DType::f32, std::as_bytes(std::span(values))), none(), {});
  const lmq::Group group = histogram.group(1);
  REQUIRE(group.size() == 1);
  CHECK(group.resolved());
  CHECK(group.mean[0] == double{0.1f});
}

TEST_CASE("what is not finite is left out and counted") {
  for (const DType type : {DType::f32, DType::bf16, DType::f64, DType::f16, DType::f8_e4m3}) {
    std::vector<float> values(3000, 1.5f);
    values[0] = std::numeric_limits<float>::quiet_NaN();
    values[17] = -std::numeric_limits<float>::quiet_NaN();
    values[2999] = std::numeric_limits<float>::infinity();
    std::vector<std::byte> bytes(values.size() * lmq::bits(type) / 8);
    lmq::narrow_to(type, values, bytes);
    const std::uint64_t lost = type == DType::f8_e4m3 ? 2 : 3;  // that type has no infinity
    const auto weights = samples::importance(3000, 2);
    for (const Importance& importance : {none(), by_weight(weights, 0x1p-20)}) {
      const ValueHistogram histogram = ValueHistogram::of(samples::view_of(type, bytes), importance, {});
      CHECK(histogram.nonfinite() == lost);
      CHECK(histogram.count() == 3000 - lost);
      CHECK(histogram.group(1).minimum == 1.5f);
      if (lost == 3) CHECK(histogram.group(1).maximum == 1.5f);
    }
  }
}

TEST_CASE("histograms of different resolution refuse to merge") {
  const auto bytes = samples::bytes(DType::f32, 100, 0, 3);
  const auto view = samples::view_of(DType::f32, bytes);
  const std::vector<KeyRange> all{{0x00800000u, 0xFF7FFFFFu, 3}};
  ValueHistogram coarse = ValueHistogram::of(view, none(), {});
  CHECK_THROWS_AS(coarse.merge(ValueHistogram::of(view, none(), all)), lmq::Error);
}

TEST_CASE("hostile bytes are refused, never trusted") {
  const auto f32 = samples::bytes(DType::f32, 400, 0, 3), bf16 = samples::bytes(DType::bf16, 400, 0, 3);
  const auto weights = samples::importance(400, 4);
  for (const ValueHistogram& histogram :
       {ValueHistogram(), ValueHistogram::of(samples::view_of(DType::f32, f32), none(), {}),
        ValueHistogram::of(samples::view_of(DType::f32, f32), by_weight(weights, 0x1p-20), {}),
        ValueHistogram::of(samples::view_of(DType::f32, f32), by_weight(weights, 0x1p-20), {}, true),
        ValueHistogram::of(samples::view_of(DType::bf16, bf16), none(), {})}) {
    const auto good = histogram.to_bytes();
    REQUIRE((ValueHistogram::from_bytes(good, "test") == histogram));
    for (std::size_t cut = 0; cut < good.size(); cut += cut < 64 ? 1 : 97)
      CHECK_THROWS_AS(ValueHistogram::from_bytes(std::span(good).first(cut), "test"), lmq::Error);
    std::mt19937 random(1);
    for (int trial = 0; trial < 4000; ++trial) {
      auto bad = good;
      for (unsigned flips = 1 + random() % 3; flips > 0; --flips)
        bad[random() % bad.size()] ^= static_cast<std::byte>(1u << random() % 8);
      try {
        const ValueHistogram read = ValueHistogram::from_bytes(bad, "test");
        const lmq::Group group = read.group(1);  // whatever is accepted can be used
        for (std::size_t bin = 0; bin < group.size(); ++bin) {
          REQUIRE(group.low[bin] <= group.high[bin]);
          REQUIRE(group.count[bin] > 0);
          REQUIRE(group.scatter[bin] >= 0);
          REQUIRE(std::isfinite(group.mean[bin]));
        }
      } catch (const lmq::Error& error) {
        REQUIRE(error.code == lmq::Errc::malformed);
      }
    }
    auto longer = good;
    longer.push_back(std::byte{0});
    CHECK_THROWS_AS(ValueHistogram::from_bytes(longer, "test"), lmq::Error);
  }
  std::vector<std::byte> many(40, std::byte{0xFF});  // 2^64 - 1 bins
  const std::uint32_t magic = 0x594C4154, head = 2;
  std::memcpy(many.data(), &magic, 4);
  std::memcpy(many.data() + 4, &head, 4);
  CHECK_THROWS_AS(ValueHistogram::from_bytes(many, "test"), lmq::Error);
}

TEST_CASE("a quantum keeps sums of steps below 2^62 and small importance above nothing") {
  for (const double largest : {1e-45, 1e-20, 0.3, 1.0, 1e10, 3.4e38})
    for (const std::uint64_t count : {std::uint64_t{1}, std::uint64_t{1} << 22, std::uint64_t{1} << 40}) {
      const double quantum = lmq::importance_quantum(largest, count);
      CHECK(quantum > 0);
      int exponent = 0;
      CHECK(std::frexp(quantum, &exponent) == 0.5);
      CHECK(static_cast<double>(count) * (largest / quantum + 1) <= 0x1p62);
    }
  CHECK(lmq::importance_quantum(0, 100) == 1);
}
