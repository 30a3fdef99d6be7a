#pragma once
#include <cstddef>
#include <span>
#include <vector>

#include "lmq/base/quantized_unit.hpp"
#include "lmq/quant/sign_code.hpp"

namespace lmq {

/// Levels of one group, finite; 1..256 of them, strictly ascending unless the kind is bases or centred: then levels are
/// by code, in any order.
class Codebook {
 public:
  Codebook() = default;
  /// Sorts, maps -0 to +0 and removes equal levels. Errc::internal when empty, not finite or more than 256.
  [[nodiscard]] static Codebook table(std::vector<float> levels);
  /// level k = low + float(k) * step, k < count; step > 0, or count == 1. Falls back to a table where rounding made
  /// neighbours equal.
  [[nodiscard]] static Codebook grid(float low, float step, std::size_t count);
  /// 2^k levels of bases v_1 .. v_k >= 0, k = 1..8; its cuts and order follow from the rule.
  [[nodiscard]] static Codebook bases(std::vector<float> bases, SignRule rule);
  /// `count` levels `step` >= 0 apart around 0.
  [[nodiscard]] static Codebook centred(float step, std::size_t count);
  /// The same levels with a decision between each two: a weight gets the level whose index is the number of cuts <= it.
  /// cuts [levels - 1] ascending (equal ones: a level that nobody gets), not NaN; Errc::internal otherwise. Cuts are
  /// for those who assign; they are not stored with the codes.
  [[nodiscard]] Codebook with_cuts(std::vector<float> cuts) const;

  [[nodiscard]] CodebookKind kind() const noexcept { return kind_; }
  [[nodiscard]] std::span<const float> levels() const noexcept { return levels_; }
  /// Empty: every weight gets its nearest level.
  [[nodiscard]] std::span<const float> cuts() const noexcept { return cuts_; }
  /// Empty: importance does not decide about codes.
  [[nodiscard]] std::span<const double> prices() const noexcept { return prices_; }
  /// Of bases and centred: the code of each interval between cuts; empty when interval i has code i.
  [[nodiscard]] std::span<const Code> order() const noexcept { return order_; }
  /// Of bases and centred: the bases, or the step; and how codes are chosen.
  [[nodiscard]] std::span<const float> numbers() const noexcept { return numbers_; }
  [[nodiscard]] SignRule rule() const noexcept { return rule_; }
  [[nodiscard]] float low() const noexcept { return levels_.empty() ? 0.0f : levels_.front(); }
  [[nodiscard]] float step() const noexcept { return step_; }
  /// The same levels with a price each: a weight w of importance h gets the level c of least h (w - c)^2 + price, and
  /// one that is exactly 0 the level 0 where there is one; h is that of its layer (layer_of). prices [levels] finite;
  /// Errc::internal otherwise. Like cuts they are not stored with the codes, and there are no cuts beside them.
  [[nodiscard]] Codebook with_prices(std::vector<double> prices) const;
  /// The codebook as it will be read back when its numbers are stored as `type` (a table for LevelType::f16 tables may
  /// lose levels that rounding made equal, and the cuts between them; of prices the least stays). cover: the outermost
  /// levels of a table are rounded outwards, so that every weight still lies between two levels.
  [[nodiscard]] Codebook stored_as(LevelType type, bool cover = false) const;

 private:
  [[nodiscard]] static Codebook of_signs(CodebookKind kind, std::vector<float> numbers, std::size_t levels,
                                         SignRule rule);
  std::vector<float> levels_;
  std::vector<float> cuts_;
  std::vector<double> prices_;
  std::vector<float> numbers_;
  std::vector<Code> order_;
  float step_ = 0;
  SignRule rule_ = SignRule::nearest;
  CodebookKind kind_ = CodebookKind::table;
};

}  // namespace lmq
