#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <system_error>

#include "attributes.hpp"
#include "check_layout.hpp"
#include "format.hpp"
#include "hole_driver.hpp"
#include "lmq/base/math.hpp"
#include "lmq/base/text.hpp"
#include "lmq/io_hdf5/hdf5_format.hpp"
#include "types.hpp"

#if __has_include(<H5Zdevelop.h>)
#include <H5Zdevelop.h>
#endif

namespace lmq::h5 {
namespace {

/// Stands for the lmq filter while a file is laid out: HDF5 wants an encoder before it makes a filtered dataset.
class StandInFilter {
 public:
  explicit StandInFilter(const Calls& calls) {
    static const H5Z_class2_t filter = [] {
      H5Z_class2_t z{};
      z.version = H5Z_CLASS_T_VERS;
      z.id = static_cast<H5Z_filter_t>(kLmqFilterId);
      z.encoder_present = z.decoder_present = 1;
      z.name = "lmq";  // stored with every filtered dataset
      z.filter = [](unsigned, size_t, const unsigned*, size_t, size_t*, void**) -> size_t {
        return 0;
      };  // always fails
      return z;
    }();
    calls(H5Zregister(&filter), "H5Zregister");
  }
  ~StandInFilter() { H5Zunregister(static_cast<H5Z_filter_t>(kLmqFilterId)); }
  StandInFilter(const StandInFilter&) = delete;
  StandInFilter& operator=(const StandInFilter&) = delete;
};

/// No times; attributes in the object's header as long as they are few. Their order is kept where it is not that of
/// their names, in which they are read anyway: it takes 2 bytes of every message of the header.
void plain_object(const Calls& calls, hid_t creation, const std::vector<Attribute>& attributes) {
  calls(H5Pset_obj_track_times(creation, false), "H5Pset_obj_track_times");
  if (!std::ranges::is_sorted(attributes, {}, &Attribute::name))
    calls(H5Pset_attr_creation_order(creation, H5P_CRT_ORDER_TRACKED), "H5Pset_attr_creation_order");
  if (attributes.size() > 8) calls(H5Pset_attr_phase_change(creation, 64, 32), "H5Pset_attr_phase_change");
}

bool is_ascii(const std::string& text) {
  return std::ranges::all_of(text, [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

/// What a group holds: how many links, and the bytes of their names.
struct Members {
  std::uint64_t links = 0, name_bytes = 0;
  void add(const std::string& path) { ++links, name_bytes += leaf_of(path).size() + (is_ascii(path) ? 0 : 1); }
};

std::map<std::string, Members> members_of(const FileLayout& layout, const GroupTable& groups) {
  std::map<std::string, Members> members;
  for (const auto& [path, group] : groups) members[parent_of(path)].add(path);
  for (const DatasetLayout& dataset : layout.datasets) members[parent_of(dataset.path)].add(dataset.path);
  return members;
}

/// Few links lie in the group's header, which is made as large as they and its attributes need.
void plan_links(const Calls& calls, hid_t creation, const Members& members, std::uint64_t attribute_bytes) {
  if (members.links == 0 || members.links > kMaxPlainLinks) return;
  const auto name = static_cast<unsigned>(ceil_div(members.name_bytes + attribute_bytes, members.links));
  calls(H5Pset_link_phase_change(creation, kMaxPlainLinks, kMaxPlainLinks - 1), "H5Pset_link_phase_change");
  calls(H5Pset_est_link_info(creation, static_cast<unsigned>(members.links), name), "H5Pset_est_link_info");
}

// Stored with the filter; no reader looks at it.
constexpr unsigned kDeflateLevel = 9;

class Creator {
 public:
  Creator(std::shared_ptr<HoleFile> hole, const FileLayout& layout, const GroupTable& groups)
      : layout_(layout),
        groups_(groups),
        hole_(std::move(hole)),
        calls_(printable(hole_->file.path().string()), Errc::internal),
        driver_(calls_),
        filter_(calls_),
        attributes_(calls_),
        members_(members_of(layout, groups)) {}

  FilePlaces run() {
    ascii_links_ = Plist{calls_(H5Pcreate(H5P_LINK_CREATE), "H5Pcreate")};
    utf8_links_ = Plist{calls_(H5Pcreate(H5P_LINK_CREATE), "H5Pcreate")};
    calls_(H5Pset_char_encoding(utf8_links_.get(), H5T_CSET_UTF8), "H5Pset_char_encoding");
    make_file();
    for (const auto& [path, group] : groups_) make_group(path, group);
    FilePlaces places;
    places.offsets.reserve(layout_.datasets.size());
    for (const DatasetLayout& dataset : layout_.datasets) places.offsets.push_back(make_dataset(dataset));
    finish();
    places.file_bytes = hole_->allocated;
    return places;
  }

 private:
  void make_file() {
    const Plist access = driver_.access(calls_, hole_);
    calls_(H5Pset_libver_bounds(access.get(), H5F_LIBVER_V110, H5F_LIBVER_V110), "H5Pset_libver_bounds");
    calls_(H5Pset_meta_block_size(access.get(), metadata_block(layout_)), "H5Pset_meta_block_size");
    calls_(H5Pset_small_data_block_size(access.get(), 0), "H5Pset_small_data_block_size");
    const Plist creation{calls_(H5Pcreate(H5P_FILE_CREATE), "H5Pcreate")};
    const std::size_t sizes = address_bytes(layout_);
    calls_(H5Pset_sizes(creation.get(), sizes, sizes), "H5Pset_sizes");
    plain_object(calls_, creation.get(), layout_.root);
    plan_links(calls_, creation.get(), members_[""], attribute_bytes(layout_.root, sizes));
    const std::string name = hole_->file.path().string();
    file_ = FileId{calls_(H5Fcreate(name.c_str(), H5F_ACC_TRUNC, creation.get(), access.get()), "H5Fcreate")};
    const Group root{calls_(H5Gopen2(file_.get(), "/", H5P_DEFAULT), "H5Gopen2")};
    for (const Attribute& attribute : layout_.root) attributes_.write(root.get(), attribute);
  }

  [[nodiscard]] hid_t links_for(const std::string& path) const {
    return (is_ascii(path) ? ascii_links_ : utf8_links_).get();
  }

  void make_group(const std::string& path, const GroupLayout* group) {
    calls_.at("group", path);
    const Plist creation{calls_(H5Pcreate(H5P_GROUP_CREATE), "H5Pcreate")};
    const std::vector<Attribute> none;
    const std::vector<Attribute>& attributes = group != nullptr ? group->attributes : none;
    plain_object(calls_, creation.get(), attributes);
    plan_links(calls_, creation.get(), members_[path], attribute_bytes(attributes, address_bytes(layout_)));
    const Group made{
        calls_(H5Gcreate2(file_.get(), path.c_str(), links_for(path), creation.get(), H5P_DEFAULT), "H5Gcreate2")};
    if (group != nullptr)
      for (const Attribute& attribute : group->attributes) attributes_.write(made.get(), attribute);
    hole_->rethrow();
  }

  /// The group a dataset goes into; neighbours in the layout mostly share it.
  hid_t parent(const std::string& path) {
    const std::string wanted = parent_of(path) + "/";
    if (wanted != parent_path_) {
      parent_ = Group{calls_(H5Gopen2(file_.get(), wanted.c_str(), H5P_DEFAULT), "H5Gopen2")};
      parent_path_ = wanted;
    }
    return parent_.get();
  }

  [[nodiscard]] Plist dataset_plist(const DatasetLayout& dataset) const {
    Plist creation{calls_(H5Pcreate(H5P_DATASET_CREATE), "H5Pcreate")};
    plain_object(calls_, creation.get(), dataset.attributes);
    calls_(H5Pset_dset_no_attrs_hint(creation.get(), true), "H5Pset_dset_no_attrs_hint");
    calls_(H5Pset_fill_time(creation.get(), H5D_FILL_TIME_NEVER), "H5Pset_fill_time");
    if (dataset.deflated) return deflated_plist(dataset, std::move(creation));
    if (dataset.chunk.empty()) {
      calls_(H5Pset_layout(creation.get(), H5D_CONTIGUOUS), "H5Pset_layout");
      calls_(H5Pset_alloc_time(creation.get(), H5D_ALLOC_TIME_EARLY), "H5Pset_alloc_time");
      return creation;
    }
    const std::vector<hsize_t> chunk(dataset.chunk.begin(), dataset.chunk.end());
    calls_(H5Pset_chunk(creation.get(), static_cast<int>(chunk.size()), chunk.data()), "H5Pset_chunk");
    if (!dataset.encoded) return creation;
    const std::uint64_t bytes = *element_bytes(dataset.dtype, element_count(dataset.chunk));
    const unsigned client[] = {static_cast<unsigned>(bytes & 0xFFFFFFFF), static_cast<unsigned>(bytes >> 32)};
    const std::size_t values = has_whole_chunks(dataset) ? 0 : 2;
    calls_(H5Pset_filter(creation.get(), static_cast<H5Z_filter_t>(kLmqFilterId), H5Z_FLAG_MANDATORY, values, client),
           "H5Pset_filter");
    return creation;
  }

  /// One chunk, which is what HDF5 filters.
  [[nodiscard]] Plist deflated_plist(const DatasetLayout& dataset, Plist creation) const {
    const std::vector<hsize_t> chunk = stored_dims(dataset);
    calls_(H5Pset_chunk(creation.get(), static_cast<int>(chunk.size()), chunk.data()), "H5Pset_chunk");
    if (!dataset.text && bits(dataset.dtype) > 8) calls_(H5Pset_shuffle(creation.get()), "H5Pset_shuffle");
    calls_(H5Pset_deflate(creation.get(), kDeflateLevel), "H5Pset_deflate");
    return creation;
  }

  [[nodiscard]] static std::vector<hsize_t> stored_dims(const DatasetLayout& dataset) {
    if (!dataset.text) return {dataset.shape.begin(), dataset.shape.end()};
    if (dataset.deflated) return {1};  // chunks have a dimension at least
    return {};
  }

  [[nodiscard]] Space dataset_space(const DatasetLayout& dataset, const StoredAs& stored) const {
    std::vector<hsize_t> dims = stored_dims(dataset);
    if (stored.packed) dims = {dataset.piece_bytes[0]};
    if (stored.pair) dims.push_back(2);
    if (dims.empty()) return Space{calls_(H5Screate(H5S_SCALAR), "H5Screate")};
    return Space{calls_(H5Screate_simple(static_cast<int>(dims.size()), dims.data(), nullptr), "H5Screate_simple")};
  }

  std::vector<std::uint64_t> make_dataset(const DatasetLayout& dataset) {
    calls_.at("dataset", dataset.path);
    const StoredAs stored = stored_as(dataset.dtype);
    const Space space = dataset_space(dataset, stored);
    const Plist creation = dataset_plist(dataset);
    const Type text = dataset.text ? make_text_type(calls_, dataset.shape[0]) : Type{};
    const Dataset made{calls_(H5Dcreate2(parent(dataset.path), leaf_of(dataset.path).c_str(),
                                         dataset.text ? text.get() : type(stored.element), space.get(),
                                         links_for(dataset.path), creation.get(), H5P_DEFAULT),
                              "H5Dcreate2")};
    for (const Attribute& attribute : dataset.attributes) attributes_.write(made.get(), attribute);
    if (stored.marked) attributes_.write(made.get(), {kStoredType, std::string(name(dataset.dtype))});
    if (stored.packed) attributes_.write(made.get(), {kStoredShape, dataset.shape});
    const bool contiguous = dataset.chunk.empty() && !dataset.deflated;
    auto offsets = contiguous ? contiguous_place(dataset, made.get()) : chunk_places(dataset, made.get());
    hole_->rethrow();
    return offsets;
  }

  hid_t type(DType element) {
    const auto found = types_.find(element);
    return (found != types_.end() ? found : types_.emplace(element, make_type(calls_, element)).first)->second.get();
  }

  [[nodiscard]] std::vector<std::uint64_t> contiguous_place(const DatasetLayout& dataset, hid_t made) const {
    if (dataset.piece_bytes[0] == 0) return {0};
    const haddr_t address = H5Dget_offset(made);
    if (address == HADDR_UNDEF) calls_.fail(Errc::internal, "H5Dget_offset: the dataset has no place");
    return {address};
  }

  std::vector<std::uint64_t> chunk_places(const DatasetLayout& dataset, hid_t made) {
    std::vector<std::uint64_t> offsets;
    offsets.reserve(dataset.piece_bytes.size());
    const std::vector<std::uint64_t> whole(std::max<std::size_t>(dataset.shape.size(), 1), 1);
    ChunkWalk walk(dataset.deflated ? whole : dataset.shape, dataset.deflated ? whole : dataset.chunk);
    for (const std::uint64_t bytes : dataset.piece_bytes) {
      void* const buffer = payload_.cover(bytes);
      calls_(hole_->drop_raw(buffer, [&] { return H5Dwrite_chunk(made, H5P_DEFAULT, 0, walk.at(), bytes, buffer); }),
             "H5Dwrite_chunk");
      if (!hole_->raw || hole_->raw->bytes != bytes)
        calls_.fail(Errc::internal, fmt::format("H5Dwrite_chunk: no write of {} bytes for {}", bytes, walk.text()));
      offsets.push_back(hole_->raw->address);
      walk.next();
    }
    confirm_place(made, {.address = offsets[0], .bytes = dataset.piece_bytes[0]});
    return offsets;
  }

  /// HDF5's own word on the first chunk (its cost grows with the number of chunks before the one asked for).
  void confirm_place(hid_t made, const HoleFile::Raw& noted) const {
    const std::vector<hsize_t> first(H5S_MAX_RANK, 0);
    unsigned mask = 0;
    haddr_t address = 0;
    hsize_t bytes = 0;
    calls_(H5Dget_chunk_info_by_coord(made, first.data(), &mask, &address, &bytes), "H5Dget_chunk_info_by_coord");
    if (mask != 0 || address != noted.address || bytes != noted.bytes)
      calls_.fail(Errc::internal, fmt::format("first chunk: {} bytes at {}, but {} at {} were written", bytes, address,
                                              noted.bytes, noted.address));
  }

  /// Closes, and gives the file its length and its space.
  void finish() {
    calls_ = Calls(printable(hole_->file.path().string()), Errc::internal);
    parent_ = Group{};
    calls_(H5Fclose(file_.release()), "H5Fclose");
    hole_->rethrow();
    hole_->file.truncate(hole_->allocated);
    hole_->file.reserve(hole_->allocated);
    hole_->file.close();
  }

  const FileLayout& layout_;
  const GroupTable& groups_;
  std::shared_ptr<HoleFile> hole_;
  Calls calls_;
  HoleDriver driver_;
  StandInFilter filter_;
  AttributeWriter attributes_;
  Untouchable payload_;
  std::map<DType, Type> types_;
  std::map<std::string, Members> members_;  // by group, "": the root
  Plist ascii_links_, utf8_links_;
  FileId file_;  // closed before the filter and the driver go
  Group parent_;
  std::string parent_path_;
};

}  // namespace

FilePlaces create_file(const std::filesystem::path& path, const FileLayout& layout) {
  const Quiet quiet;
  const GroupTable groups = check_layout(printable(path.string()), layout);
  const auto hole = std::make_shared<HoleFile>(File(path, File::Mode::create), HoleFile::Mode::create);
  try {
    return Creator(hole, layout, groups).run();
  } catch (...) {
    std::error_code ignored;
    if (std::filesystem::is_regular_file(path, ignored)) std::filesystem::remove(path, ignored);
    hole->rethrow();  // what the file said comes before what HDF5 made of it
    throw;
  }
}

}  // namespace lmq::h5
