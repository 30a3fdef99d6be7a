#include "verify_units.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "lmq/base/digest.hpp"
#include "lmq/base/error.hpp"
#include "lmq/base/parallel.hpp"
#include "lmq/base/text.hpp"
#include "lmq/codec/record.hpp"
#include "lmq/quant/unit.hpp"
#include "lmq/run/importance_view.hpp"

namespace lmq::app {
namespace {

/// Buffers one worker keeps.
struct Scratch {
  std::vector<std::byte> stored, source;
  std::vector<float> values;
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
  if (check.unit.begin != 0) return;
  const auto listed = check.file.codebook(check.tensor());
  if (!listed) return;
  const auto levels = levels_of(decode_record(check.scratch.stored, check.file.place(check.unit)));
  if (!std::ranges::equal(std::as_bytes(std::span(*listed)), std::as_bytes(std::span(levels))))
    check.differs("the record's levels are not those in /lmq/codebooks");
}

bool check_record(const Check& check) {
  const std::string place = check.file.place(check.unit);
  const RecordHeader header = read_record_header(check.scratch.stored, place);
  if (header.count != check.unit.count) {
    check.differs(fmt::format("the record holds {} weights, the tables say {}", header.count, check.unit.count));
    return false;
  }
  check.scratch.values.resize(static_cast<std::size_t>(header.count));
  decode_record_values(check.scratch.stored, check.scratch.values, place);
  check_codebook(check);
  return true;
}

Importance importance_of(const Check& check, const TensorInfo& tensor) {
  const ImportanceFile* file = check.original.importance;
  if (file == nullptr) return {};
  const ImportanceEntry* const entry = file->find(tensor.name);
  if (entry == nullptr) return {};
  file->read(*entry, check.unit.begin, check.unit.count, check.scratch.importance);
  return view_of(check.scratch.importance);
}

void check_against(const Check& check, const TensorInfo& listed) {
  const StoredTensor& tensor = check.tensor();
  const TensorInfo info = as_stored(listed, tensor.treatment);
  const TensorView view = check.original.reader->view(info, check.unit.begin, check.unit.count, check.scratch.source);
  const std::uint64_t digest = digest64(view.bytes);
  if (tensor.treatment == Treatment::keep) {
    if (!std::ranges::equal(view.bytes, check.scratch.stored))
      check.differs("the kept bytes are not those of the original");
    return;
  }
  if (digest != check.unit.source_digest) {
    check.differs(fmt::format("the original's values have digest {}, it was made from {}", hex(digest),
                              hex(check.unit.source_digest)));
    return;
  }
  const UnitStats found = measure_error(view, check.scratch.values, importance_of(check, listed));
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
  if (check.tensor().treatment == Treatment::quantize && !check_record(check)) return;
  if (check.original.reader == nullptr || check.original.tensor_of[check.unit.tensor] < 0) return;
  const auto index = static_cast<std::size_t>(check.original.tensor_of[check.unit.tensor]);
  check_against(check, check.original.reader->catalogue().tensors[index]);
}

}  // namespace

std::vector<UnitFound> check_units(const QuantizedFile& file, const Original& original, std::uint64_t first,
                                   std::uint64_t stride, Progress& progress) {
  std::vector<UnitFound> found;
  for (std::uint64_t u = first; u < file.units().size(); u += stride) found.push_back({u, 0, {}});
  std::vector<Scratch> scratch(thread_count());
  const std::size_t slice = 16 * thread_count();
  for (std::size_t begin = 0; begin < found.size(); begin += slice) {
    const std::size_t count = std::min(slice, found.size() - begin);
    parallel_for_worker(count, [&](std::size_t index, std::size_t worker) {
      UnitFound& one = found[begin + index];
      try {
        check_unit({file, original, file.units()[one.unit], scratch[worker], one});
      } catch (const Error& error) {  // a broken record, or an original that cannot be read: a difference like others
        one.texts.push_back(error.what());
      }
    });
    progress.at(static_cast<double>(begin + count), static_cast<double>(found.size()));
  }
  return found;
}

}  // namespace lmq::app
