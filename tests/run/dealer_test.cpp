#include <catch2/catch.hpp>

#include <set>
#include <vector>

#include "copy_queues.hpp"
#include "dealer.hpp"

using namespace lmq;

namespace {

/// Deals tasks 0, 1, ... of so many seconds until there are `tasks`.
struct Source {
  std::uint64_t tasks = 0;
  double seconds = 0;
  std::uint64_t dealt = 0;
  std::vector<std::vector<std::uint64_t>> hands;

  Source(std::uint64_t most, double each, std::size_t ranks) : tasks(most), seconds(each), hands(ranks) {}
  bool deal(Dealer& dealer) {
    return dealer.deal(
        [&](int) -> std::optional<Task> {
          if (dealt == tasks) return std::nullopt;
          return Task{{TaskKind::quantize, dealt++, 0}, {}, seconds, 0};
        },
        [&](int rank, const Task& task) { hands[static_cast<std::size_t>(rank)].push_back(task.key.subject); });
  }
};

TaskKey key(std::uint64_t subject) { return {TaskKind::quantize, subject, 0}; }

}  // namespace

TEST_CASE("dealer: every rank has two tasks in hand, of short ones as many as last 50 ms, at most 32",
          "[run][dealer]") {
  for (const auto& [seconds, expected] : {std::pair{1.0, 2u}, {0.05, 2u}, {0.01, 5u}, {0.0, 32u}}) {
    Dealer dealer(3);
    Source source(1000, seconds, 3);
    REQUIRE(source.deal(dealer));
    for (const auto& hand : source.hands) CHECK(hand.size() == expected);
    CHECK_FALSE(source.deal(dealer));
    CHECK_FALSE(dealer.all_back());
  }
}

TEST_CASE("dealer: ranks take turns, and who gives a task back is dealt the next", "[run][dealer]") {
  Dealer dealer(3);
  Source source(8, 1, 3);
  source.deal(dealer);
  CHECK(source.hands == std::vector<std::vector<std::uint64_t>>{{0, 3}, {1, 4}, {2, 5}});
  dealer.returned(1, key(1));
  dealer.returned(1, key(77));  // never dealt
  source.deal(dealer);
  CHECK(source.hands[1].back() == 6);
  for (const std::uint64_t subject : {0, 3}) dealer.returned(0, key(subject));
  source.deal(dealer);
  CHECK(source.hands[0].back() == 7);
  for (const std::uint64_t subject : {4, 6}) dealer.returned(1, key(subject));
  for (const std::uint64_t subject : {2, 5}) dealer.returned(2, key(subject));
  CHECK_FALSE(dealer.all_back());
  dealer.returned(0, key(7));
  CHECK(dealer.all_back());
}

TEST_CASE("dealer: when there is nothing for one rank nobody else is asked, unless each is to be", "[run][dealer]") {
  constexpr int kRanks = 100;
  Dealer dealer(kRanks);
  int asked = 0;
  const auto nothing = [&](int) {
    ++asked;
    return std::optional<Task>();
  };
  const auto send = [](int, const Task&) { FAIL("nothing was to be dealt"); };
  CHECK_FALSE(dealer.deal(nothing, send));
  CHECK(asked == 1);
  CHECK_FALSE(dealer.deal(nothing, send, Dealer::Dry::for_rank));
  CHECK(asked == 1 + kRanks);
  std::set<int> served;
  const auto once = [&](int rank) {
    return served.contains(rank) ? std::nullopt
                                 : std::optional(Task{{TaskKind::sync, static_cast<std::uint64_t>(rank), 0}, {}, 0, 0});
  };
  CHECK(dealer.deal(
      once, [&](int rank, const Task&) { served.insert(rank); }, Dealer::Dry::for_rank));
  CHECK(served.size() == kRanks);
}

TEST_CASE("copies: a rank gets its own records first, then nobody's, then of the longest queue; each unit once",
          "[run][dealer]") {
  CopyQueues queues(3);
  queues.offer(10, 0);
  queues.offer(11, 0);
  queues.offer(20, 1);
  queues.offer(90);
  queues.offer(12, 0);
  CHECK(queues.next(1) == 20);
  CHECK(queues.next(1) == 90);
  CHECK(queues.next(2) == 10);
  CHECK(queues.next(0) == 11);
  queues.offer(91);
  CHECK(queues.next(0) == 12);
  CHECK(queues.next(0) == 91);
  CHECK_FALSE(queues.next(0));
  CHECK_FALSE(CopyQueues(1).next(0));
}
