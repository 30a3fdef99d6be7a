#include <unistd.h>

#include <catch2/catch.hpp>

#include "lmq/io/reader.hpp"
#include "make_safetensors.hpp"
#include "test_data.hpp"

// What is opened when a file, a folder or an index is named, and every trap of an index.
using namespace lmq;
using namespace lmq::test;
using namespace std::string_literals;
namespace fs = std::filesystem;

namespace {

int code_of(const fs::path& input, const std::string& part = {}) {
  const auto error = error_of([&] { (void)open_reader(input); });
  if (!error) return 0;
  CHECK(std::string(error->what()).find('\n') == std::string::npos);
  CHECK_THAT(error->what(), Catch::Contains(part));
  return static_cast<int>(error->code);
}

const std::vector<TestTensor> kA{f32_tensor("a", {2}, {1, 2})}, kB{f32_tensor("b", {2}, {3, 4})};

/// A folder with shards "1.safetensors" (a) and "2.safetensors" (b) and an index of that text.
fs::path indexed(const TempFolder& folder, const std::string& index) {
  make_safetensors(folder / "1.safetensors", kA);
  make_safetensors(folder / "2.safetensors", kB);
  write_file(folder / "model.safetensors.index.json", index);
  return folder.path();
}
const std::string kGood = index_text({{"a", "1.safetensors"}, {"b", "2.safetensors"}}, "16");

}  // namespace

TEST_CASE("real shards: by folder, by index, one alone") {
  const fs::path folder = test_data() / "babyllama105-sharded";
  for (const fs::path& input : {folder, folder / "model.safetensors.index.json"}) {
    const auto reader = open_reader(input);
    CHECK(reader->catalogue().tensors.size() == 47);
    CHECK(reader->catalogue().shards.size() == 3);
    CHECK(reader->catalogue().warnings.empty());
    CHECK(reader->catalogue().folder.is_absolute());
    std::uint64_t weights = 0;
    for (const TensorInfo& tensor : reader->catalogue().tensors) weights += tensor.count();
    CHECK(weights == 936448);
  }
  CHECK(open_reader(folder / "model-00002-of-00003.safetensors")->catalogue().tensors.size() == 16);
}

TEST_CASE("a folder without an index: one file, or one whole set") {
  const TempFolder folder;
  CHECK(code_of(folder.path(), "holds no .safetensors file") == 66);
  write_file(folder / "pytorch_model.bin", "PK\x03\x04");
  CHECK(code_of(folder.path(), "pytorch_model.bin is a zip archive") == 69);
  make_safetensors(folder / "weights.safetensors", kA);
  write_file(folder / "pytorch_model.bin.index.json", "not read");
  CHECK(code_of(folder.path()) == 0);
  make_safetensors(folder / "more.safetensors", kB);
  CHECK(code_of(folder.path(), "name one of them: more.safetensors, weights.safetensors") == 64);
  fs::remove(folder / "weights.safetensors"), fs::remove(folder / "more.safetensors");
  make_safetensors(folder / shard_name(1, 2), kA);
  CHECK(code_of(folder.path(), "model-00002-of-00002.safetensors: the shard is missing") == 66);
  make_safetensors(folder / shard_name(2, 2), kB);
  CHECK(open_reader(folder.path())->catalogue().tensors.size() == 2);
  make_safetensors(folder / "other-00002-of-00002.safetensors", kB);
  CHECK(code_of(folder.path(), "of different sets") == 64);
  fs::remove(folder / "other-00002-of-00002.safetensors");
  make_safetensors(folder / shard_name(2, 2), kA);
  CHECK(code_of(folder.path(), "tensor 'a': found in two shards") == 65);
}

TEST_CASE("files are told apart by content, not by name") {
  const TempFolder folder;
  const auto with = [&](const std::string& text) {
    write_file(folder / "x.safetensors", text);
    return folder / "x.safetensors";
  };
  CHECK(code_of(with("\x89HDF\r\n\x1a\nxxxxxxxxxxxxxxxxxx"), "an HDF5 file") == 69);
  CHECK(code_of(with(std::string(512, '\0') + "\x89HDF\r\n\x1a\nxxxx"), "an HDF5 file") == 69);
  CHECK(code_of(with("GGUF\x03\0\0\0xxxxxxxxxxxxxxxxxx"s), "keys cannot be in") == 65);
  CHECK(code_of(with("PK\x03\x04xxxxxxxxxxxxxxxxxxxxxxx"), "zip archive is missing") == 65);
  CHECK(code_of(with("\x80\x02}q\x01xxxxxxxxxxxxxxxxxxx"), "a Python pickle") == 69);
  CHECK(code_of(with("version https://git-lfs.github.com/spec/v1\noid"), "a Git LFS pointer") == 69);
  CHECK(code_of(with("\x89HDF\r\n\x1a\nxxxx lmq_format_major xx"), "an HDF5 file that lmq wrote") == 69);
  CHECK(code_of(with("\x1c\0\0\0TFL3xxxxxxxx"s), "a TensorFlow Lite model") == 69);
  CHECK(code_of(with("\x08\x07\x12\x07pytorch\x1a"), "an ONNX model") == 69);
  CHECK(code_of(with("<!DOCTYPE html><html>"), "an HTML page") == 69);
  CHECK(code_of(with(""), "an empty file") == 69);
  CHECK(code_of(with("abc"), "a text file") == 69);
  CHECK(code_of(with("some text that is nothing in particular"), "a text file") == 69);
  CHECK(code_of(with("\x01\x02\x03"), "the file has 3 bytes") == 65);
  CHECK(code_of(with(std::string(40, '\xfe') + "\x01"), "no kind of file that is known") == 69);
  CHECK(code_of(with(std::string(7, '\xfe') + "\x01{}"), "header length") == 65);  // a length that was damaged
  CHECK(code_of(with("{ \"nothing\": 1 }"), "weight_map is missing") == 65);
  CHECK(code_of(folder / "no such file", "no such file") == 66);
  // A header of 0x280 bytes begins like a pickle.
  make_safetensors(folder / "y.bin", kA);
  const std::string header = header_text(kA);
  std::vector<std::byte> file = raw_safetensors(header + std::string(0x280 - header.size(), ' '), 8);
  write_file(folder / "y.bin", file);
  CHECK(code_of(folder / "y.bin") == 0);
  // A shard of another kind.
  CHECK(code_of(indexed(folder, kGood)) == 0);
  write_file(folder / "2.safetensors", "PK\x03\x04xxxxxxxxxxxxxxxxxxxx");
  CHECK(code_of(folder / "model.safetensors.index.json", "a zip archive") == 69);
}

// More than 40 lines: a section for each way to disagree.
TEST_CASE("an index and its shards agree") {
  const TempFolder folder;
  const auto map = [](const std::string& inner) { return "{\"weight_map\":{" + inner + "}}"; };
  SECTION("they do") {
    CHECK(open_reader(indexed(folder, kGood))->catalogue().warnings.empty());
    CHECK(
        code_of(indexed(
            folder,
            R"({"metadata":{"total_size":16.0,"x":[{"y":[1,{}]},null]},"weight_map":{"a":"1.safetensors","b":"2.safetensors"},"other":{"deep":[[1]]},"n":-1.5})")) ==
        0);
  }
  SECTION("a shard is missing") {
    CHECK(code_of(indexed(folder, index_text({{"a", "1.safetensors"}, {"b", "3.safetensors"}})),
                  "3.safetensors: the shard is missing") == 66);
  }
  SECTION("a shard is a folder") {
    fs::create_directory(folder / "3.safetensors");
    CHECK(code_of(indexed(folder, index_text({{"a", "1.safetensors"}, {"b", "3.safetensors"}})), "expected a file") ==
          66);
  }
  SECTION("a shard cannot be read") {
    indexed(folder, kGood);
    fs::permissions(folder / "2.safetensors", fs::perms::none);
    if (::geteuid() != 0) CHECK(code_of(folder.path(), "2.safetensors: cannot be opened") == 66);
  }
  SECTION("a tensor is in no shard") {
    CHECK(code_of(indexed(folder, index_text({{"a", "1.safetensors"}, {"b", "2.safetensors"}, {"c", "2.safetensors"}})),
                  "tensor 'c' is not in its shard") == 65);
  }
  SECTION("a tensor is in another shard") {
    CHECK(code_of(indexed(folder, index_text({{"a", "2.safetensors"}, {"b", "1.safetensors"}})),
                  "tensor 'a' is in shard 1.safetensors, expected 2.safetensors") == 65);
  }
  SECTION("a tensor is in two shards") {
    indexed(folder, kGood);
    make_safetensors(folder / "2.safetensors", {kA[0], kB[0]});
    const auto reader = open_reader(folder.path());  // the index says which
    const Catalogue& catalogue = reader->catalogue();
    CHECK(catalogue.shards[catalogue.tensors[0].shard].name == "1.safetensors");
    REQUIRE(catalogue.warnings.size() == 1);
    CHECK_THAT(catalogue.warnings[0], Catch::Contains("1 tensor is in more than one shard"));
    indexed(folder, index_text({{"b", "2.safetensors"}, {"c", "1.safetensors"}}));
    make_safetensors(folder / "1.safetensors", {kA[0], f32_tensor("c", {1}, {1})});
    make_safetensors(folder / "2.safetensors", {kA[0], kB[0]});
    CHECK(code_of(folder.path(), "tensor 'a': found in two shards, 1.safetensors and 2.safetensors") == 65);
  }
  SECTION("a tensor is not mapped: taken, with a warning") {
    indexed(folder, kGood);
    make_safetensors(folder / "2.safetensors", {kB[0], f32_tensor("extra", {1}, {1})});
    const auto reader = open_reader(folder.path());
    CHECK(reader->catalogue().find("extra") >= 0);
    REQUIRE(reader->catalogue().warnings.size() == 2);
    CHECK_THAT(reader->catalogue().warnings[0], Catch::Contains("1 tensors") && Catch::Contains("extra"));
    CHECK_THAT(reader->catalogue().warnings[1], Catch::Contains("total_size is 16, the tensors have 20 bytes"));
  }
  SECTION("total_size is wrong: a warning") {
    const auto reader =
        open_reader(indexed(folder, index_text({{"a", "1.safetensors"}, {"b", "2.safetensors"}}, "1e300")));
    CHECK(reader->catalogue().warnings.size() == 1);
  }
  SECTION("keys appear twice") {
    CHECK(code_of(indexed(folder, map(R"("a":"1.safetensors","a":"1.safetensors")")), "tensor 'a' appears twice") ==
          65);
    CHECK(code_of(indexed(folder, R"({"weight_map":{},"weight_map":{"a":"1.safetensors"}})"),
                  "weight_map appears twice") == 65);
    CHECK(code_of(indexed(folder, R"({"metadata":{},"metadata":{}})"), "metadata appears twice") == 65);
    CHECK(code_of(indexed(folder, R"({"metadata":{"total_size":1,"total_size":2}})"), "total_size appears twice") ==
          65);
  }
  SECTION("values of the wrong kind") {
    for (const char* value : {"1", "null", "[]", "{}", "true"})
      CHECK(code_of(indexed(folder, map("\"a\":"s + value)), "expected a file name") == 65);
    CHECK(code_of(indexed(folder, R"({"weight_map":[]})"), "expected weight_map: an object") == 65);
    CHECK(code_of(indexed(folder, R"({"weight_map":{}})"), "names no tensor") == 65);
    CHECK(code_of(indexed(folder, R"({"metadata":{"total_size":"16"},"weight_map":{"a":"1.safetensors"}})"),
                  "total_size: a number") == 65);
    CHECK(code_of(indexed(folder, "{\"weight_map\":{\"a\":\"1.safetensors\"}}\0x"s), "no valid JSON") == 65);
    CHECK(code_of(indexed(folder, "{\"x\":" + std::string(100000, '[')), "nests deeper") == 65);
    CHECK(code_of(indexed(folder, map(R"("a\u0000":"1.safetensors")")), "not UTF-8 without NUL") == 65);
  }
}

TEST_CASE("no name of an index leads out of its folder") {
  const TempFolder folder;
  fs::create_directory(folder / "in");
  make_safetensors(folder / "x.safetensors", kA);
  make_safetensors(folder / "in" / "y.safetensors", kA);
  const std::string absolute = (folder / "x.safetensors").native();
  for (const std::string& name :
       {"../x.safetensors"s, absolute, ".."s, "."s, ""s, "./../x.safetensors"s, "a/../y.safetensors"s,
        "//x.safetensors"s, "a/"s, "..\\x.safetensors"s, "x\\y"s, "y.safetensors\0"s, "\xff"s, std::string(256, 'y')}) {
    write_file(folder / "in" / "model.safetensors.index.json", "{\"weight_map\":{\"a\":" + json_text(name) + "}}");
    CHECK(code_of(folder / "in") == 65);
  }
  // A folder below is inside.
  write_file(folder / "in" / "model.safetensors.index.json", index_text({{"a", "a/y.safetensors"}}));
  CHECK(code_of(folder / "in", "the shard is missing") == 66);
  fs::create_directory(folder / "in" / "a");
  make_safetensors(folder / "in" / "a" / "y.safetensors", kA);
  CHECK(code_of(folder / "in") == 0);
  // Parts that lead nowhere are passed over.
  for (const char* name : {"./y.safetensors", "a//y.safetensors", "./a/./y.safetensors"}) {
    write_file(folder / "in" / "model.safetensors.index.json", index_text({{"a", name}}));
    CHECK(code_of(folder / "in") == 0);
  }
  // A folder reached through a link is that folder; a file that the user names may lie anywhere.
  fs::create_symlink("in", folder / "door");
  write_file(folder / "in" / "model.safetensors.index.json", index_text({{"a", "y.safetensors"}}));
  CHECK(code_of(folder / "door") == 0);
  fs::create_symlink("../x.safetensors", folder / "in" / "named.safetensors");
  CHECK(code_of(folder / "in" / "named.safetensors") == 0);
}

TEST_CASE("shards that are links are followed, wherever they lead") {
  const TempFolder folder;
  fs::create_directory(folder / "in");
  make_safetensors(folder / "x.safetensors", kA);
  make_safetensors(folder / "in" / "y.safetensors", kA);
  write_file(folder / "in" / "model.safetensors.index.json", index_text({{"a", "link.safetensors"}}));
  for (const fs::path& target : {fs::path("../x.safetensors"), folder / "x.safetensors", fs::path("y.safetensors")}) {
    fs::create_symlink(target, folder / "in" / "link.safetensors");
    CHECK(code_of(folder / "in") == 0);
    fs::remove(folder / "in" / "link.safetensors");
  }
  fs::create_symlink("nowhere", folder / "in" / "link.safetensors");
  CHECK(code_of(folder / "in", "the shard is a link to nowhere, which is not there") == 66);
}

TEST_CASE("download caches are read: links to blobs, also of parts in folders of their own") {
  const TempFolder folder;
  const fs::path model = folder / "models--x", snapshot = model / "snapshots" / "0123abc", part = snapshot / "unet";
  fs::create_directories(part);
  fs::create_directories(model / "blobs");
  make_safetensors(model / "blobs" / "beef", kA);
  make_safetensors(model / "blobs" / "f00d", kB);
  write_file(model / "blobs" / "cafe",
             index_text({{"a", "d-00001-of-00002.safetensors"}, {"b", "d-00002-of-00002.safetensors"}}));
  fs::create_symlink("../../blobs/beef", snapshot / "model.safetensors");
  fs::create_symlink("../../../blobs/beef", part / "d-00001-of-00002.safetensors");
  fs::create_symlink("../../../blobs/f00d", part / "d-00002-of-00002.safetensors");
  CHECK(open_reader(part)->catalogue().tensors.size() == 2);
  fs::create_symlink("../../../blobs/cafe", part / "d.safetensors.index.json");
  CHECK(code_of(snapshot) == 0);
  CHECK(open_reader(part)->catalogue().tensors.size() == 2);
  CHECK(open_reader(part / "d.safetensors.index.json")->catalogue().index_name == "d.safetensors.index.json");
}

TEST_CASE("what lies in a folder and is not used is named, and a choice is left to the user") {
  const TempFolder folder;
  const auto warnings = [&](const fs::path& input) {
    std::string all;
    const auto reader = open_reader(input);
    for (const std::string& line : reader->catalogue().warnings) all += line + "\n";
    return all;
  };
  indexed(folder, kGood);
  CHECK(warnings(folder.path()).empty());
  make_safetensors(folder / "mtp.safetensors", kA);
  CHECK_THAT(warnings(folder.path()), Catch::Contains("not used") && Catch::Contains("mtp.safetensors"));
  write_file(folder / "other.safetensors.index.json", kGood);
  CHECK_THAT(warnings(folder.path()), Catch::Contains("other.safetensors.index.json"));
  fs::remove(folder / "other.safetensors.index.json");
  make_safetensors(folder / "model.safetensors", kA);
  CHECK(code_of(folder.path(), "one of them is older than the other") == 64);
  CHECK(code_of(folder / "model.safetensors") == 0);
  CHECK(code_of(folder / "model.safetensors.index.json") == 0);
  fs::remove(folder / "1.safetensors"), fs::remove(folder / "2.safetensors");
  CHECK_THAT(warnings(folder.path()), Catch::Contains("model.safetensors.index.json is not used"));
  CHECK(open_reader(folder.path())->catalogue().tensors.size() == 1);
}

TEST_CASE("one shard of a set that is named alone is said to be part of a model") {
  const TempFolder folder;
  make_shards(folder.path(), {kA, kB});
  const auto reader = open_reader(folder / shard_name(1, 2));
  REQUIRE(reader->catalogue().warnings.size() == 1);
  CHECK_THAT(reader->catalogue().warnings[0], Catch::Contains("is one of 2 shards"));
  make_safetensors(folder / shard_name(1, 1), kA);
  CHECK(open_reader(folder / shard_name(1, 1))->catalogue().warnings.empty());
}

TEST_CASE("an index of another name serves, and a depth that no index needs is refused") {
  const TempFolder folder;
  indexed(folder, kGood);
  fs::rename(folder / "model.safetensors.index.json", folder / "model.safetensors.index.fp16.json");
  CHECK(open_reader(folder.path())->catalogue().index_name == "model.safetensors.index.fp16.json");
  const std::string deep = std::string(100, '[') + std::string(100, ']');
  write_file(folder / "deep.json", "{\"x\":" + deep + ",\"weight_map\":{\"a\":\"1.safetensors\"}}");
  CHECK(code_of(folder / "deep.json", "nests deeper than 64 levels") == 65);
}
