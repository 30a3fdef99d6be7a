#include "lmq/container/contents.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "lmq/base/bytes.hpp"
#include "lmq/container/layout.hpp"
#include "lmq/quant/quantizer.hpp"

namespace lmq {
namespace {

std::string method_of(const TensorPlan& tensor) {
  if (tensor.treatment == Treatment::fold) return "folded";
  if (tensor.treatment == Treatment::keep) return "raw";
  const QuantizerEntry* entry = find_quantizer(tensor.spec.method);
  return entry ? std::string(entry->name) : fmt::format("method {}", tensor.spec.method);
}

}  // namespace

std::vector<std::byte> UnitResult::to_bytes() const {
  ByteWriter out;
  for (const double value :
       {stats.squared_error, stats.weighted_error, stats.energy, stats.largest_error, entropy_bits})
    out.le(value);
  for (const std::uint64_t value : {ledger.header, ledger.codebooks, ledger.tables, ledger.codes, source_digest})
    out.le(value);
  out.le(static_cast<std::uint32_t>(levels.size()));
  out.array(std::span<const float>(levels));
  return out.take();
}

UnitResult UnitResult::from_bytes(std::span<const std::byte> bytes, const std::string& source) {
  ByteReader in(bytes, source);
  UnitResult result;
  for (double* value : {&result.stats.squared_error, &result.stats.weighted_error, &result.stats.energy,
                        &result.stats.largest_error, &result.entropy_bits})
    *value = in.le<double>("statistics");
  for (std::uint64_t* value : {&result.ledger.header, &result.ledger.codebooks, &result.ledger.tables,
                               &result.ledger.codes, &result.source_digest})
    *value = in.le<std::uint64_t>("ledger");
  result.levels = in.array<float>(in.le<std::uint32_t>("levels"), "levels");
  return result;
}

std::vector<TensorLine> report_tensors(const OutputContents& contents) {
  std::vector<TensorLine> reports;
  for (const TensorPlan& tensor : contents.plan.tensors) {
    const TensorInfo& info = contents.catalogue.tensors[tensor.tensor];
    TensorLine report;
    report.name = info.name;
    report.dtype = name(info.dtype);
    report.shape = info.shape;
    report.method = method_of(tensor);
    report.reason = tensor.reason;
    report.weights = info.count();
    report.source_bytes = info.bytes;
    if (tensor.importance.present) report.weighted_error = 0;
    for (std::uint64_t u = tensor.first_unit; u < tensor.first_unit + tensor.units; ++u) {
      const UnitResult& result = contents.units[u].result;
      report.stored_bytes += stored_bytes(contents, u);
      report.squared_error += result.stats.squared_error;
      if (report.weighted_error) *report.weighted_error += result.stats.weighted_error;
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

}  // namespace lmq
