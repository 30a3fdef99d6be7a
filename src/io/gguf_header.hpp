#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "lmq/base/dtype.hpp"
#include "lmq/io/file.hpp"

namespace lmq {

/// One tensor as a GGUF header lists it.
struct GgufTensor {
  std::string name;
  std::vector<std::uint64_t> dims;  ///< the contiguous one first, 1..4
  std::uint32_t type = 0;           ///< 0 is F32
  std::uint64_t offset = 0;         ///< first byte, from the start of the file
  std::uint64_t bytes = 0;          ///< 0 for a type that is not known, too
};

/// One key and its value: the bytes [begin, end) of the file, length of the key first.
struct GgufPair {
  std::string key;
  std::uint64_t begin = 0, end = 0;
};

/// What a GGUF header says; arrays are only walked over.
struct GgufHeader {
  using Value = std::variant<std::string, std::uint64_t, std::int64_t, double, bool>;
  std::map<std::string, Value> values;
  std::vector<GgufPair> pairs;      ///< in the order of the file, arrays too
  std::vector<GgufTensor> tensors;  ///< in the order of the file
  std::uint64_t alignment = 32;     ///< of each tensor
  std::uint64_t data = 0;           ///< first byte behind the header, aligned
  /// nullptr when there is no such key, or its value is of another kind.
  [[nodiscard]] const std::string* text(const std::string& key) const noexcept;
  [[nodiscard]] const std::uint64_t* number(const std::string& key) const noexcept;
};

inline constexpr std::uint32_t kGgufF32 = 0;

/// Reads versions 2 and 3. Each count, type, dimension and offset is checked; the ranges of tensors of known types lie
/// in the file, one behind the other. Errc::malformed with file, byte and field; Errc::unsupported for version 1 and for
/// big-endian files.
[[nodiscard]] GgufHeader read_gguf_header(const File& file);

/// The type of plain values of that GGUF number, or nothing.
[[nodiscard]] std::optional<DType> gguf_plain_type(std::uint32_t type) noexcept;

}  // namespace lmq
