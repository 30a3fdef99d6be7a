#include "free_logits.hpp"

#include <algorithm>
#include <array>

#include "core/plain_exp.hpp"
#include "lmq/kernels/rate_cells.hpp"
#include "pace.hpp"

namespace lmq {
namespace {
constexpr std::size_t kMaxChoices = 5;
constexpr double kFirstTau = 2, kLastTau = 0.05, kFirstKappa = 1, kLastKappa = 5;
constexpr double kStart = 3;      // logits are -kStart * distance^2 at first
constexpr double kLogitPace = 2;  // rate of logits beside that of latent weights
constexpr std::size_t kTrials = 8;

class LogitTrainer {
 public:
  LogitTrainer(GridRows& rows, const Training& training, TrainingScratch& scratch)
      : rows_(rows),
        training_(training),
        s_(scratch),
        grid_{rows.shape.levels, rows.shape.first},
        choices_(std::min(kMaxChoices, rows.shape.levels)),
        start_(rows.step) {
    const std::size_t all = rows.x.size() * choices_;
    s_.logits.assign(all, 0.0F), s_.first.assign(all, 0.0F), s_.second.assign(all, 0.0F);
    s_.log_step.assign(rows.step.size(), 0.0);
    for (auto* moments : {&s_.step_first, &s_.step_second, &s_.offset_first, &s_.offset_second})
      moments->assign(rows.step.size(), 0.0);
    s_.norm = row_norms(rows);
    s_.share.resize(std::min(rows.shape.group, rows.shape.cols));
    base_.assign(rows.x.size(), 0);
    each_run(rows.shape, [&](const Run& run) { begin_logits(run); });
  }

  void run(BestRows& best) {
    assign_nearest(rows_);
    measure_rows(rows_);
    best.keep(rows_);
    double beta1 = 1, beta2 = 1;
    const std::size_t every = std::max<std::size_t>(1, training_.steps / kTrials);
    for (std::size_t step = 0; step < training_.steps; ++step) {
      beta1 *= kBeta1, beta2 *= kBeta2;
      const double part =
          static_cast<double>(step) / static_cast<double>(std::max<std::size_t>(2, training_.steps) - 1);
      const double sharpness =
          kFirstKappa / kFirstTau * plain_exp2(part * plain_log2(kLastKappa / kLastTau * (kFirstTau / kFirstKappa)));
      soften(sharpness);
      pull_rows(rows_);
      update(pace_of(step, training_.steps, beta1, beta2), sharpness);
      if ((step + 1) % every == 0 || step + 1 == training_.steps) try_codes(best);
    }
  }

 private:
  void begin_logits(const Run& run) noexcept {
    if (!(rows_.step[run.book] > 0)) return;
    for (std::size_t i = run.begin; i < run.begin + run.count; ++i) {
      const double v = (double{rows_.x[i]} - rows_.offset[run.book]) / rows_.step[run.book];
      const std::size_t code = nearest_code(v, 1, grid_);
      base_[i] = static_cast<Code>(std::min(code < choices_ / 2 ? 0 : code - choices_ / 2, grid_.levels - choices_));
      for (std::size_t k = 0; k < choices_; ++k) {
        const double distance = v - grid_.point(base_[i] + k);
        s_.logits[i * choices_ + k] = static_cast<float>(-kStart * distance * distance);
      }
    }
  }

  /// Probabilities of a weight's choices; returns the mean point.
  double soft_point(std::size_t i, double sharpness, std::array<double, kMaxChoices>& p) const noexcept {
    const float* const logit = s_.logits.data() + i * choices_;
    const double most = double{*std::max_element(logit, logit + choices_)};
    double sum = 0, mean = 0;
    for (std::size_t k = 0; k < choices_; ++k) sum += p[k] = plain_exp(sharpness * (double{logit[k]} - most));
    for (std::size_t k = 0; k < choices_; ++k) p[k] /= sum, mean += p[k] * grid_.point(base_[i] + k);
    return mean;
  }

  void soften(double sharpness) noexcept {
    std::array<double, kMaxChoices> p{};
    each_run(rows_.shape, [&](const Run& run) {
      for (std::size_t i = run.begin; i < run.begin + run.count; ++i) {
        const double mean = rows_.step[run.book] > 0 ? soft_point(i, sharpness, p) : 0;
        rows_.error[i] = static_cast<float>(rows_.offset[run.book] + rows_.step[run.book] * mean - double{rows_.x[i]});
      }
    });
  }

  void update(const Pace& pace, double sharpness) noexcept {
    each_run(rows_.shape, [&](const Run& run) {
      if (!(rows_.step[run.book] > 0) || !(s_.norm[run.row] > 0)) return;
      const double scale = 2 * rows_.step[run.book] / s_.norm[run.row];
      std::array<double, kMaxChoices> p{};
      for (std::size_t i = run.begin; i < run.begin + run.count; ++i) {
        const double mean = soft_point(i, sharpness, p), gradient = scale * double{rows_.pull[i]};
        s_.share[i - run.begin] = double{rows_.pull[i]} * mean;
        for (std::size_t k = 0; k < choices_; ++k) {
          const std::size_t at = i * choices_ + k;
          double first = double{s_.first[at]}, second = double{s_.second[at]};
          const double by = gradient * sharpness * p[k] * (grid_.point(base_[i] + k) - mean);
          const double move = kLogitPace * pace.latent * pace.move(by, first, second);
          s_.first[at] = static_cast<float>(first), s_.second[at] = static_cast<float>(second);
          s_.logits[at] = static_cast<float>(double{s_.logits[at]} - move);
        }
      }
      move_grid(run, pace, scale);
    });
  }

  void move_grid(const Run& run, const Pace& pace, double scale) noexcept {
    const std::size_t b = run.book;
    const double few = 1 / std::sqrt(static_cast<double>(run.count) * static_cast<double>(grid_.levels) / 2);
    const double gradient = scale * few * sum_of(s_.share.data(), run.count);
    s_.log_step[b] -= pace.log_step * pace.move(gradient, s_.step_first[b], s_.step_second[b]);
    const double before = rows_.step[b];
    rows_.step[b] = start_[b] * plain_exp(s_.log_step[b]);
    if (!rows_.shape.free_offset) return;
    for (std::size_t i = 0; i < run.count; ++i) s_.share[i] = double{rows_.pull[run.begin + i]};
    const double pushed = scale * few * sum_of(s_.share.data(), run.count);
    rows_.offset[b] -= pace.log_step * before * pace.move(pushed, s_.offset_first[b], s_.offset_second[b]);
  }

  void try_codes(BestRows& best) noexcept {
    for (std::size_t i = 0; i < rows_.codes.size(); ++i) {
      const float* const logit = s_.logits.data() + i * choices_;
      rows_.codes[i] = static_cast<Code>(base_[i] + (std::max_element(logit, logit + choices_) - logit));
    }
    measure_rows(rows_);
    best.keep(rows_);
  }

  GridRows& rows_;
  const Training& training_;
  TrainingScratch& s_;
  GridPoints grid_;
  std::size_t choices_;
  std::vector<double> start_;
  std::vector<Code> base_;
};
}  // namespace

void train_logits(GridRows& rows, const Training& training, BestRows& best, TrainingScratch& scratch) {
  LogitTrainer(rows, training, scratch).run(best);
}

}  // namespace lmq
