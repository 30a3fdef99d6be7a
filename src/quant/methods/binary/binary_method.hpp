#pragma once
#include <array>
#include <vector>

#include "binary_fit.hpp"
#include "lmq/quant/quantizer.hpp"

namespace lmq {

/// In the order of Sees; a method's struct of options has a member scale.
inline constexpr std::array<std::string_view, 3> kScaleWords{"group", "rank1", "cheapest"};
template <class Options>
inline constexpr auto kScaleOption = word_option<&Options::scale>(
    "scale",
    "group: numbers per row or group; rank1: a factor per row and per column of a record; cheapest: the better buy",
    kScaleWords);

/// A method whose codebooks are bases or centred steps: fits the magnitudes, in hand or as bins that are looked at more
/// closely wherever a decision may lie inside one.
class SignQuantizer : public Quantizer {
 public:
  SignQuantizer(const ParametricCodebook& books, Sees sees)
      : Quantizer({.sees = sees,
                   .rounding = Rounding::cuts,
                   .numbered = books,
                   .cost = {.row_level = 70, .value_bytes = 40}}) {}
  [[nodiscard]] Fit fit(const Group& group) const override;
  [[nodiscard]] Codebook fit_values(std::span<const float> values, std::span<const float> importance,
                                    Workspace& scratch) const override;
  /// A factor per row and per column (rank1.hpp).
  [[nodiscard]] UnitStats quantize_rows(const RowWindow& window, QuantizedUnit& unit) const override;
  [[nodiscard]] RowNeeds row_needs(std::uint64_t count, std::uint64_t cols) const override;

 protected:
  /// Numbers for magnitudes; returns the points (ascending) that must be looked at more closely.
  [[nodiscard]] virtual std::vector<std::uint32_t> fit_folded(const Magnitudes& y, std::span<float> numbers) const = 0;
};

/// Bins of the group that the points were made of, ascending, without those that are single values.
[[nodiscard]] std::vector<std::uint32_t> members_of(const Group& group, const FoldedGroup& folded,
                                                    std::span<const std::uint32_t> points);
inline constexpr std::size_t kMaxFolded = std::size_t{1} << 19;  ///< bins asked for in one round

}  // namespace lmq
