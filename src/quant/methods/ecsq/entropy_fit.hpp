#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "interval_lloyd.hpp"
#include "interval_search.hpp"
#include "joint_code.hpp"
#include "rate_sums.hpp"
#include "uniform_steps.hpp"

namespace lmq {

enum class EcsqAlgorithm : std::uint8_t { exact, iterative, uniform };
/// Where the iteration starts.
enum class StartRule : std::uint8_t { best = 0, optimum = 1, uniform = 2 };

/// What a code depends on where there is importance.
enum class Labels : std::uint8_t { joint, interval };

/// What an entropy-constrained method was asked for: one of rate, lambda and slope. Its options, and what the method is.
struct EcsqOptions {
  EcsqAlgorithm way = EcsqAlgorithm::exact;
  std::optional<double> rate = {};    ///< bits per weight
  std::optional<double> lambda = {};  ///< squared error per bit (times importance)
  std::optional<double> slope = {};   ///< the same as a part of the variance
  ZeroRule zero = ZeroRule::automatic;
  LengthForm form = LengthForm::entropy;
  StartRule start = StartRule::best;
  CutRule cuts = CutRule::automatic;
  Labels labels = Labels::joint;
  std::size_t most_levels = 256;
};

/// A code and the lambda at which it was found.
struct EntropyCode {
  UniformCode found;  ///< of the other ways: only .code
  double lambda = 0;
  std::optional<JointCode> joint = std::nullopt;  ///< what is better than it where labels may depend on importance
  [[nodiscard]] double bits() const noexcept { return joint ? joint->bits : found.code.bits; }
  [[nodiscard]] double distortion() const noexcept { return joint ? joint->distortion : found.code.distortion; }
};

/// Fits lines; keeps its memory. One for each thread.
class EntropyFitter {
 public:
  /// joint: the two-dimensional histogram of the lines it will fit, where labels may depend on importance.
  explicit EntropyFitter(const JointSums* joint = nullptr)
      : joint_(joint != nullptr && !joint->empty() ? joint : nullptr) {}
  /// At a slope. `quick`: as IntervalSearch::quick.
  [[nodiscard]] EntropyCode at(const RateSums& line, const EcsqOptions& wish, double lambda, bool quick);
  /// What was asked for. A rate is met from below: the code of the least lambda whose entropy is within it, then, as
  /// only codes on the lower hull have a lambda, its cells made finer; as a rule less than 1e-3 bits below (a line of
  /// few points has few codes).
  [[nodiscard]] EntropyCode fit(const RateSums& line, const EcsqOptions& wish);

 private:
  [[nodiscard]] EntropyCode plain(const RateSums& line, const EcsqOptions& wish, double lambda);
  [[nodiscard]] EntropyCode fit_rate(const RateSums& line, const EcsqOptions& wish);
  [[nodiscard]] EntropyCode exact_near(const RateSums& line, const EcsqOptions& wish, double octaves,
                                       EntropyCode fallback);
  [[nodiscard]] IntervalCode from_uniform(const RateSums& line, const EcsqOptions& wish, double lambda) const;
  void join(const RateSums& line, const EcsqOptions& wish, EntropyCode& code) const;
  void fill_rate(const RateSums& line, const EcsqOptions& wish, EntropyCode& best) const;
  IntervalSearch search_;
  const JointSums* joint_;
};

}  // namespace lmq
