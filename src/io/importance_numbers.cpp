#include "importance_numbers.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "lmq/base/error.hpp"
#include "lmq/base/text.hpp"
#include "small_floats.hpp"

namespace lmq {

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
        fail(Errc::malformed,
             fmt::format("{}: importance {} is {}, expected a finite number{}", place_of(catalogue, tensor),
                         first + done + i, piece[i], with_sign ? "" : " >= 0"));
  }
}

}  // namespace lmq
