#include "lmq/io/placement.hpp"

#include <catch2/catch.hpp>
#include <numeric>

#include "lmq/io/file.hpp"
#include "make_safetensors.hpp"

using namespace lmq;
using namespace lmq::test;

namespace {

using Numbers = std::vector<std::uint64_t>;

std::uint64_t product(const Numbers& shape) {
  return std::accumulate(shape.begin(), shape.end(), std::uint64_t{1}, std::multiplies<>());
}

/// A catalogue of one file with one tensor "t" of F32.
Catalogue one(const std::filesystem::path& file, const Numbers& shape, std::uint64_t offset, Placement placement) {
  Catalogue catalogue;
  catalogue.format = "test";
  catalogue.folder = file.parent_path();
  const auto stamp = stamp_of(file);
  catalogue.shards.push_back({file.filename().native(), stamp.bytes, stamp.modified_ns, {}, {}});
  TensorInfo tensor;
  tensor.name = "t";
  tensor.shape = shape;
  tensor.offset = offset;
  tensor.bytes = placed_bytes(tensor, placement);
  TensorList list;
  list.add(std::move(tensor), std::move(placement));
  list.give(catalogue, "test");
  return Catalogue::from_bytes(catalogue.to_bytes());
}

/// Every range of the tensor is that of `expected`.
void check_ranges(const Catalogue& catalogue, const std::vector<float>& expected) {
  const auto reader = open_reader(catalogue);
  std::vector<std::byte> scratch;
  const std::size_t step = expected.size() > 60 ? 7 : 1;
  for (std::size_t begin = 0; begin <= expected.size(); begin += step)
    for (std::size_t count = 0; begin + count <= expected.size(); count += step) {
      const TensorView view = reader->view(reader->catalogue().tensors[0], begin, count, scratch);
      REQUIRE(view.bytes.size() == count * sizeof(float));
      if (count > 0) REQUIRE(std::memcmp(view.bytes.data(), expected.data() + begin, view.bytes.size()) == 0);
    }
}

std::vector<float> ramp(std::uint64_t count) {
  std::vector<float> values(static_cast<std::size_t>(count));
  std::iota(values.begin(), values.end(), 1.0F);
  return values;
}

}  // namespace

TEST_CASE("placement: elements by strides are those that a loop over the coordinates finds, on any range") {
  const TempFolder folder;
  const auto [shape, strides] = GENERATE(table<Numbers, Numbers>({{{7}, {3}},
                                                                  {{5, 4}, {1, 5}},
                                                                  {{5, 4}, {40, 2}},
                                                                  {{5, 4}, {0, 1}},
                                                                  {{200, 3}, {1, 500}},
                                                                  {{3, 4, 5}, {20, 1, 4}},
                                                                  {{2, 3, 4}, {300, 1, 40}},
                                                                  {{1, 1}, {9, 9}}}));
  std::uint64_t span = 1;
  for (std::size_t d = 0; d < shape.size(); ++d) span += (shape[d] - 1) * strides[d];
  const std::vector<float> storage = ramp(span + 2);
  write_file(folder / "f", std::as_bytes(std::span(storage)));
  std::vector<float> expected;
  for (std::uint64_t e = 0; e < product(shape); ++e) {
    std::uint64_t rest = e, at = 2;
    for (std::size_t d = shape.size(); d-- > 0; rest /= shape[d]) at += rest % shape[d] * strides[d];
    expected.push_back(storage[static_cast<std::size_t>(at)]);
  }
  Placement placement;
  placement.strides = strides;
  check_ranges(one(folder / "f", shape, 8, placement), expected);
  for (float& value : expected) value = std::bit_cast<float>(__builtin_bswap32(std::bit_cast<std::uint32_t>(value)));
  placement.swapped = true;
  check_ranges(one(folder / "f", shape, 8, placement), expected);
}

TEST_CASE("placement: chunks put together are the tensor, on any range, at its edges and where none was written") {
  const TempFolder folder;
  const auto [shape, chunk] = GENERATE(table<Numbers, Numbers>(
      {{{9}, {4}}, {{9}, {20}}, {{5, 7}, {2, 3}}, {{5, 7}, {1, 7}}, {{4, 3, 5}, {3, 2, 2}}, {{2, 2, 2}, {1, 1, 1}}}));
  const std::size_t rank = shape.size();
  const std::vector<float> plain = ramp(product(shape));
  std::vector<float> expected = plain, file;
  Placement placement;
  placement.chunk = chunk;
  Numbers grid(rank);
  for (std::size_t d = 0; d < rank; ++d) grid[d] = (shape[d] + chunk[d] - 1) / chunk[d];
  for (std::uint64_t c = 0; c < product(grid); ++c) {
    placement.pieces.push_back({file.size() * 4, product(chunk) * 4});
    const bool missing = c % 3 == 1;
    if (missing) placement.pieces.back() = {};
    for (std::uint64_t e = 0; e < product(chunk); ++e) {
      std::uint64_t rest_c = c, rest_e = e, index = 0, place = 1;
      bool inside = true;
      for (std::size_t d = rank; d-- > 0; rest_c /= grid[d], rest_e /= chunk[d]) {
        const std::uint64_t at = rest_c % grid[d] * chunk[d] + rest_e % chunk[d];
        inside = inside && at < shape[d];
        index += at * place, place *= shape[d];
      }
      if (missing && inside) expected[static_cast<std::size_t>(index)] = 0;
      if (!missing) file.push_back(inside ? plain[static_cast<std::size_t>(index)] : -1);
    }
  }
  write_file(folder / "f", std::as_bytes(std::span(file)));
  check_ranges(one(folder / "f", shape, 0, placement), expected);
}

TEST_CASE("placement: what does not fit the tensor or the file is named") {
  TensorInfo tensor;
  tensor.shape = {4, 8};
  tensor.bytes = 128;
  const auto fault = [&](const auto& change) {
    Placement placement;
    TensorInfo changed = tensor;
    change(placement);
    changed.bytes = placed_bytes(changed, placement);
    return placement_fault(changed, placement, 1000);
  };
  CHECK(fault([](Placement& p) { p.strides = {8, 1}; }).empty());
  CHECK(!fault([](Placement& p) { p.strides = {8}; }).empty());
  CHECK(!fault([](Placement& p) { p.strides = {100, 1}; }).empty());
  CHECK(!fault([](Placement& p) { p.strides = {~std::uint64_t{0}, 1}; }).empty());
  CHECK(!fault([](Placement& p) { p.chunk = {0, 1}; }).empty());
  CHECK(!fault([](Placement& p) { p.chunk = {4, 8}; }).empty());
  CHECK(!fault([](Placement& p) { p.chunk = {4, 8}, p.pieces = {{900, 101}}; }).empty());
  CHECK(!fault([](Placement& p) { p.chunk = {1u << 31, 1u << 31}, p.pieces = {{0, 10}}; }).empty());
  CHECK(!fault([](Placement& p) { p.packing = Placement::Packing::zlib; }).empty());
  CHECK(!fault([](Placement& p) { p.block_type = 19; }).empty());
  CHECK(!fault([](Placement& p) { p.block_type = 2; }).empty());  // rows of 8 are no block of 32
  CHECK(fault([](Placement& p) {
          p.chunk = {4, 8}, p.pieces = {{900, 100}}, p.packing = Placement::Packing::lzf;
        }).empty());
}
