#include <malloc.h>

#include <catch2/catch.hpp>
#include <set>
#include <thread>

#include "lmq/base/error.hpp"
#include "lmq/io_hdf5/hdf5_format.hpp"
#include "samples.hpp"

using namespace lmq;
using namespace lmq::samples;

namespace {

template <class Body>
std::pair<Errc, std::string> failure(Body body) {
  try {
    body();
  } catch (const Error& error) {
    return {error.code, error.what()};
  }
  return {Errc{}, "no failure"};
}

/// A layout of one dataset.
FileLayout only(DatasetLayout dataset) {
  FileLayout layout;
  layout.datasets = {std::move(dataset)};
  return layout;
}

/// Texts and numbers as they are, and in one piece behind HDF5's own filters.
FileLayout texts_and_deflated() {
  FileLayout layout;
  for (const bool deflated : {false, true}) {
    DatasetLayout text = contiguous(deflated ? "/text.deflated" : "/text", DType::u8, {77});
    text.text = true;
    text.deflated = deflated;
    if (deflated) text.piece_bytes = {41};
    layout.datasets.push_back(text);
  }
  for (const DType type : {DType::u8, DType::f32, DType::u64}) {
    DatasetLayout numbers = contiguous("/numbers." + std::string(name(type)), type, {5, 7});
    numbers.deflated = true;
    numbers.piece_bytes = {100};
    layout.datasets.push_back(numbers);
  }
  sort(layout);
  return layout;
}

}  // namespace

TEST_CASE("open gives back the layout and the places that create made", "[io_hdf5]") {
  const Folder folder("layout_roundtrip");
  const auto format = make_hdf5_format();
  const FileLayout layout =
      GENERATE(as<FileLayout>(), FileLayout{}, everything(), only(contiguous("/x", DType::f32, {})),
               only(encoded("/x", {1}, {1})), only(encoded("/deep/x", {100000, 3}, {7, 3})), texts_and_deflated());
  const FilePlaces places = format->create(folder / "a.h5", layout);
  const bool guarded = GENERATE(false, true);
  const auto existing = guarded ? format->open_guarded(folder / "a.h5") : format->open(folder / "a.h5");
  REQUIRE(existing.layout.root == layout.root);
  REQUIRE(existing.layout.groups == layout.groups);
  REQUIRE(existing.layout.datasets.size() == layout.datasets.size());
  for (std::size_t i = 0; i < layout.datasets.size(); ++i) {
    CAPTURE(layout.datasets[i].path);
    REQUIRE(existing.layout.datasets[i] == layout.datasets[i]);
  }
  REQUIRE(existing.places == places);
  REQUIRE(std::filesystem::file_size(folder / "a.h5") == places.file_bytes);
  REQUIRE(is_hdf5(folder / "a.h5"));
}

TEST_CASE("pieces lie inside the file and apart from each other and from the metadata", "[io_hdf5]") {
  const Folder folder("layout_apart");
  const auto format = make_hdf5_format();
  const FileLayout layout = everything();
  const FilePlaces places = format->create(folder / "a.h5", layout);
  std::set<std::pair<std::uint64_t, std::uint64_t>> spans;
  for (std::size_t d = 0; d < layout.datasets.size(); ++d) {
    REQUIRE(places.offsets[d].size() == layout.datasets[d].piece_bytes.size());
    for (std::size_t p = 0; p < places.offsets[d].size(); ++p)
      if (layout.datasets[d].piece_bytes[p] > 0)
        spans.insert({places.offsets[d][p], layout.datasets[d].piece_bytes[p]});
      else
        REQUIRE(places.offsets[d][p] == 0);
  }
  std::uint64_t end = 8;
  for (const auto& [offset, bytes] : spans) {
    REQUIRE(offset >= end);
    end = offset + bytes;
  }
  REQUIRE(end <= places.file_bytes);
  const std::string before = bytes_of(folder / "a.h5");
  for (const auto& [offset, bytes] : spans) REQUIRE(before.substr(offset, bytes) == std::string(bytes, '\0'));
  fill(folder / "a.h5", layout, places);  // the payload tells nothing about the layout
  const auto existing = format->open(folder / "a.h5");
  REQUIRE(existing.layout == layout);
  REQUIRE(existing.places == places);
}

TEST_CASE("the bytes are a function of the layout: not of time, folder, name or what memory held", "[io_hdf5][slow]") {
  const Folder folder("layout_same"), other("layout_same_elsewhere");
  const auto format = make_hdf5_format();
  const FileLayout layout = everything();
  const FilePlaces places = format->create(folder / "a.h5", layout);
  const std::string bytes = bytes_of(folder / "a.h5");
  for (const int perturb : {0x5A, 0xC3}) {
    mallopt(M_PERTURB, perturb);  // fresh memory is not zero, freed memory is overwritten
    REQUIRE(format->create(folder / "a.h5", layout) == places);
    REQUIRE(bytes_of(folder / "a.h5") == bytes);
  }
  mallopt(M_PERTURB, 0);
  std::this_thread::sleep_for(std::chrono::milliseconds(1100));
  REQUIRE(make_hdf5_format()->create(other / "another-name.h5", layout) == places);
  REQUIRE(bytes_of(other / "another-name.h5") == bytes);
}

TEST_CASE("create writes over an older file and its bytes do not depend on it", "[io_hdf5]") {
  const Folder folder("layout_over");
  const auto format = make_hdf5_format();
  const FileLayout small = only(contiguous("/x", DType::u8, {3}));
  (void)format->create(folder / "a.h5", small);
  const std::string bytes = bytes_of(folder / "a.h5");
  (void)format->create(folder / "a.h5", everything());
  (void)format->create(folder / "a.h5", small);
  REQUIRE(bytes_of(folder / "a.h5") == bytes);
  REQUIRE(bytes.size() < 8192);
}

TEST_CASE("what HDF5 cannot hold is unsupported, with the name; the old file stays", "[io_hdf5]") {
  const Folder folder("layout_unsupported");
  const auto format = make_hdf5_format();
  (void)format->create(folder / "a.h5", {});
  const std::string before = bytes_of(folder / "a.h5");
  std::string deep = "/x";
  for (int i = 0; i < 70; ++i) deep += "/x";
  FileLayout both = only(contiguous("/a", DType::f32, {1}));
  both.datasets.push_back(contiguous("/a/b", DType::f32, {1}));
  DatasetLayout huge_piece = encoded("/huge", {4}, {2});
  huge_piece.piece_bytes[1] = std::uint64_t{1} << 32;
  DatasetLayout huge_chunk = plain_chunks("/huge", DType::f32, {1 << 16, 1 << 14}, {1 << 16, 1 << 14});
  const auto [layout, word] = GENERATE_COPY(table<FileLayout, std::string>(
      {{only(contiguous("/a//b", DType::f32, {1})), "/a//b"},
       {only(contiguous("/a/", DType::f32, {1})), "/a/"},
       {only(contiguous("/", DType::f32, {1})), "'/'"},
       {only(contiguous("/a/./b", DType::f32, {1})), "/a/./b"},
       {only(contiguous("/\xFF", DType::f32, {1})), "UTF-8"},
       {only(contiguous(deep, DType::f32, {1})), "limit"},
       {only(contiguous("/" + std::string(5000, 'n'), DType::f32, {1})), "limit"},
       {only(contiguous("/rank", DType::f32, std::vector<std::uint64_t>(33, 1))), "dimensions"},
       {only(contiguous("/rank", DType::c64, std::vector<std::uint64_t>(32, 1))), "dimensions"},
       {both, "'/a' is a dataset and a group"},
       {only(huge_piece), "4294967296"},
       {only(huge_chunk), "4294967296"}}));
  CAPTURE(word);
  const auto [code, what] = failure([&] { (void)format->create(folder / "a.h5", layout); });
  REQUIRE(code == Errc::unsupported);
  REQUIRE_THAT(what, Catch::Contains(word) && Catch::Contains("a.h5") && !Catch::Contains("\n"));
  REQUIRE(bytes_of(folder / "a.h5") == before);
}

TEST_CASE("a layout that contradicts itself is an internal error", "[io_hdf5]") {
  const Folder folder("layout_internal");
  const auto with = [](auto change) {
    DatasetLayout dataset = encoded("/x", {10, 4}, {3, 4});
    change(dataset);
    return only(std::move(dataset));
  };
  const auto attribute = [&](Attribute a) { return with([&](DatasetLayout& d) { d.attributes = {std::move(a)}; }); };
  FileLayout unsorted;
  unsorted.datasets = {contiguous("/b", DType::f32, {1}), contiguous("/a", DType::f32, {1})};
  FileLayout twice;
  twice.datasets = {contiguous("/a", DType::f32, {1}), contiguous("/a", DType::f32, {1})};
  const std::vector<FileLayout> layouts{unsorted,
                                        twice,
                                        with([](auto& d) { d.piece_bytes.pop_back(); }),
                                        with([](auto& d) { d.piece_bytes[0] = 0; }),
                                        with([](auto& d) { d.encoded = false; }),
                                        with([](auto& d) {
                                          d.chunk = {11, 4};
                                        }),
                                        with([](auto& d) {
                                          d.chunk = {0, 4};
                                        }),
                                        with([](auto& d) { d.chunk = {3}; }),
                                        with([](auto& d) { d.chunk = {}; }),
                                        with([](auto& d) { d.dtype = DType::f4; }),
                                        with([](auto& d) { d.path = "x"; }),
                                        with([](auto& d) { d.path = ""; }),
                                        attribute({"", 1.0}),
                                        attribute({"lmq_stored_type", std::string("F4")}),
                                        attribute({"t", std::string("a\0b", 3)}),
                                        attribute({"t", std::string("\xC0\x80")}),
                                        attribute({"t", std::string(kMaxAttributeBytes + 1, 'x')}),
                                        attribute({"t", std::vector<double>(kMaxAttributeBytes / 8 + 1)})};
  for (const FileLayout& layout : layouts) {
    const auto [code, what] = failure([&] { (void)make_hdf5_format()->create(folder / "a.h5", layout); });
    CAPTURE(what, &layout - layouts.data());
    REQUIRE(code == Errc::internal);
    REQUIRE_FALSE(std::filesystem::exists(folder / "a.h5"));
  }
}

TEST_CASE("failures of the file system carry their own code, and nothing stays", "[io_hdf5]") {
  const Folder folder("layout_failures");
  const auto format = make_hdf5_format();
  REQUIRE(failure([&] { (void)format->create(folder / "no-folder/a.h5", {}); }).first == Errc::cannot_create);
  REQUIRE(failure([&] { (void)format->open(folder / "none.h5"); }).first == Errc::missing);
  if (std::filesystem::is_character_file("/dev/full")) {
    const auto [code, what] = failure([&] { (void)format->create("/dev/full", everything()); });
    REQUIRE(code == Errc::io);
    REQUIRE_THAT(what, Catch::Contains("/dev/full"));
    REQUIRE(std::filesystem::is_character_file("/dev/full"));  // a device is nothing of ours to remove
  }
  FileLayout vast = only(contiguous("/x", DType::u8, {std::uint64_t{1} << 50}));
  const auto [code, what] = failure([&] { (void)format->create(folder / "vast.h5", vast); });
  CAPTURE(what);
  REQUIRE(code == Errc::io);
  REQUIRE_FALSE(std::filesystem::exists(folder / "vast.h5"));
  REQUIRE(format->create(folder / "good.h5", {}).file_bytes > 0);  // the library is in order after all that
}

TEST_CASE("many datasets and chunks are laid out in seconds", "[io_hdf5][slow]") {
  const Folder folder("layout_large");
  FileLayout layout;
  for (int i = 0; i < 5000; ++i) {
    layout.datasets.push_back(encoded("/model.layers." + std::to_string(i) + ".weight", {95, 64}, {32, 64}));
    layout.datasets.back().attributes = {{"lmq_method", std::string("kmeans")}, {"lmq_levels", std::uint64_t{16}}};
  }
  sort(layout);
  const auto begin = std::chrono::steady_clock::now();
  const auto format = make_hdf5_format();
  const FilePlaces places = format->create(folder / "a.h5", layout);
  const auto existing = format->open(folder / "a.h5");
  REQUIRE(std::chrono::steady_clock::now() - begin < std::chrono::seconds(30));
  REQUIRE(existing.layout == layout);
  REQUIRE(existing.places == places);
}
