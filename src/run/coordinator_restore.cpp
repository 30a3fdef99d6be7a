// What a coordinator takes from earlier runs.
#include <system_error>

#include "coordinator.hpp"
#include "identity.hpp"
#include "part_file.hpp"

namespace lmq {
namespace {
constexpr const char* kJournal = "journal of an earlier run";
}  // namespace

/// Part files that earlier runs left: the last one into which something was copied may be gone on with, others go now.
void Coordinator::look_at_parts() {
  std::error_code ignored;
  for (const std::string& part : lock_.parts()) {
    const std::string origin = origin_of_part(options_.output, part);
    if (origin.empty() || !std::filesystem::exists(options_.output.parent_path() / part, ignored)) continue;
    if (restored_.copied_into(origin).empty())
      remove_part(part);
    else
      parts_left_.push_back(part);
  }
}

void Coordinator::remove_part(const std::string& part) const {
  std::error_code ignored;
  std::filesystem::remove(options_.output.parent_path() / part, ignored);
}

void Coordinator::restore() {
  phase_ = Phase::computing;
  if (!restored_.empty()) {
    for (std::uint64_t scope = 0; scope < context_.plan.scopes.size(); ++scope) {
      restore_curve(scope);
      restore_fit(scope);
      restore_histograms(scope);
    }
    for (std::uint64_t unit = 0; unit < units_.size(); ++unit)
      if (context_.plan.tensors[context_.plan.units[unit].tensor].scope < 0) restore_record(unit);
  }
  done_before_ = snapshot().done;
}

/// A codebook that was final, whatever has been measured for it.
void Coordinator::restore_fit(std::uint64_t scope) {
  constexpr std::uint32_t kMaxRounds = 8;
  const auto options = schedule_.options_of(scope);
  const std::uint32_t version = schedule_.round(scope) & ~std::uint32_t{0xFFFF};
  for (std::uint32_t round = 0; round < kMaxRounds && !schedule_.is_solved(scope); ++round) {
    const auto found = restored_.find(solve_identity(context_, scope, options, round), schedule_.units_of(scope));
    if (!found) continue;
    const Fit fit = fit_from_bytes(found->body, kJournal);
    if (fit.refine.empty()) solved({TaskKind::solve, scope, version + round}, fit);
  }
}

void Coordinator::restore_curve(std::uint64_t scope) {
  if (!budget_ || schedule_.is_curved(scope)) return;
  const auto found = restored_.find(curve_identity(context_, scope), schedule_.units_of(scope));
  if (found) take_curve(scope, *found);
}

void Coordinator::restore_histograms(std::uint64_t scope) {
  SpoolFiles spools(context_.work_dir);
  std::vector<std::byte> buffer;
  for (bool closer = true; closer && !schedule_.is_solved(scope) && !schedule_.is_curved(scope);) {
    const std::uint32_t round = schedule_.round(scope);
    for (const std::uint64_t unit : schedule_.units_of(scope)) {
      const auto found = restored_.find(task_identity(context_, schedule_.measure_task(unit)), {&unit, 1});
      if (!found || found->place.length == 0) continue;
      const auto bytes = spools.read(found->place, buffer);
      if (!bytes.empty()) take_histogram({TaskKind::measure, unit, round}, bytes, kJournal, -1);
    }
    const auto fit = restored_.find(solve_identity(context_, scope, std::nullopt, round), schedule_.units_of(scope));
    closer = schedule_.complete(scope) && fit.has_value();
    if (closer) schedule_.solved(scope, round, fit_from_bytes(fit->body, kJournal));
  }
}

/// Of a unit whose codebook, if it shares one, is known.
void Coordinator::restore_record(std::uint64_t unit) {
  if (restored_.empty() || schedule_.is_quantized(unit)) return;
  if (context_.plan.tensors[context_.plan.units[unit].tensor].treatment != Treatment::quantize) return;
  const Task task = schedule_.quantize_task(unit);
  const auto found = restored_.find(task_identity(context_, task), {&unit, 1});
  if (!found || found->place.length == 0) return;
  Finished record = *found;
  record.key = task.key;
  take_record(record, true);
}

void Coordinator::take_curve(std::uint64_t scope, const Finished& finished) {
  if (!budget_ || scope >= context_.plan.scopes.size() || schedule_.is_curved(scope)) return;
  budget_->take_curve(scope, curve_from_bytes(finished.body, kJournal));
  schedule_.curved(scope, finished.place);
  scope_sources_[scope] = finished.source;
}

}  // namespace lmq
