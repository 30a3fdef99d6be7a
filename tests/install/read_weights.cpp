// Reads a file of lmq without HDF5's filters: every quantized tensor with the sum of its weights.
//
//   read_weights MODEL.h5
#include <cstdio>
#include <vector>

#include "lmq/base/error.hpp"
#include "lmq/codec/record.hpp"
#include "lmq/container/quantized_file.hpp"
#include "lmq/io_hdf5/hdf5_format.hpp"

int main(int argc, char** argv) try {
  if (argc != 2) {
    std::fprintf(stderr, "usage: read_weights MODEL.h5\n");
    return static_cast<int>(lmq::Errc::usage);
  }
  const auto format = lmq::make_hdf5_format();
  const lmq::QuantizedFile file(argv[1], *format);
  std::vector<std::byte> record;
  std::vector<float> weights;
  for (const lmq::StoredTensor& tensor : file.tensors()) {
    if (tensor.treatment != lmq::Treatment::quantize) continue;
    double sum = 0;
    for (std::uint64_t i = 0; i < tensor.units; ++i) {
      const lmq::StoredUnit& unit = file.units()[tensor.first_unit + i];
      file.read(unit, record);
      weights.resize(unit.count);
      lmq::decode_record_values(record, weights, file.place(unit));
      for (const float weight : weights) sum += double{weight};
    }
    std::printf("%s %llu %.6g\n", tensor.line.name.c_str(), static_cast<unsigned long long>(tensor.count()), sum);
  }
  return 0;
} catch (const lmq::Error& error) {
  std::fprintf(stderr, "read_weights: %s\n", error.what());
  return static_cast<int>(error.code);
}
