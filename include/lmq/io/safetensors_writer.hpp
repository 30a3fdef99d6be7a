#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "lmq/base/dtype.hpp"

namespace lmq {

struct OutgoingTensor {
  std::string name;
  DType dtype;
  std::vector<std::uint64_t> shape;
};

/// Bytes of its elements. Errc::internal when no safetensors file can have such a tensor.
[[nodiscard]] std::uint64_t byte_count(const OutgoingTensor& tensor);

/// Writes one safetensors file: header first (sorted by descending alignment, then name; "__metadata__" sorted; padded
/// so that data starts at a multiple of 8), then each tensor's bytes as `fill` appends them through `append` in order.
/// Written beside `path` and renamed last. Errc::cannot_create, Errc::io; Errc::internal when `fill` gives another
/// length.
void write_safetensors(const std::filesystem::path& path, std::vector<OutgoingTensor> tensors,
                       const std::map<std::string, std::string>& metadata,
                       const std::function<void(const OutgoingTensor&,
                                                const std::function<void(std::span<const std::byte>)>& append)>& fill);

}  // namespace lmq
