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

ListedCodebook listed_codebook(const QuantizedUnit& unit) {
  if (unit.codebooks() != 1 || unit.group != 0) return {};
  if (unit.kind == CodebookKind::rank1) return {CodebookKind::table, levels_of(unit)};
  return {unit.kind, unit.book};
}

ListedCodebook listed_codebook(const Codebook& codebook) {
  const auto copied = [](std::span<const float> numbers) { return std::vector<float>(numbers.begin(), numbers.end()); };
  if (codebook.kind() == CodebookKind::table) return {codebook.kind(), copied(codebook.levels())};
  if (!codebook.numbers().empty()) return {codebook.kind(), copied(codebook.numbers())};
  return {codebook.kind(), {codebook.low(), codebook.step()}};
}

std::string_view words_for(CodebookKind kind) noexcept {
  constexpr std::string_view kWords[] = {"levels", "low, step", "bases", "step", "row factors, column factors, levels",
                                         "steps"};  // by kind
  return kWords[static_cast<std::size_t>(kind)];
}

std::vector<std::byte> UnitResult::to_bytes() const {
  ByteWriter out;
  for (const double value : {stats.squared_error, stats.weighted_error, stats.energy, stats.largest_error,
                             stats.weighted_energy, entropy_bits})
    out.le(value);
  out.le(std::uint8_t{stats.layer_loss.has_value()});
  if (stats.layer_loss) out.le(*stats.layer_loss);
  for (const std::uint64_t value : {ledger.header, ledger.codebooks, ledger.tables, ledger.codes, source_digest})
    out.le(value);
  out.le(static_cast<std::uint8_t>(codebook.kind));
  out.le(static_cast<std::uint32_t>(codebook.numbers.size()));
  out.array(std::span<const float>(codebook.numbers));
  return out.take();
}

UnitResult UnitResult::from_bytes(std::span<const std::byte> bytes, const std::string& source) {
  ByteReader in(bytes, source);
  UnitResult result;
  for (double* value : {&result.stats.squared_error, &result.stats.weighted_error, &result.stats.energy,
                        &result.stats.largest_error, &result.stats.weighted_energy, &result.entropy_bits})
    *value = in.le<double>("statistics");
  if (in.le<std::uint8_t>("layer loss") != 0) result.stats.layer_loss = in.le<double>("layer loss");
  for (std::uint64_t* value : {&result.ledger.header, &result.ledger.codebooks, &result.ledger.tables,
                               &result.ledger.codes, &result.source_digest})
    *value = in.le<std::uint64_t>("ledger");
  const auto kind = in.le<std::uint8_t>("kind of codebook");
  if (kind > static_cast<std::uint8_t>(CodebookKind::trellis)) in.refuse(fmt::format("kind of codebook {}", kind));
  result.codebook.kind = static_cast<CodebookKind>(kind);
  result.codebook.numbers = in.array<float>(in.le<std::uint32_t>("codebook"), "codebook");
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
    if (tensor.importance.present()) report.weighted_error = report.weighted_energy = 0;
    for (std::uint64_t u = tensor.first_unit; u < tensor.first_unit + tensor.units; ++u) {
      const UnitResult& result = contents.units[u].result;
      report.stored_bytes += stored_bytes(contents, u);
      report.squared_error += result.stats.squared_error;
      if (report.weighted_error) {
        *report.weighted_error += result.stats.weighted_error;
        *report.weighted_energy += result.stats.weighted_energy;
      }
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
