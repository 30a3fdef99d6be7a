#include <algorithm>
#include <bit>
#include <limits>
#include <set>

#include "adaptive_bits.hpp"
#include "trellis_layout.hpp"

namespace lmq {
namespace {
constexpr std::uint32_t kWhole = 1U << kSpreadBits;

/// What all arrays of one kind learn together.
struct ArrayModel {
  AdaptiveNumber base, rest;
};

template <class Number>
Number most_frequent(std::vector<Number> values) {
  std::ranges::sort(values);
  Number best{};
  for (std::size_t i = 0, most = 0; i < values.size();) {
    const auto end = static_cast<std::size_t>(std::ranges::upper_bound(values, values[i]) - values.begin());
    if (end - i > most) most = end - i, best = values[i];
    i = end;
  }
  return best;
}

/// A bit (differences from the number before, else from the most frequent), that number, the differences.
template <class Number>
void put_array(BitEncoder& to, ArrayModel model, const std::vector<Number>& values, bool by_before) {
  std::int32_t base = by_before ? 0 : most_frequent(values);
  to.put_even(by_before ? 1 : 0, 1);
  if (!by_before) model.base.put(to, base);
  for (const Number value : values) {
    model.rest.put(to, value - base);
    if (by_before) base = value;
  }
}
template <class Number>
void put_shorter(BitEncoder& to, const std::vector<Number>& values) {
  if (values.empty()) return;
  const auto bytes = [&](bool by_before) {
    BitEncoder trial;
    put_array(trial, ArrayModel(), values, by_before);
    return trial.take().size();
  };
  put_array(to, ArrayModel(), values, bytes(true) < bytes(false));
}

template <class Number>
bool get_array(BitDecoder& from, std::uint64_t count, int most, std::vector<Number>& values) {
  if (count == 0) return true;
  ArrayModel model;
  const bool by_before = from.get_even(1) != 0;
  std::int32_t base = by_before ? 0 : model.base.get(from);
  values.reserve(static_cast<std::size_t>(count));
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::int32_t value = base + model.rest.get(from);
    if (value < -most || value > most) return false;
    values.push_back(static_cast<Number>(value));
    if (by_before) base = value;
  }
  return true;
}

struct TableModel {
  AdaptiveBit own;
  AdaptiveNumber width;
};

/// A bit whether the table is the record's own; then magnitudes - 1, for each frequency how many bits more it has than
/// the one before, the bits below its highest.
void put_table(BitEncoder& to, TableModel& model, const SpreadTable& table, bool own) {
  to.put(model.own, own ? 1 : 0);
  if (!own) return;
  to.put_even(table.magnitudes - 1U, 5);
  int before = static_cast<int>(kSpreadBits) - 1;
  for (unsigned m = 0; m < table.magnitudes; ++m) {
    const int width = static_cast<int>(std::bit_width(table.freq[m]));
    model.width.put(to, width - before);
    to.put_even(table.freq[m] ^ 1U << (width - 1), static_cast<unsigned>(width - 1));
    before = width;
  }
}

bool get_table(BitDecoder& from, TableModel& model, SpreadTable& table) {
  if (from.get(model.own) == 0) return true;
  SpreadTable read;
  read.zero = table.zero;
  read.magnitudes = static_cast<std::uint8_t>(from.get_even(5) + 1);
  std::uint32_t sum = 0;
  int width = static_cast<int>(kSpreadBits) - 1;
  for (unsigned m = 0; m < read.magnitudes; ++m) {
    width += model.width.get(from);
    if (width < 1 || width > static_cast<int>(kSpreadBits)) return false;
    read.freq[m] = static_cast<std::uint16_t>(1U << (width - 1) | from.get_even(static_cast<unsigned>(width - 1)));
    sum += (read.zero && m == 0 ? 1U : 2U) * read.freq[m];
  }
  if (sum >= kWhole) return false;
  read.escape = static_cast<std::uint16_t>(kWhole - sum);
  table = read;
  return is_valid(table);
}
}  // namespace

std::vector<bool> tables_in_use(const TrellisUnit& unit) {
  std::vector<bool> used(kSpreadTables);
  const std::set<int> rows(unit.row_spread.begin(), unit.row_spread.end());
  const std::set<int> cols(unit.col_spread.begin(), unit.col_spread.end());
  for (const int row : rows)
    for (const int col : cols) {
      const auto spread = static_cast<unsigned>(std::clamp(row + col, 0, static_cast<int>(kSpreadClasses) - 1));
      for (unsigned quantizer = 0; quantizer < (unit.states == 1 ? 1U : 2U); ++quantizer)
        used[spread_choice(unit.states, quantizer, spread).table] = true;
    }
  return used;
}

std::vector<std::byte> write_side(const TrellisUnit& unit, const SpreadFamily& family, const std::vector<bool>& own) {
  BitEncoder to;
  if (unit.rows == 0 || unit.cols == 0) return {};
  put_shorter(to, unit.row_step);
  put_shorter(to, unit.col_step);
  put_shorter(to, unit.row_spread);
  put_shorter(to, unit.col_spread);
  const std::vector<bool> used = tables_in_use(unit);
  TableModel model;
  for (std::size_t t = 0; t < family.size(); ++t)
    if (used[t]) put_table(to, model, family[t], own[t]);
  return to.take();
}

bool read_side(std::span<const std::byte> bytes, TrellisUnit& unit, SpreadFamily& family) {
  if (unit.rows == 0 || unit.cols == 0) return bytes.empty();
  BitDecoder from(bytes);
  constexpr int kMaxSpread = std::numeric_limits<std::int8_t>::max();
  if (!get_array(from, unit.rows, kMaxEighths, unit.row_step) ||
      !get_array(from, unit.cols, kMaxEighths, unit.col_step) ||
      !get_array(from, unit.rows, kMaxSpread, unit.row_spread) ||
      !get_array(from, unit.cols, kMaxSpread, unit.col_spread))
    return false;
  const std::vector<bool> used = tables_in_use(unit);
  TableModel model;
  for (std::size_t t = 0; t < family.size(); ++t)
    if (used[t] && !get_table(from, model, family[t])) return false;
  return from.finished();
}

}  // namespace lmq
