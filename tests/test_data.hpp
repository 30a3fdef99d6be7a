#pragma once
#include <filesystem>

/// tests/data of the source tree.
[[nodiscard]] std::filesystem::path test_data();
