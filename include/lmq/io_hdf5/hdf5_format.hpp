#pragma once
#include <filesystem>
#include <memory>
#include <string>

#include "lmq/io/layout.hpp"

namespace lmq {

/// Number of the lmq filter (HDF5's range for private use is 32768..65535).
inline constexpr unsigned kLmqFilterId = 47803;

[[nodiscard]] std::unique_ptr<LayoutFormat> make_hdf5_format();
/// Version of the HDF5 library in use, for `lmq --version`.
[[nodiscard]] std::string hdf5_version();
/// True when the file begins with HDF5's signature.
[[nodiscard]] bool is_hdf5(const std::filesystem::path& path);

}  // namespace lmq
