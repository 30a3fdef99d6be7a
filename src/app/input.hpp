#pragma once
#include <filesystem>
#include <memory>

#include "lmq/io/reader.hpp"

namespace lmq::app {

/// open_reader with every format that this program reads.
[[nodiscard]] std::unique_ptr<Reader> open_input(const std::filesystem::path& path);
/// True for an HDF5 file that lmq did not write.
[[nodiscard]] bool is_foreign_hdf5(const std::filesystem::path& path);

}  // namespace lmq::app
