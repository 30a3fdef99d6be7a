#include <catch2/catch.hpp>
#include <cstring>
#include <nlohmann/json.hpp>
#include <numeric>

#include "inflated.hpp"
#include "lmq/container/layout.hpp"
#include "run/small_model.hpp"

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
      unit.bytes = unit.result.ledger.total();
      unit.digest = 0xD0 + u;
      unit.result.stats = {0.5, 0.75, 2.0, 0.125 * static_cast<double>(u % 5)};
      unit.result.entropy_bits = 100;
      unit.result.source_digest = 7 * u;
      if (plan.tensors[plan.units[u].tensor].scope < 0) unit.result.codebook.numbers = {1.0f, 2.0f};
    }
    for (std::size_t s = 0; s < plan.scopes.size(); ++s)
      books.push_back(Codebook::table({0.0f, 1.0f + static_cast<float>(s)}));
    for (const Codebook& book : books) book_pointers.push_back(&book);
  }
};

std::vector<std::uint64_t> numbers(const std::vector<std::byte>& bytes) {
  std::vector<std::uint64_t> values(bytes.size() / 8);
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

const DatasetLayout& dataset(const Output& output, const std::string& path) {
  const auto at = std::ranges::lower_bound(output.layout.datasets, path, {}, &DatasetLayout::path);
  REQUIRE(at != output.layout.datasets.end());
  REQUIRE(at->path == path);
  return *at;
}

/// The text of a deflated dataset.
nlohmann::json text_of(const Output& output, const char* path) {
  const DatasetLayout& layout = dataset(output, path);
  REQUIRE(layout.text);
  REQUIRE(layout.deflated);
  return nlohmann::json::parse(test::inflated(output.side.at(path), layout.shape.at(0)));
}

}  // namespace

// More than 40 lines: a check for each line of the page.
TEST_CASE("output: the layout is what the format's page says", "[container]") {
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
      const DatasetLayout& one = layout.datasets[static_cast<std::size_t>(output.dataset_of[t])];
      REQUIRE(one.path == "/" + info.name);
      REQUIRE(one.shape == info.shape);
      const bool quantized = run.plan().tensors[t].treatment == Treatment::quantize;
      REQUIRE(one.encoded == quantized);
      REQUIRE(one.dtype == (quantized ? DType::f32 : info.dtype));
      REQUIRE(one.piece_bytes.size() == (quantized ? run.plan().tensors[t].units : 1));
      REQUIRE(one.attributes.empty());  // they would be a tenth of so small a file
    }
    REQUIRE(layout.root == std::vector<Attribute>{{"lmq_format", std::vector<std::uint64_t>{2, 0}}});
  }

  SECTION("codebooks that serve whole tensors are rows of one list, a shared one is there once") {
    const auto table = text_of(output, "/lmq/tensors")["tensors"];
    const DatasetLayout& books = dataset(output, "/lmq/codebooks");
    REQUIRE(books.shape == std::vector<std::uint64_t>{4, 2});
    for (std::size_t t = 0; t < table["name"].size(); ++t) {
      CAPTURE(table["name"][t].get<std::string>());
      const std::string name = table["name"][t];
      const bool listed = name == "a.weight" || name == "b.weight" || name == "e.alone" || name.starts_with("m.");
      REQUIRE(table["codebook"][t].is_null() == !listed);
    }
    const auto row = [&](const std::string& name) {
      const auto names = table["name"].get<std::vector<std::string>>();
      return table["codebook"][static_cast<std::size_t>(std::ranges::find(names, name) - names.begin())];
    };
    REQUIRE(row("m.one") == row("m.two"));
    REQUIRE(row("a.weight") != row("b.weight"));
  }

  SECTION("the table has a value per tensor in every column, sums over its units, and units of their own") {
    const auto table = text_of(output, "/lmq/tensors");
    REQUIRE(table["plan_digest"] == run.plan().digest);
    std::size_t several = 0;
    for (std::size_t t = 0; t < run.plan().tensors.size(); ++t) {
      const TensorPlan& tensor = run.plan().tensors[t];
      REQUIRE(table["tensors"]["name"][t] == run.reader().catalogue().tensors[t].name);
      REQUIRE(table["tensors"]["shape"][t] == run.reader().catalogue().tensors[t].shape);
      REQUIRE((table["tensors"]["method"][t] == "raw") == (tensor.treatment == Treatment::keep));
      REQUIRE(table["tensors"]["reason"][t].is_null() == (tensor.treatment == Treatment::quantize));
      if (tensor.treatment != Treatment::quantize) continue;
      several += tensor.units > 1 ? tensor.units : 0;
      REQUIRE(table["tensors"]["squared_error"][t] == 0.5 * static_cast<double>(tensor.units));
      REQUIRE(reports[t].entropy_bits ==
              100.0 * static_cast<double>(tensor.units) / static_cast<double>(reports[t].weights));
    }
    REQUIRE(table["units"]["energy"].size() == several);
  }

  SECTION("addresses do not overlap, and the file is complete with the digests of kept units") {
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
    complete_side(contents, output, digests);
    seal_file(contents, output, places, digests, File(folder / "file", File::Mode::update));
    REQUIRE(std::filesystem::file_size(folder / "file") == whole_file_bytes(output, places));
    const auto source = numbers(output.side.at("/lmq/source_digests"));
    for (std::uint64_t unit = 0; unit < source.size(); ++unit) {
      const bool kept = run.plan().tensors[run.plan().units[unit].tensor].treatment == Treatment::keep;
      REQUIRE(source[unit] == (kept ? 1000 + unit : 7 * unit));
    }
  }
}

TEST_CASE("output: tensors have attributes for people where these are a small part of the file", "[container]") {
  const TempFolder folder;
  make_small_checkpoint(folder / "model.safetensors");
  const SmallRun run(folder / "model.safetensors", folder.path());
  Invented invented(run.plan());
  for (UnitRecord& unit : invented.units)
    if (unit.bytes > 0) unit.bytes += 1 << 20, unit.result.ledger.codes += 1 << 20;
  const OutputContents contents{run.reader().catalogue(), run.plan(),      invented.units,
                                invented.book_pointers,   invented.recipe, invented.provenance};
  const auto reports = report_tensors(contents);
  const Output output = lay_out(contents, reports);
  for (std::size_t t = 0; t < reports.size(); ++t)
    REQUIRE(
        output.layout.datasets[static_cast<std::size_t>(output.dataset_of[t])].attributes ==
        std::vector<Attribute>{{"lmq_bits_per_weight", reports[t].bits_per_weight}, {"lmq_method", reports[t].method}});
}

TEST_CASE("output: a checkpoint without tensors has a layout too", "[container]") {
  const Catalogue catalogue;
  const Plan plan;
  const std::vector<UnitRecord> units;
  const std::vector<const Codebook*> books;
  const std::string text = "{}";
  const OutputContents contents{catalogue, plan, units, books, text, text};
  const Output output = lay_out(contents, report_tensors(contents));
  REQUIRE(output.layout.datasets.size() == 4);
  for (const DatasetLayout& each : output.layout.datasets) REQUIRE(each.path.starts_with("/lmq/"));
}
