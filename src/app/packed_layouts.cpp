#include "packed_layouts.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "lmq/kernels/widen.hpp"

namespace lmq::app {
namespace {

using Json = nlohmann::ordered_json;
using Modules = std::map<PackScheme, std::vector<std::string>>;
constexpr std::uint64_t kWordBits = 32;

std::uint64_t words(std::uint64_t values, int bits) noexcept {
  return (values * static_cast<std::uint64_t>(bits) + kWordBits - 1) / kWordBits;
}

/// Puts value `index` of a dense stream, least significant bits first, into 32-bit words that lie `stride` apart.
void put(std::uint32_t* first, std::size_t stride, std::uint64_t index, int bits, std::uint32_t value) noexcept {
  const std::uint64_t at = index * static_cast<std::uint64_t>(bits), word = at / kWordBits, shift = at % kWordBits;
  first[word * stride] |= value << shift;
  if (shift + static_cast<std::uint64_t>(bits) > kWordBits) first[(word + 1) * stride] |= value >> (kWordBits - shift);
}

std::vector<std::byte> bytes_of(const std::vector<std::uint32_t>& list) {
  std::vector<std::byte> bytes(list.size() * sizeof(std::uint32_t));
  if (!list.empty()) std::memcpy(bytes.data(), list.data(), bytes.size());
  return bytes;
}

std::vector<std::byte> scale_bytes(DType type, const std::vector<float>& scales) {
  std::vector<std::byte> bytes(scales.size() * bits(type) / 8);
  narrow_to(type, scales, bytes);
  return bytes;
}

constexpr int kUsualWidths[] = {2, 4, 8};
constexpr int kGptqWidths[] = {2, 3, 4, 8};
constexpr DType kAnyScales[] = {DType::f16, DType::bf16, DType::f32};
constexpr DType kHalfScales[] = {DType::f16};

// compressed-tensors

std::string no_obstacle(std::uint64_t, std::uint64_t, const PackScheme&) { return {}; }

std::vector<PackedPart> compressed_parts(const PackedMatrix& m) {
  return {{"weight_packed", DType::i32, {m.rows, words(m.columns, m.scheme.bits)}},
          {"weight_scale", m.scheme.scale, {m.rows, m.groups()}},
          {"weight_shape", DType::i64, {2}}};
}

std::vector<std::byte> compressed_bytes(const PackedMatrix& m, const std::string& suffix) {
  if (suffix == "weight_scale") return scale_bytes(m.scheme.scale, m.scales);
  if (suffix == "weight_shape") {
    const std::uint64_t shape[2] = {m.rows, m.columns};
    std::vector<std::byte> bytes(sizeof shape);
    std::memcpy(bytes.data(), shape, sizeof shape);
    return bytes;
  }
  const std::uint64_t line = words(m.columns, m.scheme.bits);
  std::vector<std::uint32_t> packed(m.rows * line);
  for (std::uint64_t r = 0; r < m.rows; ++r)
    for (std::uint64_t c = 0; c < m.columns; ++c)
      put(packed.data() + r * line, 1, c, m.scheme.bits, m.codes[r * m.columns + c]);
  return bytes_of(packed);
}

Json compressed_config(const Modules& modules, const std::vector<std::string>& plain) {
  Json groups = Json::object();
  for (const auto& [scheme, names] : modules) {
    Json weights{{"num_bits", scheme.bits}, {"type", "int"},    {"symmetric", true},  {"strategy", "channel"},
                 {"group_size", nullptr},   {"dynamic", false}, {"actorder", nullptr}};
    if (scheme.group != 0) weights["strategy"] = "group", weights["group_size"] = scheme.group;
    groups[fmt::format("group_{}", groups.size())] = {
        {"targets", modules.size() == 1 ? std::vector<std::string>{"Linear"} : names},
        {"weights", weights},
        {"input_activations", nullptr},
        {"output_activations", nullptr}};
  }
  return {{"quant_method", "compressed-tensors"},
          {"format", "pack-quantized"},
          {"quantization_status", "compressed"},
          {"config_groups", groups},
          {"ignore", plain},
          {"kv_cache_scheme", nullptr}};
}

// GPTQ

std::string gptq_obstacle(std::uint64_t rows, std::uint64_t columns, const PackScheme&) {
  if (rows % kWordBits == 0 && columns % kWordBits == 0) return {};
  return fmt::format("{} x {}: both must be multiples of {}", rows, columns, kWordBits);
}

std::vector<PackedPart> gptq_parts(const PackedMatrix& m) {
  return {{"qweight", DType::i32, {words(m.columns, m.scheme.bits), m.rows}},
          {"qzeros", DType::i32, {m.groups(), words(m.rows, m.scheme.bits)}},
          {"scales", m.scheme.scale, {m.groups(), m.rows}},
          {"g_idx", DType::i32, {m.columns}}};
}

std::vector<std::byte> gptq_bytes(const PackedMatrix& m, const std::string& suffix) {
  const int width = m.scheme.bits;
  if (suffix == "scales") {
    std::vector<float> turned(m.scales.size());
    for (std::uint64_t r = 0; r < m.rows; ++r)
      for (std::uint64_t g = 0; g < m.groups(); ++g) turned[g * m.rows + r] = m.scales[r * m.groups() + g];
    return scale_bytes(m.scheme.scale, turned);
  }
  std::vector<std::uint32_t> out;
  if (suffix == "g_idx") {
    for (std::uint64_t c = 0; c < m.columns; ++c)
      out.push_back(static_cast<std::uint32_t>(m.scheme.group == 0 ? 0 : c / m.scheme.group));
  } else if (suffix == "qzeros") {  // 2^(bits-1), less one as version 1 stores it
    const std::uint64_t line = words(m.rows, width);
    out.resize(m.groups() * line);
    for (std::uint64_t g = 0; g < m.groups(); ++g)
      for (std::uint64_t r = 0; r < m.rows; ++r)
        put(out.data() + g * line, 1, r, width, (std::uint32_t{1} << (width - 1)) - 1);
  } else {
    out.resize(words(m.columns, width) * m.rows);
    for (std::uint64_t r = 0; r < m.rows; ++r)
      for (std::uint64_t c = 0; c < m.columns; ++c) put(out.data() + r, m.rows, c, width, m.codes[r * m.columns + c]);
  }
  return bytes_of(out);
}

/// A name as a regular expression that matches it alone.
std::string literal(const std::string& name) {
  std::string text = "^";
  for (const char c : name)
    text += std::string_view(".+*?^$()[]{}|\\").find(c) == std::string_view::npos ? std::string(1, c)
                                                                                  : fmt::format("\\{}", c);
  return text + "$";
}

Json gptq_config(const Modules& modules, const std::vector<std::string>& plain) {
  const auto size = [](const PackScheme& scheme) { return scheme.group == 0 ? Json(-1) : Json(scheme.group); };
  const auto& most = *std::ranges::max_element(modules, {}, [](const auto& entry) { return entry.second.size(); });
  Json config{{"quant_method", "gptq"},
              {"bits", most.first.bits},
              {"group_size", size(most.first)},
              {"desc_act", false},
              {"sym", true},
              {"true_sequential", true},
              {"lm_head", false},
              {"checkpoint_format", "gptq"},
              {"pack_dtype", "int32"}};
  Json dynamic = Json::object();
  for (const auto& [scheme, names] : modules)
    if (scheme != most.first)
      for (const std::string& name : names)
        dynamic["+:" + literal(name)] = {{"bits", scheme.bits}, {"group_size", size(scheme)}};
  for (const std::string& name : plain) dynamic["-:" + literal(name)] = Json::object();
  if (!dynamic.empty()) config["dynamic"] = dynamic;
  return config;
}

constexpr PackedLayout kCompressed{"compressed-tensors", kUsualWidths,     kAnyScales,       no_obstacle,
                                   compressed_parts,     compressed_bytes, compressed_config};
constexpr PackedLayout kGptq{"gptq", kGptqWidths, kHalfScales, gptq_obstacle, gptq_parts, gptq_bytes, gptq_config};

}  // namespace

const PackedLayout& compressed_tensors_layout() noexcept { return kCompressed; }
const PackedLayout& gptq_layout() noexcept { return kGptq; }

}  // namespace lmq::app
