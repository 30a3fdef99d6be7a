#include <hdf5.h>
#include <sys/wait.h>

#include <catch2/catch.hpp>
#include <functional>
#include <random>

#include "lmq/base/error.hpp"
#include "lmq/base/text.hpp"
#include "lmq/io_hdf5/hdf5_format.hpp"
#include "samples.hpp"

using namespace lmq;
using namespace lmq::samples;

namespace {

std::pair<Errc, std::string> open_failure(const std::filesystem::path& path) {
  try {
    (void)make_hdf5_format()->open(path);
  } catch (const Error& error) {
    return {error.code, error.what()};
  }
  return {Errc{}, "no failure"};
}

void write_bytes(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

/// A file made by HDF5 itself, holding what `fill` puts into it.
std::filesystem::path foreign(const std::filesystem::path& path, const std::function<void(hid_t)>& fill) {
  const hid_t file = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  fill(file);
  H5Fclose(file);
  return path;
}

/// A dataset of two elements at /odd.
void dataset(hid_t file, hid_t type, const std::function<void(hid_t)>& change, hsize_t dim = 2) {
  const hid_t space = H5Screate_simple(1, &dim, nullptr), creation = H5Pcreate(H5P_DATASET_CREATE);
  change(creation);
  const hid_t id = H5Dcreate2(file, "odd", type, space, H5P_DEFAULT, creation, H5P_DEFAULT);
  REQUIRE(id >= 0);
  H5Dclose(id), H5Sclose(space), H5Pclose(creation);
}

void plain(hid_t) {}

/// What open() promises of whatever it returns.
bool consistent(const LayoutFormat::Existing& existing) {
  const auto& [layout, places] = existing;
  if (layout.datasets.size() != places.offsets.size()) return false;
  for (std::size_t d = 0; d < layout.datasets.size(); ++d) {
    const DatasetLayout& each = layout.datasets[d];
    if (!is_clean_utf8(each.path) || (d > 0 && layout.datasets[d - 1].path >= each.path)) return false;
    if (each.piece_bytes.size() != places.offsets[d].size()) return false;
    if (each.piece_bytes.size() != (each.chunk.empty() ? 1 : chunk_count(each))) return false;
    for (std::size_t p = 0; p < each.piece_bytes.size(); ++p) {
      const std::uint64_t offset = places.offsets[d][p], bytes = each.piece_bytes[p];
      if (offset > places.file_bytes || bytes > places.file_bytes - offset) return false;
    }
  }
  return true;
}

enum Verdict { refused = 0, opened = 1, wrong = 2, died = 3 };

Verdict judge(const std::filesystem::path& path) {
  try {
    return consistent(make_hdf5_format()->open(path)) ? opened : wrong;
  } catch (const Error& error) {
    const bool one_line = std::string(error.what()).find('\n') == std::string::npos;
    return one_line && (error.code == Errc::malformed || error.code == Errc::unsupported) ? refused : wrong;
  } catch (...) {
    return wrong;
  }
}

/// Opens each variant of a file in a child, so that a crash inside HDF5 costs one variant only. count[verdict].
std::array<int, 4> judge_all(const std::filesystem::path& path, int variants,
                             const std::function<std::string(int)>& variant) {
  std::array<int, 4> count{};
  for (int next = 0; next < variants;) {
    int pipes[2];
    REQUIRE(pipe(pipes) == 0);
    const pid_t child = fork();
    if (child == 0) {
      for (int i = next; i < variants; ++i) {
        alarm(20);  // a hang counts as a crash
        write_bytes(path, variant(i));
        const char verdict = static_cast<char>(judge(path));
        if (write(pipes[1], &verdict, 1) != 1) _exit(1);
      }
      _exit(0);
    }
    close(pipes[1]);
    for (char verdict; read(pipes[0], &verdict, 1) == 1; ++next) ++count[static_cast<std::size_t>(verdict)];
    close(pipes[0]);
    int status = 0;
    waitpid(child, &status, 0);
    if (next < variants) ++count[died], ++next;
  }
  return count;
}

FileLayout small() {
  FileLayout layout;
  layout.root = {{"lmq_format", std::string("lmq")}};
  layout.groups = {{"/lmq", {{"plan_digest", std::string("0123")}, {"sizes", std::vector<std::uint64_t>{1, 2}}}}};
  layout.datasets = {contiguous("/a.norm", DType::bf16, {5}), encoded("/b.weight", {40, 8}, {4, 8}),
                     contiguous("/c/packed", DType::f4, {2, 4}), encoded("/d", {3}, {3})};
  for (int i = 0; i < 12; ++i)
    layout.datasets.push_back(contiguous("/e" + std::to_string(i), DType::u8, {1}, {{"x", static_cast<double>(i)}}));
  sort(layout);
  return layout;
}

std::string damaged(std::string bytes, int seed) {
  std::mt19937_64 random(static_cast<std::uint64_t>(seed));
  for (std::uint64_t left = 1 + random() % 3; left > 0; --left) {
    const std::size_t at = random() % bytes.size();
    if (random() % 2 == 0)
      bytes[at] = static_cast<char>(bytes[at] ^ (1 << random() % 8));
    else
      bytes[at] = static_cast<char>(random());
  }
  return bytes;
}

/// A file in the format of HDF5 1.6, which has no checksums to stop damage: groups with local heaps, B-trees of chunks.
void old_format(hid_t file) {
  const hid_t group = H5Gcreate2(file, "group", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
  const auto put = [&](hid_t at, bool chunked) {
    const std::vector<float> values(64, 1.5f);
    const hsize_t dims[] = {8, 8}, chunk[] = {3, 8};
    const hid_t space = H5Screate_simple(2, dims, nullptr), creation = H5Pcreate(H5P_DATASET_CREATE);
    if (chunked) H5Pset_chunk(creation, 2, chunk);
    const hid_t id =
        H5Dcreate2(at, chunked ? "chunked" : "whole", H5T_IEEE_F32LE, space, H5P_DEFAULT, creation, H5P_DEFAULT);
    H5Dwrite(id, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data());
    const hid_t attribute = H5Acreate2(id, "list", H5T_IEEE_F64LE, space, H5P_DEFAULT, H5P_DEFAULT);
    const hid_t scalar = H5Screate(H5S_SCALAR),
                number = H5Acreate2(id, "x", H5T_STD_U64LE, scalar, H5P_DEFAULT, H5P_DEFAULT);
    H5Aclose(number), H5Sclose(scalar), H5Aclose(attribute), H5Dclose(id), H5Sclose(space), H5Pclose(creation);
  };
  put(file, false), put(file, true), put(group, false), put(group, true);
  H5Gclose(group);
}

}  // namespace

TEST_CASE("what is no HDF5 file is malformed", "[io_hdf5]") {
  const Folder folder("open_not");
  const std::string good = "\x89HDF\r\n\x1a\n";
  for (const std::string& bytes : {std::string(), std::string("\x89HDF"), std::string(4096, '\0'),
                                   std::string(512, 'x') + good, good, good + std::string(4096, '\xFF')}) {
    write_bytes(folder / "a.h5", bytes);
    const auto [code, what] = open_failure(folder / "a.h5");
    CAPTURE(what);
    REQUIRE(code == Errc::malformed);
    REQUIRE_THAT(what, Catch::Contains("a.h5") && !Catch::Contains("\n"));
  }
  REQUIRE(open_failure(folder / "none").first == Errc::missing);
  REQUIRE(open_failure(folder / "").first == Errc::missing);
  REQUIRE_FALSE(is_hdf5(folder / "none"));
  REQUIRE_FALSE(is_hdf5(folder / ""));
}

// More than 40 lines: an object of each kind that is not read.
TEST_CASE("objects of kinds we do not read are unsupported, by name", "[io_hdf5]") {
  const Folder folder("open_unsupported");
  const auto path = folder / "a.h5";
  const auto refused_with = [&](const std::string& word, const std::function<void(hid_t)>& fill) {
    const auto [code, what] = open_failure(foreign(path, fill));
    CAPTURE(word, what);
    REQUIRE(code == Errc::unsupported);
    REQUIRE_THAT(what, Catch::Contains(word) && Catch::Contains("/odd"));
  };
  refused_with("link", [](hid_t f) { H5Lcreate_soft("/elsewhere", f, "odd", H5P_DEFAULT, H5P_DEFAULT); });
  refused_with("link", [](hid_t f) { H5Lcreate_external("/etc/passwd", "/x", f, "odd", H5P_DEFAULT, H5P_DEFAULT); });
  refused_with("another name", [](hid_t f) { H5Lcreate_hard(f, "/", f, "odd", H5P_DEFAULT, H5P_DEFAULT); });
  refused_with("neither", [](hid_t f) {
    const hid_t type = H5Tcopy(H5T_STD_I32LE);
    H5Tcommit2(f, "odd", type, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    H5Tclose(type);
  });
  refused_with("other files",
               [](hid_t f) { dataset(f, H5T_IEEE_F32LE, [](hid_t c) { H5Pset_external(c, "/etc/passwd", 0, 8); }); });
  refused_with("compact", [](hid_t f) { dataset(f, H5T_IEEE_F32LE, [](hid_t c) { H5Pset_layout(c, H5D_COMPACT); }); });
  refused_with("virtual", [](hid_t f) {
    dataset(f, H5T_IEEE_F32LE, [](hid_t c) {
      const hsize_t dim = 2;
      const hid_t space = H5Screate_simple(1, &dim, nullptr);
      H5Pset_virtual(c, space, "other.h5", "/x", space);
      H5Sclose(space);
    });
  });
  refused_with("filter", [](hid_t f) {
    dataset(f, H5T_IEEE_F32LE, [](hid_t c) {
      const hsize_t dim = 2;
      H5Pset_chunk(c, 1, &dim), H5Pset_shuffle(c);
    });
  });
  const hid_t variable = H5Tcopy(H5T_C_S1);
  H5Tset_size(variable, H5T_VARIABLE);
  const hid_t compound = H5Tcreate(H5T_COMPOUND, 4);
  H5Tinsert(compound, "x", 0, H5T_STD_I32LE);
  const hid_t odd_float = H5Tcopy(H5T_IEEE_F32LE);
  H5Tset_ebias(odd_float, 100);
  for (const hid_t type :
       {variable, compound, odd_float, H5T_STD_I32BE, H5T_IEEE_F64BE, H5T_STD_REF_OBJ, H5T_STD_B8LE, H5T_C_S1})
    refused_with("type", [&](hid_t f) { dataset(f, type, plain); });
  H5Tclose(variable), H5Tclose(compound), H5Tclose(odd_float);
  refused_with("deep", [](hid_t f) {
    const hid_t links = H5Pcreate(H5P_LINK_CREATE);
    H5Pset_create_intermediate_group(links, 1);
    std::string name = "odd";
    for (int i = 0; i < 80; ++i) name += "/odd";
    H5Gclose(H5Gcreate2(f, name.c_str(), links, H5P_DEFAULT, H5P_DEFAULT));
    H5Pclose(links);
  });
}

TEST_CASE("chunks and data that are not there are malformed", "[io_hdf5]") {
  const Folder folder("open_missing");
  const auto path = folder / "a.h5";
  const hsize_t dim = 2;
  REQUIRE(open_failure(foreign(path, [&](hid_t f) {
            dataset(f, H5T_IEEE_F32LE, [&](hid_t c) { H5Pset_chunk(c, 1, &dim); });
          })).first == Errc::malformed);
  REQUIRE(open_failure(foreign(path, [&](hid_t f) { dataset(f, H5T_IEEE_F32LE, plain); })).first == Errc::malformed);
  const hsize_t vast = hsize_t{1} << 60;
  REQUIRE(open_failure(foreign(path, [&](hid_t f) {
            dataset(
                f, H5T_STD_U8LE, [&](hid_t c) { H5Pset_chunk(c, 1, &dim); }, vast);
          })).first == Errc::malformed);
}

TEST_CASE("attributes of other kinds are passed over, those of ours are read from any file", "[io_hdf5]") {
  const Folder folder("open_attributes");
  const auto path = foreign(folder / "a.h5", [](hid_t f) {
    const auto put = [&](const char* name, hid_t type, const std::vector<hsize_t>& dims, const void* value) {
      const hid_t space =
          dims.empty() ? H5Screate(H5S_SCALAR) : H5Screate_simple(static_cast<int>(dims.size()), dims.data(), nullptr);
      const hid_t id = H5Acreate2(f, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
      REQUIRE(id >= 0);
      H5Awrite(id, type, value);
      H5Aclose(id), H5Sclose(space);
    };
    const std::vector<double> numbers(64, 1.5);
    const char* text = "variable";
    const hid_t variable = H5Tcopy(H5T_C_S1), terminated = H5Tcopy(H5T_C_S1), spaced = H5Tcopy(H5T_FORTRAN_S1);
    H5Tset_size(variable, H5T_VARIABLE), H5Tset_size(terminated, 8), H5Tset_size(spaced, 8);
    put("a_variable", variable, {}, &text);
    put("b_matrix", H5T_IEEE_F64LE, {2, 2}, numbers.data());
    put("c_float", H5T_IEEE_F32LE, {}, numbers.data());
    put("d_big", H5T_STD_I64BE, {}, numbers.data());
    put("e_terminated", terminated, {}, "abc\0xyz");
    put("f_spaced", spaced, {}, "abc     ");
    put("g_texts", terminated, {2}, "abcdefg\0abcdefg");
    put("h_signed_list", H5T_STD_I64LE, {2}, numbers.data());
    put("i_number", H5T_IEEE_F64LE, {}, numbers.data());
    put("j_latin", terminated, {}, "\xFF\xFE\0\0\0\0\0");
    H5Tclose(variable), H5Tclose(terminated), H5Tclose(spaced);
  });
  const std::vector<Attribute> expected{{"a_variable", std::string("variable")},
                                        {"e_terminated", std::string("abc")},
                                        {"f_spaced", std::string("abc")},
                                        {"i_number", 1.5}};
  REQUIRE(make_hdf5_format()->open(path).layout.root == expected);
}

TEST_CASE("floats of other programs are told by their fields; a read-only file opens", "[io_hdf5]") {
  const Folder folder("open_floats");
  const auto path = foreign(folder / "a.h5", [](hid_t f) {
    const hid_t half = H5Tcopy(H5T_IEEE_F32LE);
    H5Tset_fields(half, 15, 10, 5, 0, 10), H5Tset_size(half, 2), H5Tset_ebias(half, 15);
    dataset(f, half, [](hid_t c) { H5Pset_alloc_time(c, H5D_ALLOC_TIME_EARLY); });
    H5Tclose(half);
  });
  std::filesystem::permissions(path, std::filesystem::perms::owner_read);
  const auto existing = make_hdf5_format()->open(path);
  REQUIRE(existing.layout.datasets.size() == 1);
  REQUIRE(existing.layout.datasets[0].dtype == DType::f16);
  REQUIRE(existing.layout.datasets[0].shape == std::vector<std::uint64_t>{2});
}

TEST_CASE("HDF5's printing and plug-in state are as before", "[io_hdf5]") {
  const Folder folder("open_state");
  H5E_auto2_t before = nullptr, after = nullptr;
  void *before_data = nullptr, *after_data = nullptr;
  unsigned loading_before = 0, loading_after = 1;
  H5Eget_auto2(H5E_DEFAULT, &before, &before_data);
  H5PLget_loading_state(&loading_before);
  REQUIRE(before != nullptr);
  (void)make_hdf5_format()->create(folder / "a.h5", small());
  write_bytes(folder / "b.h5", "\x89HDF\r\n\x1a\n");
  (void)open_failure(folder / "b.h5");
  H5Eget_auto2(H5E_DEFAULT, &after, &after_data);
  H5PLget_loading_state(&loading_after);
  REQUIRE(after == before);
  REQUIRE(loading_after == loading_before);
  REQUIRE(H5Zfilter_avail(47803) == 0);  // the stand-in is gone: the true plug-in can be loaded
}

TEST_CASE("a cut or damaged file is refused, or read as something consistent", "[io_hdf5][slow]") {
  const Folder folder("open_hostile");
  const FileLayout layout = small();
  const FilePlaces places = make_hdf5_format()->create(folder / "good.h5", layout);
  fill(folder / "good.h5", layout, places);
  const std::string good = bytes_of(folder / "good.h5");
  const int step = 64, cuts = static_cast<int>(good.size()) / step;
  const auto cut =
      judge_all(folder / "cut.h5", cuts, [&](int i) { return good.substr(0, static_cast<std::size_t>(i) * step); });
  CHECK(cut[wrong] == 0);
  CHECK(cut[opened] == 0);
  const auto extra = judge_all(folder / "cut.h5", 64,
                               [&](int i) { return good.substr(0, good.size() - 1 - static_cast<std::size_t>(i)); });
  CHECK(extra[wrong] == 0);
  CHECK(extra[opened] == 0);
  const auto flipped = judge_all(folder / "flip.h5", 2000, [&](int i) { return damaged(good, i); });
  CHECK(flipped[wrong] == 0);
  const std::string old = bytes_of(foreign(folder / "old.h5", old_format));
  REQUIRE(judge(folder / "old.h5") == opened);
  const auto unchecked = judge_all(folder / "flip.h5", 2000, [&](int i) { return damaged(old, i); });
  CHECK(unchecked[wrong] == 0);
  for (const auto& [what, count] :
       {std::pair("cut", cut), std::pair("flipped", flipped), std::pair("flipped, old format", unchecked)})
    WARN(what << ": " << count[refused] << " refused, " << count[opened] << " opened, " << count[died]
              << " ended inside HDF5");
}
