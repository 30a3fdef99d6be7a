// Reads the sample file through HDF5's own interface and driver, knowing nothing of the room. Usage: read_sample FILE
#include <hdf5.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "samples.hpp"

namespace {

using lmq::DatasetLayout;

void require(bool holds, const std::string& path, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "%s: %s\n", path.c_str(), what);
  std::exit(1);
}

void require_payload(const std::string& bytes, std::size_t d, std::size_t p, const std::string& path) {
  for (std::size_t i = 0; i < bytes.size(); ++i)
    require(bytes[i] == lmq::samples::payload_byte(d, p, i), path, "a payload byte differs");
}

void read_contiguous(hid_t id, const DatasetLayout& dataset, std::size_t d) {
  std::string bytes(dataset.piece_bytes[0] + 1, '\0');
  const hid_t type = H5Dget_type(id);
  require(H5Dread(id, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, bytes.data()) >= 0, dataset.path, "H5Dread fails");
  H5Tclose(type);
  bytes.pop_back();
  require(H5Dget_storage_size(id) == bytes.size(), dataset.path, "storage size differs");
  require_payload(bytes, d, 0, dataset.path);
}

void read_chunks(hid_t id, const DatasetLayout& dataset, std::size_t d) {
  std::vector<hsize_t> at(dataset.shape.size(), 0);
  for (std::size_t p = 0; p < dataset.piece_bytes.size(); ++p) {
    std::string bytes(dataset.piece_bytes[p], '\0');
    hsize_t stored = 0;
    require(H5Dget_chunk_storage_size(id, at.data(), &stored) >= 0 && stored == bytes.size(), dataset.path,
            "chunk size differs");
    std::uint32_t mask = 1;
    require(H5Dread_chunk(id, H5P_DEFAULT, at.data(), &mask, bytes.data()) >= 0 && mask == 0, dataset.path,
            "H5Dread_chunk fails");
    require_payload(bytes, d, p, dataset.path);
    for (std::size_t i = at.size(); i-- > 0;) {
      at[i] += dataset.chunk[i];
      if (at[i] < dataset.shape[i]) break;
      at[i] = 0;
    }
  }
}

/// The filter is there, with the bytes of a chunk where one reaches over the edge, and without the plug-in HDF5 gives an error, never numbers.
void look_at_filter(hid_t id, const DatasetLayout& dataset) {
  const hid_t creation = H5Dget_create_plist(id);
  unsigned flags = 0, client[4] = {};
  std::size_t count = 4;
  char name[16] = {};
  require(H5Pget_nfilters(creation) == 1, dataset.path, "not one filter");
  const H5Z_filter_t filter = H5Pget_filter2(creation, 0, &flags, &count, client, sizeof name, name, nullptr);
  std::uint64_t whole = 4;
  for (const std::uint64_t dim : dataset.chunk) whole *= dim;
  bool edge = false;
  for (std::size_t i = 0; i < dataset.shape.size(); ++i) edge = edge || dataset.shape[i] % dataset.chunk[i] != 0;
  const bool told = edge ? count == 2 && client[0] == whole && client[1] == 0 : count == 0;
  require(filter == 47803 && flags == H5Z_FLAG_MANDATORY && told && std::strcmp(name, "lmq") == 0, dataset.path,
          "the filter differs");
  H5Pclose(creation);
  std::uint64_t weights = 1;
  for (const std::uint64_t dim : dataset.shape) weights *= dim;
  std::vector<float> values(weights);
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  H5PLset_loading_state(0);
  require(H5Dread(id, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()) < 0, dataset.path,
          "reads without its filter");
}

void look_at_times(hid_t id, const std::string& path) {
#if H5_VERSION_GE(1, 12, 0)
  H5O_info1_t info;
#else
  H5O_info_t info;
#endif
  require(H5Oget_info2(id, &info, H5O_INFO_TIME) >= 0 && info.atime == 0 && info.mtime == 0 && info.ctime == 0 &&
              info.btime == 0,
          path, "has a time");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 64;
  const lmq::FileLayout layout = lmq::samples::everything();
  const hid_t file = H5Fopen(argv[1], H5F_ACC_RDONLY, H5P_DEFAULT);
  require(file >= 0, argv[1], "does not open");
  for (const char* group : {"/", "/lmq", "/vide", "/encoded"}) {
    const hid_t id = H5Gopen2(file, group, H5P_DEFAULT);
    require(id >= 0, group, "does not open");
    look_at_times(id, group);
    H5Gclose(id);
  }
  for (std::size_t d = 0; d < layout.datasets.size(); ++d) {
    const DatasetLayout& dataset = layout.datasets[d];
    const hid_t id = H5Dopen2(file, dataset.path.c_str(), H5P_DEFAULT);
    require(id >= 0, dataset.path, "does not open");
    look_at_times(id, dataset.path);
    if (dataset.chunk.empty())
      read_contiguous(id, dataset, d);
    else
      read_chunks(id, dataset, d);
    if (dataset.encoded) look_at_filter(id, dataset);
    H5Dclose(id);
  }
  require(H5Fclose(file) >= 0, argv[1], "does not close");
  unsigned version[3];
  H5get_libversion(&version[0], &version[1], &version[2]);
  std::printf("%zu datasets read with HDF5 %u.%u.%u\n", layout.datasets.size(), version[0], version[1], version[2]);
}
