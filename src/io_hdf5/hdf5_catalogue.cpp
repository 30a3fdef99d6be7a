#include "lmq/io_hdf5/hdf5_catalogue.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <new>

#include "attributes.hpp"
#include "format.hpp"
#include "guard.hpp"
#include "hole_driver.hpp"
#include "lmq/base/math.hpp"
#include "lmq/base/text.hpp"
#include "types.hpp"

namespace lmq {
namespace h5 {
namespace {

constexpr std::size_t kMaxDatasets = std::size_t{1} << 22;
constexpr int kMaxRank = 8;

/// For H5Ovisit, whose information has another type from 1.12 on.
template <class Info>
herr_t note_dataset(hid_t, const char* name, const Info* info, void* out) {
  auto& names = *static_cast<std::vector<std::string>*>(out);
  if (info->type != H5O_TYPE_DATASET) return 0;
  if (names.size() >= kMaxDatasets) return -1;
  try {
    names.emplace_back(name);
  } catch (const std::bad_alloc&) {
    return -1;
  }
  return 0;
}

std::vector<std::string> dataset_names(const Calls& calls, hid_t file) {
  std::vector<std::string> names;
#if H5_VERSION_GE(1, 12, 0)
  calls(H5Ovisit3(file, H5_INDEX_NAME, H5_ITER_INC, note_dataset<H5O_info2_t>, &names, H5O_INFO_BASIC), "H5Ovisit3");
#else
  calls(H5Ovisit2(file, H5_INDEX_NAME, H5_ITER_INC, note_dataset<H5O_info_t>, &names, H5O_INFO_BASIC), "H5Ovisit2");
#endif
  return names;
}

/// Dimensions of a dataset; nothing when it has no elements.
std::optional<std::vector<std::uint64_t>> shape_of(const Calls& calls, hid_t id) {
  const Space space{calls(H5Dget_space(id), "H5Dget_space")};
  const H5S_class_t extent = calls(H5Sget_simple_extent_type(space.get()), "H5Sget_simple_extent_type");
  if (extent == H5S_SCALAR) return std::vector<std::uint64_t>{};
  if (extent != H5S_SIMPLE) return std::nullopt;
  std::array<hsize_t, H5S_MAX_RANK> dims{};
  const int rank = calls(H5Sget_simple_extent_dims(space.get(), dims.data(), nullptr), "H5Sget_simple_extent_dims");
  if (rank > kMaxRank) calls.fail(Errc::unsupported, fmt::format("{} dimensions, at most {} are read", rank, kMaxRank));
  std::vector<std::uint64_t> shape(dims.begin(), dims.begin() + rank);
  if (std::ranges::count(shape, 0u) > 0) return std::nullopt;
  return shape;
}

/// A float dataset in one piece; nothing for what is passed over.
std::optional<TensorInfo> read_dataset(Calls& calls, hid_t file, const std::string& name, std::uint64_t file_bytes) {
  calls.at("dataset", "/" + name);
  const Dataset id{calls(H5Dopen2(file, name.c_str(), H5P_DEFAULT), "H5Dopen2")};
  const Type type{calls(H5Dget_type(id.get()), "H5Dget_type")};
  if (calls(H5Tget_class(type.get()), "H5Tget_class") != H5T_FLOAT) return std::nullopt;
  const auto shape = shape_of(calls, id.get());
  if (!shape) return std::nullopt;
  if (!is_clean_utf8(name)) calls.fail(Errc::malformed, "the name is not UTF-8 without NUL");
  const auto element = recognise(calls, type.get());
  if (!element || !is_float(*element))
    calls.fail(Errc::unsupported, "its type is no little-endian float of 16, 32 or 64 bits");
  const Plist creation{calls(H5Dget_create_plist(id.get()), "H5Dget_create_plist")};
  if (calls(H5Pget_layout(creation.get()), "H5Pget_layout") != H5D_CONTIGUOUS ||
      calls(H5Pget_external_count(creation.get()), "H5Pget_external_count") > 0)
    calls.fail(Errc::unsupported,
               "its data do not lie in one piece: write it contiguous, without chunks or compression");
  TensorInfo tensor;
  tensor.name = name;
  tensor.dtype = *element;
  tensor.shape = *shape;
  const auto bytes = element_bytes(*element, element_count(*shape));
  if (!bytes) calls.fail(Errc::malformed, "its size overflows");
  const haddr_t address = H5Dget_offset(id.get());
  if (address == HADDR_UNDEF) calls.fail(Errc::malformed, "its data have no place in the file");
  if (address > file_bytes || *bytes > file_bytes - address)
    calls.fail(Errc::malformed, fmt::format("{} bytes at {} reach over the file's {}", *bytes, address, file_bytes));
  tensor.offset = address;
  tensor.bytes = *bytes;
  return tensor;
}

Catalogue read_catalogue(const std::filesystem::path& path) {
  const Quiet quiet;
  const auto hole = std::make_shared<HoleFile>(File(path, File::Mode::read), HoleFile::Mode::read);
  const File::Stamp stamp = hole->file.stamp();
  std::error_code ignored;
  const std::filesystem::path absolute = std::filesystem::absolute(path, ignored);
  Catalogue catalogue;
  catalogue.format = "HDF5";
  catalogue.folder = absolute.parent_path();
  catalogue.shards.push_back({path.filename().native(), stamp.bytes, stamp.modified_ns, {}});
  try {
    Calls calls(printable(path.string()), Errc::malformed);
    HoleDriver driver(calls);
    const Plist access = driver.access(calls, hole);
    const FileId file{calls(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.get()), "H5Fopen")};
    for (const std::string& name : dataset_names(calls, file.get()))
      if (auto tensor = read_dataset(calls, file.get(), name, stamp.bytes))
        catalogue.tensors.push_back(std::move(*tensor));
    calls.at("group", "/");
    for (const Attribute& attribute : read_attributes(calls, file.get()))
      if (const auto* text = std::get_if<std::string>(&attribute.value))
        catalogue.shards.front().metadata.emplace(attribute.name, *text);
  } catch (...) {
    hole->rethrow();
    throw;
  }
  std::ranges::sort(catalogue.tensors, {}, &TensorInfo::name);
  return catalogue;
}

}  // namespace
}  // namespace h5

Catalogue read_hdf5_catalogue(const std::filesystem::path& path) {
  return Catalogue::from_bytes(
      h5::run_guarded(printable(path.string()), [&] { return h5::read_catalogue(path).to_bytes(); }));
}

}  // namespace lmq
