#include <algorithm>
#include <catch2/catch.hpp>
#include <map>
#include <random>
#include <set>

#include "lmq/quant/value_histogram.hpp"
#include "schedule.hpp"

using namespace lmq;

namespace {

/// Tensors with units of different cost: `scoped` of them share codebooks over several units, one is kept.
Plan some_plan(std::size_t tensors, std::uint32_t seed) {
  std::mt19937 draw(seed);
  Plan plan;
  for (std::uint32_t t = 0; t < tensors; ++t) {
    TensorPlan tensor;
    tensor.tensor = t;
    tensor.treatment = t % 5 == 4 ? Treatment::keep : Treatment::quantize;
    tensor.first_unit = plan.units.size();
    tensor.units = t % 7 == 6 ? 0 : 1 + draw() % 6;
    for (std::uint64_t u = 0; u < tensor.units; ++u)
      plan.units.push_back({t, u * 10, 10, 1e-3 * static_cast<double>(1 + draw() % 100)});
    if (tensor.treatment == Treatment::quantize && t % 2 == 0 && tensor.units > 0) {
      // Every third joins the scope before it.
      if (t % 3 == 0 && !plan.scopes.empty()) {
        plan.scopes.back().tensors.push_back(t);
      } else {
        plan.scopes.push_back({});
        plan.scopes.back().tensors = {t};
      }
      tensor.scope = static_cast<std::int64_t>(plan.scopes.size()) - 1;
    }
    plan.tensors.push_back(tensor);
  }
  return plan;
}

/// The histogram of ten equal weights whose value names the unit.
ValueHistogram histogram_of(std::uint64_t unit) {
  const std::vector<float> values(10, 1.0f + static_cast<float>(unit));
  const TensorView view{DType::f32, std::as_bytes(std::span(values)), values.size()};
  return ValueHistogram::of(view, {}, {});
}

/// What the solver of this test answers: look closer twice for every other scope, then a codebook that tells how many
/// weights it saw.
Fit fit_of(std::uint64_t scope, std::uint32_t round, const ValueHistogram& histogram) {
  Fit fit;
  if (scope % 2 == 0 && round < 2)
    fit.refine = {{0x80000000u, 0xFFFFFFFFu, 0}};
  else
    fit.codebook = Codebook::table({0.0f, static_cast<float>(histogram.count())});
  return fit;
}

/// A result as the journal keeps it.
struct Kept {
  TaskKey key;
  ValueHistogram histogram;
  Fit fit;
};

Kept do_task(const Task& task) {
  Kept kept{task.key, {}, {}};
  if (task.key.kind == TaskKind::measure) kept.histogram = histogram_of(task.key.subject);
  if (task.key.kind == TaskKind::solve)
    kept.fit = fit_of(task.key.subject, task.key.round,
                      ValueHistogram::from_bytes(SolveOrder::from_bytes(task.body).histogram, "test"));
  return kept;
}

void tell(Schedule& schedule, const Kept& kept, int rank) {
  if (kept.key.kind == TaskKind::measure) schedule.measured(kept.key.subject, kept.key.round, kept.histogram, rank);
  if (kept.key.kind == TaskKind::solve) schedule.solved(kept.key.subject, kept.key.round, kept.fit);
  if (kept.key.kind == TaskKind::quantize) schedule.quantized(kept.key.subject);
}

/// Everything that must be known at the end, and what it must be.
void require_complete(const Plan& plan, const Schedule& schedule,
                      const std::map<std::uint64_t, std::vector<std::byte>>& books) {
  REQUIRE(schedule.finished());
  std::set<std::uint64_t> expected;
  for (std::uint64_t unit = 0; unit < plan.units.size(); ++unit)
    if (plan.tensors[plan.units[unit].tensor].treatment == Treatment::quantize) expected.insert(unit);
  std::set<std::uint64_t> done;
  for (const auto& [unit, body] : books) {
    done.insert(unit);
    const std::int64_t scope = plan.tensors[plan.units[unit].tensor].scope;
    const QuantizeOrder order = QuantizeOrder::from_bytes(body);
    REQUIRE(order.codebook.has_value() == (scope >= 0));
    REQUIRE_FALSE(order.options.has_value());
    if (scope >= 0)
      REQUIRE(codebook_to_bytes(*order.codebook) ==
              codebook_to_bytes(schedule.codebook(static_cast<std::uint64_t>(scope))));
  }
  REQUIRE(done == expected);
  for (std::uint64_t scope = 0; scope < plan.scopes.size(); ++scope) {
    std::uint64_t weights = 0;
    for (const std::uint32_t tensor : plan.scopes[scope].tensors) weights += 10 * plan.tensors[tensor].units;
    REQUIRE(schedule.codebook(scope).levels().back() == static_cast<float>(weights));
  }
  REQUIRE(schedule.weights_measured() == schedule.weights_to_measure());
  REQUIRE(schedule.weights_quantized() == schedule.weights_to_quantize());
}

/// Ranks that finish in any order. Results go to `journal`.
void simulate(Schedule& schedule, std::mt19937& draw, int ranks, std::vector<Kept>& journal,
              std::map<std::uint64_t, std::vector<std::byte>>& books) {
  std::vector<std::vector<Task>> hands(static_cast<std::size_t>(ranks));
  for (int step = 0; !schedule.finished(); ++step) {
    REQUIRE(step < 100'000);
    const std::size_t rank = draw() % hands.size();
    auto& hand = hands[rank];
    if (hand.size() < 2) {
      if (auto task = schedule.next(static_cast<int>(rank))) hand.push_back(*task);
      if (draw() % 2 == 0) continue;
    }
    if (hand.empty()) continue;
    const std::size_t which = draw() % hand.size();
    const Task task = hand[which];
    hand.erase(hand.begin() + static_cast<std::ptrdiff_t>(which));
    if (task.key.kind == TaskKind::quantize) books[task.key.subject] = task.body;
    const Kept kept = do_task(task);
    tell(schedule, kept, static_cast<int>(rank));
    if (draw() % 5 == 0) tell(schedule, kept, static_cast<int>(rank));  // told twice
    journal.push_back(kept);
  }
}

}  // namespace

TEST_CASE("schedule: every unit once and every scope with all its weights, in whatever order", "[run][schedule]") {
  for (std::uint32_t seed = 0; seed < 60; ++seed) {
    const Plan plan = some_plan(seed % 23, seed);
    std::mt19937 draw(seed);
    const int ranks = 1 + static_cast<int>(seed % 6);
    CAPTURE(seed, ranks);
    Schedule schedule(plan, 1 + seed % 4);
    std::vector<Kept> journal;
    std::map<std::uint64_t, std::vector<std::byte>> books;
    simulate(schedule, draw, ranks, journal, books);
    require_complete(plan, schedule, books);
    REQUIRE_FALSE(schedule.next(0));
  }
}

TEST_CASE("schedule: restored from any part of the journal, in any order, it comes to the same results",
          "[run][schedule]") {
  for (std::uint32_t seed = 100; seed < 160; ++seed) {
    const Plan plan = some_plan(5 + seed % 17, seed);
    std::mt19937 draw(seed);
    std::vector<Kept> journal;
    std::map<std::uint64_t, std::vector<std::byte>> books;
    {
      Schedule first(plan);
      simulate(first, draw, 3, journal, books);
    }
    // A prefix, as a killed run leaves it, or any subset, as several torn journals do.
    const bool prefix = seed % 2 == 0;
    std::vector<Kept> found;
    for (std::size_t i = 0; i < journal.size(); ++i)
      if (prefix ? i < journal.size() * (seed % 7) / 6 : draw() % 2 == 0) found.push_back(journal[i]);
    CAPTURE(seed, prefix, journal.size(), found.size());
    Schedule schedule(plan, 2);
    std::map<std::uint64_t, std::vector<std::byte>> again;
    std::stable_sort(found.begin(), found.end(),
                     [](const Kept& a, const Kept& b) { return a.key.round < b.key.round; });
    for (std::uint32_t round = 0; round < 3; ++round)
      for (const TaskKind kind : {TaskKind::quantize, TaskKind::measure, TaskKind::solve})
        for (const Kept& kept : found)
          if (kept.key.kind == kind && kept.key.round == round) {
            tell(schedule, kept, -1);
            if (kind == TaskKind::quantize) again[kept.key.subject] = books[kept.key.subject];
          }
    std::vector<Kept> more;
    simulate(schedule, draw, 2, more, again);
    require_complete(plan, schedule, again);
    for (const Kept& kept : more)
      for (const Kept& before : found) REQUIRE_FALSE((kept.key.kind == TaskKind::quantize && kept.key == before.key));
  }
}

TEST_CASE("schedule: a lost record is made once more", "[run][schedule]") {
  const Plan plan = some_plan(12, 3);
  Schedule schedule(plan);
  std::mt19937 draw(1);
  std::vector<Kept> journal;
  std::map<std::uint64_t, std::vector<std::byte>> books;
  simulate(schedule, draw, 2, journal, books);
  const auto before = books;
  for (const auto& [unit, body] : before) {
    schedule.lost(unit);
    books.erase(unit);
  }
  REQUIRE_FALSE(schedule.finished());
  simulate(schedule, draw, 2, journal, books);
  REQUIRE(books == before);
}

TEST_CASE("schedule: costly units first, at most so many scopes open, and to the rank that measured them",
          "[run][schedule]") {
  Plan plan;
  for (std::uint32_t t = 0; t < 4; ++t) {
    TensorPlan tensor;
    tensor.tensor = t;
    tensor.treatment = Treatment::quantize;
    tensor.first_unit = plan.units.size();
    tensor.units = 2;
    tensor.scope = t < 3 ? static_cast<std::int64_t>(t) : -1;
    for (std::uint64_t u = 0; u < 2; ++u) plan.units.push_back({t, u * 10, 10, static_cast<double>(1 + t + u)});
    plan.tensors.push_back(tensor);
    if (t < 3) plan.scopes.emplace_back().tensors = {t};
  }
  Schedule schedule(plan, 1);
  std::vector<std::uint64_t> order;
  for (int rank = 0; auto task = schedule.next(rank); rank = 1 - rank) order.push_back(task->key.subject);
  REQUIRE(order == std::vector<std::uint64_t>{4, 5, 7, 6});  // the costliest scope, then the free units; no other scope
  schedule.measured(4, 0, histogram_of(4), 0);
  schedule.measured(5, 0, histogram_of(5), 1);
  auto task = schedule.next(0);
  REQUIRE(task->key == TaskKey{TaskKind::solve, 2, 0});
  REQUIRE_FALSE(schedule.next(1));
  schedule.solved(2, 0, fit_of(1, 0, histogram_of(4)));
  REQUIRE(schedule.next(1)->key == TaskKey{TaskKind::quantize, 5, 0});
  REQUIRE(schedule.next(1)->key == TaskKey{TaskKind::quantize, 4, 0});
  REQUIRE(schedule.next(1)->key == TaskKey{TaskKind::measure, 2, 0});
}

// More than 40 lines: the plan of two units is made by hand.
TEST_CASE("layers: a budget gets the sum of the spreads of a scope's units, in whatever order they come",
          "[run][layer]") {
  Plan plan;
  TensorPlan tensor;
  tensor.treatment = Treatment::quantize;
  tensor.lane_rows = 1, tensor.units = 5, tensor.scope = 0;
  tensor.spec.granularity = Granularity::row, tensor.spec.budgeted = true;
  for (std::uint64_t u = 0; u < tensor.units; ++u) plan.units.push_back({0, u * 10, 10, 1e-3});
  plan.tensors.push_back(tensor);
  plan.scopes.push_back({.tensors = {0}, .weights = 50, .spec = tensor.spec, .layers = true});
  SpreadHistogram sum;
  const auto spread_of = [](std::uint64_t unit) {
    SpreadHistogram histogram;
    histogram.add(static_cast<int>(3 * unit), 10, static_cast<double>(unit));
    return histogram;
  };
  for (std::uint64_t u = 0; u < 5; ++u) sum.merge(spread_of(u));
  for (const bool backwards : {false, true}) {
    Schedule schedule(plan);
    std::vector<std::uint64_t> units;
    while (const auto task = schedule.next(0)) {
      REQUIRE(task->key.kind == TaskKind::measure);
      units.push_back(task->key.subject);
    }
    REQUIRE(units.size() == 5);
    if (backwards) std::ranges::reverse(units);
    for (const std::uint64_t unit : units) {
      schedule.measured(unit, 0, spread_of(unit), 0);
      schedule.measured(unit, 0, spread_of(unit), 1);  // twice counts once
    }
    const auto curve = schedule.next(0);
    REQUIRE(curve);
    CHECK(curve->key.kind == TaskKind::curve);
    CHECK(SpreadHistogram::from_bytes(curve->body, "test") == sum);
    schedule.curved(0, {});
    CHECK_FALSE(schedule.next(0));
    schedule.begin(0, QuantizerOptions{16});
    std::size_t quantized = 0;
    while (const auto task = schedule.next(0)) {
      REQUIRE(task->key.kind == TaskKind::quantize);
      schedule.quantized(task->key.subject), ++quantized;
    }
    CHECK(quantized == 5);
    CHECK(schedule.finished());
  }
}
