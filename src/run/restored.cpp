#include "lmq/run/restored.hpp"

#include <algorithm>
#include <utility>

#include "lmq/base/digest.hpp"
#include "lmq/run/identity.hpp"

namespace lmq {

Restored::Restored(const RunContext& context, std::vector<Finished> results) : source_(context.plan.units.size()) {
  std::map<std::string, std::uint64_t> read_today;  // by identity of the elements
  std::map<std::string, bool> read_before;
  for (Finished& finished : results) {
    if (!finished.elements.empty()) {
      if (finished.same_input)
        read_today[finished.elements] = finished.source;
      else
        read_before[finished.elements] = true;
    }
    if (finished.key.kind == TaskKind::copy) {
      if (finished.same_input) copies_.push_back(std::move(finished));
    } else if (finished.key.kind != TaskKind::check) {
      std::string identity = finished.identity;
      by_identity_.emplace(std::move(identity), std::move(finished));
    }
  }
  if (read_today.empty() && read_before.empty()) return;
  for (std::uint64_t unit = 0; unit < context.plan.units.size(); ++unit) {
    if (context.plan.tensors[context.plan.units[unit].tensor].treatment != Treatment::quantize) continue;
    const std::string elements = elements_identity(context, unit);
    if (const auto known = read_today.find(elements); known != read_today.end())
      source_[unit] = known->second;
    else if (read_before.contains(elements))
      to_check_.push_back(unit);
  }
}

std::optional<std::uint64_t> Restored::next_to_check() {
  if (to_check_.empty()) return std::nullopt;
  const std::uint64_t unit = to_check_.front();
  to_check_.pop_front();
  return unit;
}

void Restored::read(std::uint64_t unit, std::uint64_t source) {
  if (unit < source_.size()) source_[unit] = source;
}

std::uint64_t Restored::source_of(std::span<const std::uint64_t> units) const {
  if (units.size() == 1) return source_[units[0]];
  std::vector<std::uint64_t> sources;
  for (const std::uint64_t unit : units) sources.push_back(source_[unit]);
  if (std::ranges::find(sources, 0u) != sources.end()) return 0;
  return digest64(std::as_bytes(std::span(sources)));
}

const Finished* Restored::find(const std::string& identity, std::span<const std::uint64_t> units) const {
  const auto [begin, end] = by_identity_.equal_range(identity);
  const std::uint64_t today = begin == end ? 0 : source_of(units);
  for (auto found = begin; found != end; ++found) {
    const Finished& finished = found->second;
    if (finished.same_input || (today != 0 && finished.source == today)) return &finished;
  }
  return nullptr;
}

std::map<std::uint64_t, CopyResult> Restored::copied_into(const std::string& part) const {
  std::map<std::uint64_t, CopyResult> copied;
  for (const Finished& finished : copies_)
    if (finished.identity == part && finished.key.subject < source_.size())
      copied[finished.key.subject] = CopyResult::from_bytes(finished.body);
  return copied;
}

}  // namespace lmq
