#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "job.hpp"
#include "lmq/base/text.hpp"
#include "lmq/io_hdf5/hdf5_catalogue.hpp"

namespace lmq::app {
namespace {

/// What is worth saying of a plan with importance.
struct Findings {
  std::map<std::string, std::size_t> kinds;  ///< quantized tensors by kind
  std::vector<std::string> missing;          ///< quantized tensors without
  std::vector<std::string> pooled;           ///< tensors some of whose experts have no statistics
  std::size_t quantized = 0;
};

/// The kind, with the sides of which curvature between weights is known.
std::string kind_text(const ImportanceInfo& importance) {
  const bool outer = importance.outer_rows > 0;
  if (importance.gram && outer) return "curvature of both sides";
  if (importance.gram)
    return importance.kind == ImportanceKind::outer ? "curvature of inputs x rows" : "curvature of inputs";
  if (outer)
    return importance.kind == ImportanceKind::outer ? "columns x curvature of outputs" : "curvature of outputs";
  return std::string(name(importance.kind));
}

Findings findings_of(const Job& job) {
  Findings found;
  const auto& tensors = job.reader->catalogue().tensors;
  for (std::size_t t = 0; t < tensors.size(); ++t) {
    const TensorPlan& plan = job.plan.tensors[t];
    if (plan.treatment != Treatment::quantize) continue;
    ++found.quantized;
    if (!plan.importance.present()) {
      found.missing.push_back(tensors[t].name);
      continue;
    }
    ++found.kinds[kind_text(plan.importance)];
    const ImportanceEntry* const entry = job.importance->find(tensors[t].name);
    if (entry == nullptr || entry->pooled.empty()) continue;
    found.pooled.push_back(tensors[t].name);
    if (plan.importance.block_rows > 0)
      found.pooled.back() += fmt::format(" (experts {})", fmt::join(entry->pooled, ", "));
  }
  return found;
}

std::string listed(const std::vector<std::string>& names) {
  constexpr std::size_t kMax = 8;
  std::string text;
  for (std::size_t i = 0; i < std::min(names.size(), kMax); ++i)
    text += fmt::format("{}{}", i == 0 ? "" : ", ", printable(names[i]));
  if (names.size() > kMax) text += fmt::format(" and {} more", names.size() - kMax);
  return text;
}

}  // namespace

ImportanceFile open_importance(const std::filesystem::path& path, const Catalogue& checkpoint, const Recipe& recipe,
                               const std::function<bool(std::size_t)>& wanted,
                               const std::function<bool(std::size_t)>& curvature) {
  return ImportanceFile(path, checkpoint,
                        {.power = recipe.importance_power,
                         .damping = recipe.importance_damping,
                         .read_hdf5 = read_hdf5_catalogue,
                         .wanted = wanted,
                         .curvature = curvature});
}

std::vector<std::string> importance_lines(const Job& job) {
  if (!job.importance) return {};
  const Findings found = findings_of(job);
  std::vector<std::string> kinds;
  for (const auto& [kind, count] : found.kinds) kinds.push_back(fmt::format("{} by {}", count, kind));
  std::vector<std::string> lines{fmt::format("importance ({}): {} of {} quantized tensors{}{}",
                                             job.importance->format(), found.quantized - found.missing.size(),
                                             found.quantized, kinds.empty() ? "" : ": ", fmt::join(kinds, ", "))};
  if (!found.missing.empty()) lines.push_back(fmt::format("importance: nothing for {}", listed(found.missing)));
  if (!job.importance->unused().empty())
    lines.push_back(fmt::format("importance: unused are {}", listed(job.importance->unused())));
  if (!job.importance->unknown().empty())
    lines.push_back(fmt::format("importance: no sample was counted for {}", listed(job.importance->unknown())));
  if (!found.pooled.empty())
    lines.push_back(fmt::format("importance: the mean of their siblings serves for {}", listed(found.pooled)));
  return lines;
}

nlohmann::json importance_json(const Job& job) {
  if (!job.importance) return nullptr;
  const Findings found = findings_of(job);
  nlohmann::json tensors = nlohmann::json::object();
  const auto& catalogue = job.reader->catalogue().tensors;
  for (std::size_t t = 0; t < catalogue.size(); ++t)
    if (const ImportanceInfo& info = job.plan.tensors[t].importance; info.present())
      tensors[catalogue[t].name] = {{"kind", name(info.kind)},
                                    {"mean", info.mean},
                                    {"largest", info.largest},
                                    {"curvature_of_inputs", info.gram},
                                    {"rows_of_output_curvature", info.outer_rows}};
  return {{"format", job.importance->format()},
          {"digest", job.importance->digest()},
          {"tensors", std::move(tensors)},
          {"missing", found.missing},
          {"unused", job.importance->unused()},
          {"without_samples", job.importance->unknown()},
          {"pooled", found.pooled}};
}

}  // namespace lmq::app
