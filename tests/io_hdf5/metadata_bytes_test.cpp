#include <catch2/catch.hpp>

#include "lmq/io_hdf5/hdf5_format.hpp"
#include "samples.hpp"

using namespace lmq;
using namespace lmq::samples;

namespace {

std::uint64_t piece_bytes(const FileLayout& layout) {
  std::uint64_t bytes = 0;
  for (const DatasetLayout& dataset : layout.datasets)
    for (const std::uint64_t piece : dataset.piece_bytes) bytes += piece;
  return bytes;
}

/// Tensors like those of a language model, `count` of them.
FileLayout model(int count, std::uint64_t chunks, bool attributes) {
  FileLayout layout;
  layout.root = {{"lmq_format", std::vector<std::uint64_t>{2, 0}}};
  for (int i = 0; i < count; ++i) {
    layout.datasets.push_back(
        encoded("/model.layers." + std::to_string(i) + ".self_attn.q_proj.weight", {32 * chunks, 64}, {32, 64}));
    layout.datasets.push_back(
        contiguous("/model.layers." + std::to_string(i) + ".input_layernorm.weight", DType::bf16, {64}));
  }
  if (attributes)
    for (DatasetLayout& dataset : layout.datasets)
      dataset.attributes = {{"lmq_bits_per_weight", 3.5}, {"lmq_method", std::string("kmeans")}};
  DatasetLayout text = contiguous("/lmq/recipe", DType::u8, {700});
  text.text = true;
  layout.datasets.push_back(text);
  text.path = "/lmq/tensors", text.deflated = true, text.piece_bytes = {300};
  layout.datasets.push_back(text);
  DatasetLayout books = contiguous("/lmq/codebooks", DType::f32, {40, 16});
  books.deflated = true, books.piece_bytes = {1000};
  layout.datasets.push_back(books);
  for (DatasetLayout& dataset : layout.datasets)
    if (dataset.encoded)
      for (std::uint64_t& bytes : dataset.piece_bytes) bytes += 55;  // a record has 56 bytes at least
  sort(layout);
  return layout;
}

}  // namespace

TEST_CASE("metadata_bytes foretells what HDF5 adds to the pieces, up to the rest of its last block", "[io_hdf5]") {
  const Folder folder("metadata_bytes");
  const auto format = make_hdf5_format();
  const int count = GENERATE(0, 1, 20, 300, 3000);
  const std::uint64_t chunks = GENERATE(1, 3, 40);
  const bool attributes = GENERATE(false, true);
  const FileLayout layout = model(count, chunks, attributes);
  const std::uint64_t found = format->create(folder / "a.h5", layout).file_bytes - piece_bytes(layout);
  const std::uint64_t foretold = format->metadata_bytes(layout);
  CAPTURE(count, chunks, attributes, found, foretold);
  const double within = foretold < (1 << 20) ? 0.01 : 0.05;
  REQUIRE(static_cast<double>(foretold) == Approx(static_cast<double>(found)).epsilon(within));
}

TEST_CASE("a matrix of one chunk and a vector take less than 150 bytes of metadata each, links included", "[io_hdf5]") {
  const Folder folder("metadata_small");
  const auto format = make_hdf5_format();
  const auto size = [&](int count) {
    const FileLayout layout = model(count, 1, false);
    return format->create(folder / "a.h5", layout).file_bytes - piece_bytes(layout);
  };
  const double each = static_cast<double>(size(120) - size(20)) / 200;  // names have some 38 bytes
  CAPTURE(each);
  REQUIRE(each < 150);
}
