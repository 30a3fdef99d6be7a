#include "plan_simulate.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "lmq/base/text.hpp"
#include "table.hpp"
#include "terminal.hpp"

namespace lmq::app {
namespace {

struct Busy {
  double mean = 0, least = 1;
};

Busy busy_of(const Simulated& run) {
  Busy busy;
  for (const RankTimes& rank : run.ranks) {
    busy.mean += rank.busy() / static_cast<double>(run.ranks.size());
    busy.least = std::min(busy.least, rank.busy());
  }
  return busy;
}

/// Part of the speed that as many times the first run's ranks would give.
double efficiency_of(const Simulated& run, const Simulated& first) {
  return first.seconds * static_cast<double>(first.ranks.size()) /
         (run.seconds * static_cast<double>(run.ranks.size()));
}

std::string percent(double part) { return fmt::format("{:.0f} %", 100 * part); }

}  // namespace

std::vector<Simulated> simulate_runs(const Options& options, const Job& job, std::uint64_t output_bytes,
                                     std::size_t threads) {
  std::vector<Simulated> runs;
  for (const std::size_t ranks : options.simulate) {
    Machine machine;
    machine.ranks = ranks;
    machine.threads = threads;
    machine.cores = options.cores;
    machine.storage = static_cast<double>(options.storage);
    machine.rank_io = static_cast<double>(options.rank_io);
    runs.push_back(simulate(job.plan, job.reader->catalogue().tensors, output_bytes, machine));
  }
  return runs;
}

std::string simulation_text(const Options& options, const std::vector<Simulated>& runs) {
  using enum Table::Align;
  Table table({{"ranks", right},
               {"time", right},
               {"computing", right},
               {"writing", right},
               {"efficiency", right},
               {"busy", right},
               {"least", right},
               {"rank 0", right},
               {"storage", right}});
  for (const Simulated& run : runs) {
    const Busy busy = busy_of(run);
    table.row({fmt::format("{}", run.ranks.size()), format_duration(run.seconds), format_duration(run.computing),
               format_duration(run.writing), percent(efficiency_of(run, runs.front())), percent(busy.mean),
               percent(busy.least), percent(run.coordinator_busy), percent(run.storage_busy)});
  }
  return fmt::format("simulated, with {}/s of storage for all ranks and {}/s for one:\n{}",
                     format_bytes(options.storage), format_bytes(options.rank_io), table.text(output_width()));
}

nlohmann::json to_json(const std::vector<Simulated>& runs) {
  nlohmann::json list = nlohmann::json::array();
  for (const Simulated& run : runs) {
    const Busy busy = busy_of(run);
    list.push_back({{"ranks", run.ranks.size()},
                    {"seconds", run.seconds},
                    {"computing_seconds", run.computing},
                    {"writing_seconds", run.writing},
                    {"efficiency", efficiency_of(run, runs.front())},
                    {"busy", busy.mean},
                    {"least_busy", busy.least},
                    {"coordinator_busy", run.coordinator_busy},
                    {"storage_busy", run.storage_busy},
                    {"results", run.results}});
  }
  return list;
}

}  // namespace lmq::app
