#include "lmq/io/reader.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstdio>
#include <numeric>
#include <thread>

#include "lmq/base/parallel.hpp"
#include "lmq/io/file.hpp"
#include "make_safetensors.hpp"
#include "test_data.hpp"

using namespace lmq;
using namespace lmq::test;

namespace {

const TensorInfo& tensor_of(const Reader& reader, std::string_view name) {
  const std::int64_t at = reader.catalogue().find(name);
  REQUIRE(at >= 0);
  return reader.catalogue().tensors[static_cast<std::size_t>(at)];
}

std::vector<std::byte> all(const Reader& reader, std::string_view name) {
  std::vector<std::byte> scratch;
  const TensorInfo& tensor = tensor_of(reader, name);
  const TensorView view = reader.view(tensor, 0, tensor.count(), scratch);
  CHECK(view.count == tensor.count());
  return {view.bytes.begin(), view.bytes.end()};
}

/// Bytes that this process has asked the system to read so far (system calls, not the disk).
std::uint64_t bytes_read_so_far() {
  std::uint64_t bytes = 0;
  std::FILE* file = std::fopen("/proc/self/io", "r");
  if (file == nullptr) return 0;
  unsigned long long value = 0;
  if (std::fscanf(file, "rchar: %llu", &value) == 1) bytes = value;
  std::fclose(file);
  return bytes;
}

}  // namespace

TEST_CASE("a real checkpoint is read: BF16 is the upper half of F32, rounded") {
  const auto bf16 = open_reader(test_data() / "stories260k");
  const auto f32 = open_reader(test_data() / "stories260k-f32/model.safetensors");
  REQUIRE(bf16->catalogue().tensors.size() == 47);
  CHECK(bf16->catalogue().format == "safetensors");
  CHECK(bf16->catalogue().warnings.empty());
  CHECK(bf16->catalogue().shards.size() == 1);
  CHECK(bf16->catalogue().shards[0].name == "model.safetensors");
  CHECK(bf16->catalogue().shards[0].bytes == 525056);
  std::uint64_t weights = 0;
  for (const TensorInfo& tensor : bf16->catalogue().tensors) {
    weights += tensor.count();
    const std::vector<std::byte> half = all(*bf16, tensor.name), whole = all(*f32, tensor.name);
    CHECK(tensor_of(*f32, tensor.name).shape == tensor.shape);
    std::size_t far = 0;
    for (std::size_t i = 0; i < tensor.count(); ++i) {
      std::uint16_t upper = 0;
      std::uint32_t full = 0;
      std::memcpy(&upper, half.data() + 2 * i, 2), std::memcpy(&full, whole.data() + 4 * i, 4);
      far += static_cast<std::uint16_t>((full + 0x7FFF + (full >> 16 & 1)) >> 16) != upper;
    }
    CHECK(far == 0);
  }
  CHECK(weights == 260032);
}

// More than 40 lines: a line for each range.
TEST_CASE("views at odd ranges give the same bytes as the file") {
  const TempFolder folder;
  std::vector<std::uint8_t> bytes(1001);
  std::iota(bytes.begin(), bytes.end(), std::uint8_t{3});
  std::vector<float> floats(77);
  std::iota(floats.begin(), floats.end(), -5.0F);
  const auto path = make_safetensors(
      folder / "x.safetensors",
      {byte_tensor("bytes", DType::u8, {7, 11, 13}, bytes), f32_tensor("floats", {77}, floats),
       byte_tensor("sub", DType::f4, {3, 4}, {1, 2, 3, 4, 5, 6}), byte_tensor("scalar", DType::i8, {}, {42}),
       byte_tensor("six", DType::f6_e2m3, {8}, {1, 2, 3, 4, 5, 6}), byte_tensor("empty", DType::f8_e5m2, {4, 0}, {})});
  const auto reader = open_reader(path);
  std::vector<std::byte> scratch;
  // More than 5 parameters: a line of the list below.
  const auto check = [&](const char* name, std::uint64_t begin, std::uint64_t count, std::size_t first_byte,
                         std::size_t length, const std::vector<std::byte>& whole) {
    const TensorView view = reader->view(tensor_of(*reader, name), begin, count, scratch);
    CHECK(view.count == count);
    CHECK(view.dtype == tensor_of(*reader, name).dtype);
    REQUIRE(view.bytes.size() == length);
    CHECK(std::equal(view.bytes.begin(), view.bytes.end(), whole.begin() + static_cast<std::ptrdiff_t>(first_byte)));
  };
  for (std::uint64_t begin = 0; begin <= 77; begin += 5)
    for (std::uint64_t count = 0; begin + count <= 77; count += 3)
      check("floats", begin, count, begin * 4, count * 4, bytes_of(floats));
  check("bytes", 999, 2, 999, 2, bytes_of(bytes));
  check("bytes", 1001, 0, 1001, 0, bytes_of(bytes));
  check("scalar", 0, 1, 0, 1, {std::byte{42}});
  check("empty", 0, 0, 0, 0, {});
  check("sub", 2, 4, 1, 2, bytes_of(std::vector<std::uint8_t>{1, 2, 3, 4, 5, 6}));
  check("six", 4, 4, 3, 3, bytes_of(std::vector<std::uint8_t>{1, 2, 3, 4, 5, 6}));
  const auto code = [&](const char* name, std::uint64_t begin, std::uint64_t count) {
    const auto error = error_of([&] { (void)reader->view(tensor_of(*reader, name), begin, count, scratch); });
    return error ? static_cast<int>(error->code) : 0;
  };
  CHECK(code("sub", 1, 2) == 70);  // no whole bytes
  CHECK(code("sub", 2, 3) == 70);
  CHECK(code("six", 2, 2) == 70);
  CHECK(code("floats", 0, 78) == 70);
  CHECK(code("floats", 78, 0) == 70);
  CHECK(code("floats", ~std::uint64_t{0}, 2) == 70);
  for (const char* name : {"floats", "bytes", "empty", "sub"}) {
    reader->prefetch(tensor_of(*reader, name), 0, tensor_of(*reader, name).count());
    reader->prefetch(tensor_of(*reader, name), 5, ~std::uint64_t{0});  // a wish that cannot be: silence
  }
}

TEST_CASE("scratch keeps its memory from call to call") {
  const auto reader = open_reader(test_data() / "stories260k");
  const TensorInfo& tensor = tensor_of(*reader, "model.embed_tokens.weight");
  std::vector<std::byte> scratch;
  (void)reader->view(tensor, 0, tensor.count(), scratch);
  const std::byte* const place = scratch.data();
  const std::size_t size = scratch.size();
  const TensorView view = reader->view(tensor, 5, 10, scratch);
  CHECK(view.bytes.data() == place);
  CHECK(view.bytes.size() == 20);
  CHECK(scratch.size() == size);
  (void)reader->view(tensor, 0, tensor.count(), scratch);
  CHECK(scratch.data() == place);
}

TEST_CASE("a range read touches its own bytes and nothing more") {
  const TempFolder folder;
  const auto path =
      make_safetensors(folder / "big.safetensors", {f32_tensor("w", {1 << 20}, std::vector<float>(1 << 20, 1.0F))});
  const auto before_open = bytes_read_so_far();
  const auto reader = open_reader(path);
  const auto after_open = bytes_read_so_far();
  std::vector<std::byte> scratch;
  (void)reader->view(tensor_of(*reader, "w"), 1000, 250, scratch);
  const auto after_view = bytes_read_so_far();
  if (before_open == 0) return;  // the system does not tell
  CHECK(after_open - before_open < 4096);
  CHECK(after_view - after_open < 1000 + 512);  // and reading the counter itself
}

TEST_CASE("a changed checkpoint is noticed") {
  const TempFolder folder;
  const auto path = make_safetensors(folder / "x.safetensors", {f32_tensor("w", {4}, {1, 2, 3, 4})});
  const auto reader = open_reader(path);
  CHECK_NOTHROW(reader->check_unchanged());
  std::vector<std::byte> scratch;
  const auto code = [&](const auto& action) {
    const auto error = error_of(action);
    return error ? static_cast<int>(error->code) : 0;
  };
  SECTION("modified") {
    std::filesystem::last_write_time(path, std::filesystem::last_write_time(path) + std::chrono::milliseconds(3));
    CHECK(code([&] { reader->check_unchanged(); }) == 74);
  }
  SECTION("replaced by a file of the same size") {
    make_safetensors(folder / "y.safetensors", {f32_tensor("w", {4}, {5, 6, 7, 8})});
    std::filesystem::last_write_time(folder / "y.safetensors",
                                     std::filesystem::last_write_time(path) + std::chrono::seconds(1));
    std::filesystem::rename(folder / "y.safetensors", path);
    CHECK(code([&] { reader->check_unchanged(); }) == 74);
  }
  SECTION("cut short after it was opened") {
    (void)reader->view(tensor_of(*reader, "w"), 0, 4, scratch);
    std::filesystem::resize_file(path, std::filesystem::file_size(path) - 4);
    const auto error = error_of([&] { (void)reader->view(tensor_of(*reader, "w"), 0, 4, scratch); });
    REQUIRE(error);
    CHECK(error->code == Errc::io);
    CHECK_THAT(error->what(), Catch::Contains("x.safetensors at byte") && Catch::Contains("tensor 'w'"));
    CHECK(code([&] { reader->check_unchanged(); }) == 74);
  }
  SECTION("cut short before it was opened") {
    std::filesystem::resize_file(path, std::filesystem::file_size(path) - 4);
    CHECK(code([&] { (void)reader->view(tensor_of(*reader, "w"), 0, 1, scratch); }) == 74);
  }
  SECTION("gone") {
    std::filesystem::remove(path);
    CHECK(code([&] { reader->check_unchanged(); }) == 74);
    CHECK(code([&] { (void)reader->view(tensor_of(*reader, "w"), 0, 1, scratch); }) == 66);
  }
}

TEST_CASE("many threads read many shards at once") {
  const TempFolder folder;
  std::vector<std::vector<TestTensor>> shards;
  for (int s = 0; s < 300; ++s)
    shards.push_back({f32_tensor(fmt::format("t{}", s), {8}, std::vector<float>(8, static_cast<float>(s)))});
  const auto reader = open_reader(make_shards(folder / "m", shards));
  REQUIRE(reader->catalogue().shards.size() == 300);
  std::vector<std::thread> threads;
  std::vector<int> wrong(4);
  for (std::size_t t = 0; t < wrong.size(); ++t)
    threads.emplace_back([&, t] {
      std::vector<std::byte> scratch;
      for (std::size_t i = 0; i < 600; ++i) {
        const std::size_t shard = (i * 7 + t * 53) % 300;
        const std::int64_t at = reader->catalogue().find(fmt::format("t{}", shard));
        const TensorView view = reader->view(reader->catalogue().tensors[static_cast<std::size_t>(at)], 3, 5, scratch);
        float value = 0;
        std::memcpy(&value, view.bytes.data(), 4);
        wrong[t] += value != static_cast<float>(shard);
      }
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == std::vector<int>(4, 0));
  std::size_t open_files = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code error;
    open_files += std::filesystem::read_symlink(entry.path(), error).native().find(folder.path().native()) == 0;
  }
  CHECK(open_files == 256);
}
