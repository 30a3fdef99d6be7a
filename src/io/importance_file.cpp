#include "lmq/io/importance_file.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "lmq/base/error.hpp"
#include "lmq/base/parallel.hpp"
#include "lmq/base/text.hpp"
#include "small_floats.hpp"

namespace lmq {
namespace {

constexpr std::uint64_t kPiece = std::uint64_t{1} << 18;  // values scanned at once

void check_types(const Catalogue& catalogue) {
  for (const TensorInfo& tensor : catalogue.tensors)
    if (tensor.dtype != DType::f32 && tensor.dtype != DType::f16 && tensor.dtype != DType::bf16 &&
        tensor.dtype != DType::f64)
      fail(Errc::unsupported, fmt::format("{}: tensor '{}': importance of {}, expected F32, F16, BF16 or F64",
                                          printable((catalogue.folder / catalogue.shards[tensor.shard].name).native()),
                                          printable(tensor.name), name(tensor.dtype)));
}

void read_floats(const Reader& reader, const TensorInfo& tensor, std::uint64_t begin, std::span<float> values,
                 std::vector<std::byte>& scratch) {
  const TensorView view = reader.view(tensor, begin, values.size(), scratch);
  to_floats(view.dtype, view.bytes, values);
}

/// Largest of some values. A value is refused where it is not finite (as float) or negative.
float largest_of(std::span<const float> values, const Catalogue& catalogue, const TensorInfo& tensor,
                 std::uint64_t begin) {
  float largest = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (!(values[i] >= 0 && std::isfinite(values[i])))
      fail(Errc::malformed, fmt::format("{}: tensor '{}': importance {} is {}, expected a finite number >= 0",
                                        printable((catalogue.folder / catalogue.shards[tensor.shard].name).native()),
                                        printable(tensor.name), begin + i, values[i]));
    largest = std::max(largest, values[i]);
  }
  return largest;
}

/// Largest value of each tensor, all read once. Pieces in order of (tensor, begin), so that the first bad value is
/// named.
std::vector<double> scan(const Reader& reader) {
  struct Piece {
    std::size_t tensor;
    std::uint64_t begin, count;
  };
  const std::vector<TensorInfo>& tensors = reader.catalogue().tensors;
  std::vector<Piece> pieces;
  for (std::size_t t = 0; t < tensors.size(); ++t)
    for (std::uint64_t begin = 0, count = tensors[t].count(); begin < count; begin += kPiece)
      pieces.push_back({t, begin, std::min(kPiece, count - begin)});
  std::vector<float> found(pieces.size());
  std::vector<std::pair<std::vector<std::byte>, std::vector<float>>> scratch(thread_count());
  parallel_for_worker(pieces.size(), [&](std::size_t i, std::size_t worker) {
    const Piece& piece = pieces[i];
    auto& [bytes, values] = scratch[worker];
    values.resize(static_cast<std::size_t>(piece.count));
    read_floats(reader, tensors[piece.tensor], piece.begin, values, bytes);
    found[i] = largest_of(values, reader.catalogue(), tensors[piece.tensor], piece.begin);
  });
  std::vector<double> largest(tensors.size());
  for (std::size_t i = 0; i < pieces.size(); ++i)
    largest[pieces[i].tensor] = std::max(largest[pieces[i].tensor], double{found[i]});
  return largest;
}

}  // namespace

ImportanceFile::ImportanceFile(const std::filesystem::path& path) : reader_(open_reader(path)) {
  check_types(catalogue());
  largest_ = scan(*reader_);
}

ImportanceFile::ImportanceFile(Catalogue catalogue, std::vector<double> largest)
    : reader_(open_reader(std::move(catalogue))), largest_(std::move(largest)) {
  if (largest_.size() != reader_->catalogue().tensors.size())
    fail(Errc::internal, fmt::format("{} largest values for {} tensors of importance", largest_.size(),
                                     reader_->catalogue().tensors.size()));
}

std::optional<ImportanceFile::Entry> ImportanceFile::find(const TensorInfo& weight, std::uint64_t cols) const {
  const std::int64_t at = catalogue().find(weight.name);
  if (at < 0) return std::nullopt;
  const TensorInfo& tensor = catalogue().tensors[static_cast<std::size_t>(at)];
  const bool per_weight = tensor.shape == weight.shape;
  if (!per_weight && tensor.shape != std::vector<std::uint64_t>{cols})
    fail(Errc::malformed,
         fmt::format("{}: tensor '{}': importance has shape [{}], expected [{}] (per column) or [{}] (per weight)",
                     printable((catalogue().folder / catalogue().shards[tensor.shard].name).native()),
                     printable(tensor.name), fmt::join(tensor.shape, ", "), cols, fmt::join(weight.shape, ", ")));
  return Entry{.per_column = !per_weight,
               .tensor = static_cast<std::uint32_t>(at),
               .largest = largest_[static_cast<std::size_t>(at)]};
}

std::vector<std::string> ImportanceFile::unused(const Catalogue& checkpoint) const {
  std::vector<std::string> names;
  for (const TensorInfo& tensor : catalogue().tensors)
    if (checkpoint.find(tensor.name) < 0) names.push_back(tensor.name);
  return names;
}

void ImportanceFile::read(const Entry& entry, std::uint64_t begin, std::uint64_t count,
                          std::vector<float>& values) const {
  const TensorInfo& tensor = catalogue().tensors.at(entry.tensor);
  if (begin > tensor.count() || count > tensor.count() - begin)
    fail(Errc::internal,
         fmt::format("importance of '{}': values {} + {} of {}", printable(tensor.name), begin, count, tensor.count()));
  values.resize(static_cast<std::size_t>(count));
  constexpr std::uint64_t kSmall = std::uint64_t{1} << 16;  // the bytes pass through the cache, not through fresh pages
  std::vector<std::byte> scratch;
  for (std::uint64_t done = 0; done < count; done += kSmall)
    read_floats(*reader_, tensor, begin + done, std::span(values).subspan(done, std::min(kSmall, count - done)),
                scratch);
}

}  // namespace lmq
