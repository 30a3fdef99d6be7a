#include "block_scales.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "lmq/base/math.hpp"
#include "lmq/base/text.hpp"
#include "small_floats.hpp"

namespace lmq {
namespace {

using Shape = std::span<const std::uint64_t>;

struct Block {
  std::uint64_t rows = 128, cols = 128;
};

bool is_scale_type(DType type) noexcept {
  return type == DType::f32 || type == DType::bf16 || type == DType::f16 || type == DType::f8_e8m0;
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

/// Columns that share an exponent in the microscaling formats, and the fewest that are taken for a group's.
constexpr std::uint64_t kMicroscaled = 32, kMinGroup = 16;

/// Block that a scale's shape means, if it fits; the configured one where two readings fit.
std::optional<Block> block_of(Shape weight, Shape scale, const Block& configured, bool e8m0) {
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
    if (rows == 1 && cols == m.cols) return Block{whole.rows, 1};
    if (rows == m.rows && cols == ceil_div(m.cols, kMicroscaled) && e8m0) return Block{1, kMicroscaled};
    if (rows == m.rows && cols > 0 && m.cols % cols == 0 && m.cols / cols >= kMinGroup) return Block{1, m.cols / cols};
  }
  if (same(scale, weight.first(weight.size() - 1))) return Block{1, whole.cols};
  if (weight.size() > 2 && same(scale, m.stack)) return whole;
  return std::nullopt;
}

/// The scales of one weight, by name.
std::vector<std::uint32_t> scales_of(const Catalogue& catalogue, std::string_view weight) {
  constexpr std::string_view kWeight = ".weight", kData = "._data";
  std::vector<std::string> names{fmt::format("{}_scale_inv", weight), fmt::format("{}_scale", weight)};
  if (weight.ends_with(kWeight)) {
    const std::string_view stem = weight.substr(0, weight.size() - kWeight.size());
    for (const char* leaf : {"scale", "scale_weight", "scales"}) names.push_back(fmt::format("{}.{}", stem, leaf));
  } else if (weight.ends_with(kData)) {
    names.push_back(fmt::format("{}._scale", weight.substr(0, weight.size() - kData.size())));
  }
  std::vector<std::uint32_t> found;
  for (const std::string& name : names)
    if (const std::int64_t at = catalogue.find(name); at >= 0) found.push_back(static_cast<std::uint32_t>(at));
  return found;
}

/// Does a companion change the weight's values, as scales of a second level and zero points do? Those of its inputs and
/// outputs, and words about them, do not.
bool changes_values(std::string_view name) {
  const std::string_view leaf = name.substr(std::min(name.rfind('.') + 1, name.size()));
  return leaf.find("input") == leaf.npos && leaf.find("output") == leaf.npos && leaf.find("act") == leaf.npos &&
         leaf.find("shape") == leaf.npos && leaf != "comfy_quant";
}

/// Pairs one weight with its scale, or says in its note why that cannot be done.
class Pairing {
 public:
  Pairing(Catalogue& catalogue, const ModelConfig& config, std::uint32_t weight)
      : catalogue_(catalogue), config_(config), index_(weight), weight_(catalogue.tensors[weight]) {}

  void run(const std::vector<std::uint32_t>& companions) {
    const std::vector<std::uint32_t> scales = scales_of(catalogue_, weight_.name);
    if (scales.empty() && companions.empty()) return without_scale();
    if (scales.size() > 1)
      return unfit(Fitness::unsupported, fmt::format("{}: found two scales, '{}' and '{}', expected one",
                                                     place(weight_), shown(scales[0]), shown(scales[1])));
    for (const std::uint32_t other : companions)
      if ((scales.empty() || other != scales[0]) && changes_values(catalogue_.tensors[other].name))
        return unfit(Fitness::unsupported, fmt::format("{}: {} scaled by '{}' in a way that is not supported",
                                                       place(weight_), name(weight_.dtype), shown(other)));
    if (scales.empty()) return without_scale();
    pair(scales[0]);
  }

 private:
  [[nodiscard]] std::string place(const TensorInfo& tensor) const {
    return fmt::format("{}: tensor '{}'", printable(catalogue_.folder.native()), printable(tensor.name));
  }
  [[nodiscard]] std::string shown(std::uint32_t tensor) const { return printable(catalogue_.tensors[tensor].name); }
  void unfit(Fitness fitness, std::string text) { catalogue_.notes.push_back({index_, fitness, std::move(text)}); }

  /// Plain values, or a checkpoint that lost its scales? The configuration may say so.
  void without_scale() {
    constexpr std::string_view kWeight = ".weight";
    std::string_view module = weight_.name;
    if (module.ends_with(kWeight)) module.remove_suffix(kWeight.size());
    if (config_.quantized && config_.is_exception(module)) return;
    unfit(Fitness::unscaled,
          fmt::format("{}: {} without a known scale (expected for example '{}_scale_inv' or '{}_scale')",
                      place(weight_), name(weight_.dtype), printable(weight_.name), printable(weight_.name)));
  }

  void pair(std::uint32_t scale) {
    TensorInfo& s = catalogue_.tensors[scale];
    if (!is_scale_type(s.dtype))
      return unfit(Fitness::unsupported,
                   fmt::format("{}: a scale of {}, expected F32, BF16, F16 or F8_E8M0", place(s), name(s.dtype)));
    const Block configured{config_.block_rows, config_.block_cols};
    const std::optional<Block> block = block_of(weight_.shape, s.shape, configured, s.dtype == DType::f8_e8m0);
    if (!block) {
      const Matrices m = matrices(weight_.shape);
      return unfit(Fitness::malformed,
                   fmt::format("{}: found shape [{}], expected one scale for each block of {} x {} ({} x {} in a "
                               "matrix), row, column or tensor of [{}]",
                               place(s), fmt::join(s.shape, ", "), configured.rows, configured.cols,
                               ceil_div(m.rows, configured.rows), ceil_div(m.cols, configured.cols),
                               fmt::join(weight_.shape, ", ")));
    }
    weight_.scale = scale, s.scales = index_;
    weight_.scale_block_rows = block->rows, weight_.scale_block_cols = block->cols;
  }

  Catalogue& catalogue_;
  const ModelConfig& config_;
  const std::uint32_t index_;
  TensorInfo& weight_;
};

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

bool is_f8(DType type) noexcept {
  return type == DType::f8_e4m3 || type == DType::f8_e5m2 || type == DType::f8_e4m3fnuz || type == DType::f8_e5m2fnuz;
}

void pair_block_scales(Catalogue& catalogue, const std::vector<std::int64_t>& owners, const ModelConfig& config) {
  std::map<std::int64_t, std::vector<std::uint32_t>> companions;
  for (std::uint32_t i = 0; i < owners.size(); ++i)
    if (owners[i] >= 0) companions[owners[i]].push_back(i);
  for (std::uint32_t i = 0; i < catalogue.tensors.size(); ++i)
    if (is_f8(catalogue.tensors[i].dtype) && owners[i] < 0) Pairing(catalogue, config, i).run(companions[i]);
}

bool scale_fits(const TensorInfo& tensor, const TensorInfo& scale) noexcept {
  const bool types = is_f8(tensor.dtype) && is_scale_type(scale.dtype);
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

std::vector<float> scale_values(const TensorInfo& scale, std::span<const std::byte> bytes) {
  std::vector<float> values(static_cast<std::size_t>(scale.count()));
  to_floats(scale.dtype, bytes, values);
  return values;
}

ScaleRange scale_range(const TensorInfo& tensor, const TensorInfo& scale, std::uint64_t begin,
                       std::uint64_t count) noexcept {
  const ScaleGrid grid(tensor, scale);
  if (grid.single) return {0, 1};
  const std::uint64_t first = grid.row_begin(begin / grid.cols), last = grid.row_begin((begin + count - 1) / grid.cols);
  return {first, last + grid.scale_cols - first};
}

// More than 5 parameters: two windows, each with where it begins, and the tensors they lie in.
std::optional<std::uint64_t> first_under_zero(const TensorInfo& tensor, const TensorInfo& scale, std::uint64_t begin,
                                              std::span<const std::byte> bytes, std::span<const float> scales,
                                              std::uint64_t first_scale) noexcept {
  const ScaleGrid grid(tensor, scale);
  const float* const table = f8_values(tensor.dtype).data();
  for (std::uint64_t i = 0; i < bytes.size(); ++i) {
    const std::uint64_t row = (begin + i) / grid.cols, col = (begin + i) % grid.cols;
    const std::uint64_t index = grid.single ? 0 : grid.row_begin(row) + col / grid.block_cols;
    if (scales[index - first_scale] == 0 && table[static_cast<std::uint8_t>(bytes[i])] != 0) return begin + i;
  }
  return std::nullopt;
}

// More than 5 parameters: two windows, each with where it begins, the tensors they lie in, and the result.
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
