#include "lmq/run/rank_times.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "lmq/base/words.hpp"

namespace lmq {

std::string text_of(std::span<const RankTimes> ranks) {
  if (ranks.empty()) return {};
  RankTimes sum;
  for (const RankTimes& rank : ranks) {
    sum.computing += rank.computing;
    sum.writing += rank.writing;
    sum.waiting_input += rank.waiting_input;
    sum.waiting_work += rank.waiting_work;
  }
  const auto percent = [&](double part) { return sum.all() > 0 ? 100 * part / sum.all() : 0; };
  const auto least = std::ranges::min_element(ranks, {}, &RankTimes::busy);
  std::string text = fmt::format("{} {:.0f} % busy", counted(ranks.size(), "rank"), 100 * sum.busy());
  if (ranks.size() > 1) text += fmt::format(" (least {:.0f} %, rank {})", 100 * least->busy(), least - ranks.begin());
  return text + fmt::format(": computing {:.0f} %, writing {:.0f} %; waiting for input {:.0f} %, for work {:.0f} %",
                            percent(sum.computing), percent(sum.writing), percent(sum.waiting_input),
                            percent(sum.waiting_work));
}

}  // namespace lmq
