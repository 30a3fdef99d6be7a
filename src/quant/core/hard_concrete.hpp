#pragma once

namespace lmq {

/// Hard concrete gates (Louizos, Welling & Kingma 2018, section 2.2): gamma = -.1, zeta = 1.1, tau = 2/3.
struct Gate {
  double value = 0, dphi = 0;
};
/// draw in (0, 1).
[[nodiscard]] Gate hard_concrete(double phi, double draw) noexcept;
/// The same from the draw's logit, ln(draw / (1 - draw)).
[[nodiscard]] Gate hard_concrete_of(double phi, double logit) noexcept;
[[nodiscard]] double logit_of(double draw) noexcept;
/// The gate without noise, as it is used in the end.
[[nodiscard]] double final_gate(double phi) noexcept;
/// P(gate > 0), and its derivative.
[[nodiscard]] Gate open_probability(double phi) noexcept;
/// The phi of a gate that is 0 with probability `drop`, 0 < drop < 1.
[[nodiscard]] double phi_of_drop(double drop) noexcept;

}  // namespace lmq
