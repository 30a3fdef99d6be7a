#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "job.hpp"
#include "lmq/run/simulate.hpp"
#include "options.hpp"

namespace lmq::app {

/// plan --simulate: a run for each number of ranks that was asked for, with `threads` threads each.
[[nodiscard]] std::vector<Simulated> simulate_runs(const Options& options, const Job& job, std::uint64_t output_bytes,
                                                   std::size_t threads);
/// A line for each: seconds, what they are spent on, and how well the ranks are used against the first number of ranks.
[[nodiscard]] std::string simulation_text(const Options& options, const std::vector<Simulated>& runs);
[[nodiscard]] nlohmann::json to_json(const std::vector<Simulated>& runs);

}  // namespace lmq::app
