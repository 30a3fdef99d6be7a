#include "export_fp8.hpp"

#include <fmt/format.h>

#include <vector>

#include "export_source.hpp"
#include "lmq/base/digest.hpp"
#include "lmq/base/error.hpp"
#include "lmq/io/block_scales.hpp"

namespace lmq::app {
namespace {

/// Of an object that a file brings along; null where there is none.
const nlohmann::json& entry(const nlohmann::json& object, const std::string& key) {
  static const nlohmann::json kNone;
  const auto at = object.is_object() ? object.find(key) : object.end();
  return !object.is_object() || at == object.end() ? kNone : *at;
}

TensorInfo info_of(const StoredTensor& tensor) {
  TensorInfo info;
  info.name = tensor.line.name, info.dtype = tensor.dtype, info.shape = tensor.line.shape;
  return info;
}

}  // namespace

void each_stored_unit(const QuantizedFile& file, const StoredTensor& tensor, std::vector<std::byte>& scratch,
                      const std::function<void(const StoredUnit&, std::span<const std::byte>)>& take) {
  for (std::uint64_t u = tensor.first_unit; u < tensor.first_unit + tensor.units; ++u) {
    heed_signals();
    const StoredUnit& unit = file.units()[u];
    file.read(unit, scratch);
    if (unit.digest && digest64(scratch) != *unit.digest)
      fail(Errc::malformed, fmt::format("{}: the stored bytes do not have the recorded digest", file.place(unit)));
    take(unit, scratch);
  }
}

KeptFp8::KeptFp8(const QuantizedFile& file) : file_(file) {
  const nlohmann::json &scale_of = entry(file.provenance(), "scale_of"),
                       &blocks = entry(file.provenance(), "scale_blocks");
  std::map<std::string, std::size_t> index;
  for (std::size_t t = 0; t < file.tensors().size(); ++t) index.emplace(file.tensors()[t].line.name, t);
  for (const StoredTensor& tensor : file.tensors()) {
    const nlohmann::json &scale = entry(scale_of, tensor.line.name), &block = entry(blocks, tensor.line.name);
    if (tensor.treatment != Treatment::keep || !scale.is_string() || !block.is_array() || block.size() != 2) continue;
    const auto at = index.find(scale.get<std::string>());
    if (at == index.end() || !block[0].is_number_unsigned() || !block[1].is_number_unsigned()) continue;
    Pair pair{info_of(tensor), info_of(file.tensors()[at->second]), at->second};
    pair.weight.scale_block_rows = block[0], pair.weight.scale_block_cols = block[1];
    if (file.tensors()[at->second].treatment != Treatment::keep || !scale_fits(pair.weight, pair.scale)) continue;
    weights_.insert(pair.weight.name), scales_.insert(pair.scale.name);
    pairs_.emplace(tensor.line.name, std::move(pair));
  }
}

void KeptFp8::floats(const StoredTensor& tensor, const std::function<void(std::span<const float>)>& take) const {
  const Pair& pair = pairs_.at(tensor.line.name);
  std::vector<std::byte> scratch, bytes;
  each_stored_unit(
      file_, file_.tensors()[pair.scale_index], scratch,
      [&](const StoredUnit&, std::span<const std::byte> part) { bytes.insert(bytes.end(), part.begin(), part.end()); });
  const std::vector<float> scales = scale_values(pair.scale, bytes);
  std::vector<float> values;
  each_stored_unit(file_, tensor, scratch, [&](const StoredUnit& unit, std::span<const std::byte> stored) {
    values.resize(stored.size());
    apply_scales(pair.weight, pair.scale, unit.begin, stored, scales, 0, values);
    take(values);
  });
}

}  // namespace lmq::app
