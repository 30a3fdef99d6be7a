#pragma once

namespace lmq {

/// Number of the lmq filter in HDF5 files (HDF5's range for private use is 32768..65535).
inline constexpr unsigned kLmqFilterId = 47803;

}  // namespace lmq
