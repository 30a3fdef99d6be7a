#include "grid_solver.hpp"

#include <algorithm>

#include "matrix/step_search.hpp"

namespace lmq {
namespace {
constexpr double kStill = 1e-4;  // part of the loss that a round must gain somewhere
constexpr double kMinFactor = 0.6, kMaxFactor = 1.3;
constexpr double kNearFactors[] = {0.97, 1, 1.03};

/// Passes errors on with every step times each factor; keeps the best.
void pass_on(GridRows& rows, std::span<const double> factors, const FeedbackFactor& factor, SolverScratch& scratch,
             BestRows& best) {
  const std::vector<double> steps = rows.step;
  for (const double share : factors) {
    for (std::size_t b = 0; b < steps.size(); ++b) rows.step[b] = steps[b] * share;
    feedback_rows(rows, factor, scratch.room);
    best.keep(rows);
  }
}

/// Rounding to nearest with steps about those of the diagonal, by the whole of H.
void look_about(GridRows& rows, BestRows& best) {
  constexpr std::size_t kLooks = 16;
  constexpr double kMin = 0.5, kMax = 1.4;
  const std::vector<double> steps = rows.step;
  for (std::size_t look = 0; look < kLooks; ++look) {
    const double share = kMin + (kMax - kMin) * static_cast<double>(look) / static_cast<double>(kLooks - 1);
    for (std::size_t b = 0; b < steps.size(); ++b) rows.step[b] = steps[b] * share;
    assign_nearest(rows);
    measure_rows(rows);
    best.keep(rows);
  }
  best.restore(rows);
}

/// Rounds of descent from what is best.
void descend(GridRows& rows, std::size_t rounds, BestRows& best) {
  if (rounds == 0) return;
  best.restore(rows);
  measure_rows(rows);
  for (std::size_t round = 0; round < rounds; ++round) {
    descend_rows(rows);
    rescale_rows(rows);
    measure_rows(rows);
    if (!best.keep(rows, kStill)) return;
  }
}

void pass_and_descend(GridRows& rows, const GridSearch& search, const FeedbackFactor& factor, SolverScratch& scratch) {
  std::vector<double> factors;
  for (std::size_t f = 0; f < search.factors; ++f)
    factors.push_back(search.factors < 2 ? 1
                                         : kMinFactor + (kMaxFactor - kMinFactor) * static_cast<double>(f) /
                                                            static_cast<double>(search.factors - 1));
  pass_on(rows, factors, factor, scratch, scratch.best);
  descend(rows, search.descents, scratch.best);
  for (std::size_t time = 0; time < search.again; ++time) {
    scratch.best.restore(rows);
    scratch.other.clear(rows.shape);
    pass_on(rows, kNearFactors, factor, scratch, scratch.other);
    descend(rows, search.descents, scratch.other);
    scratch.other.restore(rows);
    measure_rows(rows);
    if (!scratch.best.keep(rows, kStill)) return;
  }
}
}  // namespace

GridShape grid_shape(std::size_t cols, std::size_t group, std::size_t levels, ZeroPoint zero) noexcept {
  if (zero == ZeroPoint::automatic) zero = levels == 2 ? ZeroPoint::between : ZeroPoint::on;
  GridShape shape{0, cols, group, levels, -static_cast<double>(levels / 2), zero == ZeroPoint::free};
  if (zero != ZeroPoint::on) shape.first = -static_cast<double>(levels - 1) / 2;
  return shape;
}

void solve_grids(GridRows& rows, const GridSearch& search, const FeedbackFactor* factor, SolverScratch& scratch) {
  search_steps(rows, std::max(kStepFactors, 2 * rows.shape.levels));  // many levels fit few weights in many ways
  if (search.single_pass) return;
  measure_rows(rows);
  scratch.best.clear(rows.shape);
  scratch.best.keep(rows);
  if (search.trains) {
    if (!rows.curvature.gram.empty()) look_about(rows, scratch.best);
    train_rows(rows, search.training, scratch.best, scratch.training);
    descend(rows, search.descents, scratch.best);
  } else if (factor != nullptr) {
    pass_and_descend(rows, search, *factor, scratch);
  }
  scratch.best.restore(rows);
}

void pass_on_once(GridRows& rows, const FeedbackFactor& factor, SolverScratch& scratch) {
  assign_nearest(rows);
  measure_rows(rows);
  scratch.best.clear(rows.shape);
  scratch.best.keep(rows);
  feedback_rows(rows, factor, scratch.room);
  scratch.best.keep(rows);
  scratch.best.restore(rows);
}

}  // namespace lmq
