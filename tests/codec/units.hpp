#pragma once
#include <bit>
#include <cstdint>
#include <vector>

#include "lmq/base/quantized_unit.hpp"

namespace lmq {

/// The same numbers on every machine (splitmix64).
struct Random {
  std::uint64_t state;
  std::uint64_t operator()() noexcept {
    std::uint64_t z = (state += 0x9E3779B97F4A7C15);
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
    z = (z ^ z >> 27) * 0x94D049BB133111EB;
    return z ^ z >> 31;
  }
  std::uint64_t below(std::uint64_t bound) noexcept { return (*this)() % bound; }
};

/// Codes shaped like those of quantized weights: sums of `dice` uniform numbers; 1 is uniform, 12 nearly normal.
inline std::vector<Code> bell_codes(std::size_t count, unsigned levels, unsigned dice, std::uint64_t seed) {
  Random random{seed};
  std::vector<Code> codes(count);
  for (Code& code : codes) {
    std::uint64_t sum = 0;
    for (unsigned k = 0; k < dice; ++k) sum += random() >> 40;
    code = static_cast<Code>(sum * levels / (std::uint64_t{dice} << 24));
  }
  return codes;
}

/// A unit of one row with one codebook, whose levels and codes are still to come.
inline QuantizedUnit bare_unit(std::uint16_t method, std::uint64_t count, unsigned levels) {
  QuantizedUnit unit;
  unit.method = method;
  unit.source = DType::bf16;
  unit.count = count;
  unit.cols = count;
  unit.levels = levels;
  return unit;
}

/// A unit with one codebook, levels in the middle of equal steps.
inline QuantizedUnit bell_unit(std::size_t count, unsigned levels, unsigned dice, std::uint64_t seed = 1) {
  QuantizedUnit unit = bare_unit(2, count, levels);
  for (unsigned k = 0; k < levels; ++k)
    unit.book.push_back((static_cast<float>(k) + 0.5F) / static_cast<float>(levels) - 0.5F);
  unit.codes = bell_codes(count, levels, dice, seed);
  return unit;
}

/// The same with a codebook per group of a row. More than 5 parameters: what units of these tests differ in.
inline QuantizedUnit grouped_unit(std::uint64_t rows, std::uint64_t cols, std::uint64_t group, unsigned levels,
                                  CodebookKind kind, LevelType type, std::uint64_t seed = 1) {
  QuantizedUnit unit = bell_unit(rows * cols, levels, 4, seed);
  unit.cols = cols;
  unit.group = group;
  unit.kind = kind;
  if (kind == CodebookKind::rank1) unit.group = 0;
  unit.level_type = type;
  unit.book.clear();
  Random random{seed + 77};
  const std::uint64_t numbers = unit.book_numbers();
  for (std::uint64_t i = 0; i < numbers; ++i)
    unit.book.push_back(static_cast<float>(static_cast<std::int64_t>(random.below(2001)) - 1000) / 4096.0F);
  round_levels(unit.book, type);
  return unit;
}

/// The value of weight i, whose codebook is `book`: the definition.
inline float value_of(const QuantizedUnit& unit, std::uint64_t i, std::uint64_t book) {
  const unsigned code = unit.codes[i];
  switch (unit.kind) {
    case CodebookKind::grid: {
      const float scaled = static_cast<float>(code) * unit.book[2 * book + 1];
      return unit.book[2 * book] + scaled;
    }
    case CodebookKind::bases: {
      const auto k = static_cast<unsigned>(std::countr_zero(unit.levels));
      float sum = 0;
      for (unsigned j = 0; j < k; ++j) {
        const float base = unit.book[book * k + j];
        sum = (code >> (k - 1 - j) & 1) != 0 ? sum + base : sum - base;
      }
      return sum;
    }
    case CodebookKind::centred:
      return (static_cast<float>(code) - static_cast<float>(unit.levels - 1) / 2) * unit.book[book];
    case CodebookKind::rank1: {
      const std::uint64_t rows = unit.count / unit.cols;
      const float factor = unit.book[i / unit.cols] * unit.book[rows + i % unit.cols];
      return factor * unit.book[rows + unit.cols + code];
    }
    default:
      return unit.book[book * unit.levels + code];
  }
}

/// What every decoder must give, weight by weight.
inline std::vector<float> values_of(const QuantizedUnit& unit) {
  std::vector<float> values;
  for (std::uint64_t i = 0; i < unit.count; ++i) {
    std::uint64_t book = 0;
    if (unit.group > 0) {
      const std::uint64_t row = i / unit.cols, col = i % unit.cols;
      book = row * ((unit.cols + unit.group - 1) / unit.group) + col / unit.group;
    }
    values.push_back(value_of(unit, i, book) + 0.0F);
  }
  return values;
}

inline bool same(const QuantizedUnit& a, const QuantizedUnit& b) {
  return a.method == b.method && a.source == b.source && a.count == b.count && a.cols == b.cols && a.group == b.group &&
         a.kind == b.kind && a.level_type == b.level_type && a.levels == b.levels && a.book == b.book &&
         a.codes == b.codes;
}

}  // namespace lmq
