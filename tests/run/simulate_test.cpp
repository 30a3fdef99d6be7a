#include <catch2/catch.hpp>

#include <cmath>
#include <numeric>

#include "lmq/plan/costs.hpp"
#include "lmq/quant/quantizer.hpp"
#include "lmq/run/simulate.hpp"

using namespace lmq;

namespace {

constexpr std::uint64_t kCount = 1000;  // weights of a unit

/// Tensors of units of kCount BF16 weights; with a scope each when they share a codebook.
struct Model {
  std::vector<TensorInfo> tensors;
  Plan plan;

  void add(const std::vector<double>& unit_seconds, bool shared = false, double solve_seconds = 0) {
    TensorInfo info;
    info.name = "t" + std::to_string(tensors.size());
    info.dtype = DType::bf16;
    info.shape = {unit_seconds.size(), kCount};
    TensorPlan planned;
    planned.tensor = static_cast<std::uint32_t>(tensors.size());
    planned.treatment = Treatment::quantize;
    planned.spec.method = find_quantizer("kmeans").id;
    planned.first_unit = plan.units.size();
    planned.units = unit_seconds.size();
    if (shared) {
      planned.scope = static_cast<std::int64_t>(plan.scopes.size());
      Scope scope;
      scope.tensors = {planned.tensor};
      scope.spec = planned.spec;
      scope.weights = kCount * unit_seconds.size();
      scope.seconds = solve_seconds;
      plan.scopes.push_back(scope);
    }
    for (std::size_t i = 0; i < unit_seconds.size(); ++i)
      plan.units.push_back({planned.tensor, i * kCount, kCount, unit_seconds[i]});
    tensors.push_back(info);
    plan.tensors.push_back(planned);
  }
  [[nodiscard]] double unit_seconds() const {
    return std::accumulate(plan.units.begin(), plan.units.end(), 0.0,
                           [](double sum, const WorkUnit& unit) { return sum + unit.seconds; });
  }
};

/// Nothing costs anything but the tasks.
Machine ideal(std::size_t ranks) {
  Machine machine;
  machine.ranks = ranks;
  machine.storage = machine.rank_io = machine.memory_io = machine.link = 1e30;
  machine.latency = machine.message = machine.deal = machine.merge_bin = machine.sync = 0;
  machine.start_tensor = machine.choose_scope = machine.lay_out_tensor = 0;
  return machine;
}

double start() { return 1e-9 * kCosts.start; }

}  // namespace

TEST_CASE("simulated: equal tasks on an ideal machine take their number over the ranks, rounded up",
          "[run][simulate]") {
  for (const std::size_t units : {1u, 2u, 7u, 64u})
    for (const std::size_t ranks : {1u, 2u, 3u, 8u, 100u}) {
      Model model;
      model.add(std::vector<double>(units, 3.0));
      const Simulated run = simulate(model.plan, model.tensors, 0, ideal(ranks));
      CHECK(run.computing ==
            Approx(start() + 3.0 * std::ceil(static_cast<double>(units) / static_cast<double>(ranks))));
      CHECK(run.ranks.size() == ranks);
    }
}

TEST_CASE("simulated: all of the plan's work is done, and each rank's time adds up to the run's", "[run][simulate]") {
  Model model;
  model.add({1, 2, 3, 4, 5}, true, 0.5);
  model.add({0.1, 0.2, 7});
  model.add({2, 2, 2, 2, 2, 2, 2}, true, 0.25);
  for (const std::size_t ranks : {1u, 2u, 3u, 5u, 40u}) {
    Machine machine;
    machine.ranks = ranks;
    machine.threads = 2;
    machine.message = 0.01;
    const Simulated run = simulate(model.plan, model.tensors, 5000, machine);
    double computing = 0;
    for (const RankTimes& rank : run.ranks) {
      computing += rank.computing;
      CHECK(rank.waiting_work >= -1e-9);
      CHECK(rank.all() == Approx(run.seconds - start() - 3 * machine.start_tensor));
    }
    CHECK(computing == Approx(model.unit_seconds() / 2 + 0.75));
    CHECK(run.seconds >= start() + computing / static_cast<double>(ranks));
    CHECK(run.results == (5 + 1 + 5) + 3 + (7 + 1 + 7) + 2 * 15);  // measured, solved, quantized; copied, compared
  }
}

TEST_CASE("simulated: rank 0, its link and the storage bound a run from below", "[run][simulate]") {
  Model model;
  model.add(std::vector<double>(200, 1e-6));
  Machine machine = ideal(50);
  machine.message = 0.5;
  CHECK(simulate(model.plan, model.tensors, 0, machine).seconds >= 0.5 * 3 * 200);
  CHECK(simulate(model.plan, model.tensors, 0, machine).coordinator_busy > 0.99);
  machine = ideal(50);
  machine.storage = 1e6;
  const double bytes = 200.0 * kCount * 2;
  CHECK(simulate(model.plan, model.tensors, 0, machine).seconds >= bytes / 1e6);
  machine = ideal(50);
  machine.rank_io = 1e6;
  CHECK(simulate(model.plan, model.tensors, 0, machine).seconds >= bytes / 50 / 1e6);
  machine = ideal(50);
  machine.link = 1e5;
  CHECK(simulate(model.plan, model.tensors, 0, machine).seconds >= 2 * 300 * 600 / 1e5);
}

TEST_CASE("simulated: a model without tensors takes the start, and a budget's second pass is in the time",
          "[run][simulate]") {
  const Model empty;
  CHECK(simulate(empty.plan, empty.tensors, 0, ideal(4)).seconds == Approx(start()));
  Model model;
  model.add({4, 4}, true, 1);
  for (Scope& scope : model.plan.scopes) scope.spec.budgeted = true;
  for (TensorPlan& tensor : model.plan.tensors) tensor.spec.budgeted = true;
  model.plan.target_bytes = 1000;
  const Simulated run = simulate(model.plan, model.tensors, 1000, ideal(1));
  CHECK(run.computing == Approx(start() + 8 + 2));  // measured and quantized; a curve and a solve
}
