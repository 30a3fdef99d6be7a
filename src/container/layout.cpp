#include "lmq/container/layout.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <string_view>
#include <utility>

#include "deflate.hpp"
#include "lmq/base/bytes.hpp"
#include "lmq/base/math.hpp"
#include "lmq/base/text.hpp"
#include "lmq/container/names.hpp"
#include "seal.hpp"
#include "tables.hpp"

namespace lmq {
namespace {

// Attributes of tensors are for people, and all in the table besides: a file has them where they take at most a 64th of
// what its tensors do. A text's heap is 4 KiB at least, one tensor's two attributes some 160 bytes.
constexpr std::uint64_t kAttributesWorth = 64, kHeapBytes = 4096, kAttributeBytes = 160;

const TensorInfo& info_of(const OutputContents& contents, const TensorPlan& tensor) {
  return contents.catalogue.tensors[tensor.tensor];
}

bool is_kept(const OutputContents& contents, std::uint64_t unit) {
  return contents.plan.tensors[contents.plan.units[unit].tensor].treatment == Treatment::keep;
}

bool has_attributes(const OutputContents& contents) {
  std::uint64_t bytes = 0;
  for (std::uint64_t u = 0; u < contents.units.size(); ++u) bytes += stored_bytes(contents, u);
  return bytes / kAttributesWorth >= kHeapBytes + kAttributeBytes * contents.plan.tensors.size();
}

DatasetLayout dataset_of(const OutputContents& contents, const TensorPlan& tensor, const TensorLine& line,
                         bool attributes) {
  const TensorInfo& info = info_of(contents, tensor);
  DatasetLayout dataset;
  dataset.path = "/" + info.name;
  dataset.shape = info.shape;
  if (attributes)
    dataset.attributes = {{container::kBitsPerWeight, line.bits_per_weight}, {container::kMethod, line.method}};
  if (tensor.treatment == Treatment::keep) {
    dataset.dtype = as_stored(info, tensor.treatment).value_type();
    dataset.piece_bytes = {line.stored_bytes};
    return dataset;
  }
  dataset.dtype = DType::f32;
  dataset.chunk = tensor.chunk;
  dataset.encoded = true;
  for (std::uint64_t unit = tensor.first_unit; unit < tensor.first_unit + tensor.units; ++unit)
    dataset.piece_bytes.push_back(stored_bytes(contents, unit));
  return dataset;
}

/// Adds the datasets below /lmq.
class SideWriter {
 public:
  explicit SideWriter(Output& output) : output_(output) {}

  void text(const char* path, std::string_view text) {
    if (text.empty()) text = " ";  // HDF5 has no text of no bytes
    DatasetLayout dataset;
    dataset.dtype = DType::u8;
    dataset.shape = {text.size()};
    dataset.text = true;
    add(path, std::move(dataset), deflate(std::as_bytes(std::span(text))), true);
  }
  void codebooks(const Codebooks& books) {
    if (books.rows.empty()) return;
    DatasetLayout dataset;
    dataset.dtype = DType::f32;
    dataset.shape = {books.rows.size(), books.widest()};
    add(container::kCodebooks, std::move(dataset), deflate(books.planes()), true);
  }
  void source_digests(const OutputContents& contents) {
    DatasetLayout dataset;
    dataset.dtype = DType::u64;
    dataset.shape = {contents.units.size()};
    ByteWriter out;
    for (const UnitRecord& unit : contents.units) out.le(unit.result.source_digest);
    add(container::kSourceDigests, std::move(dataset), out.take(), false);
  }

 private:
  void add(const char* path, DatasetLayout dataset, std::vector<std::byte> bytes, bool deflated) {
    dataset.path = path;
    dataset.piece_bytes = {bytes.size()};
    dataset.deflated = deflated;
    output_.layout.datasets.push_back(std::move(dataset));
    output_.side[path] = std::move(bytes);
  }
  Output& output_;
};

}  // namespace

std::uint64_t stored_bytes(const OutputContents& contents, std::uint64_t unit) {
  const WorkUnit& work = contents.plan.units[unit];
  const TensorPlan& tensor = contents.plan.tensors[work.tensor];
  if (tensor.treatment == Treatment::quantize) return contents.units[unit].bytes;
  const TensorInfo& info = info_of(contents, tensor);
  return ceil_div(work.count * bits(as_stored(info, tensor.treatment).value_type()), 8);
}

Output lay_out(const OutputContents& contents, const std::vector<TensorLine>& tensors) {
  Output output;
  FileLayout& layout = output.layout;
  layout.root = {{container::kFormat, std::vector<std::uint64_t>{container::kMajor, container::kMinor}}};
  const bool attributes = has_attributes(contents);
  for (std::size_t t = 0; t < tensors.size(); ++t)
    if (const TensorPlan& tensor = contents.plan.tensors[t]; tensor.treatment != Treatment::fold)
      layout.datasets.push_back(dataset_of(contents, tensor, tensors[t], attributes));
  const Codebooks codebooks = gather_codebooks(contents);
  SideWriter side(output);
  side.text(container::kRecipe, contents.recipe_json);
  side.text(container::kProvenance, packed_provenance(contents));
  side.text(container::kTensors, tensors_text(contents, tensors, codebooks));
  side.codebooks(codebooks);
  side.source_digests(contents);
  std::ranges::sort(layout.datasets, {}, &DatasetLayout::path);
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

void complete_side(const OutputContents& contents, Output& output, const std::vector<std::uint64_t>& kept_digests) {
  std::vector<std::byte>& digests = output.side[container::kSourceDigests];
  for (std::uint64_t u = 0; u < contents.units.size(); ++u)
    if (is_kept(contents, u))
      std::memcpy(digests.data() + u * sizeof(std::uint64_t), &kept_digests[u], sizeof(std::uint64_t));
}

void seal_file(const OutputContents& contents, const Output& output, const FilePlaces& places,
               const std::vector<std::uint64_t>& kept_digests, const File& file) {
  std::vector<std::uint64_t> stored(contents.units.size());
  for (std::uint64_t u = 0; u < stored.size(); ++u)
    stored[u] = is_kept(contents, u) ? kept_digests[u] : contents.units[u].digest;
  write_seal(file, places.file_bytes, payload_of(output.layout, places), stored);
  if (const Seal seal = read_seal(file); seal.state != Seal::State::whole)
    fail(Errc::io, fmt::format("{}: what was written is not what is read back", printable(file.path().string())));
}

std::uint64_t whole_file_bytes(const Output& output, const FilePlaces& places) {
  return places.file_bytes + seal_bytes(places.file_bytes, payload_of(output.layout, places));
}

}  // namespace lmq
