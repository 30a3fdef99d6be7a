#pragma once
#include <cstddef>

namespace lmq {

/// What our HDF5 files hold of a tensor's name: bytes of a part between slashes, and parts.
inline constexpr std::size_t kMaxPathPart = 1000, kMaxPathDepth = 64;

}  // namespace lmq
