#pragma once
#include <string>
#include <vector>

#include "lmq/base/bytes.hpp"
#include "make_safetensors.hpp"

// llama.cpp's importance matrices for tests, written from the description of the formats.
namespace lmq::test {

struct TestMatrix {
  std::string name;
  std::vector<float> values;  ///< [matrices][columns]: mean squares
  std::vector<float> counts;  ///< [matrices]
};

inline void put_text(ByteWriter& out, std::string_view text, bool wide) {
  if (wide)
    out.le(std::uint64_t{text.size()});
  else
    out.le(static_cast<std::int32_t>(text.size()));
  out.raw(std::as_bytes(std::span(text)));
}

/// The older format: mean squares times `calls`; slices of count 0 are stored as ones.
inline std::vector<std::byte> binary_imatrix(const std::vector<TestMatrix>& entries, std::int32_t calls,
                                             bool trailer = true) {
  ByteWriter out;
  out.le(static_cast<std::int32_t>(entries.size()));
  for (const TestMatrix& entry : entries) {
    put_text(out, entry.name, false);
    out.le(calls);
    out.le(static_cast<std::int32_t>(entry.values.size()));
    const std::size_t columns = entry.values.size() / std::max<std::size_t>(1, entry.counts.size());
    for (std::size_t i = 0; i < entry.values.size(); ++i)
      out.le((entry.counts[i / columns] > 0 ? entry.values[i] : 1.0F) * static_cast<float>(calls));
  }
  if (trailer) {
    out.le(std::int32_t{7});
    put_text(out, "calibration.txt", false);
  }
  return out.take();
}

/// The GGUF form; `alignment` 32. More than 40 lines: the layout of a file from its first byte to its last.
inline std::vector<std::byte> gguf_imatrix(const std::vector<TestMatrix>& entries,
                                           const std::string& type = "imatrix") {
  struct Tensor {
    std::string name;
    std::vector<std::uint64_t> dims;
    std::vector<float> values;
  };
  std::vector<Tensor> tensors;
  for (const TestMatrix& entry : entries) {
    const std::size_t columns = entry.values.size() / entry.counts.size();
    std::vector<float> sums = entry.values;
    for (std::size_t i = 0; i < sums.size(); ++i) sums[i] *= entry.counts[i / columns];
    tensors.push_back({entry.name + ".in_sum2", {columns, entry.counts.size()}, sums});
    tensors.push_back({entry.name + ".counts", {1, entry.counts.size()}, entry.counts});
  }
  ByteWriter out;
  out.raw(std::as_bytes(std::span(std::string_view("GGUF"))));
  out.le(std::uint32_t{3});
  out.le(std::uint64_t{tensors.size()});
  out.le(std::uint64_t{4});
  put_text(out, "general.type", true), out.le(std::uint32_t{8}), put_text(out, type, true);
  put_text(out, "imatrix.datasets", true), out.le(std::uint32_t{9}), out.le(std::uint32_t{8}), out.le(std::uint64_t{1});
  put_text(out, "calibration.txt", true);
  put_text(out, "imatrix.chunk_count", true), out.le(std::uint32_t{4}), out.le(std::uint32_t{7});
  put_text(out, "imatrix.chunk_size", true), out.le(std::uint32_t{4}), out.le(std::uint32_t{512});
  std::uint64_t offset = 0;
  for (const Tensor& tensor : tensors) {
    put_text(out, tensor.name, true);
    out.le(static_cast<std::uint32_t>(tensor.dims.size()));
    for (const std::uint64_t dim : tensor.dims) out.le(dim);
    out.le(std::uint32_t{0});
    out.le(offset);
    offset += (tensor.values.size() * sizeof(float) + 31) / 32 * 32;
  }
  const auto pad = [&] {
    while (out.size() % 32 != 0) out.le(std::uint8_t{0});
  };
  pad();
  for (const Tensor& tensor : tensors) {
    out.array(std::span<const float>(tensor.values));
    pad();
  }
  return out.take();
}

}  // namespace lmq::test
