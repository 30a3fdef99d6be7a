#include "zero_rule.hpp"

#include <algorithm>

namespace lmq {

std::size_t pinned_zero(const Group& group, ZeroRule rule) noexcept {
  const std::size_t none = group.size();
  if (rule == ZeroRule::off) return none;
  const auto first = std::ranges::lower_bound(group.low, 0.0f);
  const auto at = static_cast<std::size_t>(first - group.low.begin());
  if (at == none || group.low[at] != 0 || group.high[at] != 0) return none;
  if (rule == ZeroRule::on) return at;
  const double zeros = group.count[at];
  double all = 0;
  for (const double count : group.count) all += count;
  const double before = at > 0 ? group.count[at - 1] : 0, after = at + 1 < none ? group.count[at + 1] : 0;
  return zeros * 1024 >= all && zeros > 2 * std::max(before, after) ? at : none;
}

}  // namespace lmq
