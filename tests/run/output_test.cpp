#include <catch2/catch.hpp>
#include <cstring>
#include <nlohmann/json.hpp>
#include <numeric>

#include "lmq/run/output.hpp"
#include "small_model.hpp"

using namespace lmq;
using namespace lmq::test;

namespace {

/// Invented results for every quantized unit of the small model.
struct Invented {
  std::vector<UnitRecord> units;
  std::vector<Codebook> books;
  std::vector<const Codebook*> book_pointers;
  std::string recipe = "{\"r\":1}", provenance = "{\"p\":2}";

  explicit Invented(const Plan& plan) : units(plan.units.size()) {
    for (std::size_t u = 0; u < units.size(); ++u) {
      if (plan.tensors[plan.units[u].tensor].treatment != Treatment::quantize) continue;
      UnitRecord& unit = units[u];
      unit.result.ledger = {10, 20 + u, 30, 40};
      unit.place = {1, 0, 1000 * u, unit.result.ledger.total(), 0xD0 + u};
      unit.result.stats = {0.5, 0.75, 2.0, 0.125 * static_cast<double>(u % 5)};
      unit.result.entropy_bits = 100;
      unit.result.source_digest = 7 * u;
      if (plan.tensors[plan.units[u].tensor].scope < 0) unit.result.levels = {1.0f, 2.0f};
    }
    for (std::size_t s = 0; s < plan.scopes.size(); ++s)
      books.push_back(Codebook::table({0.0f, 1.0f + static_cast<float>(s)}));
    for (const Codebook& book : books) book_pointers.push_back(&book);
  }
};

const Attribute* find(const std::vector<Attribute>& attributes, const std::string& name) {
  for (const Attribute& attribute : attributes)
    if (attribute.name == name) return &attribute;
  return nullptr;
}

std::vector<std::uint64_t> numbers(const std::vector<std::byte>& bytes) {
  std::vector<std::uint64_t> values(bytes.size() / 8);
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

}  // namespace

TEST_CASE("output: the layout is what the format's page says", "[run][output]") {
  const TempFolder folder;
  make_small_checkpoint(folder / "model.safetensors");
  const SmallRun run(folder / "model.safetensors", folder.path());
  const Invented invented(run.plan());
  const OutputContents contents{run.reader().catalogue(), run.plan(),      invented.units,
                                invented.book_pointers,   invented.recipe, invented.provenance};
  const auto reports = report_tensors(contents);
  Output output = lay_out(contents, reports);
  const FileLayout& layout = output.layout;

  SECTION("datasets are ascending, each path once, and every tensor is there with its own shape") {
    for (std::size_t d = 1; d < layout.datasets.size(); ++d)
      REQUIRE(layout.datasets[d - 1].path < layout.datasets[d].path);
    for (std::size_t t = 0; t < run.plan().tensors.size(); ++t) {
      const TensorInfo& info = run.reader().catalogue().tensors[t];
      const DatasetLayout& dataset = layout.datasets[static_cast<std::size_t>(output.dataset_of[t])];
      REQUIRE(dataset.path == "/" + info.name);
      REQUIRE(dataset.shape == info.shape);
      const bool quantized = run.plan().tensors[t].treatment == Treatment::quantize;
      REQUIRE(dataset.encoded == quantized);
      REQUIRE(dataset.dtype == (quantized ? DType::f32 : info.dtype));
      REQUIRE(dataset.piece_bytes.size() == (quantized ? run.plan().tensors[t].units : 1));
      REQUIRE(std::get<std::string>(find(dataset.attributes, "lmq_dtype")->value) == name(info.dtype));
      REQUIRE((std::get<std::string>(find(dataset.attributes, "lmq_method")->value) == "raw") == !quantized);
      REQUIRE((find(dataset.attributes, "lmq_reason") != nullptr) == !quantized);
      REQUIRE((find(dataset.attributes, "lmq_squared_error") != nullptr) == quantized);
      REQUIRE(std::get<std::uint64_t>(find(dataset.attributes, "lmq_units")->value) == run.plan().tensors[t].units);
    }
    REQUIRE(std::get<std::string>(find(layout.root, "lmq_format")->value) == "lmq");
    REQUIRE(std::get<std::uint64_t>(find(layout.root, "lmq_format_major")->value) == 1);
    REQUIRE(layout.groups.at(0).path == "/lmq");
    REQUIRE(std::get<std::string>(find(layout.groups[0].attributes, "plan_digest")->value) == run.plan().digest);
  }

  SECTION("codebooks are listed where one serves the whole tensor") {
    for (const char* name : {"a.weight", "b.weight", "e.alone", "m.one", "m.two"})
      REQUIRE(output.side.count(std::string("/lmq/codebooks/") + name) == 1);
    for (const char* name : {"c/rows", "d.groups", "norm", "kept.big"})
      REQUIRE(output.side.count(std::string("/lmq/codebooks/") + name) == 0);
    REQUIRE(output.side.at("/lmq/codebooks/m.one") == output.side.at("/lmq/codebooks/m.two"));
    REQUIRE(output.side.at("/lmq/codebooks/a.weight").size() == 2 * sizeof(float));
  }

  SECTION("the report has one entry per tensor, with sums over its units") {
    const auto& text = output.side.at("/lmq/report");
    const auto json = nlohmann::json::parse(reinterpret_cast<const char*>(text.data()),
                                            reinterpret_cast<const char*>(text.data() + text.size()));
    REQUIRE(json.size() == run.plan().tensors.size());
    for (std::size_t t = 0; t < json.size(); ++t) {
      const TensorPlan& tensor = run.plan().tensors[t];
      REQUIRE(json[t]["name"] == run.reader().catalogue().tensors[t].name);
      if (tensor.treatment != Treatment::quantize) continue;
      REQUIRE(json[t]["squared_error"] == 0.5 * static_cast<double>(tensor.units));
      REQUIRE(reports[t].entropy_bits ==
              100.0 * static_cast<double>(tensor.units) / static_cast<double>(reports[t].weights));
    }
  }

  SECTION("addresses do not overlap, and the ledger sums to the file") {
    FlatFormat format;
    const FilePlaces places = format.create(folder / "file", layout);
    std::vector<std::pair<std::uint64_t, std::uint64_t>> spans;
    std::vector<std::uint64_t> digests(run.plan().units.size());
    for (std::uint64_t unit = 0; unit < run.plan().units.size(); ++unit) {
      spans.emplace_back(address_of(contents, output, places, unit), stored_bytes(contents, unit));
      digests[unit] = 1000 + unit;
    }
    std::sort(spans.begin(), spans.end());
    for (std::size_t i = 1; i < spans.size(); ++i) REQUIRE(spans[i - 1].first + spans[i - 1].second <= spans[i].first);
    REQUIRE(spans.back().first + spans.back().second <= places.file_bytes);
    complete_side(contents, output, places, digests);
    const auto ledger = numbers(output.side.at("/lmq/ledger"));
    REQUIRE(ledger.size() == 7);
    REQUIRE(std::accumulate(ledger.begin(), ledger.end(), std::uint64_t{0}) == places.file_bytes);
    REQUIRE(ledger[0] == 10 * (ledger[2] / 30));
    const auto digest = numbers(output.side.at("/lmq/units/digest"));
    const auto source = numbers(output.side.at("/lmq/units/source_digest"));
    for (std::uint64_t unit = 0; unit < digest.size(); ++unit) {
      const bool kept = run.plan().tensors[run.plan().units[unit].tensor].treatment == Treatment::keep;
      REQUIRE(digest[unit] == (kept ? 1000 + unit : 0xD0 + unit));
      REQUIRE(source[unit] == (kept ? 1000 + unit : 7 * unit));
    }
  }
}

TEST_CASE("output: a checkpoint without tensors has a layout too", "[run][output]") {
  const Catalogue catalogue;
  const Plan plan;
  const std::vector<UnitRecord> units;
  const std::vector<const Codebook*> books;
  const std::string text = "{}";
  const OutputContents contents{catalogue, plan, units, books, text, text};
  Output output = lay_out(contents, report_tensors(contents));
  REQUIRE(output.layout.datasets.size() == 14);
  for (const DatasetLayout& dataset : output.layout.datasets) REQUIRE(dataset.path.starts_with("/lmq/"));
  complete_side(contents, output, FilePlaces{{}, 1000}, {});
  REQUIRE(numbers(output.side.at("/lmq/ledger"))[6] > 0);
}
