#include "lmq/io/scaled_levels.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "small_floats.hpp"

namespace lmq {
namespace {

/// Index of the level nearest to `x`.
std::size_t nearest(const std::vector<int>& levels, double x) noexcept {
  std::size_t low = 0, high = levels.size() - 1;  // by halves: the midpoints are ascending
  while (low < high) {
    const std::size_t middle = (low + high) / 2;
    if (x > 0.5 * (levels[middle] + levels[middle + 1]))
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

std::uint16_t to_pattern(DType type, float value) noexcept {
  return type == DType::f16 ? to_half(value) : to_bf16(value);
}
float of_pattern(DType type, std::uint16_t pattern) noexcept {
  return type == DType::f16 ? half_value(pattern) : std::bit_cast<float>(std::uint32_t{pattern} << 16);
}

/// Codes for a scale, and the squared error of what they decode to.
double assign(const std::vector<int>& levels, std::span<const float> values, float scale,
              std::span<std::uint8_t> codes) noexcept {
  double error = 0;
  const double inverse = scale == 0 ? 0 : 1 / double{scale};
  for (std::size_t i = 0; i < values.size(); ++i) {
    codes[i] = static_cast<std::uint8_t>(nearest(levels, double{values[i]} * inverse));
    const double e = double{values[i]} - double{scale * static_cast<float>(levels[codes[i]])};
    error += e * e;
  }
  return error;
}

/// One place where a code changes: at the inverse scale s the value's code becomes `code`.
struct Change {
  double s;
  std::uint32_t value;
  std::uint8_t code;
};

/// What a search needs room for.
struct Scratch {
  std::vector<Change> changes;
  std::vector<int> now;
  std::vector<std::uint8_t> codes;
};

class Search {
 public:
  Search(const ScaledLevels& levels, DType type, std::span<const float> values, std::span<std::uint8_t> codes,
         Scratch& scratch)
      : levels_(levels), type_(type), values_(values), codes_(codes), scratch_(scratch) {
    scratch_.codes.resize(values.size());
    scratch_.now.resize(values.size());
  }

  /// Scales of one sign: between two changes of codes the error is Sxx - Sxq^2 / Sqq at its best scale, Sxq / Sqq.
  void walk(double largest, int sign) {
    const std::vector<int>& level = levels_.values;
    const double first = levels_.low / largest, last = levels_.high / largest;
    double sxq = 0, sqq = 0;
    collect(first, last, sign, sxq, sqq);
    double most = sqq > 0 && sxq > 0 ? sxq * sxq / sqq : 0, scale = sqq > 0 ? sxq / sqq : 0;
    for (const Change& change : scratch_.changes) {
      const double x = sign * double{values_[change.value]};
      const int was = scratch_.now[change.value], is = level[change.code];
      scratch_.now[change.value] = is;
      sxq += x * (is - was), sqq += double(is) * is - double(was) * was;
      if (sqq > 0 && sxq > 0 && sxq * sxq > most * sqq) most = sxq * sxq / sqq, scale = sxq / sqq;
    }
    try_scale(sign * scale);
  }

  /// Tries the scale of the type nearest to `scale` and both its neighbours.
  void try_scale(double scale) noexcept {
    const std::uint16_t infinite = type_ == DType::f16 ? 0x7C00 : 0x7F80;
    const std::uint16_t middle = to_pattern(type_, static_cast<float>(scale));
    for (const int step : {0, -1, 1}) {
      const auto pattern = static_cast<std::uint16_t>(middle + step);
      if ((pattern & 0x7FFF) >= infinite || ((middle ^ pattern) & 0x8000) != 0) continue;
      take(of_pattern(type_, pattern));
    }
  }

  /// Tries what is usual: the largest magnitude at an end of the levels.
  void try_ends(double largest, int sign) noexcept {
    for (const int end : {levels_.values.front(), levels_.values.back()})
      take(of_pattern(type_, to_pattern(type_, static_cast<float>(sign * largest / std::abs(end)))));
  }

  /// Tries every scale of one sign when the range has few; false when it has more.
  bool try_all(double largest, int sign) noexcept {
    constexpr std::uint32_t kFew = 64;
    const std::uint16_t least = to_pattern(type_, static_cast<float>(largest / levels_.high)),
                        most = to_pattern(type_, static_cast<float>(largest / levels_.low));
    if (std::uint32_t{most} - least > kFew) return false;
    for (std::uint32_t pattern = least; pattern <= most; ++pattern)
      if (const float scale = of_pattern(type_, static_cast<std::uint16_t>(pattern)); std::isfinite(scale))
        take(static_cast<float>(sign) * scale);
    return true;
  }

  /// A scale of 0 where none is small enough.
  void try_zero() noexcept {
    if (!(best_.error <= assign(levels_.values, values_, 0, scratch_.codes))) take(0);
  }
  [[nodiscard]] FoundScale best() const noexcept { return best_; }

 private:
  /// The changes of codes from the inverse scale `first` on, in the order of a walk, and the sums at its begin.
  void collect(double first, double last, int sign, double& sxq, double& sqq) {
    const std::vector<int>& level = levels_.values;
    std::vector<Change>& changes = scratch_.changes;
    changes.clear();
    for (std::size_t i = 0; i < values_.size(); ++i) {
      const double x = sign * double{values_[i]};
      const std::size_t from = nearest(level, x * first), to = nearest(level, x * last);
      scratch_.now[i] = level[from];
      sxq += x * level[from], sqq += double(level[from]) * level[from];
      for (std::size_t k = from; k != to; k += x > 0 ? 1 : std::size_t(-1)) {
        const std::size_t next = x > 0 ? k + 1 : k - 1;
        changes.push_back(
            {0.5 * (level[k] + level[next]) / x, static_cast<std::uint32_t>(i), static_cast<std::uint8_t>(next)});
      }
    }
    std::ranges::sort(changes, [](const Change& a, const Change& b) {
      return a.s != b.s ? a.s < b.s : a.value != b.value ? a.value < b.value : a.code < b.code;
    });
  }

  void take(float scale) noexcept {
    const double error = assign(levels_.values, values_, scale, scratch_.codes);
    if (!(error < best_.error)) return;
    best_ = {error, scale};
    std::ranges::copy(scratch_.codes, codes_.begin());
  }

  const ScaledLevels& levels_;
  const DType type_;
  const std::span<const float> values_;
  const std::span<std::uint8_t> codes_;
  Scratch& scratch_;
  FoundScale best_;
};

/// True when every value is a level times `scale`; codes are written as far as they are.
bool holds(const std::vector<int>& levels, std::span<const float> values, float scale,
           std::span<std::uint8_t> codes) noexcept {
  const double inverse = scale == 0 ? 0 : 1 / double{scale};
  for (std::size_t i = 0; i < values.size(); ++i) {
    codes[i] = static_cast<std::uint8_t>(nearest(levels, double{values[i]} * inverse));
    if (scale * static_cast<float>(levels[codes[i]]) != values[i]) return false;
  }
  return true;
}

}  // namespace

ScaledLevels make_scaled_levels(int first, int last, double low, double high) {
  ScaledLevels levels{{}, low, high};
  for (int v = first; v <= last; ++v) levels.values.push_back(v);
  return levels;
}

const ScaledLevels& signed_levels(int bits) {
  static const auto kAll = [] {
    std::array<ScaledLevels, 9> all{};
    for (int b = 2; b <= 8; ++b) {
      const int half = 1 << (b - 1);
      all[static_cast<std::size_t>(b)] =
          make_scaled_levels(-half, half - 1, b > 5 ? 0.875 * half : 0.3 * half, half + (b > 3 ? 2.5 : 2));
    }
    return all;
  }();
  return kAll[static_cast<std::size_t>(bits)];
}

FoundScale best_scale(const ScaledLevels& levels, DType type, std::span<const float> values,
                      std::span<std::uint8_t> codes) {
  thread_local Scratch scratch;
  Search search(levels, type, values, codes, scratch);
  float largest = 0;
  for (const float value : values) largest = std::max(largest, std::abs(value));
  if (largest > 0) {
    for (const int sign : {1, -1}) {
      if (search.try_all(largest, sign)) continue;
      search.walk(largest, sign);
      search.try_ends(largest, sign);
    }
  }
  search.try_zero();
  return search.best();
}

bool exact_scale(const ScaledLevels& levels, DType type, std::span<const float> values, std::span<std::uint8_t> codes,
                 float& scale) {
  const float top = *std::ranges::max_element(values, {}, [](float x) { return std::abs(x); });
  if (top == 0) {
    scale = 0;
    return holds(levels.values, values, scale, codes);
  }
  for (const int level : levels.values) {  // the scale is one of those that make the value of largest magnitude a level
    if (level == 0) continue;
    scale = top / static_cast<float>(level);
    if (type != DType::f32) scale = of_pattern(type, to_pattern(type, scale));
    if (scale * static_cast<float>(level) == top && holds(levels.values, values, scale, codes)) return true;
  }
  return false;
}

}  // namespace lmq
