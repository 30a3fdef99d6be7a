#pragma once
#include <cstdint>
#include <string>

#include "lmq/plan/plan.hpp"

namespace lmq::app {

/// What is known of the errors' cost.
enum class Known { nothing, columns, diagonals, matrices };

/// What the default costs the models of docs/quality.md: KL divergence from the float model's predictions, nats.
struct Measured {
  Known known;
  double bits;                 ///< of the whole file for each weight
  double smollm2;              ///< SmolLM2-135M
  double least = 0, most = 0;  ///< of all models there
};
/// Of SmolLM2-135M; bits: one of the table's.
[[nodiscard]] double smollm2_kl(Known known, double bits);

/// One line for a plan whose tensors all go to the default method with a size: what it cost other models at the rates of the
/// table around its own. bytes, weights: of the whole file. Empty for other plans.
[[nodiscard]] std::string expected_quality(const Plan& plan, std::uint64_t bytes, std::uint64_t weights);
/// The same in short for --help: SmolLM2-135M without data and with importance.
[[nodiscard]] std::string quality_in_short();

}  // namespace lmq::app
