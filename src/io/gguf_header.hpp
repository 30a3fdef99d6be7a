#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "lmq/io/file.hpp"

namespace lmq {

/// One tensor as a GGUF header lists it.
struct GgufTensor {
  std::string name;
  std::vector<std::uint64_t> dims;  ///< the contiguous one first, 1..4
  std::uint32_t type = 0;           ///< 0 is F32
  std::uint64_t offset = 0;         ///< first byte, from the start of the file
};

/// What a GGUF header says; texts and unsigned numbers of the key-values, other values are only walked over.
struct GgufHeader {
  std::map<std::string, std::variant<std::string, std::uint64_t>> values;
  std::vector<GgufTensor> tensors;  ///< in the order of the file
  [[nodiscard]] const std::string* text(const std::string& key) const noexcept;
};

inline constexpr std::uint32_t kGgufF32 = 0;

/// Reads versions 2 and 3. Each count, type, dimension and offset is checked; the ranges of F32 tensors lie in the
/// file. Errc::malformed with file, byte and field; Errc::unsupported for version 1 and for big-endian files.
[[nodiscard]] GgufHeader read_gguf_header(const File& file);

}  // namespace lmq
