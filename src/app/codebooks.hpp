#pragma once
#include <functional>
#include <string>
#include <string_view>

#include "lmq/container/quantized_file.hpp"

namespace lmq::app {

/// Gives the levels of a quantized tensor to `put` as plain numbers in pieces of text, a codebook to a line: first row,
/// first column, levels; as JSON when asked. Codebooks of rows and groups are read from the records, one record in
/// memory at a time; a codebook that serves the whole tensor is printed once. Short codebooks repeat their last level.
/// Of whole rows coded by a trellis: steps and classes of rows and columns.
/// Errc::usage when the file has no such tensor or keeps it raw; Errc::malformed for a broken record.
void print_codebooks(const QuantizedFile& file, const std::string& tensor, bool json,
                     const std::function<void(std::string_view)>& put);

}  // namespace lmq::app
