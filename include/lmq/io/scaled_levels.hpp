#pragma once
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "lmq/base/dtype.hpp"

namespace lmq {

/// Integers that codes with one scale stand for, ascending: value = scale * values[code]. The best scale is sought where
/// the largest magnitude lies at low .. high of it.
struct ScaledLevels {
  std::vector<int> values;
  double low, high;
};
/// first .. last, all of them.
[[nodiscard]] ScaledLevels make_scaled_levels(int first, int last, double low, double high);
/// -2^(bits-1) .. 2^(bits-1) - 1, for bits 2 .. 8.
[[nodiscard]] const ScaledLevels& signed_levels(int bits);

/// A scale as it is stored, and the squared error of the codes that go with it.
struct FoundScale {
  double error = std::numeric_limits<double>::infinity();
  float scale = 0;
};

/// The scale and codes of least squared error, among all scales of the type (F16 or BF16, of either sign) for which the
/// largest magnitude lies near an end of the levels, and all codes: a walk over all scales at which a code changes,
/// error Sxx - Sxq^2 / Sqq between two changes. The best is rounded to the type and tried with both its neighbours; so
/// are the scales that put the largest magnitude at an end. Where the range has 65 scales at most (BF16 and 8 bits) all
/// are tried. values finite, not empty; codes.size() == values.size(). Same bits everywhere: doubles in a fixed order.
/// Cost: about 0.2 us a value.
FoundScale best_scale(const ScaledLevels& levels, DType type, std::span<const float> values,
                      std::span<std::uint8_t> codes);

/// A scale of the type (F16, BF16 or F32) and codes whose products, rounded to float, are `values`; false when there are
/// none. values not empty, codes.size() == values.size(). Cost: where there are none, one look at a few values for each
/// level.
[[nodiscard]] bool exact_scale(const ScaledLevels& levels, DType type, std::span<const float> values,
                               std::span<std::uint8_t> codes, float& scale);

}  // namespace lmq
