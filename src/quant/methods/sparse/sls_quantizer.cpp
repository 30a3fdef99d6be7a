#include "sls_quantizer.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "lmq/base/error.hpp"
#include "partition/cell_means.hpp"

namespace lmq {
namespace {

constexpr std::size_t kMaxBins = std::size_t{1} << 19;  // of scopes too large to be solved value by value

void add_point(SparseScratch& s, double value, double mass, float first) {
  if (!s.u.empty() && !(value > s.u.back())) {
    s.mass.back() += mass;
    return;
  }
  s.u.push_back(value);
  s.mass.push_back(mass);
  s.first.push_back(first);
}

void clear(SparseScratch& s) { s.u.clear(), s.mass.clear(), s.scatter.clear(), s.first.clear(); }

}  // namespace

void load_points(const Group& group, SparseScratch& scratch) {
  clear(scratch);
  for (std::size_t j = 0; j < group.size(); ++j) {
    add_point(scratch, group.mean[j], group.mass[j], group.low[j]);
    scratch.scatter.resize(scratch.u.size(), 0.0);
    scratch.scatter.back() += group.scatter[j];
  }
  scratch.ones.assign(scratch.u.size(), 1.0);
}

void load_points(std::span<const float> values, std::span<const float> importance, SparseScratch& scratch) {
  scratch.sorted.resize(values.size()), scratch.sorted_weights.resize(importance.size());
  sort_floats(values, importance, scratch.sorted, scratch.sorted_weights, scratch.sort);
  const auto& weights = scratch.sorted_weights;
  const float largest = weights.empty() ? 0.0f : *std::ranges::max_element(weights);
  const double least = double{largest} * kMinWeight;
  clear(scratch);
  for (std::size_t i = 0; i < values.size(); ++i)
    add_point(scratch, scratch.sorted[i], largest > 0 ? std::max(double{weights[i]}, least) : 1.0, scratch.sorted[i]);
  scratch.ones.assign(scratch.u.size(), 1.0);
}

// Levels that floats cannot tell apart become one, and the cut between them goes. Where levels do not ascend (a first
// level pinned at 0 may lie above the next), cells say nothing that nearest levels do not say better.
Codebook SparseQuantizer::codebook(SparseScratch& s) const {
  cell_means(s.u, s.mass, s.ends, s.zero_cell, s.levels);
  std::vector<float> levels, cuts;
  for (std::size_t t = 0; t < s.levels.size(); ++t) {
    const auto level = static_cast<float>(s.levels[t]);
    if (t > 0 && level == levels.back()) continue;
    if (t > 0 && assign_ == Assign::cells && s.ends[t] < s.u.size()) cuts.push_back(s.first[s.ends[t]]);
    levels.push_back(level);
  }
  const bool ascending = std::ranges::is_sorted(levels) && cuts.size() + 1 == levels.size();
  Codebook book = Codebook::table(std::move(levels));
  return assign_ == Assign::cells && ascending && book.levels().size() == cuts.size() + 1
             ? book.with_cuts(std::move(cuts))
             : book;
}

Fit SparseQuantizer::fit(const Group& group) const {
  if (auto ranges = refine_all(group, kMaxBins); !ranges.empty()) return {Codebook::table({0.0f}), std::move(ranges)};
  SparseScratch scratch;
  load_points(group, scratch);
  find_cells(scratch);
  return {codebook(scratch), {}};
}

Codebook SparseQuantizer::fit_values(std::span<const float> values, std::span<const float> importance,
                                     Workspace& scratch) const {
  SparseScratch& s = scratch.get<SparseScratch>();
  load_points(values, importance, s);
  find_cells(s);
  return codebook(s);
}

void SparseQuantizer::too_many(const std::string& asked, std::size_t found, double lambda, double relative) const {
  fail(Errc::usage,
       fmt::format(
           "{} leaves {} levels, at most {} are {}; levels {} instead of it finds the least lambda that does for "
           "each codebook (here {:.6g}, lambda-relative {:.6g})",
           asked, found, levels_, levels_ == 256 ? "possible" : "wanted", levels_, lambda, relative));
}

}  // namespace lmq
