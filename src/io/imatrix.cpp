#include "imatrix.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "file_cursor.hpp"
#include "gguf_header.hpp"
#include "lmq/base/error.hpp"
#include "lmq/base/math.hpp"
#include "lmq/base/text.hpp"
#include "one_file.hpp"

namespace lmq {
namespace {

constexpr std::int32_t kLongestName = 1024, kMaxEntries = 1 << 24;
constexpr std::uint64_t kLongestDataset = 1 << 20;

/// Catalogue of one file whose tensors are still to come.
Catalogue catalogue_of(const File& file, const char* format) {
  Catalogue catalogue = folder_catalogue(file.path(), format);
  add_shard(catalogue, file, {});
  return catalogue;
}

TensorInfo f32_tensor(std::string name, std::vector<std::uint64_t> shape, std::uint64_t offset) {
  TensorInfo tensor;
  tensor.name = std::move(name);
  tensor.shape = std::move(shape);
  tensor.offset = offset;
  tensor.bytes = tensor.count() * sizeof(float);
  return tensor;
}

/// Tensors and stacks ascending by name.
Imatrix sorted(Imatrix found, const File& file) {
  std::vector<std::size_t> order(found.stacks.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  const auto name_of = [&](std::size_t i) -> const std::string& { return found.catalogue.tensors[i].name; };
  std::ranges::sort(order, {}, name_of);
  const auto twice = std::ranges::adjacent_find(order, {}, name_of);
  if (twice != order.end())
    fail(Errc::malformed,
         fmt::format("{}: the entry '{}' is there twice", printable(file.path().native()), printable(name_of(*twice))));
  Imatrix out{.catalogue = found.catalogue, .stacks = {}};
  out.catalogue.tensors.clear();
  for (const std::size_t i : order) {
    found.stacks[i].tensor = narrow<std::uint32_t>(out.stacks.size(), "number of entries");
    out.catalogue.tensors.push_back(std::move(found.catalogue.tensors[i]));
    out.stacks.push_back(std::move(found.stacks[i]));
  }
  return out;
}

std::uint64_t length_field(FileCursor& in, std::int32_t least, std::int32_t most, const char* field) {
  const auto value = in.le<std::int32_t>(field);
  if (value < least || value > most) in.refuse(fmt::format("{} is {}, expected {}..{}", field, value, least, most));
  return static_cast<std::uint64_t>(value);
}

/// The rest behind the entries: nothing, or the last chunk and the name of the data.
void read_trailer(FileCursor& in) {
  if (in.left() == 0) return;
  static_cast<void>(in.le<std::int32_t>("last chunk"));
  if (in.left() > 0) {
    const auto length = length_field(in, 0, static_cast<std::int32_t>(kLongestDataset), "length of the data's name");
    static_cast<void>(in.text(length, kLongestDataset, "name of the data"));
  }
  if (in.left() > 0) in.refuse(fmt::format("{} bytes behind the end", in.left()));
}

/// Counts of a GGUF entry: [1, matrices], finite and >= 0.
std::vector<float> read_counts(const File& file, const GgufTensor& counts, std::uint64_t matrices) {
  std::vector<float> values(static_cast<std::size_t>(matrices));
  file.read(counts.offset, std::as_writable_bytes(std::span(values)));
  for (std::size_t i = 0; i < values.size(); ++i)
    if (!(values[i] >= 0 && std::isfinite(values[i])))
      fail(Errc::malformed, fmt::format("{}: tensor '{}': count {} is {}, expected a finite number >= 0",
                                        printable(file.path().native()), printable(counts.name), i, values[i]));
  return values;
}

std::uint64_t count_of(const GgufTensor& tensor) {
  return std::accumulate(tensor.dims.begin(), tensor.dims.end(), std::uint64_t{1}, std::multiplies<>());
}

/// The entry of one pair of tensors, sums and counts.
void add_entry(const File& file, const std::string& name, const GgufTensor& sums, const GgufTensor* counts,
               Imatrix& out) {
  const auto refuse = [&](const std::string& what) {
    fail(Errc::malformed,
         fmt::format("{}: tensor '{}': {}", printable(file.path().native()), printable(sums.name), what));
  };
  if (counts == nullptr) refuse(fmt::format("'{}.counts' is missing", printable(name)));
  if (sums.type != kGgufF32 || counts->type != kGgufF32)
    refuse(fmt::format("type {}, its counts {}, expected F32", sums.type, counts->type));
  const std::uint64_t columns = sums.dims[0], values = count_of(sums);
  if (columns == 0 || values == 0) refuse("it is empty");
  const std::uint64_t matrices = values / columns;
  if (count_of(*counts) != matrices)
    refuse(fmt::format("{} matrices of {} columns have {} counts", matrices, columns, count_of(*counts)));
  out.catalogue.tensors.push_back(f32_tensor(name, {matrices, columns}, sums.offset));
  out.stacks.push_back({0, columns, read_counts(file, *counts, matrices)});
}

}  // namespace

bool looks_like_binary_imatrix(const File& file) {
  if (file.size() < 9) return false;
  FileCursor in(file);
  const auto entries = in.le<std::int32_t>("entries"), length = in.le<std::int32_t>("length");
  if (entries < 1 || entries > kMaxEntries || length < 1 || length > kLongestName) return false;
  const std::string start =
      in.text(std::min<std::uint64_t>(in.left(), static_cast<std::uint64_t>(length)), kLongestName, "name");
  return std::ranges::all_of(start, [](char c) { return c > ' ' && c < '\x7F'; });
}

Imatrix read_binary_imatrix(const std::filesystem::path& path) {
  const File file(path, File::Mode::read);
  FileCursor in(file);
  Imatrix out{.catalogue = catalogue_of(file, "imatrix"), .stacks = {}};
  const std::uint64_t entries = length_field(in, 1, kMaxEntries, "number of entries");
  constexpr std::uint64_t kMinEntry = 3 * sizeof(std::int32_t) + 1;
  if (entries > in.left() / kMinEntry) in.refuse(fmt::format("{} entries cannot be in {} bytes", entries, in.left()));
  for (std::uint64_t i = 0; i < entries; ++i) {
    const std::string entry = fmt::format("entry {}", i);
    const auto length = length_field(in, 1, kLongestName, "length of an entry's name");
    std::string name = in.text(length, kLongestName, entry + ", name");
    if (!is_clean_utf8(name))
      in.refuse(fmt::format("{}: the name '{}' is not UTF-8 without NUL", entry, printable(name)));
    const auto calls = length_field(in, 0, std::numeric_limits<std::int32_t>::max(), "number of calls");
    const auto values = length_field(in, 0, std::numeric_limits<std::int32_t>::max(), "number of values");
    out.catalogue.tensors.push_back(f32_tensor(std::move(name), {values}, in.offset()));
    out.stacks.push_back({0, values, {static_cast<float>(calls)}});
    in.skip(values, sizeof(float), fmt::format("values of '{}'", printable(out.catalogue.tensors.back().name)));
  }
  read_trailer(in);
  return sorted(std::move(out), file);
}

Imatrix read_gguf_imatrix(const std::filesystem::path& path) {
  const File file(path, File::Mode::read);
  const GgufHeader header = read_gguf_header(file);
  if (const std::string* type = header.text("general.type"); type == nullptr || *type != "imatrix")
    fail(Errc::unsupported, fmt::format("{}: found a GGUF file of type '{}', expected 'imatrix'",
                                        printable(path.native()), type == nullptr ? "model" : printable(*type)));
  constexpr std::string_view kSums = ".in_sum2", kCounts = ".counts";
  std::map<std::string, const GgufTensor*> counts;
  for (const GgufTensor& tensor : header.tensors)
    if (tensor.name.ends_with(kCounts)) counts[tensor.name.substr(0, tensor.name.size() - kCounts.size())] = &tensor;
  Imatrix out{.catalogue = catalogue_of(file, "GGUF imatrix"), .stacks = {}};
  for (const GgufTensor& tensor : header.tensors) {
    if (!tensor.name.ends_with(kSums)) continue;
    const std::string name = tensor.name.substr(0, tensor.name.size() - kSums.size());
    const auto at = counts.find(name);
    add_entry(file, name, tensor, at == counts.end() ? nullptr : at->second, out);
  }
  if (out.stacks.empty())
    fail(Errc::malformed,
         fmt::format("{}: an imatrix without an entry ('NAME.in_sum2' with 'NAME.counts')", printable(path.native())));
  return sorted(std::move(out), file);
}

}  // namespace lmq
