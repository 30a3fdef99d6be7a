#include "training.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "core/plain_exp.hpp"
#include "free_logits.hpp"
#include "lmq/base/random.hpp"
#include "lmq/kernels/rate_cells.hpp"
#include "pace.hpp"

namespace lmq {
namespace {
constexpr std::size_t kFullWidth = 4;  // every so manieth step drops no bits
constexpr double kRound = 0x1.8p52;

GridPoints points_of(const GridShape& shape) { return {shape.levels, shape.first}; }

/// slope[i] of through_class for places v of codes, four exponentials a weight and no branch.
// More than 5 parameters: plain arrays of a vectorised loop.
void class_slopes(std::size_t n, const double* v, const double* point, const GridPoints& grid, double noise,
                  double* slope) noexcept {
  const double inverse = 1 / noise, low = grid.first - 0.5, high = grid.last() + 0.5;
  const double within = 1 - plain_exp(-inverse), all_within = 1 - plain_exp((low - high) * inverse);
  const double ratio = within / all_within * inverse;
#pragma omp simd
  for (std::size_t i = 0; i < n; ++i) {
    const double a = plain_exp((v[i] - point[i] - 0.5) * inverse), b = plain_exp((point[i] - 0.5 - v[i]) * inverse);
    const double far_a = plain_exp((v[i] - high) * inverse), far_b = plain_exp((low - v[i]) * inverse);
    const double cell = (1 + a) * (1 + b), all = (1 + far_a) * (1 + far_b);
    slope[i] = point[i] * ratio * (all / cell) * ((far_a - far_b) / all - (a - b) / cell);
  }
}

class Trainer {
 public:
  Trainer(GridRows& rows, const Training& training, TrainingScratch& scratch)
      : rows_(rows), training_(training), s_(scratch), grid_(points_of(rows.shape)) {
    s_.latent.assign(rows.x.begin(), rows.x.end());
    s_.first.assign(rows.x.size(), 0.0F), s_.second.assign(rows.x.size(), 0.0F);
    for (auto* moments : {&s_.step_first, &s_.step_second, &s_.offset_first, &s_.offset_second})
      moments->assign(rows.step.size(), 0.0);
    s_.log_step.assign(rows.step.size(), 0.0);
    const std::size_t group = std::min(rows.shape.group, rows.shape.cols);
    for (auto* buffer : {&s_.place, &s_.slope, &s_.point, &s_.share}) buffer->resize(group);
    start_ = rows.step;
    s_.norm = row_norms(rows);
    if (training.drop > 0) masks_ = open_masks(grid_.levels, 2, training.scheme);
  }

  void run(BestRows& best) {
    double beta1 = 1, beta2 = 1;
    for (std::size_t step = 0; step < training_.steps; ++step) {
      const bool dropped = drop_bits(step);
      set_codes(dropped, noise_at(step));
      measure_rows(rows_);
      if (!dropped) best.keep(rows_);
      if (step + 1 == training_.steps) break;
      beta1 *= kBeta1, beta2 *= kBeta2;
      update(pace_of(step, training_.steps, beta1, beta2), dropped, noise_at(step));
    }
  }

 private:
  double noise_at(std::size_t step) const noexcept {
    if (training_.noise == training_.last_noise || training_.steps < 2) return training_.noise;
    const double part = static_cast<double>(step) / static_cast<double>(training_.steps - 1);
    return training_.noise * plain_exp2(part * plain_log2(training_.last_noise / training_.noise));
  }

  /// Draws this step's gates; false: full width.
  bool drop_bits(std::size_t step) {
    if (!(training_.drop > 0) || masks_.gates == 0 || step % kFullWidth == 0) return false;
    const std::uint64_t key = draw_key(training_.seed, step);
    const double phi = phi_of_drop(training_.drop);
    std::vector<double> gates(masks_.gates);
    for (std::size_t g = 0; g < gates.size(); ++g)
      gates[g] = hard_concrete(phi, (static_cast<double>(draw32(key, g)) + 0.5) * 0x1p-32).value;
    set_gates(masks_, gates);
    return true;
  }

  void set_places(const Run& run) noexcept {
    const double offset = rows_.offset[run.book], inverse = 1 / rows_.step[run.book];
    for (std::size_t i = 0; i < run.count; ++i) s_.place[i] = (double{s_.latent[run.begin + i]} - offset) * inverse;
  }

  void set_codes(bool dropped, double noise) {
    each_run(rows_.shape, [&](const Run& run) {
      if (!(rows_.step[run.book] > 0)) return;
      set_places(run);
      const double levels = static_cast<double>(grid_.levels - 1);
      for (std::size_t i = 0; i < run.count; ++i) {
        const double place = std::min(std::max(s_.place[i] - grid_.first, 0.0), levels);
        rows_.codes[run.begin + i] = static_cast<Code>(
            dropped ? static_cast<double>(masked_code(s_.place[i], noise, grid_, masks_)) : (place + kRound) - kRound);
      }
    });
  }

  /// slope and point of the run's weights.
  void set_through(const Run& run, bool dropped, double noise) {
    for (std::size_t i = 0; i < run.count; ++i) s_.point[i] = grid_.point(rows_.codes[run.begin + i]);
    if (training_.backward == Backward::cpq && !dropped)
      return class_slopes(run.count, s_.place.data(), s_.point.data(), grid_, noise, s_.slope.data());
    for (std::size_t i = 0; i < run.count; ++i) {
      const std::size_t code = rows_.codes[run.begin + i];
      Through through;
      if (training_.backward == Backward::cpq)
        through = {s_.point[i] * masked_categorical(s_.place[i], noise, grid_, masks_, code).dv, s_.point[i]};
      else if (training_.backward == Backward::mean)
        through = through_mean(s_.place[i], noise, grid_, code);
      else
        through = through_step(s_.place[i], grid_, code);
      s_.slope[i] = through.slope, s_.point[i] = through.point;
    }
  }

  void update(const Pace& pace, bool dropped, double noise) {
    each_run(rows_.shape, [&](const Run& run) {
      if (!(rows_.step[run.book] > 0) || !(s_.norm[run.row] > 0)) return;
      set_places(run);
      set_through(run, dropped, noise);
      const double step = rows_.step[run.book], scale = 2 * step / s_.norm[run.row];
      move_latent(run, pace, step, scale);
      for (std::size_t i = 0; i < run.count; ++i)
        s_.share[i] = double{rows_.pull[run.begin + i]} * (s_.point[i] - s_.place[i] * s_.slope[i]);
      move_grid(run, pace, scale);
    });
  }

  void move_latent(const Run& run, const Pace& pace, double step, double scale) noexcept {
    const float* const pull = rows_.pull.data() + run.begin;
    const double* const slope = s_.slope.data();
    float* const latent = s_.latent.data() + run.begin;
    float* const moment1 = s_.first.data() + run.begin;
    float* const moment2 = s_.second.data() + run.begin;
    const double rate = pace.latent * step;
#pragma omp simd
    for (std::size_t i = 0; i < run.count; ++i) {
      double first = double{moment1[i]}, second = double{moment2[i]};
      const double move = pace.move(scale * double{pull[i]} * slope[i], first, second);
      moment1[i] = static_cast<float>(first), moment2[i] = static_cast<float>(second);
      latent[i] = static_cast<float>(double{latent[i]} - rate * move);
    }
  }

  void move_grid(const Run& run, const Pace& pace, double scale) noexcept {
    const std::size_t b = run.book;
    const double few = 1 / std::sqrt(static_cast<double>(run.count) * static_cast<double>(grid_.levels) / 2);
    const double gradient = scale * sum_of(s_.share.data(), run.count) * few;
    s_.log_step[b] -= pace.log_step * pace.move(gradient, s_.step_first[b], s_.step_second[b]);
    const double before = rows_.step[b];
    rows_.step[b] = start_[b] * plain_exp(s_.log_step[b]);
    if (!rows_.shape.free_offset) return;
    for (std::size_t i = 0; i < run.count; ++i) s_.share[i] = double{rows_.pull[run.begin + i]} * (1 - s_.slope[i]);
    const double pushed = scale * sum_of(s_.share.data(), run.count) * few;
    rows_.offset[b] -= pace.log_step * before * pace.move(pushed, s_.offset_first[b], s_.offset_second[b]);
  }

  GridRows& rows_;
  const Training& training_;
  TrainingScratch& s_;
  GridPoints grid_;
  Masks masks_;
  std::vector<double> start_;
};
}  // namespace

std::vector<double> row_norms(GridRows& rows) {
  const std::vector<double> steps = rows.step, offsets = rows.offset;
  std::ranges::fill(rows.step, 0.0), std::ranges::fill(rows.offset, 0.0);
  measure_rows(rows);  // all levels 0: errors are -w
  std::vector<double> norms(rows.loss);
  for (double& norm : norms) norm /= static_cast<double>(rows.shape.cols);
  rows.step = steps, rows.offset = offsets;
  return norms;
}

void train_rows(GridRows& rows, const Training& training, BestRows& best, TrainingScratch& scratch) {
  if (training.steps == 0 || rows.shape.weights() == 0) return;
  if (training.backward == Backward::free_logits) return train_logits(rows, training, best, scratch);
  Trainer(rows, training, scratch).run(best);
}

}  // namespace lmq
