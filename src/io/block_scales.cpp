#include "block_scales.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <system_error>
#include <utility>

#include "lmq/base/error.hpp"
#include "lmq/base/math.hpp"
#include "lmq/base/text.hpp"
#include "lmq/io/file.hpp"
#include "small_floats.hpp"

namespace lmq {
namespace {

using nlohmann::json;
using Shape = std::span<const std::uint64_t>;

struct Block {
  std::uint64_t rows = 128, cols = 128;
};

/// What config.json says of quantized weights.
struct QuantizationConfig {
  bool present = false;
  Block block;
  std::vector<std::string> exceptions;  ///< modules that are not quantized
};

bool is_f8(DType type) noexcept {
  return type == DType::f8_e4m3 || type == DType::f8_e5m2 || type == DType::f8_e4m3fnuz || type == DType::f8_e5m2fnuz;
}

void read_block(const json& list, const std::string& source, Block& block) {
  constexpr std::uint64_t kLargest = std::uint64_t{1} << 31;
  const auto good = [](const json& n) {
    return n.is_number_unsigned() && n.get<std::uint64_t>() >= 1 && n.get<std::uint64_t>() <= kLargest;
  };
  if (!list.is_array() || list.size() != 2 || !good(list[0]) || !good(list[1]))
    fail(Errc::malformed,
         fmt::format("{}: quantization_config: block size: found {}, expected two numbers [rows, columns]", source,
                     printable(list.dump(-1, ' ', true, json::error_handler_t::replace), 60)));
  block = {list[0].get<std::uint64_t>(), list[1].get<std::uint64_t>()};
}

void read_quantization(const json& config, const std::string& source, QuantizationConfig& result) {
  result.present = true;
  if (const auto size = config.find("weight_block_size"); size != config.end() && !size->is_null())
    read_block(*size, source, result.block);
  if (const auto groups = config.find("config_groups"); groups != config.end() && groups->is_object())
    for (const json& group : *groups)
      if (const json* weights = group.is_object() && group.contains("weights") ? &group["weights"] : nullptr;
          weights && weights->is_object())
        if (const auto block = weights->find("block_structure"); block != weights->end() && block->is_array())
          read_block(*block, source, result.block);
  for (const char* field : {"modules_to_not_convert", "ignored_layers", "ignore"})
    if (const auto list = config.find(field); list != config.end() && list->is_array())
      for (const json& module : *list)
        if (module.is_string()) result.exceptions.push_back(module.get<std::string>());
}

QuantizationConfig read_config(const std::filesystem::path& folder) {
  QuantizationConfig result;
  const std::filesystem::path path = folder / "config.json";
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) return result;
  const std::string source = printable(path.native());
  constexpr std::uint64_t kConfigLimit = 16U << 20;
  const File file(path, File::Mode::read);
  const std::uint64_t bytes = file.size();
  if (bytes > kConfigLimit)
    fail(Errc::malformed, fmt::format("{}: {} bytes, expected at most {}", source, bytes, kConfigLimit));
  std::string text(static_cast<std::size_t>(bytes), '\0');
  file.read(0, std::as_writable_bytes(std::span(text)));
  const json config = json::parse(text, nullptr, false);
  if (!config.is_object())
    fail(Errc::malformed,
         fmt::format("{}: found no JSON object, expected one (it says how the 8-bit floats are scaled)", source));
  const json* model = &config;
  if (!config.contains("quantization_config") && config.contains("text_config") && config["text_config"].is_object())
    model = &config["text_config"];
  if (const auto found = model->find("quantization_config"); found != model->end() && found->is_object())
    read_quantization(*found, source, result);
  return result;
}

/// A weight as a stack of matrices.
struct Matrices {
  Shape stack;
  std::uint64_t rows = 1, cols = 1;
};
Matrices matrices(Shape shape) noexcept {
  const std::size_t rank = shape.size();
  return {.stack = shape.first(rank > 2 ? rank - 2 : 0),
          .rows = rank >= 2 ? shape[rank - 2] : 1,
          .cols = rank >= 1 ? shape[rank - 1] : 1};
}

bool same(Shape a, Shape b) noexcept { return std::ranges::equal(a, b); }

/// Block that a scale's shape means, if it fits. Where two readings fit they mean the same values.
std::optional<Block> block_of(Shape weight, Shape scale, const Block& configured) {
  const Matrices m = matrices(weight);
  const Block whole{std::max<std::uint64_t>(m.rows, 1), std::max<std::uint64_t>(m.cols, 1)};
  const auto is_one = [](std::uint64_t dim) { return dim == 1; };
  if (scale.size() <= weight.size() + 1 && std::ranges::all_of(scale, is_one)) return whole;
  if (weight.size() < 2) return std::nullopt;
  if (scale.size() == weight.size() && same(scale.first(m.stack.size()), m.stack)) {
    const std::uint64_t rows = scale[scale.size() - 2], cols = scale.back();
    if (rows == ceil_div(m.rows, configured.rows) && cols == ceil_div(m.cols, configured.cols)) return configured;
    if (rows == m.rows && cols == 1) return Block{1, whole.cols};
    if (rows == 1 && cols == 1) return whole;
  }
  if (same(scale, weight.first(weight.size() - 1))) return Block{1, whole.cols};
  if (weight.size() > 2 && same(scale, m.stack)) return whole;
  return std::nullopt;
}

/// "model.layers.0.mlp" is named by itself, by a module that holds it, and by the tail or middle of its name.
bool is_exception(const std::string& module, const std::vector<std::string>& exceptions) {
  const std::string dotted = "." + module + ".";
  return std::ranges::any_of(exceptions, [&](const std::string& name) {
    return !name.empty() && dotted.find("." + name + ".") != dotted.npos;
  });
}

/// An 8-bit float tensor without a scale: plain values, or a checkpoint that lost its scales?
void check_unscaled(const Catalogue& catalogue, const TensorInfo& tensor, const QuantizationConfig& config) {
  constexpr std::string_view kWeight = ".weight";
  if (!config.present || !tensor.name.ends_with(kWeight)) return;
  if (is_exception(tensor.name.substr(0, tensor.name.size() - kWeight.size()), config.exceptions)) return;
  fail(Errc::malformed, fmt::format("{}: tensor '{}': {} without a scale, expected '{}_scale_inv' or '{}_scale' "
                                    "(config.json has a quantization_config)",
                                    printable(catalogue.folder.native()), printable(tensor.name), name(tensor.dtype),
                                    printable(tensor.name), printable(tensor.name)));
}

void pair(Catalogue& catalogue, std::uint32_t weight, std::uint32_t scale, const QuantizationConfig& config) {
  TensorInfo &w = catalogue.tensors[weight], &s = catalogue.tensors[scale];
  const std::string place = fmt::format("{}: tensor '{}'", printable(catalogue.folder.native()), printable(s.name));
  if (s.dtype != DType::f32 && s.dtype != DType::bf16 && s.dtype != DType::f16)
    fail(Errc::unsupported, fmt::format("{}: a scale of {}, expected F32, BF16 or F16", place, name(s.dtype)));
  const std::optional<Block> block = block_of(w.shape, s.shape, config.block);
  if (!block) {
    const Matrices m = matrices(w.shape);
    fail(Errc::malformed, fmt::format("{}: found shape [{}], expected one scale for each block of {} x {} ({} x {} in "
                                      "a matrix), row or tensor of [{}]",
                                      place, fmt::join(s.shape, ", "), config.block.rows, config.block.cols,
                                      ceil_div(m.rows, config.block.rows), ceil_div(m.cols, config.block.cols),
                                      fmt::join(w.shape, ", ")));
  }
  w.scale = scale, s.scales = weight;
  w.scale_block_rows = block->rows, w.scale_block_cols = block->cols;
}

/// Where a row's scales are: the row of scales of row `row`, counted through all matrices of the stack.
struct ScaleGrid {
  ScaleGrid(const TensorInfo& tensor, const TensorInfo& scale) noexcept
      : single(scale.count() == 1),
        rows(matrices(tensor.shape).rows),
        cols(matrices(tensor.shape).cols),
        block_rows(tensor.scale_block_rows),
        block_cols(tensor.scale_block_cols),
        scale_rows(ceil_div(rows, block_rows)),
        scale_cols(ceil_div(cols, block_cols)) {}
  [[nodiscard]] std::uint64_t row_begin(std::uint64_t row) const noexcept {
    return (row / rows * scale_rows + row % rows / block_rows) * scale_cols;
  }
  bool single;
  std::uint64_t rows, cols, block_rows, block_cols, scale_rows, scale_cols;
};

}  // namespace

void pair_block_scales(Catalogue& catalogue) {
  if (std::ranges::none_of(catalogue.tensors, [](const TensorInfo& t) { return is_f8(t.dtype); })) return;
  const QuantizationConfig config = read_config(catalogue.folder);
  for (std::uint32_t i = 0; i < catalogue.tensors.size(); ++i) {
    const TensorInfo& tensor = catalogue.tensors[i];
    if (!is_f8(tensor.dtype)) continue;
    const std::int64_t inverse = catalogue.find(tensor.name + "_scale_inv"),
                       plain = catalogue.find(tensor.name + "_scale");
    if (inverse >= 0 && plain >= 0)
      fail(Errc::malformed, fmt::format("{}: tensor '{}': found both '_scale_inv' and '_scale', expected one",
                                        printable(catalogue.folder.native()), printable(tensor.name)));
    if (inverse >= 0 || plain >= 0)
      pair(catalogue, i, static_cast<std::uint32_t>(std::max(inverse, plain)), config);
    else
      check_unscaled(catalogue, tensor, config);
  }
}

bool scale_fits(const TensorInfo& tensor, const TensorInfo& scale) noexcept {
  const bool types =
      is_f8(tensor.dtype) && (scale.dtype == DType::f32 || scale.dtype == DType::bf16 || scale.dtype == DType::f16);
  if (!types || tensor.scale_block_rows == 0 || tensor.scale_block_cols == 0) return false;
  if (scale.count() == 1) return true;
  const Matrices m = matrices(tensor.shape);
  std::uint64_t expected = ceil_div(m.rows, tensor.scale_block_rows), per_matrix = 0;
  if (!checked_mul(expected, ceil_div(m.cols, tensor.scale_block_cols), per_matrix)) return false;
  expected = per_matrix;
  for (const std::uint64_t dim : m.stack)
    if (!checked_mul(expected, dim, expected)) return false;
  return scale.count() == expected;
}

ScaleRange scale_range(const TensorInfo& tensor, const TensorInfo& scale, std::uint64_t begin,
                       std::uint64_t count) noexcept {
  const ScaleGrid grid(tensor, scale);
  if (grid.single) return {0, 1};
  const std::uint64_t first = grid.row_begin(begin / grid.cols), last = grid.row_begin((begin + count - 1) / grid.cols);
  return {first, last + grid.scale_cols - first};
}

void apply_scales(const TensorInfo& tensor, const TensorInfo& scale, std::uint64_t begin,
                  std::span<const std::byte> bytes, std::span<const float> scales, std::uint64_t first_scale,
                  std::span<float> floats) noexcept {
  const ScaleGrid grid(tensor, scale);
  const float* const table = f8_values(tensor.dtype).data();
  for (std::uint64_t done = 0; done < bytes.size();) {
    const std::uint64_t row = (begin + done) / grid.cols, col = (begin + done) % grid.cols;
    const std::uint64_t run = std::min({bytes.size() - done, grid.cols - col, grid.block_cols - col % grid.block_cols});
    const std::uint64_t index = grid.single ? 0 : grid.row_begin(row) + col / grid.block_cols;
    const float factor = scales[index - first_scale];
    for (std::uint64_t i = done; i < done + run; ++i) floats[i] = table[static_cast<std::uint8_t>(bytes[i])] * factor;
    done += run;
  }
}

}  // namespace lmq
