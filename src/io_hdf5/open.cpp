#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <new>
#include <set>

#include "attributes.hpp"
#include "check_layout.hpp"
#include "format.hpp"
#include "hole_driver.hpp"
#include "lmq/base/text.hpp"
#include "lmq/base/words.hpp"
#include "lmq/io_hdf5/hdf5_format.hpp"
#include "types.hpp"

namespace lmq::h5 {
namespace {

constexpr std::size_t kMaxObjects = std::size_t{1} << 22;
constexpr std::uint64_t kMaxPieces = std::uint64_t{1} << 26;

/// What tells one object of a file from all others.
using ObjectId = std::array<unsigned char, 16>;

ObjectId object_id(const Calls& calls, hid_t object) {
  ObjectId id{};
#if H5_VERSION_GE(1, 12, 0)
  H5O_info2_t info;
  calls(H5Oget_info3(object, &info, H5O_INFO_BASIC), "H5Oget_info3");
  std::memcpy(id.data(), &info.token, std::min(id.size(), sizeof(info.token)));
#else
  H5O_info_t info;
  calls(H5Oget_info2(object, &info, H5O_INFO_BASIC), "H5Oget_info2");
  std::memcpy(id.data(), &info.addr, sizeof(info.addr));
#endif
  return id;
}

struct Link {
  std::string name;
  bool hard;
};

/// For H5Literate; what it tells of a link has another type from 1.12 on.
template <class Info>
herr_t note_link(hid_t, const char* name, const Info* info, void* out) {
  auto& links = *static_cast<std::vector<Link>*>(out);
  if (links.size() >= kMaxObjects) return -1;
  try {
    links.push_back({name, info->type == H5L_TYPE_HARD});
  } catch (const std::bad_alloc&) {
    return -1;
  }
  return 0;
}

/// A filter as its tool calls it.
std::string filter_words(H5Z_filter_t filter) {
  switch (filter) {
    case H5Z_FILTER_DEFLATE:
      return "deflate (gzip)";
    case H5Z_FILTER_SHUFFLE:
      return "shuffle";
    case H5Z_FILTER_FLETCHER32:
      return "fletcher32";
    case H5Z_FILTER_SZIP:
      return "szip";
    default:
      return fmt::format("{}", filter);
  }
}

class Opener {
 public:
  explicit Opener(std::shared_ptr<HoleFile> hole)
      : hole_(std::move(hole)), calls_(printable(hole_->file.path().string()), Errc::malformed), driver_(calls_) {}

  LayoutFormat::Existing run() {
    const Plist access = driver_.access(calls_, hole_);
    const std::string name = hole_->file.path().string();
    file_ = FileId{calls_(H5Fopen(name.c_str(), H5F_ACC_RDONLY, access.get()), "H5Fopen")};
    waiting_ = {""};
    while (!waiting_.empty()) {
      const std::string path = std::move(waiting_.back());
      waiting_.pop_back();
      read_group(path);
    }
    return sorted();
  }

 private:
  void read_group(const std::string& path) {
    calls_.at("group", path + "/");
    const Group group{calls_(H5Gopen2(file_.get(), (path + "/").c_str(), H5P_DEFAULT), "H5Gopen2")};
    if (path.empty()) meet(group.get());
    std::vector<Link> links;
    hsize_t from = 0;
    calls_(H5Literate(group.get(), H5_INDEX_NAME, H5_ITER_NATIVE, &from, note_link, &links), "H5Literate");
    std::vector<Attribute> attributes = read_attributes(calls_, group.get());
    if (path.empty())
      out_.layout.root = std::move(attributes);
    else if (!attributes.empty() || links.empty())
      out_.layout.groups.push_back({path, std::move(attributes)});
    for (const Link& link : links) read_link(group.get(), path, link);
  }

  void read_link(hid_t group, const std::string& parent, const Link& link) {
    const std::string path = parent + "/" + link.name;
    calls_.at("object", path);
    if (!is_clean_utf8(link.name) || link.name.empty() || link.name == "." || link.name.find('/') != std::string::npos)
      calls_.fail(Errc::malformed, "the name is no valid link name");
    if (!link.hard) calls_.fail(Errc::unsupported, "a soft or external link; only plain objects are read");
    const Object object{calls_(H5Oopen(group, link.name.c_str(), H5P_DEFAULT), "H5Oopen")};
    meet(object.get());
    switch (H5Iget_type(object.get())) {
      case H5I_GROUP:
        if (static_cast<std::size_t>(std::ranges::count(path, '/')) >= kMaxPathDepth)
          calls_.fail(Errc::unsupported, fmt::format("groups nest more than {} deep", kMaxPathDepth));
        waiting_.push_back(path);
        return;
      case H5I_DATASET:
        read_dataset(object.get(), path);
        return;
      default:
        calls_.fail(Errc::unsupported, "neither a group nor a dataset");
    }
  }

  /// Every object has one name; that excludes cycles as well.
  void meet(hid_t object) {
    if (!met_.insert(object_id(calls_, object)).second)
      calls_.fail(Errc::unsupported, "another name of the same object");
    if (met_.size() > kMaxObjects) calls_.fail(Errc::unsupported, fmt::format("more than {} objects", kMaxObjects));
  }

  void read_dataset(hid_t id, const std::string& path) {
    calls_.at("dataset", path);
    DatasetLayout dataset;
    dataset.path = path;
    read_type_and_shape(id, dataset);
    dataset.attributes = read_attributes(calls_, id);
    if (!dataset.text) restore_type(dataset);
    const Plist creation{calls_(H5Dget_create_plist(id), "H5Dget_create_plist")};
    const H5D_layout_t kind = calls_(H5Pget_layout(creation.get()), "H5Pget_layout");
    if (kind == H5D_CONTIGUOUS) {
      if (calls_(H5Pget_external_count(creation.get()), "H5Pget_external_count") > 0)
        calls_.fail(Errc::unsupported, "its data lie in other files");
      out_.places.offsets.push_back(contiguous_place(id, dataset));
    } else if (kind == H5D_CHUNKED) {
      read_chunking(creation.get(), dataset);
      if (dataset.text && !dataset.deflated)
        calls_.fail(Errc::malformed, "the filter was stripped, as h5repack leaves it");
      out_.places.offsets.push_back(chunk_places(id, dataset));
    } else {
      calls_.fail(Errc::unsupported, kind == H5D_COMPACT ? "compact storage; contiguous or chunked is read"
                                                         : "virtual storage; contiguous or chunked is read");
    }
    out_.layout.datasets.push_back(std::move(dataset));
  }

  void read_type_and_shape(hid_t id, DatasetLayout& dataset) {
    const Type type{calls_(H5Dget_type(id), "H5Dget_type")};
    if (calls_(H5Tget_class(type.get()), "H5Tget_class") == H5T_STRING) return read_text_shape(id, type.get(), dataset);
    const auto element = recognise(calls_, type.get());
    if (!element) calls_.fail(Errc::unsupported, "its type is no little-endian integer or float that we know");
    dataset.dtype = *element;
    const Space space{calls_(H5Dget_space(id), "H5Dget_space")};
    const H5S_class_t extent = calls_(H5Sget_simple_extent_type(space.get()), "H5Sget_simple_extent_type");
    if (extent == H5S_SCALAR) return;
    if (extent != H5S_SIMPLE) calls_.fail(Errc::unsupported, "it has no elements and no shape");
    std::array<hsize_t, H5S_MAX_RANK> dims{};
    const int rank = calls_(H5Sget_simple_extent_dims(space.get(), dims.data(), nullptr), "H5Sget_simple_extent_dims");
    dataset.shape.assign(dims.begin(), dims.begin() + rank);
  }

  /// One text of fixed length, scalar or a list of one.
  void read_text_shape(hid_t id, hid_t type, DatasetLayout& dataset) {
    if (calls_(H5Tis_variable_str(type), "H5Tis_variable_str") > 0)
      calls_.fail(Errc::unsupported, "its type is a text of variable length");
    const Space space{calls_(H5Dget_space(id), "H5Dget_space")};
    const H5S_class_t extent = calls_(H5Sget_simple_extent_type(space.get()), "H5Sget_simple_extent_type");
    const hssize_t count = calls_(H5Sget_simple_extent_npoints(space.get()), "H5Sget_simple_extent_npoints");
    const int rank = calls_(H5Sget_simple_extent_ndims(space.get()), "H5Sget_simple_extent_ndims");
    if (extent == H5S_NULL || count != 1 || rank > 1)
      calls_.fail(Errc::unsupported, "texts in more than one piece; its type is read for one alone");
    dataset.text = true;
    dataset.dtype = DType::u8;
    dataset.shape = {H5Tget_size(type)};
    if (dataset.shape[0] == 0) calls_.fail(Errc::malformed, "a text of no bytes");
  }

  /// Takes our own attributes away and gives back the type and shape they tell.
  void restore_type(DatasetLayout& dataset) const {
    const auto take = [&](std::string_view name) -> std::optional<Attribute> {
      const auto found = std::ranges::find(dataset.attributes, name, &Attribute::name);
      if (found == dataset.attributes.end()) return std::nullopt;
      std::optional<Attribute> taken{std::move(*found)};
      dataset.attributes.erase(found);
      return taken;
    };
    const auto type_name = take(kStoredType), shape = take(kStoredShape);
    if (!type_name) return;
    const auto* text = std::get_if<std::string>(&type_name->value);
    const auto type = text != nullptr ? parse_dtype(*text) : std::nullopt;
    if (!type || !stored_as(*type).marked || stored_as(*type).element != dataset.dtype)
      calls_.fail(Errc::malformed,
                  fmt::format("{} names no type that is stored as {}", kStoredType, name(dataset.dtype)));
    const StoredAs stored = stored_as(*type);
    if (stored.pair) {
      if (dataset.shape.empty() || dataset.shape.back() != 2)
        calls_.fail(Errc::malformed, "its last dimension is not 2");
      dataset.shape.pop_back();
    }
    if (stored.packed) {
      const auto* dims = shape ? std::get_if<std::vector<std::uint64_t>>(&shape->value) : nullptr;
      if (dims == nullptr || dims->size() > H5S_MAX_RANK || dataset.shape.size() != 1 ||
          element_bytes(*type, element_count(*dims)) != dataset.shape[0])
        calls_.fail(Errc::malformed, fmt::format("{} does not fit its bytes", kStoredShape));
      dataset.shape = *dims;
    }
    dataset.dtype = *type;
  }

  [[nodiscard]] std::vector<std::uint64_t> contiguous_place(hid_t id, DatasetLayout& dataset) const {
    const auto bytes = element_bytes(dataset.dtype, element_count(dataset.shape));
    if (!bytes) calls_.fail(Errc::malformed, "its size overflows");
    dataset.piece_bytes = {*bytes};
    if (*bytes == 0) return {0};
    const haddr_t address = H5Dget_offset(id);
    if (address == HADDR_UNDEF) calls_.fail(Errc::malformed, "its data have no place in the file");
    if (const hsize_t stored = H5Dget_storage_size(id); stored != *bytes)
      calls_.fail(Errc::malformed, fmt::format("{} bytes are stored, {} expected", stored, *bytes));
    inside(address, *bytes, "data");
    return {address};
  }

  void inside(std::uint64_t address, std::uint64_t bytes, const std::string& what) const {
    if (address > hole_->end || bytes > hole_->end - address)
      calls_.fail(Errc::malformed,
                  fmt::format("{}: {} bytes at {} reach over the file's {}", what, bytes, address, hole_->end));
  }

  void read_chunking(hid_t creation, DatasetLayout& dataset) const {
    std::array<hsize_t, H5S_MAX_RANK> chunk{};
    const int rank = calls_(H5Pget_chunk(creation, H5S_MAX_RANK, chunk.data()), "H5Pget_chunk");
    dataset.chunk.assign(chunk.begin(), chunk.begin() + std::min<int>(rank, H5S_MAX_RANK));
    const int filters = calls_(H5Pget_nfilters(creation), "H5Pget_nfilters");
    if (filters > 0 && read_deflated(creation, filters, dataset)) return;
    if (dataset.chunk.size() != dataset.shape.size() || std::ranges::count(dataset.chunk, 0u) > 0)
      calls_.fail(Errc::malformed, "its chunks do not fit its shape");
    if (stored_as(dataset.dtype).pair || stored_as(dataset.dtype).packed)
      calls_.fail(Errc::unsupported, fmt::format("{} in chunks", name(dataset.dtype)));
    if (filters == 0) return;
    unsigned flags = 0, settings = 0;
    std::array<unsigned, 2> client{};
    std::size_t count = client.size();
    const H5Z_filter_t filter =
        calls_(H5Pget_filter2(creation, 0, &flags, &count, client.data(), 0, nullptr, &settings), "H5Pget_filter2");
    if (filters != 1 || filter != static_cast<H5Z_filter_t>(kLmqFilterId))
      calls_.fail(Errc::unsupported,
                  fmt::format("found {} ({}{}), expected that of lmq ({}) alone: a tool has packed this copy anew "
                              "(h5repack -f); start from the file that lmq made",
                              counted(static_cast<std::uint64_t>(filters), "filter"),
                              filters > 1 ? "the first is " : "", filter_words(filter), kLmqFilterId));
    const auto whole = element_bytes(dataset.dtype, element_count(dataset.chunk));
    const bool said = count == 2 && whole == (std::uint64_t{client[1]} << 32 | client[0]);
    if (!said && !(count == 0 && has_whole_chunks(dataset)))
      calls_.fail(Errc::malformed, "the filter's client values are not the bytes of a chunk");
    dataset.encoded = true;
  }

  /// Whether it is stored as a deflated dataset of ours: one chunk behind deflate, and shuffle where elements are wide.
  bool read_deflated(hid_t creation, int filters, DatasetLayout& dataset) const {
    const bool wide = !dataset.text && bits(dataset.dtype) > 8;
    std::vector<H5Z_filter_t> expected{H5Z_FILTER_DEFLATE};
    if (wide) expected.insert(expected.begin(), H5Z_FILTER_SHUFFLE);
    if (static_cast<std::size_t>(filters) != expected.size()) return false;
    for (unsigned i = 0; i < expected.size(); ++i) {
      unsigned flags = 0, settings = 0, client = 0;
      std::size_t count = 1;
      if (calls_(H5Pget_filter2(creation, i, &flags, &count, &client, 0, nullptr, &settings), "H5Pget_filter2") !=
          expected[i])
        return false;
    }
    if (dataset.text ? dataset.chunk != std::vector<std::uint64_t>{1} : dataset.chunk != dataset.shape)
      calls_.fail(Errc::unsupported, "deflated in more than one chunk; one is read");
    dataset.chunk.clear();
    dataset.deflated = true;
    return true;
  }

  std::vector<std::uint64_t> chunk_places(hid_t id, DatasetLayout& dataset) {
    if (dataset.deflated) {
      const std::vector<std::uint64_t> whole(std::max<std::size_t>(dataset.shape.size(), 1), 1);
      const HoleFile::Raw raw = chunk_place(id, ChunkWalk(whole, whole));
      dataset.piece_bytes = {raw.bytes};
      return {raw.address};
    }
    const auto whole = element_bytes(dataset.dtype, element_count(dataset.chunk));
    const auto count = element_count(chunk_grid(dataset.shape, dataset.chunk));
    if (!whole || *whole > kMaxChunkBytes || !count || *count > hole_->end)
      calls_.fail(Errc::malformed, "its chunks are more or larger than the file can hold");
    pieces_ += *count;
    if (pieces_ > kMaxPieces) calls_.fail(Errc::unsupported, fmt::format("more than {} chunks in all", kMaxPieces));
    std::vector<std::uint64_t> offsets;
    ChunkWalk walk(dataset.shape, dataset.chunk);
    for (std::uint64_t i = 0; i < *count; ++i, walk.next()) {
      const HoleFile::Raw raw = chunk_place(id, walk);
      if (!dataset.encoded && raw.bytes != *whole)
        calls_.fail(Errc::malformed,
                    fmt::format("{}: {} bytes are stored, {} expected", walk.text(), raw.bytes, *whole));
      offsets.push_back(raw.address);
      dataset.piece_bytes.push_back(raw.bytes);
    }
    return offsets;
  }

  /// Asks HDF5 to read the chunk; the driver notes from where, and reads nothing.
  HoleFile::Raw chunk_place(hid_t id, const ChunkWalk& walk) {
    hsize_t bytes = 0;
    if (H5Dget_chunk_storage_size(id, walk.at(), &bytes) < 0 || bytes == 0)
      calls_.fail(Errc::malformed, walk.text() + " is missing");
    std::uint32_t mask = 0;
    void* const buffer = payload_.cover(bytes);
    calls_(hole_->drop_raw(buffer, [&] { return H5Dread_chunk(id, H5P_DEFAULT, walk.at(), &mask, buffer); }),
           "H5Dread_chunk");
    if (!hole_->raw || hole_->raw->bytes != bytes || mask != 0)
      calls_.fail(Errc::malformed, walk.text() + " has no plain place in the file");
    inside(hole_->raw->address, bytes, walk.text());
    return *hole_->raw;
  }

  LayoutFormat::Existing sorted() {
    auto& datasets = out_.layout.datasets;
    std::vector<std::size_t> order(datasets.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::ranges::sort(order, {}, [&](std::size_t i) -> const std::string& { return datasets[i].path; });
    LayoutFormat::Existing existing;
    for (const std::size_t i : order) {
      existing.layout.datasets.push_back(std::move(datasets[i]));
      existing.places.offsets.push_back(std::move(out_.places.offsets[i]));
    }
    existing.layout.root = std::move(out_.layout.root);
    existing.layout.groups = std::move(out_.layout.groups);
    std::ranges::sort(existing.layout.groups, {}, &GroupLayout::path);
    existing.places.file_bytes = hole_->end;
    return existing;
  }

  std::shared_ptr<HoleFile> hole_;
  Calls calls_;
  HoleDriver driver_;
  Untouchable payload_;
  FileId file_;
  std::vector<std::string> waiting_;  ///< groups to be read; "" is the root
  std::set<ObjectId> met_;
  std::uint64_t pieces_ = 0;
  LayoutFormat::Existing out_;
};

}  // namespace

LayoutFormat::Existing open_file(const std::filesystem::path& path) {
  const Quiet quiet;
  const auto hole = std::make_shared<HoleFile>(File(path, File::Mode::read), HoleFile::Mode::read);
  if (!is_hdf5(path))
    fail(Errc::malformed,
         fmt::format("{}: not an HDF5 file (it does not begin with HDF5's signature)", printable(path.string())));
  try {
    return Opener(hole).run();
  } catch (...) {
    hole->rethrow();
    throw;
  }
}

}  // namespace lmq::h5
