#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "io/make_safetensors.hpp"
#include "lmq/base/bytes.hpp"
#include "lmq/base/digest.hpp"
#include "lmq/io/file.hpp"
#include "lmq/io/importance_file.hpp"
#include "lmq/io/layout.hpp"
#include "lmq/io/reader.hpp"
#include "lmq/plan/plan.hpp"
#include "lmq/quant/importance.hpp"
#include "lmq/run/quantize_run.hpp"

// A checkpoint of a few thousand weights that has one of everything, cut into units of a few rows, so that whole runs
// take milliseconds; and a file format that is nothing but a header and the pieces.
namespace lmq::test {

/// Layout as text, then the pieces in order. Every field of the layout is in the text.
class FlatFormat final : public LayoutFormat {
 public:
  std::function<void(const FileLayout&)> before;  ///< called first by create
  std::uint64_t first_piece = 0;                  ///< offset of the payload in the file that was made last
  [[nodiscard]] FilePlaces create(const std::filesystem::path& path, const FileLayout& layout) override {
    if (before) before(layout);
    FilePlaces places;
    const std::vector<std::byte> head = text_of(layout);
    std::uint64_t end = head.size();
    first_piece = end;
    for (const DatasetLayout& dataset : layout.datasets) {
      auto& offsets = places.offsets.emplace_back();
      for (const std::uint64_t bytes : dataset.piece_bytes) offsets.push_back(bytes == 0 ? 0 : end), end += bytes;
    }
    places.file_bytes = end;
    const File file(path, File::Mode::create);
    file.write(0, head);
    file.truncate(end);
    return places;
  }
  [[nodiscard]] std::uint64_t metadata_bytes(const FileLayout& layout) const override { return text_of(layout).size(); }
  [[nodiscard]] Existing open(const std::filesystem::path&) override {
    fail(Errc::unsupported, "flat files are not read");
  }
  [[nodiscard]] Existing open_guarded(const std::filesystem::path& path) override { return open(path); }

 private:
  static void put(ByteWriter& out, const std::vector<Attribute>& attributes) {
    for (const Attribute& attribute : attributes) {
      out.text(attribute.name);
      out.le(static_cast<std::uint32_t>(attribute.value.index()));
      std::visit(
          [&](const auto& value) {
            using T = std::decay_t<decltype(value)>;
            if constexpr (std::is_same_v<T, std::string>)
              out.text(value);
            else if constexpr (std::is_arithmetic_v<T>)
              out.le(value);
            else
              out.array(std::span(value));
          },
          attribute.value);
    }
  }
  static std::vector<std::byte> text_of(const FileLayout& layout) {
    ByteWriter out;
    put(out, layout.root);
    for (const GroupLayout& group : layout.groups) out.text(group.path), put(out, group.attributes);
    for (const DatasetLayout& dataset : layout.datasets) {
      out.text(dataset.path);
      out.le(static_cast<std::uint8_t>(dataset.dtype));
      out.le(static_cast<std::uint8_t>(dataset.encoded));
      for (const auto* list : {&dataset.shape, &dataset.chunk, &dataset.piece_bytes}) {
        out.le(static_cast<std::uint64_t>(list->size()));
        out.array(std::span<const std::uint64_t>(*list));
      }
      put(out, dataset.attributes);
    }
    return out.take();
  }
};

inline std::vector<float> gaussian(std::size_t count, std::uint32_t seed) {
  std::vector<float> values(count);
  std::uint32_t state = seed * 2654435761u + 1;
  const auto uniform = [&] {
    state = state * 1664525u + 1013904223u;
    return (static_cast<double>(state >> 8) + 0.5) / 16777216.0;
  };
  for (float& value : values)
    value = static_cast<float>(0.02 * std::sqrt(-2 * std::log(uniform())) * std::cos(6.283185307179586 * uniform()));
  return values;
}

struct SmallOptions {
  std::string other_values_in{};  ///< a tensor whose values are others
  std::string nan_in{};           ///< a tensor with a NaN at element 777 and an infinity after it
};

inline void make_small_checkpoint(const std::filesystem::path& path, const SmallOptions& options = {}) {
  const auto values = [&](const std::string& name, std::size_t count, std::uint32_t seed) {
    std::vector<float> all = gaussian(count, options.other_values_in == name ? seed + 100 : seed);
    if (options.nan_in == name) {
      all.at(777) = std::numeric_limits<float>::quiet_NaN();
      all.at(1200) = std::numeric_limits<float>::infinity();
    }
    return all;
  };
  std::vector<std::uint8_t> bytes(96);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::uint8_t>(i * 7);
  std::vector<TestTensor> tensors = {
      bf16_tensor("a.weight", {64, 100}, values("a.weight", 6400, 1)),
      f32_tensor("b.weight", {90, 70}, values("b.weight", 6300, 2)),
      f32_tensor("c/rows", {40, 64}, values("c/rows", 2560, 3)),
      bf16_tensor("d.groups", {30, 60}, values("d.groups", 1800, 4)),
      f32_tensor("e.alone", {20, 64}, values("e.alone", 1280, 5)),
      bf16_tensor("m.one", {40, 50}, values("m.one", 2000, 6)),
      bf16_tensor("m.two", {30, 50}, values("m.two", 1500, 7)),
      f32_tensor("norm", {77}, values("norm", 77, 8)),
      bf16_tensor("kept.big", {70, 33}, values("kept.big", 2310, 9)),
      byte_tensor("ints", DType::u8, {8, 12}, bytes),
      f32_tensor("nothing", {0, 5}, {}),
  };
  write_file(path, safetensors_bytes(tensors));
}

/// The plan of a recipe with units of at most `rows` rows; otherwise as make_plan makes it.
inline Plan cut_smaller(Plan plan, const std::vector<TensorInfo>& tensors, std::uint64_t rows) {
  plan.units.clear();
  for (TensorPlan& tensor : plan.tensors) {
    const TensorInfo& info = tensors[tensor.tensor];
    tensor.first_unit = plan.units.size();
    tensor.units = 0;
    if (tensor.treatment == Treatment::fold || info.count() == 0) continue;
    const std::uint64_t cols = tensor.rows > 0 ? tensor.cols : info.shape.back();
    const std::uint64_t all_rows = info.count() / cols;
    // "e.alone" stays whole: a tensor codebook of one unit.
    const std::uint64_t step =
        info.name == "e.alone" || tensor.treatment == Treatment::keep ? std::max(rows, all_rows) : rows;
    const std::uint64_t kept_step = std::max<std::uint64_t>(1, all_rows / 3);
    const std::uint64_t height = tensor.treatment == Treatment::keep ? kept_step : step;
    for (std::uint64_t row = 0; row < all_rows; row += height) {
      const std::uint64_t count = std::min(height, all_rows - row) * cols;
      plan.units.push_back({tensor.tensor, row * cols, count, 1e-8 * static_cast<double>(count)});
      ++tensor.units;
    }
    if (tensor.treatment == Treatment::quantize) {
      tensor.chunk = info.shape;
      tensor.chunk.front() = std::min(height, all_rows);
    }
  }
  for (TensorPlan& tensor : plan.tensors) {
    if (tensor.treatment != Treatment::quantize || tensor.scope >= 0 || tensor.units < 2 ||
        tensor.spec.granularity != Granularity::tensor)
      continue;
    tensor.scope = static_cast<std::int64_t>(plan.scopes.size());
    Scope scope;
    scope.tensors = {tensor.tensor};
    scope.weights = tensor.rows * tensor.cols;
    scope.spec = tensor.spec;
    scope.quantum = tensor.importance.present() ? importance_quantum(tensor.importance.largest, scope.weights) : 1;
    plan.scopes.push_back(scope);
  }
  const std::string text = plan.digest + "cut" + std::to_string(rows);
  plan.digest = digest128_hex(std::as_bytes(std::span(text)));
  return plan;
}

inline const char* kSmallRecipe = R"({"rules": [
  {"match": "kept.*", "keep": true},
  {"match": "c/*", "method": "kmeans", "levels": 7, "granularity": "row"},
  {"match": "d.*", "method": "uniform", "levels": 16, "granularity": "group", "group": 16},
  {"match": "m.*", "method": "kmeans", "levels": 5, "granularity": "model"},
  {"match": "a.*", "method": "uniform", "levels": 13},
  {"match": "*", "method": "kmeans", "levels": 8}]})";

/// Reader, plan and options of a run over the small checkpoint.
class SmallRun {
 public:
  explicit SmallRun(const std::filesystem::path& model, std::filesystem::path home, std::uint64_t rows = 11,
                    const ImportanceFile* importance = nullptr)
      : home_(std::move(home)), reader_(open_reader(model)) {
    const auto lookup = [&](const TensorInfo& tensor, std::uint64_t) {
      const ImportanceEntry* entry = importance ? importance->find(tensor.name) : nullptr;
      return entry != nullptr ? entry->info : ImportanceInfo();
    };
    const auto& tensors = reader_->catalogue().tensors;
    const Recipe recipe = Recipe::parse(kSmallRecipe, "the test's recipe");
    plan_ = cut_smaller(make_plan(tensors, "catalogue", recipe, lookup), tensors, rows);
  }
  [[nodiscard]] const Reader& reader() const { return *reader_; }
  [[nodiscard]] const Plan& plan() const { return plan_; }
  [[nodiscard]] RunOptions options(const std::string& output) const {
    RunOptions options;
    options.output = home_ / output;
    options.work_dir = home_ / (output + ".work");
    options.progress = ProgressMode::none;
    options.recipe_json = "{}";
    options.provenance_json = "{\"made\": \"by a test\"}";
    return options;
  }

 private:
  std::filesystem::path home_;
  std::unique_ptr<Reader> reader_;
  Plan plan_;
};

}  // namespace lmq::test
