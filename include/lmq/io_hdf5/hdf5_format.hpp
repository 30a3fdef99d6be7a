#pragma once
#include <filesystem>
#include <memory>
#include <string>

#include "lmq/base/filter_id.hpp"
#include "lmq/io/layout.hpp"

namespace lmq {

[[nodiscard]] std::unique_ptr<LayoutFormat> make_hdf5_format();
/// Version of the HDF5 library in use, for `lmq --version`.
[[nodiscard]] std::string hdf5_version();
/// True when it is an ordinary file that begins with HDF5's signature. Errc::missing, Errc::io: it cannot be read.
[[nodiscard]] bool is_hdf5(const std::filesystem::path& path);

}  // namespace lmq
