#include "lmq/run/width_budget.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

namespace lmq {
namespace {

constexpr int kMaxCorrections = 12;
constexpr int kImprovements = 6;     // of a file that fits: so often is what is left of the room spent
constexpr double kCaution = 0.0002;  // part of the room that is left more each time the file is too large

}  // namespace

WidthBudget::WidthBudget(Allocation how, std::vector<WidthTable> tables, double room)
    : how_(how), tables_(std::move(tables)) {
  for (const WidthTable& table : tables_) made_.emplace_back(table.size(), false);
  expected_ = choose(how_, room);
  points_ = choose(Allocation::uniform, room);
}

std::vector<std::size_t> WidthBudget::choose(Allocation how, double room) const {
  auto choice = allocate_widths(how, tables_, room);
  return choice ? std::move(choice->points) : smallest();
}

std::vector<std::size_t> WidthBudget::smallest() const {
  std::vector<std::size_t> points;
  for (const WidthTable& table : tables_) {
    const auto least = std::ranges::min_element(table, {}, &WidthPoint::bytes);
    points.push_back(static_cast<std::size_t>(least - table.begin()));
  }
  return points;
}

void WidthBudget::learn(std::span<const WidthResult> results) {
  for (std::size_t s = 0; s < tables_.size(); ++s) {
    if (made_[s][points_[s]]) continue;
    WidthPoint& made = tables_[s][points_[s]];
    const double bytes = results[s].bytes / std::max(made.bytes, 1.0);
    const double loss = made.loss > 0 && results[s].loss > 0 ? results[s].loss / made.loss : 1;
    for (std::size_t p = 0; p < tables_[s].size(); ++p) {
      if (made_[s][p]) continue;
      tables_[s][p].bytes = std::ceil(tables_[s][p].bytes * bytes);
      tables_[s][p].loss *= loss;
    }
    made_[s][points_[s]] = true;
    made.bytes = results[s].bytes, made.loss = results[s].loss;
  }
}

double WidthBudget::loss() const noexcept {
  double sum = 0;
  for (std::size_t s = 0; s < tables_.size(); ++s) sum += tables_[s][points_[s]].loss;
  return sum;
}

/// The best that was made is made again; where nothing fitted, the narrowest, whatever the tables say.
bool WidthBudget::take_best() {
  final_ = true;
  std::vector<std::size_t> last = best_.empty() ? std::vector<std::size_t>(tables_.size(), 0) : best_;
  const bool other = last != points_;
  points_ = std::move(last);
  return other || !best_.empty();
}

/// Whether points() are another choice now. fits: the last one did.
bool WidthBudget::propose(Allocation how, double room, bool fits) {
  if (++corrections_ > kMaxCorrections || (fits && corrections_ > kImprovements)) return false;
  const auto next = allocate_widths(how, tables_, fits ? room : room * (1 - kCaution * corrections_));
  if (!next && best_.empty() && points_ != smallest()) {  // only what was made is known not to fit
    points_ = smallest();
    return true;
  }
  if (!next || next->points == points_ || !(best_.empty() || next->loss < best_loss_)) return false;
  points_ = next->points;
  return true;
}

bool WidthBudget::correct(double room, std::span<const WidthResult> results) {
  double all = 0;
  for (const WidthResult& result : results) all += result.bytes;
  const bool fits = all <= room;
  learn(results);
  if (final_) return fits;
  if (fits && (best_.empty() || loss() < best_loss_)) best_ = points_, best_loss_ = loss();
  if (is_uniform_ && propose(Allocation::uniform, room, fits)) return true;
  const bool first = std::exchange(is_uniform_, false);
  if (first) corrections_ = 0;
  if (how_ != Allocation::uniform && propose(how_, room, fits || first)) return true;
  return take_best();
}

}  // namespace lmq
