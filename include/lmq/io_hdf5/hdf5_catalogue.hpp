#pragma once
#include <filesystem>
#include <span>

#include "lmq/io/input_formats.hpp"
#include "lmq/io/reader.hpp"

namespace lmq {

/// The float datasets of an HDF5 file as a catalogue of one shard: names are paths without the first slash, places
/// those of the file, so that open_reader(Catalogue) reads them without HDF5: contiguous, or in chunks that are plain,
/// shuffled, deflated, packed by LZF, with Fletcher's checksum; of either byte order. Texts, integers, links and empty
/// datasets are passed over; texts among the attributes of the root group are the metadata of the shard. No plug-in is
/// loaded and no other file opened. Errors: Errc::missing; Errc::malformed for
/// what HDF5 cannot open; Errc::unsupported for floats that are compact, virtual, in other files, behind other filters,
/// or of other widths. One thread at a time, as all of HDF5. Cost: about 5 us a dataset and 2 us a chunk.
[[nodiscard]] Catalogue read_hdf5_catalogue(const std::filesystem::path& path);

/// The same of a checkpoint: integers and truth values, too; 16-bit datasets that Keras marks as bfloat16 are BF16.
/// What is passed over is named in a warning; a link to another file is Errc::unsupported.
[[nodiscard]] Catalogue read_hdf5_checkpoint(const std::filesystem::path& path);

/// Rows for the table of input formats: HDF5 files, and Keras archives (.keras) with the HDF5 file in them.
[[nodiscard]] std::span<const InputFormat> hdf5_input_formats() noexcept;

}  // namespace lmq
