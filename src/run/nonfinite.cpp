#include <set>

#include "lmq/base/bytes.hpp"
#include "lmq/base/dtype.hpp"
#include "lmq/base/error.hpp"
#include "lmq/quant/unit.hpp"
#include "lmq/run/quantize_run.hpp"
#include "lmq/run/signals.hpp"

namespace lmq {
namespace {

/// A scale that is no number makes none of what it scales.
bool has_finite_scale(const Reader& reader, const TensorInfo& tensor, std::vector<std::byte>& scratch) {
  if (tensor.scale < 0) return true;
  const TensorInfo& scale = reader.catalogue().tensors[static_cast<std::size_t>(tensor.scale)];
  for (std::uint64_t begin = 0; begin < scale.count(); begin += kUnitWeights)
    if (first_nonfinite(reader.view(scale, begin, std::min(kUnitWeights, scale.count() - begin), scratch)))
      return false;
  return true;
}

/// Tensors in which this rank's share (every size-th window) holds a NaN or infinity.
std::vector<std::uint32_t> scan_share(const Reader& reader, std::uint64_t rank, std::uint64_t size) {
  std::vector<std::uint32_t> found;
  std::vector<std::byte> scratch;
  std::uint64_t window = 0;
  const auto& tensors = reader.catalogue().tensors;
  for (std::uint32_t t = 0; t < tensors.size(); ++t) {
    if (!is_float(tensors[t].value_type())) continue;
    const std::uint64_t count = tensors[t].count();
    bool clean = has_finite_scale(reader, tensors[t], scratch);
    for (std::uint64_t begin = 0; begin < count; begin += kUnitWeights) {
      if (window++ % size != rank || !clean) continue;
      if (SignalGuard::raised() != 0)
        fail(Errc::interrupted, "interrupted by a signal: run the same command again to continue");
      const std::uint64_t length = std::min(kUnitWeights, count - begin);
      const std::uint64_t ahead = begin + size * kUnitWeights;
      if (ahead < count) reader.prefetch(tensors[t], ahead, std::min(kUnitWeights, count - ahead));
      clean = !first_nonfinite(reader.view(tensors[t], begin, length, scratch));
    }
    if (!clean) found.push_back(t);
  }
  return found;
}

}  // namespace

std::vector<std::uint32_t> find_nonfinite_tensors(Comm& comm, const Reader& reader) {
  std::vector<std::uint32_t> mine;
  run_agreed(comm, [&] {
    mine = scan_share(reader, static_cast<std::uint64_t>(comm.rank()), static_cast<std::uint64_t>(comm.size()));
  });
  const auto bytes_of = [](const auto& numbers) {
    ByteWriter out;
    for (const std::uint32_t number : numbers) out.le(number);
    return out.take();
  };
  const auto numbers_of = [](std::span<const std::byte> bytes) {
    ByteReader in(bytes, "tensors found by another rank");
    return in.array<std::uint32_t>(bytes.size() / sizeof(std::uint32_t), "tensors");
  };
  std::set<std::uint32_t> all;
  for (const std::vector<std::byte>& theirs : comm.gather(bytes_of(mine)))
    for (const std::uint32_t tensor : numbers_of(theirs)) all.insert(tensor);
  return numbers_of(comm.broadcast(bytes_of(all), 0));
}

}  // namespace lmq
