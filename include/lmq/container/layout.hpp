#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "lmq/container/contents.hpp"
#include "lmq/io/file.hpp"
#include "lmq/io/layout.hpp"

namespace lmq {

/// The output file as docs/format.md describes it: its layout, and the bytes of the datasets below /lmq.
struct Output {
  FileLayout layout;
  std::vector<std::int64_t> dataset_of;                ///< [tensors] index into layout.datasets, -1: folded
  std::map<std::string, std::vector<std::byte>> side;  ///< by dataset path, as stored; digests of kept units are 0
};
[[nodiscard]] Output lay_out(const OutputContents& contents, const std::vector<TensorLine>& tensors);

/// Stored bytes of a unit: its record, or its part of a kept tensor.
[[nodiscard]] std::uint64_t stored_bytes(const OutputContents& contents, std::uint64_t unit);
/// Address of a unit's bytes in the file.
[[nodiscard]] std::uint64_t address_of(const OutputContents& contents, const Output& output, const FilePlaces& places,
                                       std::uint64_t unit);
/// Fills in what is known only once all is copied: digests of the kept units ([units], others 0).
void complete_side(const OutputContents& contents, Output& output, const std::vector<std::uint64_t>& kept_digests);
/// Once everything else lies in `file`: writes the seal behind it, and checks the file by it (Errc::io).
void seal_file(const OutputContents& contents, const Output& output, const FilePlaces& places,
               const std::vector<std::uint64_t>& kept_digests, const File& file);
/// Size of the whole file, seal included.
[[nodiscard]] std::uint64_t whole_file_bytes(const Output& output, const FilePlaces& places);

}  // namespace lmq
