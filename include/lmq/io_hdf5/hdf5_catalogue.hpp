#pragma once
#include <filesystem>

#include "lmq/io/reader.hpp"

namespace lmq {

/// The float datasets of an HDF5 file as a catalogue of one shard: names are paths without the first slash, offsets
/// those of the file, so that open_reader(Catalogue) reads them without HDF5. Texts, integers, links and empty datasets
/// are passed over. No plug-in is loaded and no other file opened. Errors: Errc::missing; Errc::malformed for what HDF5
/// cannot open; Errc::unsupported for floats stored in chunks (packed or not), compact, in other files, or big-endian:
/// their bytes do not lie in one piece. One thread at a time, as all of HDF5.
[[nodiscard]] Catalogue read_hdf5_catalogue(const std::filesystem::path& path);

}  // namespace lmq
