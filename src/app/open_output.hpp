#pragma once
#include <filesystem>

#include "lmq/container/quantized_file.hpp"

namespace lmq::app {

/// Opens a file that lmq wrote. Errors of QuantizedFile; Errc::unsupported when it is no HDF5 at all.
[[nodiscard]] QuantizedFile open_output(const std::filesystem::path& path);

}  // namespace lmq::app
