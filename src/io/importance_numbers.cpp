#include "importance_numbers.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "lmq/base/error.hpp"
#include "lmq/base/text.hpp"
#include "small_floats.hpp"

namespace lmq {
namespace {

/// Says that a number of the file, as it became a float, is none that may stand there.
// More than 5 parameters: most are for the message.
[[noreturn]] void refuse_number(const std::string& place, const TensorView& view, std::size_t at, std::uint64_t index,
                                float value, bool with_sign) {
  if (view.dtype == DType::f64) {
    double stored = 0;
    std::memcpy(&stored, view.bytes.data() + at * sizeof(double), sizeof(double));
    if (std::isfinite(stored) && std::isinf(value))
      fail(Errc::malformed, fmt::format("{}: importance {} is {}, beyond what F32 holds ({}): scale all numbers by "
                                        "one factor",
                                        place, index, stored, std::numeric_limits<float>::max()));
  }
  fail(Errc::malformed, fmt::format("{}: importance {} is {}, expected a finite number{}", place, index, value,
                                    with_sign ? "" : " >= 0"));
}

}  // namespace

std::string place_of(const Catalogue& catalogue, const TensorInfo& tensor) {
  return fmt::format("{}: tensor '{}'", printable((catalogue.folder / catalogue.shards[tensor.shard].name).native()),
                     printable(tensor.name));
}

void read_numbers(const Reader& reader, std::uint32_t index, std::uint64_t first, std::span<float> out,
                  bool with_sign) {
  const Catalogue& catalogue = reader.catalogue();
  const TensorInfo& tensor = catalogue.tensors.at(index);
  if (tensor.dtype != DType::f32 && tensor.dtype != DType::f16 && tensor.dtype != DType::bf16 &&
      tensor.dtype != DType::f64)
    fail(Errc::unsupported, fmt::format("{}: importance of {}, expected F32, F16, BF16 or F64",
                                        place_of(catalogue, tensor), name(tensor.dtype)));
  if (first > tensor.count() || out.size() > tensor.count() - first)
    fail(Errc::internal,
         fmt::format("{}: numbers {} + {} of {}", place_of(catalogue, tensor), first, out.size(), tensor.count()));
  std::vector<std::byte> scratch;
  for (std::uint64_t done = 0; done < out.size(); done += kNumbersAtOnce) {
    const auto piece = out.subspan(static_cast<std::size_t>(done), std::min(kNumbersAtOnce, out.size() - done));
    const TensorView view = reader.view(tensor, first + done, piece.size(), scratch);
    to_floats(view.dtype, view.bytes, piece);
    for (std::size_t i = 0; i < piece.size(); ++i)
      if (!std::isfinite(piece[i]) || (!with_sign && piece[i] < 0))
        refuse_number(place_of(catalogue, tensor), view, i, first + done + i, piece[i], with_sign);
  }
}

}  // namespace lmq
