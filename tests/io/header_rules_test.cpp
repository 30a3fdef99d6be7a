#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "lmq/base/text.hpp"
#include "make_safetensors.hpp"
#include "safetensors_header.hpp"
#include "test_data.hpp"

// Every rule of a safetensors header, broken one at a time.
using namespace lmq;
using namespace lmq::test;
using namespace std::string_literals;

namespace {

SafetensorsHeader parse(std::span<const std::byte> file) {
  const std::uint64_t length = safetensors_header_bytes(file, file.size(), "f.safetensors");
  return parse_safetensors_header(file.first(8 + static_cast<std::size_t>(length)), file.size(), "f.safetensors");
}

struct Refusal {
  int code = 0;
  std::string what;
};
/// Exit code (0 when accepted) and message of a header text over so many bytes of data.
Refusal refusal(std::string_view text, std::size_t data_bytes) {
  const auto error = error_of([&] { (void)parse(raw_safetensors(text, data_bytes)); });
  if (!error) return {};
  const std::string what = error->what();
  CHECK(what == printable(what, 100000));  // one line, clean
  CHECK(what.starts_with("f.safetensors"));
  return {static_cast<int>(error->code), what};
}

/// A tensor "w" of F32 [2] in 8 bytes with one field replaced.
std::string with(const std::string& dtype = "\"F32\"", const std::string& shape = "[2]",
                 const std::string& offsets = "[0,8]") {
  return R"({"w":{"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}";
}

void check_refused(const std::string& text, const std::string& part, std::size_t data_bytes = 8, int code = 65) {
  const Refusal found = refusal(text, data_bytes);
  INFO(text.substr(0, 200) << " -> " << found.what);
  CHECK(found.code == code);
  CHECK_THAT(found.what, Catch::Contains(part));
}

/// The laws of every accepted header.
void check_consistent(const SafetensorsHeader& header, std::uint64_t data_begin, std::uint64_t file_bytes) {
  std::vector<bool> covered(file_bytes - data_begin);
  for (std::size_t i = 0; i < header.tensors.size(); ++i) {
    const TensorInfo& tensor = header.tensors[i];
    if (i > 0) REQUIRE(header.tensors[i - 1].name < tensor.name);
    REQUIRE(is_clean_utf8(tensor.name));
    REQUIRE(tensor.count() * bits(tensor.dtype) == tensor.bytes * 8);
    REQUIRE(tensor.offset >= data_begin);
    REQUIRE(tensor.offset + tensor.bytes <= file_bytes);
    for (std::uint64_t b = 0; b < tensor.bytes; ++b) {
      REQUIRE_FALSE(covered[tensor.offset - data_begin + b]);
      covered[tensor.offset - data_begin + b] = true;
    }
  }
  for (const bool byte : covered) REQUIRE(byte);
}

}  // namespace

TEST_CASE("a plain header is read") {
  const SafetensorsHeader header = parse(raw_safetensors(with(), 8));
  REQUIRE(header.tensors.size() == 1);
  CHECK(header.tensors[0].name == "w");
  CHECK(header.tensors[0].dtype == DType::f32);
  CHECK(header.tensors[0].shape == std::vector<std::uint64_t>{2});
  CHECK(header.tensors[0].offset == 8 + with().size());
  CHECK(header.tensors[0].bytes == 8);
  CHECK(header.digest.size() == 32);
  CHECK(refusal("{}", 0).code == 0);
  CHECK(refusal(with() + "    ", 8).code == 0);
  CHECK(refusal(R"({"w":{"data_offsets":[0,8],"shape":[2],"dtype":"F32"}})", 8).code == 0);
  CHECK(refusal(R"( {})", 0).code == 65);
}

TEST_CASE("the length field is compared with the file and the limit") {
  for (std::size_t bytes = 0; bytes < 8; ++bytes) {
    const std::vector<std::byte> file(bytes);
    CHECK(error_of([&] { (void)safetensors_header_bytes(file, bytes, "f"); })->code == Errc::malformed);
  }
  const auto code = [](std::uint64_t length, std::uint64_t file_bytes) {
    const auto file = raw_safetensors("{}", 0, length);
    const auto error = error_of([&] { (void)safetensors_header_bytes(file, file_bytes, "f"); });
    return error ? static_cast<int>(error->code) : 0;
  };
  CHECK(code(2, 10) == 0);
  CHECK(code(3, 10) == 65);
  CHECK(code(0, 10) == 65);
  CHECK(code(1, 10) == 65);
  CHECK(code(~std::uint64_t{0}, 10) == 65);
  CHECK(code(~std::uint64_t{0} - 7, 10) == 65);  // 8 more wraps to 0
  CHECK(code(100'000'000, std::uint64_t{1} << 40) == 0);
  CHECK(code(100'000'001, std::uint64_t{1} << 40) == 65);
}

TEST_CASE("JSON that is none") {
  check_refused("[]", "begins with '['", 0);
  check_refused("\0\0"s, "begins with '\\x00'", 0);
  check_refused("{ ", "no valid JSON at byte 10", 0);
  check_refused("{}}", "no valid JSON at byte 10", 0);
  check_refused("{} {}", "no valid JSON", 0);
  check_refused("{}\0garbage"s, "no valid JSON at byte 10", 0);
  check_refused("{}\0"s, "no valid JSON", 0);
  check_refused("{\"w\0\":1}"s, "no valid JSON", 0);
  check_refused("{'w':1}", "no valid JSON", 0);
  check_refused("{\"w\":}", "no valid JSON", 0);
  check_refused("{} // comment", "no valid JSON", 0);
  check_refused("{\"\xff\":1}", "no valid JSON", 0);
  check_refused("{\"\xed\xa0\x80\":1}", "no valid JSON", 0);
  check_refused("{\"\\ud800\":1}", "no valid JSON", 0);
  check_refused("{\"a\nb\":1}", "no valid JSON", 0);
  check_refused("{\"a\x1b[31m\":1}", "no valid JSON", 0);
  check_refused(with("NaN"), "no valid JSON");
  check_refused(with("\"F32\"", "[02]"), "no valid JSON");
  check_refused(with("\"F32\"", "[2,]"), "no valid JSON");
}

TEST_CASE("values of the wrong kind") {
  for (const char* value : {"1", "null", "true", "\"text\"", "[]", "1.5", "-1"})
    check_refused("{\"w\":"s + value + "}", "tensor 'w': found", 0);
  check_refused("{\"w\":{}}", "dtype is missing", 0);
  for (const char* value : {"1", "null", "false", "[]", "{}", "[\"F32\"]"})
    check_refused(with(value), "expected dtype: a text");
  for (const char* value : {"1", "null", "\"2\"", "{}"})
    check_refused(with("\"F32\"", value), "expected shape: an array");
  for (const char* value :
       {"[null]", "[\"2\"]", "[[2]]", "[{}]", "[true]", "[-2]", "[-0]", "[2.0]", "[2e0]", "[1e400]", "[1.5]",
        "[9223372036854775808]", "[18446744073709551615]", "[18446744073709551616]", "[99999999999999999999999]"})
    check_refused(with("\"F32\"", value), value == "[1e400]"s ? "no valid JSON" : "shape: a whole number");
  for (const char* value : {"8", "null", "{}", "\"0,8\""})
    check_refused(with("\"F32\"", "[2]", value), "data_offsets: an array");
  for (const char* value : {"[-0,8]", "[0,8.0]", "[0,-8]", "[null,8]", "[0,9223372036854775808]", "[0,[8]]"})
    check_refused(with("\"F32\"", "[2]", value), "data_offsets: a whole number");
  for (const char* value : {"[]", "[8]"}) check_refused(with("\"F32\"", "[2]", value), "expected 2");
  check_refused(with("\"F32\"", "[2]", "[0,8,8]"), "data_offsets: found more than 2");
}

TEST_CASE("fields that are missing, doubled or unknown") {
  check_refused(R"({"w":{"shape":[2],"data_offsets":[0,8]}})", "tensor 'w': dtype is missing");
  check_refused(R"({"w":{"dtype":"F32","data_offsets":[0,8]}})", "tensor 'w': shape is missing");
  check_refused(R"({"w":{"dtype":"F32","shape":[2]}})", "tensor 'w': data_offsets is missing");
  check_refused(R"({"w":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}})", "dtype appears twice");
  check_refused(R"({"w":{"dtype":"F32","shape":[2],"shape":[2],"data_offsets":[0,8]}})", "shape appears twice");
  check_refused(R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"data_offsets":[0,8]}})",
                "data_offsets appears twice");
  check_refused(R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"stride":[1]}})", "field 'stride'", 8, 69);
}

TEST_CASE("a type we do not know is unsupported, not malformed") {
  for (const char* type : {"\"F128\"", "\"f32\"", "\"\"", "\"I4\"", "\"F32 \""})
    check_refused(with(type), "is not supported", 8, 69);
}

TEST_CASE("names: duplicates, NUL, length") {
  const std::string entry = R"({"dtype":"F32","shape":[0],"data_offsets":[0,0]})";
  check_refused(R"({"w":)" + entry + R"(,"w":)" + entry + "}", "tensor 'w' appears twice", 0);
  check_refused(R"({"w":)" + entry + R"(,"a":)" + entry + R"(,"\u0077":)" + entry + "}", "tensor 'w' appears twice", 0);
  check_refused(R"({"a\u0000b":)" + entry + "}", "not UTF-8 without NUL", 0);
  CHECK(refusal("{\"" + std::string(4096, 'n') + "\":" + entry + "}", 0).code == 0);
  check_refused("{\"" + std::string(4097, 'n') + "\":" + entry + "}", "4097 bytes, expected at most 4096", 0);
  const std::string names = R"({"a/b":)" + entry + R"(,"":)" + entry + R"(,"gr\u00fcn":)" + entry + R"(,"漢字":)" +
                            entry + R"(,"q\"\\\n":)" + entry + R"(,"\ud83d\ude00":)" + entry + R"(,"../x":)" + entry +
                            "}";
  const SafetensorsHeader header = parse(raw_safetensors(names));
  std::vector<std::string> found;
  for (const TensorInfo& tensor : header.tensors) found.push_back(tensor.name);
  CHECK(found == std::vector<std::string>{"", "../x", "a/b", "grün", "q\"\\\n", "漢字", "\U0001F600"});
}

TEST_CASE("metadata holds texts only") {
  CHECK(parse(raw_safetensors(R"({"__metadata__":{"b":"2","a":"1"}})")).metadata ==
        std::map<std::string, std::string>{{"a", "1"}, {"b", "2"}});
  CHECK(refusal(R"({"__metadata__":{}})", 0).code == 0);
  CHECK(parse(raw_safetensors(R"({"__metadata__":null})")).metadata.empty());
  for (const char* value : {"1", "null", "true", "[]", "{}", "1.5"}) {
    check_refused(R"({"__metadata__":{"a":)"s + value + "}}", "__metadata__: 'a': found", 0);
    if (value != "{}"s && value != "null"s)
      check_refused(R"({"__metadata__":)"s + value + "}", "__metadata__: found", 0);
  }
  check_refused(R"({"__metadata__":"x"})", "__metadata__: found", 0);
  check_refused(R"({"__metadata__":{"a":"1","a":"2"}})", "'a' appears twice", 0);
  check_refused(R"({"__metadata__":{},"__metadata__":{}})", "__metadata__ appears twice", 0);
}

TEST_CASE("shapes: rank, overflow, whole bytes") {
  CHECK(refusal(with("\"F32\"", "[1,1,1,1,1,1,1,2]"), 8).code == 0);
  check_refused(with("\"F32\"", "[1,1,1,1,1,1,1,1,2]"), "shape: found more than 8");
  check_refused(with("\"F32\"", "[4294967296,4294967296]"), "exceeds 2^63-1");
  check_refused(with("\"F32\"", "[0,9223372036854775807,3]", "[0,0]"), "exceeds 2^63-1", 0);
  check_refused(with("\"F32\"", "[9223372036854775807]"), "no whole number of bytes below 2^63");
  check_refused(with("\"F32\"", "[4611686018427387904]", "[0,0]"), "no whole number of bytes",
                0);  // times 32 wraps to 0
  check_refused(with("\"F4\"", "[3]", "[0,2]"), "no whole number of bytes", 2);
  check_refused(with("\"F6_E2M3\"", "[2]", "[0,2]"), "no whole number of bytes", 2);
  CHECK(refusal(with("\"F4\"", "[2,3]", "[0,3]"), 3).code == 0);
  CHECK(refusal(with("\"F6_E3M2\"", "[4]", "[0,3]"), 3).code == 0);
  CHECK(refusal(with("\"F64\"", "[]"), 8).code == 0);  // a scalar
  CHECK(refusal(with("\"F64\"", "[0,7]", "[0,0]"), 0).code == 0);
}

TEST_CASE("ranges: size, order, holes, overlaps, tail") {
  check_refused(with("\"F32\"", "[3]"), "found 8 bytes, expected 12 for F32 [3]");
  check_refused(with("\"F16\"", "[2]"), "found 8 bytes, expected 4 for F16 [2]");
  check_refused(with("\"F32\"", "[2]", "[8,0]"), "found [8, 0]");
  check_refused(with("\"F32\"", "[2]", "[0,8]"), "expected begin <= end <= 7", 7);
  check_refused(with("\"F32\"", "[2]", "[9223372036854775799,9223372036854775807]"), "expected begin <= end <= 8");
  check_refused(with("\"F32\"", "[2]", "[0,8]"), "the tensors end at byte 8", 9);
  check_refused("{}", "the tensors end at byte 0", 1);
  check_refused(with("\"F32\"", "[1]", "[4,8]"), "begin at 4, expected 0 (a hole", 8);
  const auto two = [](const std::string& a, const std::string& b) {
    return R"({"b":{"dtype":"U8","shape":[4],"data_offsets":)" + b +
           R"(},"a":{"dtype":"U8","shape":[4],"data_offsets":)" + a + "}}";
  };
  CHECK(refusal(two("[0,4]", "[4,8]"), 8).code == 0);
  CHECK(refusal(two("[4,8]", "[0,4]"), 8).code == 0);
  check_refused(two("[0,4]", "[0,4]"), "it overlaps another tensor", 4);
  check_refused(two("[0,4]", "[3,7]"), "begin at 3, expected 4 (it overlaps", 7);
  check_refused(two("[0,4]", "[5,9]"), "begin at 5, expected 4 (a hole", 9);
  // Empty tensors may lie at any seam, but not inside another tensor.
  const auto empty_at = [](const std::string& at) {
    return R"({"w":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"e":{"dtype":"U8","shape":[0],"data_offsets":[)" +
           at + "," + at + "]}}";
  };
  CHECK(refusal(empty_at("0"), 4).code == 0);
  CHECK(refusal(empty_at("4"), 4).code == 0);
  check_refused(empty_at("2"), "expected 4 (it overlaps", 4);
}

TEST_CASE("depth bombs end early") {
  const std::string deep(1'000'000, '[');
  check_refused("{\"w\":" + deep, "tensor 'w': found an array", 0);
  check_refused("{\"__metadata__\":{\"a\":" + deep, "'a': found an array", 0);
  check_refused(with("\"F32\"", deep), "found an array");
  std::string objects;
  for (int i = 0; i < 100'000; ++i) objects += "{\"w\":";
  check_refused(objects, "dtype", 0, 69);  // the second "w" is an unknown field
}

TEST_CASE("a header cut anywhere is refused") {
  const std::vector<std::byte> file = read_file(test_data() / "stories260k/model.safetensors");
  const std::uint64_t header = 8 + safetensors_header_bytes(file, file.size(), "f");
  REQUIRE(header > 3000);
  std::uint64_t text_end = header;
  while (file[text_end - 1] == std::byte{' '}) --text_end;
  std::size_t refused = 0;
  for (std::size_t keep = 0; keep < header; ++keep) {
    const auto cut = std::span(file).first(keep);
    const auto error = error_of([&] { (void)parse(cut); });  // the file ends there
    refused += error && error->code == Errc::malformed;
    // The length field agrees with the cut, the data is whole: only the JSON is cut short.
    if (keep < 8 || keep >= text_end || keep % 5 != 0) continue;
    const auto text = std::string_view(reinterpret_cast<const char*>(file.data()) + 8, keep - 8);
    const auto shorter = error_of([&] { (void)parse(raw_safetensors(text, file.size() - header)); });
    CHECK((shorter && shorter->code == Errc::malformed));
  }
  CHECK(refused == header);
}

TEST_CASE("any flipped bit of a header is refused, or gives another consistent header") {
  const std::vector<std::byte> file = safetensors_bytes(
      {f32_tensor("a", {2, 3}, std::vector<float>(6, 1)), bf16_tensor("layers.0/b", {4}, {1, 2, 3, 4}),
       byte_tensor("c", DType::u8, {}, {1}), byte_tensor("d", DType::f8_e4m3, {0, 2}, {})},
      {{"format", "pt"}});
  const std::uint64_t header = 8 + safetensors_header_bytes(file, file.size(), "f");
  std::size_t accepted = 0;
  for (std::size_t bit = 0; bit < header * 8; ++bit) {
    std::vector<std::byte> broken = file;
    broken[bit / 8] ^= std::byte{1} << (bit % 8);
    try {
      const std::uint64_t length = safetensors_header_bytes(broken, broken.size(), "f");
      check_consistent(parse(broken), 8 + length, broken.size());
      ++accepted;
    } catch (const Error& error) {
      CHECK((error.code == Errc::malformed || error.code == Errc::unsupported));
    }
  }
  CHECK(accepted < header);  // names, metadata and shapes of the same size may change; little else
}
