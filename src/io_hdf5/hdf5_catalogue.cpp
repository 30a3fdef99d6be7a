#include "lmq/io_hdf5/hdf5_catalogue.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <new>

#include "attributes.hpp"
#include "format.hpp"
#include "guard.hpp"
#include "hole_driver.hpp"
#include "lmq/base/digest.hpp"
#include "lmq/base/math.hpp"
#include "lmq/base/text.hpp"
#include "lmq/io/placement.hpp"
#include "lmq/io/zip.hpp"
#include "lmq/io_hdf5/hdf5_format.hpp"
#include "optimizer_state.hpp"
#include "types.hpp"

namespace lmq {
namespace h5 {
namespace {

constexpr std::size_t kMaxDatasets = std::size_t{1} << 22;
constexpr int kMaxRank = 8;
constexpr std::uint64_t kMaxPieces = std::uint64_t{1} << 24;

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

/// What links lead to beside datasets and groups of the file.
struct Links {
  std::size_t soft = 0;
  std::string external;  ///< the first one
};
template <class Info>
herr_t note_link(hid_t, const char* name, const Info* info, void* out) {
  auto& links = *static_cast<Links*>(out);
  if (info->type == H5L_TYPE_SOFT) ++links.soft;
  if (info->type != H5L_TYPE_SOFT && info->type != H5L_TYPE_HARD && links.external.empty()) links.external = name;
  return 0;
}

Links links_of(const Calls& calls, hid_t file) {
  Links links;
#if H5_VERSION_GE(1, 12, 0)
  calls(H5Lvisit2(file, H5_INDEX_NAME, H5_ITER_INC, note_link<H5L_info2_t>, &links), "H5Lvisit2");
#else
  calls(H5Lvisit(file, H5_INDEX_NAME, H5_ITER_INC, note_link<H5L_info_t>, &links), "H5Lvisit");
#endif
  return links;
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

/// Reads datasets of one file into a list of tensors.
class Lister {
 public:
  Lister(Calls& calls, const std::shared_ptr<HoleFile>& hole, bool all) : calls_(calls), hole_(*hole), all_(all) {}

  void read(hid_t file, const std::string& name) {
    calls_.at("dataset", "/" + name);
    const Dataset id{calls_(H5Dopen2(file, name.c_str(), H5P_DEFAULT), "H5Dopen2")};
    TensorInfo tensor;
    Placement placement;
    if (!read_type(id.get(), tensor, placement)) return pass_over(name);
    const auto shape = shape_of(calls_, id.get());
    if (!shape) return pass_over(name);
    if (!is_clean_utf8(name)) calls_.fail(Errc::malformed, "the name is not UTF-8 without NUL");
    tensor.name = name;
    tensor.shape = *shape;
    const auto bytes = element_bytes(tensor.dtype, element_count(*shape));
    if (!bytes) calls_.fail(Errc::malformed, "its size overflows");
    tensor.bytes = *bytes;
    read_place(id.get(), tensor, placement);
    list_.add(std::move(tensor), std::move(placement));
  }
  [[nodiscard]] TensorList& list() noexcept { return list_; }
  [[nodiscard]] const std::vector<std::string>& passed() const noexcept { return passed_; }

 private:
  void pass_over(const std::string& name) { passed_.push_back(name); }
  [[noreturn]] void unsupported(const std::string& what) const {
    calls_.fail(Errc::unsupported, what + ": h5repack -l CONTI -f NONE FILE NEW writes it plain");
  }

  /// The element type, or false for what is no number.
  bool read_type(hid_t id, TensorInfo& tensor, Placement& placement) const {
    const Type type{calls_(H5Dget_type(id), "H5Dget_type")};
    const H5T_class_t kind = calls_(H5Tget_class(type.get()), "H5Tget_class");
    if (H5Tget_size(type.get()) == 2 && all_ && kind != H5T_FLOAT && is_bfloat16(id)) {
      tensor.dtype = DType::bf16;
      return true;
    }
    if (kind == H5T_ENUM && all_ && H5Tget_size(type.get()) == 1) {  // as h5py stores truth values
      tensor.dtype = DType::boolean;
      return true;
    }
    if (kind != H5T_FLOAT && !(all_ && kind == H5T_INTEGER)) return false;
    const Type plain{calls_(H5Tcopy(type.get()), "H5Tcopy")};
    placement.swapped = H5Tget_size(type.get()) > 1 && calls_(H5Tget_order(type.get()), "H5Tget_order") == H5T_ORDER_BE;
    if (placement.swapped) calls_(H5Tset_order(plain.get(), H5T_ORDER_LE), "H5Tset_order");
    const auto element = recognise(calls_, plain.get());
    if (!element) calls_.fail(Errc::unsupported, "its type is no float of 16, 32 or 64 bits and no integer of 8 to 64");
    tensor.dtype = *element;
    return true;
  }

  /// Keras marks them by an attribute: HDF5 has no such type.
  [[nodiscard]] bool is_bfloat16(hid_t id) const {
    if (calls_(H5Aexists(id, "dtype"), "H5Aexists") <= 0) return false;
    for (const Attribute& attribute : read_attributes(calls_, id))
      if (const auto* text = std::get_if<std::string>(&attribute.value); text != nullptr && attribute.name == "dtype")
        return *text == "bfloat16";
    return false;
  }

  void read_place(hid_t id, TensorInfo& tensor, Placement& placement) {
    const Plist creation{calls_(H5Dget_create_plist(id), "H5Dget_create_plist")};
    if (calls_(H5Pget_external_count(creation.get()), "H5Pget_external_count") > 0)
      unsupported("its data do not lie in the file itself");
    switch (calls_(H5Pget_layout(creation.get()), "H5Pget_layout")) {
      case H5D_CONTIGUOUS:
        return contiguous(id, creation.get(), tensor, placement);
      case H5D_CHUNKED:
        return chunked(id, creation.get(), tensor, placement);
      case H5D_COMPACT:
        unsupported("its data lie in its header (compact)");
      default:
        unsupported("its data are put together from other datasets (virtual)");
    }
  }

  void contiguous(hid_t id, hid_t creation, TensorInfo& tensor, Placement& placement) const {
    const haddr_t address = H5Dget_offset(id);
    if (address == HADDR_UNDEF) {  // never written
      check_fill(creation, tensor);
      if (tensor.shape.empty()) calls_.fail(Errc::malformed, "its data have no place in the file");
      placement.chunk = tensor.shape;
      placement.pieces.assign(1, {});
      tensor.bytes = 0;
      return;
    }
    if (address > hole_.end || tensor.bytes > hole_.end - address)
      calls_.fail(Errc::malformed,
                  fmt::format("{} bytes at {} reach over the file's {}", tensor.bytes, address, hole_.end));
    tensor.offset = hole_.base + address;
  }

  /// What was never written is 0.
  void check_fill(hid_t creation, const TensorInfo& tensor) const {
    H5D_fill_value_t filled = H5D_FILL_VALUE_UNDEFINED;
    calls_(H5Pfill_value_defined(creation, &filled), "H5Pfill_value_defined");
    if (filled != H5D_FILL_VALUE_USER_DEFINED) return;
    double value = 0;
    if (is_float(tensor.dtype) && H5Pget_fill_value(creation, H5T_NATIVE_DOUBLE, &value) >= 0 && value == 0) return;
    unsupported("parts of it were never written and stand for a fill value");
  }

  void chunked(hid_t id, hid_t creation, TensorInfo& tensor, Placement& placement) {
    std::array<hsize_t, H5S_MAX_RANK> chunk{};
    const int rank = calls_(H5Pget_chunk(creation, H5S_MAX_RANK, chunk.data()), "H5Pget_chunk");
    placement.chunk.assign(chunk.begin(), chunk.begin() + std::min<int>(rank, H5S_MAX_RANK));
    if (placement.chunk.size() != tensor.shape.size() || std::ranges::count(placement.chunk, 0u) > 0)
      calls_.fail(Errc::malformed, "its chunks do not fit its shape");
    read_filters(creation, placement);
    const auto count = element_count(chunk_grid(tensor.shape, placement.chunk));
    if (!count || *count > kMaxPieces || (pieces_ += *count) > kMaxPieces)
      calls_.fail(Errc::unsupported, fmt::format("more than {} chunks in all", kMaxPieces));
    ChunkWalk walk(tensor.shape, placement.chunk);
    std::uint64_t written = 0;
    for (std::uint64_t i = 0; i < *count; ++i, walk.next()) {
      placement.pieces.push_back(piece(id, walk));
      written += placement.pieces.back().bytes > 0;
    }
    // A chunk that HDF5 does not find was never written, or its index is damaged: then their number tells.
    hsize_t there = 0;
    const Space space{calls_(H5Dget_space(id), "H5Dget_space")};
    calls_(H5Dget_num_chunks(id, space.get(), &there), "H5Dget_num_chunks");
    if (there != written)
      calls_.fail(Errc::malformed, fmt::format("{} chunks are found, {} are stored", written, there));
    if (written < *count) check_fill(creation, tensor);
    tensor.bytes = placed_bytes(tensor, placement);
    if (const std::string fault = placement_fault(tensor, placement, hole_.base + hole_.end); !fault.empty())
      calls_.fail(Errc::malformed, fault);
  }

  /// Shuffle, then one packing, then Fletcher's checksum; each may be left out.
  void read_filters(hid_t creation, Placement& placement) const {
    const int filters = calls_(H5Pget_nfilters(creation), "H5Pget_nfilters");
    int last = 0;
    for (int i = 0; i < filters; ++i) {
      unsigned flags = 0, settings = 0;
      std::size_t values = 0;
      const H5Z_filter_t filter =
          calls_(H5Pget_filter2(creation, static_cast<unsigned>(i), &flags, &values, nullptr, 0, nullptr, &settings),
                 "H5Pget_filter2");
      const auto row = std::ranges::find(kFilters, filter, &FilterRow::id);
      if (row == std::end(kFilters) || row->place <= last)
        unsupported(
            fmt::format("filter {}, expected shuffle, deflate or LZF, Fletcher's checksum in this order", filter));
      last = row->place;
      placement.shuffled = placement.shuffled || filter == H5Z_FILTER_SHUFFLE;
      placement.summed = placement.summed || filter == H5Z_FILTER_FLETCHER32;
      if (row->packing != Placement::Packing::none) placement.packing = row->packing;
    }
  }

  /// Where a chunk is stored, or nowhere: HDF5 is asked to read it; the driver notes from where, and reads nothing.
  Placement::Piece piece(hid_t id, const ChunkWalk& walk) {
    hsize_t bytes = 0;
    if (H5Dget_chunk_storage_size(id, walk.at(), &bytes) < 0 || bytes == 0) return {};
    if (bytes > hole_.end) calls_.fail(Errc::malformed, fmt::format("{} has {} bytes", walk.text(), bytes));
    std::uint32_t mask = 0;
    void* const buffer = payload_.cover(bytes);
    calls_(hole_.drop_raw(buffer, [&] { return H5Dread_chunk(id, H5P_DEFAULT, walk.at(), &mask, buffer); }),
           "H5Dread_chunk");
    if (mask != 0) unsupported(walk.text() + " went past its filters");
    if (!hole_.raw || hole_.raw->bytes != bytes || hole_.raw->address > hole_.end ||
        bytes > hole_.end - hole_.raw->address)
      calls_.fail(Errc::malformed, walk.text() + " has no plain place in the file");
    return {hole_.base + hole_.raw->address, bytes};
  }

  struct FilterRow {
    H5Z_filter_t id;
    int place;
    Placement::Packing packing;
  };
  static constexpr H5Z_filter_t kLzf = 32000;
  static constexpr FilterRow kFilters[] = {{H5Z_FILTER_SHUFFLE, 1, Placement::Packing::none},
                                           {H5Z_FILTER_DEFLATE, 2, Placement::Packing::zlib},
                                           {kLzf, 2, Placement::Packing::lzf},
                                           {H5Z_FILTER_FLETCHER32, 3, Placement::Packing::none}};
  Calls& calls_;
  HoleFile& hole_;
  bool all_;  ///< integers, too
  Untouchable payload_;
  TensorList list_;
  std::uint64_t pieces_ = 0;
  std::vector<std::string> passed_;
};

/// Where the HDF5 file begins in the file of that path, and its length.
struct Inside {
  std::uint64_t begin = 0, bytes = 0;
};

/// Digest of what the file lists: names, types, shapes, places.
std::string listing_digest(const Catalogue& catalogue) {
  Catalogue listing;
  listing.tensors = catalogue.tensors;
  listing.placements = catalogue.placements;
  return digest128_hex(listing.to_bytes());
}

/// Errc::unsupported for a link into another file.
void note_links(const Links& links, const std::string& source, Catalogue& catalogue) {
  if (!links.external.empty())
    fail(Errc::unsupported,
         fmt::format("{}: '/{}' is a link into another file, which is not followed: h5copy brings it in", source,
                     printable(links.external)));
  if (links.soft > 0)
    catalogue.warnings.push_back(fmt::format("{}: {} soft links are not followed", source, links.soft));
}

Catalogue read_catalogue(const std::filesystem::path& path, const Inside& inside, std::string format, bool all) {
  const Quiet quiet;
  const auto hole = std::make_shared<HoleFile>(File(path, File::Mode::read), inside.begin, inside.bytes);
  const File::Stamp stamp = hole->file.stamp();
  std::error_code ignored;
  Catalogue catalogue;
  catalogue.format = std::move(format);
  catalogue.folder = std::filesystem::absolute(path, ignored).parent_path();
  catalogue.shards.push_back({path.filename().native(), stamp.bytes, stamp.modified_ns, {}, {}});
  const std::string source = printable(path.string());
  try {
    Calls calls(source, Errc::malformed);
    HoleDriver driver(calls);
    const Plist access = driver.access(calls, hole);
    const FileId file{calls(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.get()), "H5Fopen")};
    Lister lister(calls, hole, all);
    if (all) note_links(links_of(calls, file.get()), source, catalogue);
    std::vector<std::string> names = dataset_names(calls, file.get());
    if (all)
      if (std::string left = leave_out_optimizer(names); !left.empty())
        catalogue.warnings.push_back(fmt::format("{}: {}", source, left));
    for (const std::string& name : names) lister.read(file.get(), name);
    lister.list().give(catalogue, source);
    calls.at("group", "/");
    for (const Attribute& attribute : read_attributes(calls, file.get()))
      if (const auto* text = std::get_if<std::string>(&attribute.value))
        catalogue.shards.front().metadata.emplace(attribute.name, *text);
    if (all && !lister.passed().empty())
      catalogue.warnings.push_back(
          fmt::format("{}: {} datasets are empty or hold no numbers and are not taken, such as "
                      "'/{}'",
                      source, lister.passed().size(), printable(lister.passed()[0])));
  } catch (...) {
    hole->rethrow();
    throw;
  }
  if (all) catalogue.shards[0].header_digest = listing_digest(catalogue);
  return catalogue;
}

Catalogue read_guarded(const std::filesystem::path& path, const Inside& inside, const char* format, bool all) {
  return Catalogue::from_bytes(
      run_guarded(printable(path.string()), [&] { return read_catalogue(path, inside, format, all).to_bytes(); }));
}

constexpr std::string_view kInKeras = "model.weights.h5";

/// A Keras archive: zip with the weights as a member.
const ZipEntry* keras_weights(const std::vector<ZipEntry>& entries) {
  const auto at = std::ranges::find(entries, kInKeras, &ZipEntry::name);
  return at == entries.end() ? nullptr : &*at;
}

bool is_keras(const File& file) {
  if (!is_zip(file)) return false;
  try {
    return keras_weights(read_zip(file)) != nullptr;
  } catch (const Error&) {
    return false;  // it is said what is wrong where the archive is read
  }
}

Catalogue read_keras(const std::filesystem::path& path) {
  const std::vector<ZipEntry> entries = read_zip(File(path, File::Mode::read));
  const ZipEntry* const weights = keras_weights(entries);
  if (weights == nullptr || weights->deflated)
    fail(Errc::unsupported,
         fmt::format("{}: its {} is packed: unzip it and name that file", printable(path.string()), kInKeras));
  return read_guarded(path, {weights->offset, weights->bytes}, "Keras", true);
}

/// Ours are quantized already; they are told by the first object of the file.
bool is_plain_hdf5(const File& file) {
  if (!is_hdf5(file.path())) return false;
  std::string head(static_cast<std::size_t>(std::min<std::uint64_t>(file.size(), 65536)), '\0');
  file.read(0, std::as_writable_bytes(std::span(head)));
  return head.find("lmq_format") == head.npos;
}

constexpr InputFormat kRows[] = {{"HDF5", ".h5 .hdf5", is_plain_hdf5, read_hdf5_checkpoint},
                                 {"Keras", ".keras", is_keras, read_keras}};

}  // namespace
}  // namespace h5

Catalogue read_hdf5_catalogue(const std::filesystem::path& path) {
  return h5::read_guarded(path, {0, File(path, File::Mode::read).size()}, "HDF5", false);
}

Catalogue read_hdf5_checkpoint(const std::filesystem::path& path) {
  return h5::read_guarded(path, {0, File(path, File::Mode::read).size()}, "HDF5", true);
}

std::span<const InputFormat> hdf5_input_formats() noexcept { return h5::kRows; }

}  // namespace lmq
