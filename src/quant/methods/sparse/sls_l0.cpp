#include "sls_l0.hpp"

#include <algorithm>

namespace lmq {
namespace {

// A running sum and what rounding took from it (Neumaier).
struct Running {
  double sum = 0, lost = 0;
  void add(double x) {
    const double next = sum + x, part = next - sum;
    lost += (sum - (next - part)) + (x - part);
    sum = next;
  }
  [[nodiscard]] double total() const { return sum + lost; }
};

// sums[x]: of term(k) over the points from edge `middle` to edge x, negative to the left of it.
template <class Term>
void sums_from(std::size_t middle, std::size_t m, const Term& term, std::vector<double>& sums) {
  sums.resize(m + 1);
  sums[middle] = 0;
  Running right, left;
  for (std::size_t k = middle; k < m; ++k) right.add(term(k)), sums[k + 1] = right.total();
  for (std::size_t k = middle; k-- > 0;) left.add(term(k)), sums[k] = -left.total();
}

}  // namespace

void prefix_sums(SparseData data, double centre, std::vector<double>& W, std::vector<double>& S,
                 std::vector<double>& C) {
  const std::size_t m = data.u.size(), middle = m / 2;
  const auto v = [&](std::size_t k) { return data.u[k] - centre; };
  sums_from(
      middle, m, [&](std::size_t k) { return data.a[k]; }, W);
  sums_from(
      middle, m, [&](std::size_t k) { return data.a[k] * v(k); }, S);
  sums_from(
      middle, m, [&](std::size_t k) { return data.a[k] * v(k) * v(k); }, C);
}

// The points with one at 0; from_zero: without those below 0, which then lie in the zero cell.
void SparseL0::chain(SparseData data, bool from_zero) {
  const auto at = static_cast<std::size_t>(std::ranges::lower_bound(data.u, 0.0) - data.u.begin());
  Pinned& p = pinned_;
  p.first = from_zero ? at : 0;
  p.zero = at - p.first;
  p.inserted = at == data.u.size() || data.u[at] != 0;
  const auto from = static_cast<std::ptrdiff_t>(p.first);
  p.u.assign(data.u.begin() + from, data.u.end());
  p.a.assign(data.a.begin() + from, data.a.end());
  if (p.inserted) {
    p.u.insert(p.u.begin() + static_cast<std::ptrdiff_t>(p.zero), 0.0);
    p.a.insert(p.a.begin() + static_cast<std::ptrdiff_t>(p.zero), 0.0);
  }
  const SparseData points{p.u, p.a};
  prefix_sums(points, p.u[p.u.size() / 2], p.W, p.S, p.C);
  sums_from(
      p.zero, p.u.size(), [&](std::size_t k) { return p.a[k] * p.u[k] * p.u[k]; }, p.squares);
}

ZeroPinnedCost SparseL0::cost() const {
  return {{pinned_.W.data(), pinned_.S.data(), pinned_.C.data()}, pinned_.squares.data(), pinned_.zero};
}

void SparseL0::take(const CellEnds& found) {
  ends_.clear();
  zero_cell_ = -1;
  for (const std::uint32_t e : found) {
    if (e <= pinned_.zero) ++zero_cell_;
    const std::size_t point = pinned_.first + e - (pinned_.inserted && e > pinned_.zero ? 1 : 0);
    ends_.push_back(e == 0 ? 0 : static_cast<std::uint32_t>(point));
  }
}

void SparseL0::take_free(std::span<const std::uint32_t> found) {
  ends_.assign(found.begin(), found.end());
  zero_cell_ = -1;
}

double SparseL0::before_chain(SparseData data) const {
  double sum = 0;
  for (std::size_t k = 0; k < pinned_.first; ++k) sum += data.a[k] * data.u[k] * data.u[k];
  return sum;
}

const CellEnds& SparseL0::solve(SparseData data, std::size_t levels, ZeroLevel zero) {
  if (zero == ZeroLevel::off) {
    take_free(partition_.solve(data.u, data.a, levels));
    return ends_;
  }
  chain(data, zero == ZeroLevel::first);
  take(lagrangian_partition(cost(), pinned_.u.size(), levels));
  if (zero == ZeroLevel::exact || data.u[0] == 0 || levels < 2) return ends_;
  // Where values lie below 0 and levels behind the first cell too, merging them all is no worse: the chain suffices.
  const double pinned = loss(data);
  const auto found = partition_.solve(data.u, data.a, levels - 1);
  if (partition_.loss() <= pinned) take_free(found);
  return ends_;
}

const CellEnds& SparseL0::solve_penalised(SparseData data, double lambda, ZeroLevel zero) {
  double pinned = 0;
  if (zero != ZeroLevel::off) {
    chain(data, zero == ZeroLevel::first);
    const CellEnds& found = with_zero_.solve(cost(), pinned_.u.size(), lambda);
    pinned = partition_loss(cost(), found) + before_chain(data) + lambda * static_cast<double>(found.size() - 2);
    take(found);
    if (zero == ZeroLevel::exact || data.u[0] == 0) return ends_;
  }
  prefix_sums(data, data.u[data.u.size() / 2], W_, S_, C_);
  const SquaredErrorCost free{W_.data(), S_.data(), C_.data()};
  const CellEnds& found = free_.solve(free, data.u.size(), lambda);
  const double price = partition_loss(free, found) + lambda * static_cast<double>(found.size() - 1);
  if (zero == ZeroLevel::off || price <= pinned) take_free(found);
  return ends_;
}

double SparseL0::loss(SparseData data) const {
  double sum = 0;
  for (std::size_t t = 0; t + 1 < ends_.size(); ++t) {
    const std::size_t begin = ends_[t], end = ends_[t + 1];
    if (end <= begin) continue;
    const double near = data.u[(begin + end) / 2];
    double weight = 0, first = 0, squares = 0;
    for (std::size_t k = begin; k < end; ++k) weight += data.a[k], first += data.a[k] * (data.u[k] - near);
    const bool pinned = static_cast<std::ptrdiff_t>(t) == zero_cell_;
    const double level = pinned ? 0 : end == begin + 1 ? 0 : first / weight;
    for (std::size_t k = begin; k < end; ++k) {
      const double e = pinned ? data.u[k] : (data.u[k] - near) - level;
      squares += data.a[k] * (e * e);
    }
    sum += squares;
  }
  return sum;
}

}  // namespace lmq
