#include <catch2/catch.hpp>

#include "lmq/io/reader.hpp"
#include "make_safetensors.hpp"

using namespace lmq;
using namespace lmq::test;

namespace {
Catalogue sample(const TempFolder& folder) {
  make_shards(folder / "m", {{byte_tensor("a.weight", DType::f8_e4m3, {3, 4}, std::vector<std::uint8_t>(12, 0x38)),
                              f32_tensor("a.weight_scale", {3, 1}, {1, 2, 3})},
                             {bf16_tensor("b/ü", {2, 2}, {1, 2, 3, 4}), byte_tensor("empty", DType::u8, {0}, {})}});
  Catalogue catalogue = open_reader(folder / "m")->catalogue();
  catalogue.metadata = {{"format", "pt"}, {"z", ""}};
  catalogue.warnings = {"a warning"};
  catalogue.notes = {{1, Fitness::companion, "a reason"}, {3, Fitness::malformed, ""}};
  catalogue.shards[1].metadata = {{"k", "v"}};
  return catalogue;
}
}  // namespace

TEST_CASE("a catalogue travels to another rank unchanged, and serves a reader there") {
  const TempFolder folder;
  const Catalogue here = sample(folder);
  const std::vector<std::byte> bytes = here.to_bytes();
  const Catalogue there = Catalogue::from_bytes(bytes);
  CHECK(there.to_bytes() == bytes);
  CHECK(there.format == here.format);
  CHECK(there.folder == here.folder);
  CHECK(there.metadata == here.metadata);
  CHECK(there.warnings == here.warnings);
  CHECK(there.notes == here.notes);
  CHECK(there.index_name == "model.safetensors.index.json");
  CHECK(there.shards[1].metadata == here.shards[1].metadata);
  REQUIRE(there.shards.size() == 2);
  CHECK(there.shards[1].header_digest == here.shards[1].header_digest);
  REQUIRE(there.tensors.size() == 4);
  CHECK(there.tensors[0].scale == 1);
  CHECK(there.tensors[1].scales == 0);
  CHECK(there.find("empty") == 3);
  CHECK(there.find("a") == -1);
  const auto reader = open_reader(there);
  reader->check_unchanged();
  std::vector<std::byte> scratch;
  const TensorView view = reader->view(there.tensors[0], 4, 8, scratch);
  float values[8];
  std::memcpy(values, view.bytes.data(), sizeof values);
  CHECK(values[0] == 2);
  CHECK(values[7] == 3);
  CHECK(Catalogue::from_bytes(Catalogue{}.to_bytes()).tensors.empty());
}

TEST_CASE("a broken catalogue is refused, or is one that can be relied on") {
  const TempFolder folder;
  const std::vector<std::byte> bytes = sample(folder).to_bytes();
  const auto code = [](std::span<const std::byte> some) {
    const auto error = error_of([&] { (void)Catalogue::from_bytes(some); });
    return error ? static_cast<int>(error->code) : 0;
  };
  for (std::size_t keep = 0; keep < bytes.size(); ++keep) CHECK(code(std::span(bytes).first(keep)) == 65);
  std::vector<std::byte> longer = bytes;
  longer.push_back(std::byte{0});
  CHECK(code(longer) == 65);
  std::size_t accepted = 0, same = 0;
  for (std::size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    std::vector<std::byte> broken = bytes;
    broken[bit / 8] ^= std::byte{1} << (bit % 8);
    try {
      const Catalogue catalogue = Catalogue::from_bytes(broken);
      ++accepted, same += catalogue.to_bytes() == broken;
      for (const TensorInfo& tensor : catalogue.tensors) {
        REQUIRE(tensor.shard < catalogue.shards.size());
        REQUIRE(tensor.offset + tensor.bytes <= catalogue.shards[tensor.shard].bytes);
      }
    } catch (const Error& error) {
      CHECK(error.code == Errc::malformed);
    }
  }
  CHECK(accepted == same);  // there is one way to write a catalogue
}
