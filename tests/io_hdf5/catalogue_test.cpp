#include <hdf5.h>
#include <sys/wait.h>

#include <catch2/catch.hpp>
#include <cstring>
#include <functional>
#include <random>

#include "lmq/base/error.hpp"
#include "lmq/io/importance_file.hpp"
#include "lmq/io_hdf5/hdf5_catalogue.hpp"
#include "samples.hpp"

using namespace lmq;
using namespace lmq::samples;

namespace {

/// Writes floats at a path, making the groups on the way.
/// More than 5 parameters: those of H5Dcreate that the tests change.
void put(
    hid_t file, const std::string& path, const std::vector<hsize_t>& shape, const std::vector<float>& values,
    hid_t type = H5T_IEEE_F32LE, const std::function<void(hid_t)>& change = [](hid_t) {}) {
  const hid_t space =
      shape.empty() ? H5Screate(H5S_SCALAR) : H5Screate_simple(static_cast<int>(shape.size()), shape.data(), nullptr);
  const hid_t creation = H5Pcreate(H5P_DATASET_CREATE), links = H5Pcreate(H5P_LINK_CREATE);
  H5Pset_create_intermediate_group(links, 1);
  change(creation);
  const hid_t id = H5Dcreate2(file, path.c_str(), type, space, links, creation, H5P_DEFAULT);
  REQUIRE(id >= 0);
  if (!values.empty()) H5Dwrite(id, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data());
  H5Dclose(id), H5Sclose(space), H5Pclose(creation), H5Pclose(links);
}

std::filesystem::path made(const std::filesystem::path& path, const std::function<void(hid_t)>& fill) {
  const hid_t file = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  fill(file);
  H5Fclose(file);
  return path;
}

std::optional<Error> failure(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error;
  }
  return std::nullopt;
}

Catalogue checkpoint() {
  Catalogue catalogue;
  for (const auto& [name, shape] : {std::pair{"a.weight", std::vector<std::uint64_t>{2, 3}},
                                    std::pair{"b.weight", std::vector<std::uint64_t>{2, 2}}}) {
    TensorInfo info;
    info.name = name, info.shape = shape;
    catalogue.tensors.push_back(info);
  }
  return catalogue;
}

void fill_sample(hid_t file) {
  put(file, "/a.weight/columns", {3}, {1, 2, 3});
  put(file, "/a.weight.rows", {2}, {1, 10}, H5T_IEEE_F64LE);
  put(file, "/optimizer/state/b.weight/exp_avg_sq", {2, 2}, {1, 4, 9, 16});
  put(file, "/optimizer/state/b.weight/step", {}, {7}, H5T_STD_I64LE);
  put(file, "/other/columns", {1}, {5});
}

}  // namespace

TEST_CASE("the floats of an HDF5 file are read in place, groups or dots in their names") {
  const Folder folder("catalogue");
  const auto path = made(folder / "i.h5", [](hid_t file) {
    fill_sample(file);
    put(file, "/empty", {0, 3}, {});
    H5Lcreate_soft("/nowhere", file, "/link", H5P_DEFAULT, H5P_DEFAULT);
    H5Lcreate_hard(file, "/other", file, "/again", H5P_DEFAULT, H5P_DEFAULT);
  });
  const Catalogue found = read_hdf5_catalogue(path);
  CHECK(found.format == "HDF5");
  std::vector<std::string> names;
  for (const TensorInfo& tensor : found.tensors) names.push_back(tensor.name);
  CHECK(names == std::vector<std::string>{"a.weight.rows", "a.weight/columns", "again/columns",
                                          "optimizer/state/b.weight/exp_avg_sq"});
  const ImportanceFile file(path, checkpoint(), {.power = {}, .read_hdf5 = read_hdf5_catalogue});
  const ImportanceFile there = ImportanceFile::from_bytes(file.to_bytes());
  ImportanceWindow window;
  there.read(*there.find("a.weight"), 0, 6, window);
  CHECK(window.importance.kind == ImportanceKind::outer);
  CHECK(window.values == std::vector<float>{1, 2, 3});
  CHECK(window.rows == std::vector<float>{1, 10});
  there.read(*there.find("b.weight"), 1, 3, window);
  CHECK(window.values == std::vector<float>{2, 3, 4});
  CHECK(file.unused() == std::vector<std::string>{"again/columns"});
}

TEST_CASE("floats that lie in their header, in another file or behind unknown filters are refused by name") {
  const Folder folder("catalogue");
  const std::pair<const char*, std::function<void(hid_t)>> cases[] = {
      {"compact",
       [](hid_t file) {
         put(file, "/odd", {2}, {1, 2}, H5T_IEEE_F32LE, [](hid_t creation) { H5Pset_layout(creation, H5D_COMPACT); });
       }},
      {"file itself",
       [](hid_t file) {
         put(file, "/odd", {2}, {}, H5T_IEEE_F32LE,
             [](hid_t creation) { H5Pset_external(creation, "elsewhere.raw", 0, 8); });
       }},
      {"filter 5", [](hid_t file) {
         put(file, "/odd", {2}, {1, 2}, H5T_IEEE_F32LE, [](hid_t creation) {
           const hsize_t chunk = 2;
           H5Pset_chunk(creation, 1, &chunk);
           H5Pset_nbit(creation);
         });
       }}};
  for (const auto& [words, broken] : cases) {
    const auto error = failure([&] { (void)read_hdf5_catalogue(made(folder / "i.h5", broken)); });
    INFO(words);
    REQUIRE(error);
    CHECK_THAT(error->what(), Catch::Contains("dataset '/odd'") && Catch::Contains(words));
  }
  CHECK(failure([&] { (void)read_hdf5_catalogue(folder / "none.h5"); })->code == Errc::missing);
}

TEST_CASE("importances in chunks, big-endian, and never written are read as HDF5 reads them") {
  const Folder folder("catalogue");
  const auto path = made(folder / "i.h5", [](hid_t file) {
    put(file, "/a.weight/columns", {3}, {1, 2, 3}, H5T_IEEE_F64BE);
    put(file, "/b.weight", {2, 2}, {1, 4, 9, 16}, H5T_IEEE_F32LE, [](hid_t creation) {
      const hsize_t chunk[] = {2, 1};
      H5Pset_chunk(creation, 2, chunk);
      H5Pset_shuffle(creation);
      H5Pset_deflate(creation, 6);
    });
    put(file, "/zero", {2}, {}, H5T_IEEE_F32LE,
        [](hid_t creation) { H5Pset_alloc_time(creation, H5D_ALLOC_TIME_LATE); });
  });
  const auto reader = open_reader(read_hdf5_catalogue(path));
  std::vector<std::byte> scratch;
  const auto values = [&]<class T>(std::size_t tensor, std::uint64_t begin, std::vector<T> expected) {
    const TensorView view = reader->view(reader->catalogue().tensors[tensor], begin, expected.size(), scratch);
    REQUIRE(view.bytes.size() == expected.size() * sizeof(T));
    CHECK(std::memcmp(view.bytes.data(), expected.data(), view.bytes.size()) == 0);
  };
  values(0, 1, std::vector<double>{2, 3});
  values(1, 0, std::vector<float>{1, 4, 9, 16});
  values(1, 1, std::vector<float>{4, 9});
  values(2, 0, std::vector<float>{0, 0});
}

// More than 40 lines: each kind of damage and what it may do.
TEST_CASE("truncated and changed HDF5 files are refused or read, without harm", "[slow]") {
  const Folder folder("catalogue");
  made(folder / "whole.h5", fill_sample);
  const auto whole = [&] {
    std::ifstream file(folder / "whole.h5", std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(file), {});
  }();
  const auto write = [&](const std::string& bytes) {
    std::ofstream(folder / "i.h5", std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  };
  enum class Verdict { read, refused, other };
  const auto judge = [&](const std::string& bytes) {
    write(bytes);
    const auto error = failure(
        [&] { (void)ImportanceFile(folder / "i.h5", checkpoint(), {.power = {}, .read_hdf5 = read_hdf5_catalogue}); });
    if (!error) return Verdict::read;
    return error->code == Errc::malformed || error->code == Errc::unsupported ? Verdict::refused : Verdict::other;
  };
  REQUIRE(judge(whole) == Verdict::read);
  for (std::size_t length = 0; length < whole.size(); length += 37) {
    INFO(length);
    CHECK(judge(whole.substr(0, length)) == Verdict::refused);
  }
  // In a process of its own (without threads, which a fork does not take along): what HDF5 keeps of broken files it
  // complains of when it is closed.
  const pid_t child = fork();
  if (child == 0) {
    std::mt19937 random(3);
    int unexpected = 0;
    alarm(120);
    for (int round = 0; round < 800; ++round) {
      std::string bytes = whole;
      bytes[random() % bytes.size()] ^= static_cast<char>(1u << random() % 8);
      write(bytes);
      const auto error = failure([&] { (void)read_hdf5_catalogue(folder / "i.h5"); });
      unexpected += error && error->code != Errc::malformed && error->code != Errc::unsupported;
    }
    _exit(unexpected == 0 ? 0 : 1);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(status == 0);
}
