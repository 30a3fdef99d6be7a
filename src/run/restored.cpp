#include "restored.hpp"

#include <algorithm>
#include <string_view>
#include <utility>

#include "identity.hpp"
#include "lmq/base/digest.hpp"
#include "task_type.hpp"

namespace lmq {

Restored::Identity Restored::identity_of(const std::string& text) {
  return {digest64(std::string_view(text)), digest64(std::string_view(text + " once more"))};
}

Restored::Restored(const RunContext& context, const WorkDir& work_dir)
    : files_(context.work_dir), source_(context.plan.units.size()) {
  std::map<Identity, std::uint64_t> read_today;  // by identity of the elements
  std::set<Identity> read_before;
  work_dir.each_result([&](Finished&& finished, const JournalPlace& place) {
    if (!finished.elements.empty()) {
      if (finished.same_input)
        read_today[identity_of(finished.elements)] = finished.source;
      else
        read_before.insert(identity_of(finished.elements));
    }
    const TaskType::Restored restored = type_of(finished.key).restored;
    if (restored == TaskType::Restored::copied && finished.same_input)
      copies_.push_back({identity_of(finished.identity), finished.key.subject, CopyResult::from_bytes(finished.body)});
    if (restored == TaskType::Restored::result)
      results_.push_back({identity_of(finished.identity), place, finished.source, finished.same_input});
  });
  std::ranges::stable_sort(results_, {}, &Result::identity);
  if (!read_today.empty() || !read_before.empty()) look_at_sources(context, read_today, read_before);
}

void Restored::look_at_sources(const RunContext& context, const std::map<Identity, std::uint64_t>& read_today,
                               const std::set<Identity>& read_before) {
  for (std::uint64_t unit = 0; unit < context.plan.units.size(); ++unit) {
    if (context.plan.tensors[context.plan.units[unit].tensor].treatment != Treatment::quantize) continue;
    const Identity elements = identity_of(elements_identity(context, unit));
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

std::optional<Finished> Restored::find(const std::string& identity, std::span<const std::uint64_t> units) {
  const auto same = std::ranges::equal_range(results_, identity_of(identity), {}, &Result::identity);
  const std::uint64_t today = same.empty() ? 0 : source_of(units);
  for (const Result& result : same) {
    if (!result.same_input && (today == 0 || result.source != today)) continue;
    std::optional<Finished> finished = files_.read(result.place);
    if (finished && finished->identity == identity) return finished;
  }
  return std::nullopt;
}

std::map<std::uint64_t, CopyResult> Restored::copied_into(const std::string& part) const {
  std::map<std::uint64_t, CopyResult> copied;
  const Identity wanted = identity_of(part);
  for (const Copied& one : copies_)
    if (one.part == wanted && one.unit < source_.size()) copied[one.unit] = one.result;
  return copied;
}

}  // namespace lmq
