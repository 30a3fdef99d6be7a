#include "lmq/run/output.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "lmq/base/bytes.hpp"
#include "lmq/base/math.hpp"
#include "lmq/quant/quantizer.hpp"

namespace lmq {
namespace {

constexpr const char* kLedgerNames = "record_headers,codebooks,tables,codes,raw,side,metadata";
constexpr const char* kLedgerPath = "/lmq/ledger";
constexpr const char* kDigestPath = "/lmq/units/digest";
constexpr const char* kSourceDigestPath = "/lmq/units/source_digest";

std::string method_of(const TensorPlan& tensor) {
  if (tensor.treatment == Treatment::fold) return "folded";
  if (tensor.treatment == Treatment::keep) return "raw";
  const QuantizerEntry* entry = find_quantizer(tensor.spec.method);
  return entry ? std::string(entry->name) : fmt::format("method {}", tensor.spec.method);
}

const TensorInfo& info_of(const OutputContents& contents, const TensorPlan& tensor) {
  return contents.catalogue.tensors[tensor.tensor];
}

std::vector<std::byte> as_bytes(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

nlohmann::json report_entry(const OutputContents& contents, const TensorPlan& tensor, const TensorReport& report) {
  const TensorInfo& info = info_of(contents, tensor);
  nlohmann::json entry = {{"name", report.name},
                          {"dtype", name(info.dtype)},
                          {"shape", info.shape},
                          {"method", report.method},
                          {"reason", report.reason},
                          {"weights", report.weights},
                          {"source_bytes", report.source_bytes},
                          {"stored_bytes", report.stored_bytes},
                          {"bits_per_weight", report.bits_per_weight}};
  if (tensor.treatment != Treatment::quantize) return entry;
  entry["granularity"] = name(tensor.spec.granularity);
  entry["group"] = tensor.spec.group;
  entry["levels"] = tensor.spec.options.levels;
  entry["importance"] = tensor.importance.present;
  entry["entropy_bits"] = report.entropy_bits;
  entry["squared_error"] = report.squared_error;
  entry["weighted_error"] = report.weighted_error;
  entry["energy"] = report.energy;
  entry["largest_error"] = report.largest_error;
  return entry;
}

std::string report_json(const OutputContents& contents, const std::vector<TensorReport>& tensors) {
  nlohmann::json list = nlohmann::json::array();
  for (std::size_t t = 0; t < tensors.size(); ++t)
    list.push_back(report_entry(contents, contents.plan.tensors[t], tensors[t]));
  return list.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::vector<Attribute> attributes_of(const OutputContents& contents, const TensorPlan& tensor,
                                     const TensorReport& report) {
  std::vector<Attribute> attributes = {{"lmq_dtype", std::string(name(info_of(contents, tensor).dtype))},
                                       {"lmq_method", report.method},
                                       {"lmq_bits_per_weight", report.bits_per_weight},
                                       {"lmq_first_unit", tensor.first_unit},
                                       {"lmq_units", tensor.units}};
  const auto add = [&](const char* key, auto value) { attributes.push_back({key, value}); };
  if (tensor.treatment == Treatment::keep) {
    add("lmq_reason", tensor.reason);
    return attributes;
  }
  add("lmq_granularity", std::string(name(tensor.spec.granularity)));
  add("lmq_group", tensor.spec.group);
  add("lmq_levels", static_cast<std::uint64_t>(tensor.spec.options.levels));
  add("lmq_squared_error", report.squared_error);
  add("lmq_energy", report.energy);
  add("lmq_largest_error", report.largest_error);
  return attributes;
}

DatasetLayout dataset_of(const OutputContents& contents, const TensorPlan& tensor, const TensorReport& report) {
  const TensorInfo& info = info_of(contents, tensor);
  DatasetLayout dataset;
  dataset.path = "/" + info.name;
  dataset.shape = info.shape;
  dataset.attributes = attributes_of(contents, tensor, report);
  if (tensor.treatment == Treatment::keep) {
    dataset.dtype = as_stored(info, tensor.treatment).value_type();
    dataset.piece_bytes = {report.stored_bytes};
    return dataset;
  }
  dataset.dtype = DType::f32;
  dataset.chunk = tensor.chunk;
  dataset.encoded = true;
  for (std::uint64_t unit = tensor.first_unit; unit < tensor.first_unit + tensor.units; ++unit)
    dataset.piece_bytes.push_back(stored_bytes(contents, unit));
  return dataset;
}

/// Adds datasets below /lmq, all of them lists.
class SideWriter {
 public:
  explicit SideWriter(Output& output) : output_(output) {}
  void add(const std::string& path, DType dtype, std::vector<std::byte> bytes, std::vector<Attribute> attributes = {}) {
    DatasetLayout dataset;
    dataset.path = path;
    dataset.dtype = dtype;
    dataset.shape = {bytes.size() * 8 / bits(dtype)};
    dataset.piece_bytes = {bytes.size()};
    dataset.attributes = std::move(attributes);
    output_.layout.datasets.push_back(std::move(dataset));
    output_.side[path] = std::move(bytes);
  }
  template <class Field>
  void column(const char* name, const OutputContents& contents, Field field) {
    using Value = decltype(field(std::uint64_t{0}));
    ByteWriter out;
    for (std::uint64_t unit = 0; unit < contents.plan.units.size(); ++unit) out.le(field(unit));
    add(std::string("/lmq/units/") + name, std::is_same_v<Value, double> ? DType::f64 : DType::u64, out.take());
  }

 private:
  Output& output_;
};

void add_unit_columns(const OutputContents& contents, SideWriter& side) {
  const auto& plan = contents.plan.units;
  const auto& units = contents.units;
  side.column("tensor", contents, [&](std::uint64_t u) { return std::uint64_t{plan[u].tensor}; });
  side.column("begin", contents, [&](std::uint64_t u) { return plan[u].begin; });
  side.column("count", contents, [&](std::uint64_t u) { return plan[u].count; });
  side.column("bytes", contents, [&](std::uint64_t u) { return stored_bytes(contents, u); });
  side.column("digest", contents, [&](std::uint64_t u) { return units[u].place.digest; });
  side.column("source_digest", contents, [&](std::uint64_t u) { return units[u].result.source_digest; });
  side.column("squared_error", contents, [&](std::uint64_t u) { return units[u].result.stats.squared_error; });
  side.column("weighted_error", contents, [&](std::uint64_t u) { return units[u].result.stats.weighted_error; });
  side.column("energy", contents, [&](std::uint64_t u) { return units[u].result.stats.energy; });
  side.column("largest_error", contents, [&](std::uint64_t u) { return units[u].result.stats.largest_error; });
}

/// Levels that serve a whole tensor; empty when there are several codebooks.
std::span<const float> codebook_of(const OutputContents& contents, const TensorPlan& tensor) {
  if (tensor.treatment != Treatment::quantize || tensor.spec.granularity > Granularity::tensor) return {};
  if (tensor.scope >= 0) return contents.codebooks[static_cast<std::size_t>(tensor.scope)]->levels();
  if (tensor.units != 1) return {};
  return contents.units[tensor.first_unit].result.levels;
}

}  // namespace

std::uint64_t stored_bytes(const OutputContents& contents, std::uint64_t unit) {
  const WorkUnit& work = contents.plan.units[unit];
  const TensorPlan& tensor = contents.plan.tensors[work.tensor];
  if (tensor.treatment == Treatment::quantize) return contents.units[unit].place.length;
  const TensorInfo& info = info_of(contents, tensor);
  return ceil_div(work.count * bits(as_stored(info, tensor.treatment).value_type()), 8);
}

std::vector<TensorReport> report_tensors(const OutputContents& contents) {
  std::vector<TensorReport> reports;
  for (const TensorPlan& tensor : contents.plan.tensors) {
    const TensorInfo& info = info_of(contents, tensor);
    TensorReport report;
    report.name = info.name;
    report.method = method_of(tensor);
    report.reason = tensor.reason;
    report.weights = info.count();
    report.source_bytes = info.bytes;
    for (std::uint64_t u = tensor.first_unit; u < tensor.first_unit + tensor.units; ++u) {
      const UnitResult& result = contents.units[u].result;
      report.stored_bytes += stored_bytes(contents, u);
      report.squared_error += result.stats.squared_error;
      report.weighted_error += result.stats.weighted_error;
      report.energy += result.stats.energy;
      report.largest_error = std::max(report.largest_error, result.stats.largest_error);
      report.entropy_bits += result.entropy_bits;
    }
    if (report.weights > 0) {
      const auto weights = static_cast<double>(report.weights);
      report.bits_per_weight = 8 * static_cast<double>(report.stored_bytes) / weights;
      report.entropy_bits /= weights;
    }
    reports.push_back(std::move(report));
  }
  return reports;
}

Output lay_out(const OutputContents& contents, const std::vector<TensorReport>& tensors) {
  Output output;
  FileLayout& layout = output.layout;
  layout.root = {{"lmq_format", std::string("lmq")},
                 {"lmq_format_major", std::uint64_t{1}},
                 {"lmq_format_minor", std::uint64_t{0}}};
  layout.groups = {{"/lmq", {{"plan_digest", contents.plan.digest}}}};
  for (std::size_t t = 0; t < tensors.size(); ++t) {
    const TensorPlan& tensor = contents.plan.tensors[t];
    if (tensor.treatment == Treatment::fold) continue;
    layout.datasets.push_back(dataset_of(contents, tensor, tensors[t]));
    if (tensor.treatment == Treatment::keep) output.raw_bytes += tensors[t].stored_bytes;
  }
  SideWriter side(output);
  side.add("/lmq/recipe", DType::u8, as_bytes(contents.recipe_json));
  side.add("/lmq/provenance", DType::u8, as_bytes(contents.provenance_json));
  side.add("/lmq/report", DType::u8, as_bytes(report_json(contents, tensors)));
  add_unit_columns(contents, side);
  side.add(kLedgerPath, DType::u64, std::vector<std::byte>(7 * sizeof(std::uint64_t)),
           {{"names", std::string(kLedgerNames)}});
  for (const TensorPlan& tensor : contents.plan.tensors) {
    const auto levels = std::as_bytes(codebook_of(contents, tensor));
    if (!levels.empty())
      side.add("/lmq/codebooks/" + info_of(contents, tensor).name, DType::f32, {levels.begin(), levels.end()});
  }
  std::sort(layout.datasets.begin(), layout.datasets.end(),
            [](const DatasetLayout& a, const DatasetLayout& b) { return a.path < b.path; });
  for (const TensorPlan& tensor : contents.plan.tensors) {
    std::int64_t index = -1;
    if (tensor.treatment != Treatment::fold)
      index =
          std::ranges::lower_bound(layout.datasets, "/" + info_of(contents, tensor).name, {}, &DatasetLayout::path) -
          layout.datasets.begin();
    output.dataset_of.push_back(index);
  }
  return output;
}

std::uint64_t address_of(const OutputContents& contents, const Output& output, const FilePlaces& places,
                         std::uint64_t unit) {
  const WorkUnit& work = contents.plan.units[unit];
  const TensorPlan& tensor = contents.plan.tensors[work.tensor];
  const auto& offsets = places.offsets[static_cast<std::size_t>(output.dataset_of[work.tensor])];
  if (tensor.treatment == Treatment::quantize) return offsets[unit - tensor.first_unit];
  const DType type = as_stored(info_of(contents, tensor), tensor.treatment).value_type();
  return offsets[0] + work.begin * bits(type) / 8;
}

void complete_side(const OutputContents& contents, Output& output, const FilePlaces& places,
                   const std::vector<std::uint64_t>& kept_digests) {
  std::array<std::uint64_t, 7> ledger{};
  std::uint64_t records = 0, side = 0;
  for (std::uint64_t u = 0; u < contents.units.size(); ++u) {
    if (contents.plan.tensors[contents.plan.units[u].tensor].treatment == Treatment::keep) {
      for (const char* path : {kDigestPath, kSourceDigestPath})
        std::memcpy(output.side[path].data() + u * sizeof(std::uint64_t), &kept_digests[u], sizeof(std::uint64_t));
      continue;
    }
    const RecordLedger& record = contents.units[u].result.ledger;
    ledger[0] += record.header, ledger[1] += record.codebooks, ledger[2] += record.tables, ledger[3] += record.codes;
    records += contents.units[u].place.length;
  }
  if (records != ledger[0] + ledger[1] + ledger[2] + ledger[3])
    fail(Errc::internal, "the ledgers of the records do not sum to their bytes");
  for (const auto& [path, bytes] : output.side) side += bytes.size();
  ledger[4] = output.raw_bytes;
  ledger[5] = side;
  if (places.file_bytes < records + output.raw_bytes + side)
    fail(Errc::internal, "the file is shorter than its contents");
  ledger[6] = places.file_bytes - records - output.raw_bytes - side;
  std::memcpy(output.side[kLedgerPath].data(), ledger.data(), sizeof ledger);
}

}  // namespace lmq
