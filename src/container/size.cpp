#include "lmq/container/size.hpp"

#include <algorithm>
#include <bit>
#include <cmath>

#include "lmq/base/math.hpp"
#include "lmq/codec/model.hpp"
#include "lmq/container/layout.hpp"
#include "seal.hpp"

namespace lmq {
namespace {

constexpr std::uint64_t kRecordFrame = 48;     // header and checksum
constexpr std::uint64_t kZerosPerByte = 4096;  // at least, of a trellis (each costs .0004 bit)

// Coder tables and states: 24 bytes of 12 levels, about 10 bits a level more.
constexpr std::uint64_t kTableBytes = 9, kTableLevelEighths = 10;

std::uint64_t number_bytes(const QuantSpec& spec) { return spec.level_type == LevelType::f16 ? 2 : 4; }

/// Equidistributed bits, a function of the index: numbers as hard to deflate as real ones.
std::uint64_t scattered(std::uint64_t index) noexcept {
  std::uint64_t x = index * 0x9E3779B97F4A7C15U;
  x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9U;
  x = (x ^ x >> 27) * 0x94D049BB133111EBU;
  return x ^ x >> 31;
}

double invented_statistic(std::uint64_t index) noexcept {
  return 1 + static_cast<double>(scattered(index) >> 12) * 0x1p-52;
}

/// Ascending levels with the bits that stored numbers have: 11 of scaled halves, 24 of floats. Those of many levels are
/// scaled each by its own, as those of tensors are: else one deflates by another.
std::vector<float> invented_levels(const QuantSpec& spec, std::uint64_t index) {
  const bool half = spec.level_type == LevelType::f16;
  constexpr std::size_t kFewLevels = 64;  // too few for one row to hold runs of another
  const float scale =
      spec.options.levels <= kFewLevels ? 0.125F : static_cast<float>(scattered(~index) >> 41) * 0x1p-26F + 0.125F;
  std::vector<float> levels;
  const std::uint64_t numbers = std::min<std::uint64_t>(spec.options.levels, stored_numbers(spec, 1, 1));
  for (std::uint64_t k = 0; k < numbers; ++k) {
    const auto place = static_cast<float>(k) - static_cast<float>(spec.options.levels) / 2;
    const auto part = static_cast<float>(scattered(index * 256 + k) >> 44) * 0x1p-21F;
    const auto level = (place + part) * scale;
    levels.push_back(half ? std::bit_cast<float>(std::bit_cast<std::uint32_t>(level) & 0xFFFFE000U) : level);
  }
  std::ranges::sort(levels);
  levels.erase(std::ranges::unique(levels).begin(), levels.end());
  return levels;
}

UnitRecord invented_unit(const QuantSpec& spec, std::uint64_t unit, std::uint64_t bytes, bool alone) {
  UnitRecord record;
  record.bytes = bytes;
  record.result.stats = {invented_statistic(4 * unit), invented_statistic(4 * unit + 1),
                         invented_statistic(4 * unit + 2), invented_statistic(4 * unit + 3)};
  record.result.entropy_bits = static_cast<double>(8 * bytes) * 0.98;
  record.result.ledger.header = std::min(bytes, kRecordFrame);
  record.result.ledger.codes = bytes - record.result.ledger.header;
  if (alone && spec.granularity <= Granularity::tensor) record.result.codebook.numbers = invented_levels(spec, unit);
  return record;
}

}  // namespace

std::uint64_t record_bound(const Plan& plan, std::uint64_t unit) {
  const WorkUnit& work = plan.units[unit];
  const TensorPlan& tensor = plan.tensors[work.tensor];
  const auto levels = static_cast<std::uint32_t>(tensor.spec.options.levels);
  const double code_bits = takes_whole_bits(tensor.spec.coder) ? std::bit_width(levels - 1)
                                                               : static_cast<double>(log2_q32(levels) + 1) * 0x1p-32;
  if (tensor.lane_rows > 0) {  // states of lanes; steps and classes of rows and columns, which zeros do not need
    const std::uint64_t rows = work.count / std::max<std::uint64_t>(1, tensor.cols);
    const std::uint64_t sides = levels == 1 ? work.count / kZerosPerByte : 2 * (rows + tensor.cols);
    return kRecordFrame + sides + 4 * ceil_div(rows, tensor.lane_rows) +
           static_cast<std::uint64_t>(std::ceil(static_cast<double>(work.count) * code_bits / 8));
  }
  return kRecordFrame + stored_numbers(tensor.spec, work.count, tensor.cols) * number_bytes(tensor.spec) +
         static_cast<std::uint64_t>(std::ceil(static_cast<double>(work.count) * code_bits / 8));
}

std::uint64_t scope_side_bytes(const Plan& plan, const Scope& scope, std::size_t levels) {
  const QuantSpec& spec = scope.spec;
  const std::uint64_t fixed = stored_numbers(spec, 1, 1);
  const std::uint64_t numbers = fixed == spec.options.levels ? levels : fixed;
  const std::uint64_t tables = takes_whole_bits(spec.coder) ? 0 : kTableBytes + levels * kTableLevelEighths / 8;
  std::uint64_t records = 0;
  for (const std::uint32_t tensor : scope.tensors) records += plan.tensors[tensor].units;
  return records * (kRecordFrame + numbers * number_bytes(spec) + tables) + levels * number_bytes(spec);
}

// More than 5 parameters: all that a file is laid out from, each kept by another part of a run.
SizeEstimate estimate_size(const Catalogue& catalogue, const Plan& plan, const std::string& recipe_json,
                           const std::string& provenance_json, const LayoutFormat& format,
                           const std::function<std::uint64_t(std::uint64_t unit)>& record_bytes) {
  SizeEstimate estimate;
  std::vector<UnitRecord> units(plan.units.size());
  for (std::uint64_t u = 0; u < units.size(); ++u) {
    const TensorPlan& tensor = plan.tensors[plan.units[u].tensor];
    if (tensor.treatment != Treatment::quantize) continue;
    units[u] = invented_unit(tensor.spec, u, record_bytes(u), tensor.units == 1 && tensor.scope < 0);
    estimate.records += units[u].bytes;
  }
  std::vector<Codebook> books;
  std::vector<const Codebook*> book_of_scope;
  for (std::uint64_t s = 0; s < plan.scopes.size(); ++s)
    books.push_back(plan.scopes[s].layers  // which have none
                        ? Codebook()
                        : Codebook::table(invented_levels(plan.scopes[s].spec, plan.units.size() + s)));
  for (const Codebook& book : books) book_of_scope.push_back(&book);
  const OutputContents contents{catalogue, plan, units, book_of_scope, recipe_json, provenance_json};
  const Output output = lay_out(contents, report_tensors(contents));
  for (std::uint64_t u = 0; u < units.size(); ++u)
    if (plan.tensors[plan.units[u].tensor].treatment == Treatment::keep) estimate.kept += stored_bytes(contents, u);
  for (const auto& [path, bytes] : output.side) estimate.container += bytes.size();
  estimate.container += format.metadata_bytes(output.layout) + kSealBytes;
  return estimate;
}

}  // namespace lmq
