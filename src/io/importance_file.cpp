#include "lmq/io/importance_file.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "file_kind.hpp"
#include "imatrix.hpp"
#include "importance_curvature.hpp"
#include "importance_facts.hpp"
#include "importance_match.hpp"
#include "importance_names.hpp"
#include "importance_numbers.hpp"
#include "lmq/base/bytes.hpp"
#include "lmq/base/digest.hpp"
#include "lmq/base/error.hpp"
#include "lmq/base/parallel.hpp"
#include "lmq/base/text.hpp"
#include "lmq/io/curvature_names.hpp"

namespace lmq {
namespace {

/// Catalogue and stacks of a file of any kind.
Catalogue open_catalogue(const std::filesystem::path& path, const ImportanceFile::Options& options,
                         std::vector<ImportanceStack>& stacks) {
  std::error_code ignored;
  if (!std::filesystem::is_directory(path, ignored)) {
    const File file(path, File::Mode::read);
    const FileFormat format = recognize(file);
    Imatrix imatrix;
    if (format.kind == FileKind::hdf5 && options.read_hdf5) return options.read_hdf5(path);
    if (format.kind == FileKind::gguf)
      imatrix = read_gguf_imatrix(path);
    else if (format.kind == FileKind::unknown && looks_like_binary_imatrix(file))
      imatrix = read_binary_imatrix(path);
    else if (format.kind == FileKind::unknown || format.is_foreign())
      fail(Errc::unsupported,
           fmt::format(
               "{}: {}an importance file is expected: safetensors, HDF5, or llama.cpp's imatrix (GGUF or binary)",
               printable(path.native()), format.words.empty() ? "" : fmt::format("found {}, ", format.words)));
    if (!imatrix.stacks.empty()) {
      stacks = std::move(imatrix.stacks);
      return std::move(imatrix.catalogue);
    }
  }
  return open_reader(path)->catalogue();
}

std::uint32_t steps_of(double power) { return static_cast<std::uint32_t>(std::lround(std::ldexp(power, 24))); }

/// Mean of the slices of which something is known, each column by itself: sum of sums / sum of divisors.
std::vector<float> pooled_slice(const Reader& reader, const ImportanceStack& stack) {
  std::vector<double> sums(static_cast<std::size_t>(stack.length));
  std::vector<float> slice(sums.size());
  double divisors = 0;
  for (std::size_t s = 0; s < stack.divisors.size(); ++s) {
    if (stack.divisors[s] == 0) continue;
    read_numbers(reader, stack.tensor, s * stack.length, slice);
    for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += double{slice[i]};
    divisors += double{stack.divisors[s]};
  }
  for (std::size_t i = 0; i < sums.size(); ++i) slice[i] = static_cast<float>(sums[i] / divisors);
  return slice;
}

double damped(const ImportancePart& part, double value) noexcept {
  return (value + part.damping * part.mean) / (1 + part.damping);
}

/// Sets a part's damping; blocks: largest and mean of its equal blocks, which become those of the damped numbers.
void damp(ImportancePart& part, double damping, std::span<std::pair<float, double>> blocks) {
  if (part.tensor < 0 || !(damping > 0)) return;
  part.damping = damping;
  for (const auto& [largest, mean] : blocks) part.mean += mean / static_cast<double>(blocks.size());
  for (auto& [largest, mean] : blocks) {
    largest = static_cast<float>(damped(part, double{largest}));
    mean = damped(part, mean);
  }
}

void put_part(ByteWriter& out, const ImportancePart& part) {
  out.le(part.tensor), out.le(part.first), out.le(part.count), out.le(part.stack);
  out.le(part.matrix), out.le(part.matrix_run), out.le(part.power), out.le(part.damping), out.le(part.mean);
}

ImportancePart take_part(ByteReader& in) {
  ImportancePart part;
  part.tensor = in.le<std::int64_t>("tensor"), part.first = in.le<std::uint64_t>("first");
  part.count = in.le<std::uint64_t>("count"), part.stack = in.le<std::int64_t>("stack");
  part.matrix = in.le<std::uint64_t>("matrix"), part.matrix_run = in.le<std::uint64_t>("matrix run");
  part.power = in.le<double>("power");
  part.damping = in.le<double>("damping"), part.mean = in.le<double>("mean");
  return part;
}

void put_matrices(ByteWriter& out, const ImportanceMatrices& matrices) {
  out.le(matrices.tensor), out.le(matrices.size), out.le(matrices.run), out.le(matrices.blocks), out.le(matrices.rows);
}

ImportanceMatrices take_matrices(ByteReader& in) {
  ImportanceMatrices matrices;
  matrices.tensor = in.le<std::int64_t>("tensor"), matrices.size = in.le<std::uint64_t>("size");
  matrices.run = in.le<std::uint64_t>("run"), matrices.blocks = in.le<std::uint64_t>("blocks");
  matrices.rows = in.le<std::uint64_t>("rows");
  return matrices;
}

void put_entry(ByteWriter& out, const ImportanceEntry& entry) {
  out.text(entry.weight);
  out.le(static_cast<std::uint8_t>(entry.info.kind));
  put_part(out, entry.values), put_part(out, entry.rows);
  out.le(entry.info.length), out.le(entry.info.block_rows), out.le(entry.info.largest), out.le(entry.info.mean);
  out.le(std::uint64_t{entry.pooled.size()});
  out.array(std::span<const std::uint32_t>(entry.pooled));
  put_matrices(out, entry.gram), put_matrices(out, entry.outer);
  out.le(entry.outer_mean);
}

void note_curvature(ImportanceEntry& entry) {
  entry.info.gram = entry.gram.tensor >= 0;
  entry.info.gram_each = entry.gram.blocks > 1;
  entry.info.outer_rows = entry.outer.tensor >= 0 ? entry.outer.size : 0;
}

ImportanceEntry take_entry(ByteReader& in) {
  ImportanceEntry entry;
  entry.weight = in.text("weight");
  const auto kind = in.le<std::uint8_t>("kind");
  if (kind > static_cast<std::uint8_t>(ImportanceKind::weights)) in.refuse("no kind of importance");
  entry.info.kind = static_cast<ImportanceKind>(kind);
  entry.values = take_part(in), entry.rows = take_part(in);
  entry.info.length = in.le<std::uint64_t>("length"), entry.info.block_rows = in.le<std::uint64_t>("block rows");
  entry.info.largest = in.le<double>("largest"), entry.info.mean = in.le<double>("mean");
  entry.pooled = in.array<std::uint32_t>(in.le<std::uint64_t>("pooled experts"), "pooled experts");
  entry.gram = take_matrices(in), entry.outer = take_matrices(in);
  note_curvature(entry);
  entry.outer_mean = in.le<double>("mean of the outputs' curvature");
  return entry;
}

void put_names(ByteWriter& out, const std::vector<std::string>& names) {
  out.le(std::uint64_t{names.size()});
  for (const std::string& one : names) out.text(one);
}

std::vector<std::string> take_names(ByteReader& in) {
  std::vector<std::string> names;
  for (auto left = in.le<std::uint64_t>("names"); left > 0; --left) names.push_back(in.text("name"));
  return names;
}

}  // namespace

double raised(double value, std::uint32_t steps) noexcept {
  double result = 1;
  for (std::uint32_t whole = steps >> 24; whole > 0; --whole) result *= value;
  double root = value;
  for (std::uint32_t rest = steps & 0xFFFFFFu; rest != 0; rest = rest << 1 & 0xFFFFFFu) {
    root = std::sqrt(root);
    if (rest & 0x800000u) result *= root;
  }
  return result;
}

ImportanceFile::ImportanceFile(const std::filesystem::path& path, const Catalogue& checkpoint, const Options& options) {
  if (options.power && !(*options.power >= 0x1p-24 && *options.power <= 2))
    fail(Errc::internal, fmt::format("an exponent of {}", *options.power));
  reader_ = open_reader(open_catalogue(path, options, stacks_));
  const auto numbers = [this](std::uint32_t tensor, std::uint64_t first, std::span<float> out) {
    read_numbers(*reader_, tensor, first, out);
  };
  const Wanted wanted{checkpoint, options.wanted, options.curvature, read_model_config(checkpoint.folder)};
  ImportanceMatch match = match_importance(catalogue(), wanted, options.power.value_or(-1), stacks_, numbers);
  entries_ = std::move(match.entries);
  unused_ = std::move(match.unused), unknown_ = std::move(match.unknown);
  std::vector<std::vector<std::uint64_t>> digests(entries_.size());
  parallel_for(entries_.size(), [&](std::size_t i) {
    note_curvature(entries_[i]);
    summarise(entries_[i], options.damping, digests[i]);
  });
  ByteWriter all;
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    const ImportanceEntry& entry = entries_[i];
    all.text(entry.weight);
    all.le(static_cast<std::uint8_t>(entry.info.kind));
    for (const std::uint64_t number : {entry.info.length, entry.info.block_rows, entry.values.count, entry.rows.count})
      all.le(number);
    all.array(std::span<const std::uint64_t>(digests[i]));
  }
  digest_ = digest128_hex(all.bytes());
}

ImportanceFacts facts_of_importance(const std::filesystem::path& path, const Catalogue& checkpoint,
                                    const ImportanceFile::Options& options) {
  std::set<std::string> wanted;
  for (const TensorInfo& weight : checkpoint.tensors)
    if (weight.shape.size() >= 2 && is_float(weight.value_type()))
      for (const char* matrix : {".gram", ".outer"}) wanted.insert(with_dots(weight.name) + matrix);
  std::vector<ImportanceStack> stacks;
  const Catalogue file = open_catalogue(path, options, stacks);
  return {knows_curvature(file, wanted), samples_of(file)};
}

std::vector<std::byte> ImportanceFile::to_bytes() const {
  ByteWriter out;
  const auto listed = catalogue().to_bytes();
  out.le(std::uint64_t{listed.size()});
  out.raw(listed);
  out.le(std::uint64_t{stacks_.size()});
  for (const ImportanceStack& stack : stacks_) {
    out.le(stack.tensor), out.le(stack.length), out.le(std::uint64_t{stack.divisors.size()});
    out.array(std::span<const float>(stack.divisors));
  }
  out.le(std::uint64_t{entries_.size()});
  for (const ImportanceEntry& entry : entries_) put_entry(out, entry);
  put_names(out, unused_), put_names(out, unknown_);
  out.text(digest_);
  return out.take();
}

ImportanceFile ImportanceFile::from_bytes(std::span<const std::byte> bytes) {
  ByteReader in(bytes, "importance of rank 0");
  ImportanceFile file;
  file.reader_ = open_reader(Catalogue::from_bytes(in.raw(in.le<std::uint64_t>("catalogue"), "catalogue")));
  for (auto left = in.le<std::uint64_t>("stacks"); left > 0; --left) {
    ImportanceStack& stack = file.stacks_.emplace_back();
    stack.tensor = in.le<std::uint32_t>("tensor"), stack.length = in.le<std::uint64_t>("length");
    stack.divisors = in.array<float>(in.le<std::uint64_t>("divisors"), "divisors");
  }
  for (auto left = in.le<std::uint64_t>("entries"); left > 0; --left) file.entries_.push_back(take_entry(in));
  file.unused_ = take_names(in), file.unknown_ = take_names(in);
  file.digest_ = in.text("digest");
  if (in.left() > 0) in.refuse("bytes behind the end");
  return file;
}

const ImportanceEntry* ImportanceFile::find(std::string_view weight) const noexcept {
  const auto at = std::ranges::lower_bound(entries_, weight, {},
                                           [](const ImportanceEntry& entry) { return std::string_view(entry.weight); });
  return at != entries_.end() && at->weight == weight ? &*at : nullptr;
}

void ImportanceFile::read(const ImportancePart& part, std::uint64_t begin, std::span<float> values) const {
  if (begin > part.count || values.size() > part.count - begin || part.tensor < 0)
    fail(Errc::internal, fmt::format("importance: numbers {} + {} of {}", begin, values.size(), part.count));
  const auto tensor = static_cast<std::uint32_t>(part.tensor);
  if (part.matrix > 0) {
    for (std::size_t i = 0; i < values.size(); ++i)
      read_numbers(*reader_, tensor, diagonal_place(part, begin + i), values.subspan(i, 1));
  } else if (part.stack < 0) {
    read_numbers(*reader_, tensor, part.first + begin, values);
  } else {
    const ImportanceStack& stack = stacks_.at(static_cast<std::size_t>(part.stack));
    std::vector<float> pooled;
    for (std::size_t done = 0; done < values.size();) {
      const std::uint64_t at = part.first + begin + done, slice = at / stack.length, within = at % stack.length;
      const auto run =
          values.subspan(done, static_cast<std::size_t>(std::min(stack.length - within, values.size() - done)));
      if (const float divisor = stack.divisors.at(static_cast<std::size_t>(slice)); divisor > 0) {
        read_numbers(*reader_, tensor, at, run);
        for (float& value : run) value = static_cast<float>(double{value} / double{divisor});
      } else {
        if (pooled.empty()) pooled = pooled_slice(*reader_, stack);
        std::ranges::copy(std::span(pooled).subspan(static_cast<std::size_t>(within), run.size()), run.begin());
      }
      done += run.size();
    }
  }
  raise_all(part, begin, values);
  if (part.damping > 0)
    for (float& value : values) value = static_cast<float>(damped(part, double{value}));
}

void ImportanceFile::raise_all(const ImportancePart& part, std::uint64_t begin, std::span<float> values) const {
  const auto tensor = static_cast<std::uint32_t>(part.tensor);
  const std::uint32_t steps = steps_of(part.power);
  if (steps == 1u << 24 && part.stack < 0) return;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const float before = values[i];
    if (steps != 1u << 24) values[i] = static_cast<float>(raised(double{before}, steps));
    if (!std::isfinite(values[i]))
      fail(Errc::malformed,
           fmt::format("{}: importance {} is {}; to the power of {} it is no finite float",
                       place_of(catalogue(), catalogue().tensors[tensor]), begin + i, before, part.power));
  }
}

void ImportanceFile::read(const ImportanceEntry& entry, std::uint64_t begin, std::uint64_t count,
                          ImportanceWindow& window) const {
  const ImportanceInfo& info = entry.info;
  Importance& made = window.importance;
  made = {};
  made.kind = info.kind;
  if (info.kind == ImportanceKind::weights) {
    window.values.resize(static_cast<std::size_t>(count));
    read(entry.values, begin, window.values);
    made.values = window.values;
    return;
  }
  const std::uint64_t row = begin / info.length;
  const std::uint64_t last = count == 0 ? row : (begin + count - 1) / info.length;
  made.first_column = begin % info.length;
  made.length = info.length;
  made.block_rows = info.block_rows;
  made.first_row = info.block_rows == 0 ? 0 : row % info.block_rows;
  if (entry.values.tensor < 0) {
    window.values.assign(static_cast<std::size_t>(info.length), 1.0f);
  } else {
    const std::uint64_t first_block = info.block_rows == 0 ? 0 : row / info.block_rows;
    const std::uint64_t blocks = info.block_rows == 0 ? 1 : last / info.block_rows - first_block + 1;
    window.values.resize(static_cast<std::size_t>(blocks * info.length));
    read(entry.values, first_block * info.length, window.values);
  }
  made.values = window.values;
  if (entry.rows.tensor < 0) return;
  window.rows.resize(static_cast<std::size_t>(last - row + 1));
  read(entry.rows, row, window.rows);
  made.rows = window.rows;
}

void ImportanceFile::summarise(ImportanceEntry& entry, double damping, std::vector<std::uint64_t>& digests) const {
  std::vector<float> values;
  // Largest and mean of numbers [begin, begin + count) of a part, piece by piece in order.
  const auto look = [&](const ImportancePart& part, std::uint64_t begin, std::uint64_t count) {
    std::pair<float, double> found{0, 0};
    for (std::uint64_t at = begin; at < begin + count; at += kNumbersAtOnce) {
      values.resize(static_cast<std::size_t>(std::min(kNumbersAtOnce, begin + count - at)));
      read(part, at, values);
      digests.push_back(digest64(std::as_bytes(std::span<const float>(values))));
      for (const float value : values) {
        found.first = std::max(found.first, value);
        found.second += double{value};
      }
    }
    found.second /= static_cast<double>(std::max<std::uint64_t>(1, count));
    return found;
  };
  const std::uint64_t blocks =
      entry.info.block_rows == 0 ? 1 : entry.values.count / std::max<std::uint64_t>(1, entry.info.length);
  std::vector<std::pair<float, double>> columns(blocks, {1, 1}), rows(blocks, {1, 1});
  for (std::uint64_t block = 0; block < blocks; ++block) {
    const std::uint64_t block_values = entry.values.count / blocks, block_rows = entry.rows.count / blocks;
    if (entry.values.tensor >= 0) columns[block] = look(entry.values, block * block_values, block_values);
    if (entry.rows.tensor >= 0) rows[block] = look(entry.rows, block * block_rows, block_rows);
  }
  const auto mean_diagonal = [&](const ImportanceMatrices& matrices) {
    const ImportancePart diagonal = diagonal_of(matrices);
    return diagonal.tensor < 0 ? 0 : look(diagonal, 0, diagonal.count).second;
  };
  if (entry.gram.tensor >= 0 || entry.outer.tensor >= 0) {
    (void)mean_diagonal(entry.gram);  // for the digest
    entry.outer_mean = mean_diagonal(entry.outer);
    damping = 0;
  }
  damp(entry.values, damping, columns);
  damp(entry.rows, damping, rows);
  take_products(entry, columns, rows);
}

void ImportanceFile::take_products(ImportanceEntry& entry, std::span<const std::pair<float, double>> columns,
                                   std::span<const std::pair<float, double>> rows) const {
  double sum = 0;
  for (std::size_t block = 0; block < columns.size(); ++block) {
    const float largest = columns[block].first * rows[block].first;
    const bool lost = largest == 0 && columns[block].first > 0 && rows[block].first > 0;
    if (lost || !std::isfinite(largest)) refuse_product(entry, rows[block].first, columns[block].first);
    entry.info.largest = std::max(entry.info.largest, double{largest});
    sum += columns[block].second * rows[block].second;
  }
  entry.info.mean = sum / static_cast<double>(columns.size());
}

void ImportanceFile::refuse_product(const ImportanceEntry& entry, float rows, float columns) const {
  const ImportancePart& named = entry.rows.tensor < 0 ? entry.values : entry.rows;
  fail(Errc::malformed,
       fmt::format("{}: tensor '{}': importance of its rows ({}) times that of its columns ({}) is no finite float or "
                   "rounds to 0: multiply the file's numbers by what brings them near 1",
                   place_of(catalogue(), catalogue().tensors[static_cast<std::size_t>(named.tensor)]),
                   printable(entry.weight), rows, columns));
}

}  // namespace lmq
