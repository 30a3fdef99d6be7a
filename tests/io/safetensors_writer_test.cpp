#include "lmq/io/safetensors_writer.hpp"

#include <catch2/catch.hpp>
#include <map>

#include "lmq/io/reader.hpp"
#include "make_safetensors.hpp"

using namespace lmq;
using namespace lmq::test;
using Append = std::function<void(std::span<const std::byte>)>;

namespace {
std::vector<std::byte> content(const std::string& name, std::size_t bytes) {
  std::vector<std::byte> out(bytes);
  for (std::size_t i = 0; i < bytes; ++i) out[i] = static_cast<std::byte>(i * 7 + name.size());
  return out;
}
}  // namespace

TEST_CASE("what is written is read back, for every type") {
  const TempFolder folder;
  std::vector<OutgoingTensor> tensors;
  for (int id = 0; id < 256; ++id)
    if (const auto type = dtype_from_id(static_cast<std::uint8_t>(id))) {
      tensors.push_back({"t/" + std::string(name(*type)), *type, {3, 8}});
      tensors.push_back({"empty " + std::string(name(*type)), *type, {3, 0, 8}});
    }
  tensors.push_back({"scalar", DType::f64, {}});
  tensors.push_back({"grün \"q\" \\ \n", DType::u8, {5}});
  tensors.push_back({"big", DType::bf16, {700, 1000}});
  const std::map<std::string, std::string> metadata{{"format", "pt"}, {"z", "\"\n"}, {"a", ""}};
  const auto path = folder / "out.safetensors";
  write_safetensors(path, tensors, metadata, [](const OutgoingTensor& tensor, const Append& append) {
    const std::vector<std::byte> bytes = content(tensor.name, byte_count(tensor));
    const std::size_t cut = bytes.size() / 3;
    append(std::span(bytes).first(cut));
    append({});
    append(std::span(bytes).subspan(cut));
  });
  CHECK_FALSE(std::filesystem::exists(folder / "out.safetensors.part"));
  const auto reader = open_reader(path);
  CHECK(reader->catalogue().metadata == metadata);
  REQUIRE(reader->catalogue().tensors.size() == tensors.size());
  std::vector<std::byte> scratch;
  for (const OutgoingTensor& tensor : tensors) {
    const std::int64_t at = reader->catalogue().find(tensor.name);
    REQUIRE(at >= 0);
    const TensorInfo& found = reader->catalogue().tensors[static_cast<std::size_t>(at)];
    CHECK(found.dtype == tensor.dtype);
    CHECK(found.shape == tensor.shape);
    const TensorView view = reader->view(found, 0, found.count(), scratch);
    CHECK(std::vector<std::byte>(view.bytes.begin(), view.bytes.end()) == content(tensor.name, byte_count(tensor)));
    if (bits(tensor.dtype) >= 8) CHECK(found.offset * 8 % bits(tensor.dtype) == 0);
  }
}

TEST_CASE("the bytes do not depend on the order in which tensors come") {
  const TempFolder folder;
  const auto write = [&](const char* file, std::vector<OutgoingTensor> tensors) {
    write_safetensors(folder / file, std::move(tensors), {}, [](const OutgoingTensor& tensor, const Append& append) {
      append(content(tensor.name, byte_count(tensor)));
    });
    return read_file(folder / file);
  };
  const OutgoingTensor a{"a", DType::f32, {3}}, b{"b", DType::bf16, {5}}, c{"c", DType::f32, {1}},
      d{"d", DType::f4, {2}};
  const auto bytes = write("1", {a, b, c, d});
  CHECK(write("2", {d, c, b, a}) == bytes);
  const std::string text(reinterpret_cast<const char*>(bytes.data()) + 8, bytes.size() - 8);
  CHECK(text.substr(0, text.find('}') + 1) == R"({"__metadata__":{"format":"pt"})");
  CHECK(text.find("\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,12]}") != text.npos);
  CHECK(text.find("\"c\"") < text.find("\"b\""));
  CHECK(text.find("\"b\"") < text.find("\"d\""));
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  CHECK(length % 8 == 0);
  CHECK(write("3", {}).size() == 8 + 32);  // no tensors: metadata alone
}

TEST_CASE("an older file stays until the new one is whole") {
  const TempFolder folder;
  const auto path = folder / "out.safetensors";
  write_file(path, "older");
  const std::vector<OutgoingTensor> tensors{{"w", DType::f32, {4}}};
  const auto code = [&](const std::vector<OutgoingTensor>& list, const auto& fill) {
    const auto error = error_of([&] { write_safetensors(path, list, {}, fill); });
    CHECK(read_file(path) == bytes_of("older"));
    CHECK_FALSE(std::filesystem::exists(folder / "out.safetensors.part"));
    return error ? static_cast<int>(error->code) : 0;
  };
  const auto give = [](std::size_t bytes) {
    return [bytes](const OutgoingTensor&, const Append& append) { append(std::vector<std::byte>(bytes)); };
  };
  CHECK(code(tensors, give(15)) == 70);
  CHECK(code(tensors, give(17)) == 70);
  CHECK(code(tensors, [](const OutgoingTensor&, const Append&) { fail(Errc::interrupted, "stop"); }) == 75);
  CHECK(code({{"w", DType::f32, {4}}, {"w", DType::u8, {1}}}, give(16)) == 70);
  CHECK(code({{"\xff", DType::f32, {4}}}, give(16)) == 70);
  CHECK(code({{"__metadata__", DType::f32, {4}}}, give(16)) == 70);
  CHECK(code({{"w", DType::f4, {3}}}, give(2)) == 70);
  CHECK(code({{"w", DType::u8, {1, 1, 1, 1, 1, 1, 1, 1, 1}}}, give(1)) == 70);
  CHECK(error_of([&] { write_safetensors(folder / "no" / "x", tensors, {}, give(16)); })->code == Errc::cannot_create);
  write_safetensors(path, tensors, {}, give(16));
  CHECK(open_reader(path)->catalogue().tensors.size() == 1);
}
