#include "yardstick.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

namespace lmq::app {
namespace {

// docs/quality.md, "Frequent tokens", "Between tensors" and "Diagonals".
constexpr std::array kYardstick{
    Measured{Known::nothing, 3, .70, .033, 1.14},   Measured{Known::nothing, 4, .16, .003, .18},
    Measured{Known::columns, 3, .24, .24, 1.18},    Measured{Known::columns, 4, .058, .058, .15},
    Measured{Known::diagonals, 3, .23, .12, .89},   Measured{Known::diagonals, 4, .053, .024, .12},
    Measured{Known::matrices, 2.5, .30, .21, .30},  Measured{Known::matrices, 3, .13, .016, .13},
    Measured{Known::matrices, 4, .034, .003, .034},
};

Known known_of(const ImportanceInfo& importance) noexcept {
  if (importance.gram || importance.outer_rows > 0) return Known::matrices;
  if (!importance.present()) return Known::nothing;
  return importance.kind == ImportanceKind::columns ? Known::columns : Known::diagonals;
}

/// What most quantized weights have; false where one of them is for another method, or no size is asked for.
bool is_default(const Plan& plan, Known& known) {
  std::array<double, 4> weights{};
  for (const TensorPlan& tensor : plan.tensors) {
    if (tensor.treatment != Treatment::quantize) continue;
    if (tensor.lane_rows == 0) return false;
    weights[static_cast<std::size_t>(known_of(tensor.importance))] +=
        static_cast<double>(tensor.rows) * static_cast<double>(tensor.cols);
  }
  const auto most = std::ranges::max_element(weights);
  known = static_cast<Known>(most - weights.begin());
  return *most > 0 && plan.target_bytes > 0;
}

constexpr double kSameRate = .01;  // files are a little smaller than what was asked for
constexpr std::array kNames{"without data", "with columns alone", "with rows and columns, or weights",
                            "with matrices of lmq-calibrate"};

}  // namespace

double smollm2_kl(Known known, double bits) {
  return std::ranges::find_if(kYardstick, [&](const Measured& row) { return row.known == known && row.bits == bits; })
      ->smollm2;
}

std::string expected_quality(const Plan& plan, std::uint64_t bytes, std::uint64_t weights) {
  Known known = Known::nothing;
  if (!is_default(plan, known)) return {};
  const double bits = 8 * static_cast<double>(bytes) / static_cast<double>(weights);
  const Measured* below = nullptr;  // the rates of the table around it
  const Measured* above = nullptr;
  for (const Measured& row : kYardstick) {
    if (row.known != known) continue;
    if (row.bits <= bits + kSameRate) below = &row;
    if (row.bits >= bits - kSameRate && above == nullptr) above = &row;
  }
  std::string rates;
  for (const Measured* row : {below, above == below ? nullptr : above})
    if (row != nullptr)
      rates += fmt::format("{}{:g} to {:g} at {:g} bits (SmolLM2-135M {:g})", rates.empty() ? "" : ", ", row->least,
                           row->most, row->bits, row->smollm2);
  if (below == nullptr) rates += ", more below";
  if (above == nullptr) rates += ", less above";
  return fmt::format("KL {}, models of docs/quality.md: {}", kNames[static_cast<std::size_t>(known)], rates);
}

std::string quality_in_short() {
  return fmt::format(
      "What it gives: SmolLM2-135M has KL {:g} nats a token at 4 bits and {:g} at 3 without any data, {:g} and {:g} "
      "with --importance of lmq-calibrate; lmq methods has more, lmq plan says it for a size.",
      smollm2_kl(Known::nothing, 4), smollm2_kl(Known::nothing, 3), smollm2_kl(Known::matrices, 4),
      smollm2_kl(Known::matrices, 3));
}

}  // namespace lmq::app
