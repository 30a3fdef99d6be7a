#pragma once
#include <cstdint>
#include <span>
#include <string>

#include "lmq/io/reader.hpp"

namespace lmq {

/// Numbers read at once: they stay in the cache.
inline constexpr std::uint64_t kNumbersAtOnce = std::uint64_t{1} << 16;

/// "FILE: tensor 'NAME'" of a tensor of an importance file.
[[nodiscard]] std::string place_of(const Catalogue& catalogue, const TensorInfo& tensor);

/// Numbers [first, first + out.size()) of a tensor as they lie in the file: a float type (else Errc::unsupported),
/// finite, and >= 0 unless they may have a sign (else Errc::malformed, with the index).
void read_numbers(const Reader& reader, std::uint32_t index, std::uint64_t first, std::span<float> out,
                  bool with_sign = false);

}  // namespace lmq
