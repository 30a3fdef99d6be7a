#include "verify_units.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "lmq/base/digest.hpp"
#include "lmq/base/error.hpp"
#include "lmq/base/math.hpp"
#include "lmq/base/parallel.hpp"
#include "lmq/base/text.hpp"
#include "lmq/codec/record.hpp"
#include "lmq/quant/unit.hpp"

namespace lmq::app {
namespace {

/// Buffers one worker keeps.
struct Scratch {
  std::vector<std::byte> stored, source;
  ImportanceWindow importance;
};

/// What one unit is checked with and where its differences go.
struct Check {
  const QuantizedFile& file;
  const Original& original;
  const StoredUnit& unit;
  Scratch& scratch;
  UnitFound& found;
  [[nodiscard]] const StoredTensor& tensor() const { return file.tensors()[unit.tensor]; }
  void differs(const std::string& what) const { found.texts.push_back(fmt::format("{}: {}", file.place(unit), what)); }
  void compare(const char* what, double measured, double recorded) const {
    if (std::bit_cast<std::uint64_t>(measured) != std::bit_cast<std::uint64_t>(recorded))
      differs(fmt::format("{} is {}, recorded is {}", what, measured, recorded));
  }
};

/// A codebook for the whole tensor is also listed as plain numbers; the first unit's record is the one compared.
void check_codebook(const Check& check) {
  if (check.unit.begin != 0 || check.original.listed == nullptr) return;
  const auto listed = check.original.listed->of(check.tensor());
  if (!listed) return;
  const QuantizedUnit unit = decode_record_book(check.scratch.stored, check.file.place(check.unit));
  const std::vector<float> numbers = check.file.version() == 1 ? levels_of(unit) : listed_codebook(unit).numbers;
  if (!std::ranges::equal(std::as_bytes(std::span(*listed)), std::as_bytes(std::span(numbers))))
    check.differs("the record's codebook is not that in /lmq/codebooks");
}

/// Decodes the record into `meter` (nullptr: into nothing).
bool check_record(const Check& check, ErrorMeter* meter) {
  const std::string place = check.file.place(check.unit);
  const RecordHeader header = read_record_header(check.scratch.stored, place);
  if (header.count != check.unit.count) {
    check.differs(fmt::format("the record holds {} weights, the tables say {}", header.count, check.unit.count));
    return false;
  }
  decode_record_pieces(check.scratch.stored, place, [&](std::uint64_t begin, std::span<const float> values) {
    if (meter != nullptr) meter->add(begin, values);
  });
  check_codebook(check);
  return true;
}

Importance importance_of(const Check& check, const TensorInfo& tensor) {
  const ImportanceFile* file = check.original.importance;
  if (file == nullptr) return {};
  const ImportanceEntry* const entry = file->find(tensor.name);
  if (entry == nullptr) return {};
  file->read(*entry, check.unit.begin, check.unit.count, check.scratch.importance);
  return check.scratch.importance.importance;
}

/// The tensor it is compared with, or nullptr.
const TensorInfo* original_of(const Check& check) {
  if (check.original.reader == nullptr || check.original.tensor_of[check.unit.tensor] < 0) return nullptr;
  const auto index = static_cast<std::size_t>(check.original.tensor_of[check.unit.tensor]);
  return &check.original.reader->catalogue().tensors[index];
}

TensorView view_original(const Check& check, const TensorInfo& listed) {
  return check.original.reader->view(as_stored(listed, check.tensor().treatment), check.unit.begin, check.unit.count,
                                     check.scratch.source);
}

void check_quantized(const Check& check) {
  const TensorInfo* const listed = original_of(check);
  if (listed == nullptr) return static_cast<void>(check_record(check, nullptr));
  const TensorView view = view_original(check, *listed);
  const std::uint64_t digest = digest64(view.bytes);
  const Importance importance = importance_of(check, *listed);
  ErrorMeter meter(view, importance);
  const bool same = digest == check.unit.source_digest;
  if (!check_record(check, same ? &meter : nullptr)) return;
  if (!same)
    return check.differs(fmt::format("the original's values have digest {}, it was made from {}", hex(digest),
                                     hex(check.unit.source_digest)));
  const UnitStats found = meter.stats();
  check.compare("the squared error", found.squared_error, check.unit.squared_error);
  check.compare("the energy", found.energy, check.unit.energy);
  check.compare("the largest error", found.largest_error, check.unit.largest_error);
  if (check.original.importance != nullptr)
    check.compare("the weighted error", found.weighted_error, check.unit.weighted_error);
  else if (check.original.weighted_is_squared)
    check.compare("the weighted error", found.squared_error, check.unit.weighted_error);
}

void check_unit(const Check& check) {
  if (check.unit.offset == 0) return;  // already a finding of the tables
  check.file.read(check.unit, check.scratch.stored);
  check.found.stored = digest64(check.scratch.stored);
  if (check.unit.digest && check.found.stored != *check.unit.digest)
    return check.differs(fmt::format("the stored bytes have digest {}, recorded is {}", hex(check.found.stored),
                                     hex(*check.unit.digest)));
  if (check.tensor().treatment == Treatment::quantize) return check_quantized(check);
  if (const TensorInfo* const listed = original_of(check);
      listed != nullptr && !std::ranges::equal(view_original(check, *listed).bytes, check.scratch.stored))
    check.differs("the kept bytes are not those of the original");
}

/// What a worker holds for a unit: its stored bytes and those of the original.
std::uint64_t bytes_held(const QuantizedFile& file, const Original& original, const StoredUnit& unit) {
  std::uint64_t bytes = unit.bytes;
  if (original.reader != nullptr && original.tensor_of[unit.tensor] >= 0) {
    const auto index = static_cast<std::size_t>(original.tensor_of[unit.tensor]);
    const TensorInfo& listed = original.reader->catalogue().tensors[index];
    const bool scaled = listed.scale >= 0 && file.tensors()[unit.tensor].treatment == Treatment::quantize;
    bytes += ceil_div(unit.count * bits(listed.dtype), 8) + (scaled ? unit.count * sizeof(float) : 0) +
             unit.count / kErrorBlock * sizeof(ErrorSums) +
             (original.importance != nullptr ? unit.count * sizeof(float) : 0);
  }
  return bytes;
}

void check_one(const QuantizedFile& file, const Original& original, Scratch& scratch, UnitFound& one) {
  try {
    check_unit({file, original, file.units()[one.unit], scratch, one});
  } catch (const Error& error) {  // a broken record, or an original that cannot be read: a difference like others
    one.texts.push_back(error.what());
  }
}

}  // namespace

std::uint64_t most_bytes_held(const QuantizedFile& file, const Original& original) {
  std::uint64_t most = 0;
  for (const StoredUnit& unit : file.units()) most = std::max(most, bytes_held(file, original, unit));
  return most;
}

std::vector<UnitFound> check_units(const QuantizedFile& file, const Original& original, const Share& share,
                                   std::uint64_t memory, Progress& progress) {
  const auto& [first, stride] = share;
  std::vector<UnitFound> found;
  std::vector<std::size_t> large, usual;
  for (std::uint64_t u = first; u < file.units().size(); u += stride) {
    const std::uint64_t bytes = bytes_held(file, original, file.units()[u]);
    (bytes > memory / thread_count() ? large : usual).push_back(found.size());
    found.push_back({u, 0, {}});
  }
  const auto all = static_cast<double>(found.size());
  std::vector<Scratch> scratch(thread_count());
  const std::size_t slice = 16 * thread_count();
  for (std::size_t begin = 0; begin < usual.size(); begin += slice) {
    const std::size_t count = std::min(slice, usual.size() - begin);
    parallel_for_worker(count, [&](std::size_t index, std::size_t worker) {
      check_one(file, original, scratch[worker], found[usual[begin + index]]);
    });
    progress.at(static_cast<double>(begin + count), all);
  }
  scratch.clear();
  for (std::size_t done = 0; done < large.size(); ++done) {  // the threads share the blocks of each
    Scratch own;
    check_one(file, original, own, found[large[done]]);
    progress.at(static_cast<double>(usual.size() + done + 1), all);
  }
  return found;
}

}  // namespace lmq::app
