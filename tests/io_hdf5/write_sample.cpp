// Writes the sample file: metadata by the room, payload by plain writes. Usage: write_sample FILE
#include <cstdio>
#include <exception>

#include "lmq/io_hdf5/hdf5_format.hpp"
#include "samples.hpp"

int main(int argc, char** argv) try {
  if (argc != 2) return 64;
  const lmq::FileLayout layout = lmq::samples::everything();
  lmq::samples::fill(argv[1], layout, lmq::make_hdf5_format()->create(argv[1], layout));
  std::printf("%s: written with HDF5 %s\n", argv[1], lmq::hdf5_version().c_str());
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
