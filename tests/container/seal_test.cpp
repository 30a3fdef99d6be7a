#include "../../src/container/seal.hpp"

#include <catch2/catch.hpp>

#include "io/make_safetensors.hpp"

using namespace lmq;
using namespace lmq::test;

namespace {

/// A file of 300 bytes with payload in [50, 80), [80, 90) and [200, 300), sealed.
std::vector<std::byte> sealed(const std::filesystem::path& path) {
  FileLayout layout;
  for (const char* name : {"/a", "/b", "/c", "/lmq/recipe"}) {
    DatasetLayout dataset;
    dataset.path = name;
    dataset.dtype = DType::u8;
    dataset.piece_bytes = {name[1] == 'a' ? 30U : name[1] == 'b' ? 10U : name[1] == 'c' ? 100U : 20U};
    dataset.shape = dataset.piece_bytes;
    layout.datasets.push_back(dataset);
  }
  const FilePlaces places{{{50}, {80}, {200}, {120}}, 300};
  const auto payload = payload_of(layout, places);
  REQUIRE(payload == std::vector<Extent>{{50, 90}, {200, 300}});
  std::vector<std::byte> bytes(300);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * 7);
  const File file(path, File::Mode::create);
  file.write(0, bytes);
  const std::vector<std::uint64_t> digests{1, 2, 3};
  write_seal(file, 300, payload, digests);
  REQUIRE(file.size() == 300 + seal_bytes(300, payload));
  bytes.resize(file.size());
  file.read(0, bytes);
  return bytes;
}

Seal seal_of(const std::filesystem::path& path, std::span<const std::byte> bytes) {
  const File file(path, File::Mode::create);
  file.write(0, bytes);
  return read_seal(file);
}

}  // namespace

TEST_CASE("seal: every flip outside the payload breaks it, none inside does", "[container][seal]") {
  const TempFolder folder;
  const auto good = sealed(folder / "a");
  const Seal whole = seal_of(folder / "b", good);
  REQUIRE(whole.state == Seal::State::whole);
  REQUIRE(whole.hdf5_bytes == 300);
  for (std::size_t at = 0; at < good.size(); ++at)
    for (const unsigned bit : {0U, 7U}) {
      auto bytes = good;
      bytes[at] ^= static_cast<std::byte>(1U << bit);
      const bool payload = (at >= 50 && at < 90) || (at >= 200 && at < 300);
      CAPTURE(at, bit);
      REQUIRE((seal_of(folder / "b", bytes).state == Seal::State::whole) == payload);
    }
}

TEST_CASE("seal: a file cut anywhere, grown, or empty has none that is whole", "[container][seal]") {
  const TempFolder folder;
  auto bytes = sealed(folder / "a");
  for (std::size_t size = 0; size < bytes.size(); ++size)
    REQUIRE(seal_of(folder / "b", std::span(bytes).first(size)).state != Seal::State::whole);
  bytes.push_back(std::byte{0});
  REQUIRE(seal_of(folder / "b", bytes).state == Seal::State::missing);
}
