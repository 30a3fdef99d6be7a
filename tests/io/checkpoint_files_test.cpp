#include <unistd.h>

#include <catch2/catch.hpp>

#include "lmq/io/reader.hpp"
#include "make_safetensors.hpp"

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
  const fs::path folder = LMQ_TEST_DATA "/babyllama105-sharded";
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
  CHECK(code_of(folder.path(), "pytorch_model.bin is of a kind that is not supported") == 69);
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
  CHECK(code_of(with("GGUF\x03\0\0\0xxxxxxxxxxxxxxxxxx"s), "a GGUF file") == 69);
  CHECK(code_of(with("PK\x03\x04xxxxxxxxxxxxxxxxxxxxxxx"), "a zip archive") == 69);
  CHECK(code_of(with("\x80\x02}q\x01xxxxxxxxxxxxxxxxxxx"), "a Python pickle") == 69);
  CHECK(code_of(with("version https://git-lfs.github.com/spec/v1\noid"), "a Git LFS pointer") == 69);
  CHECK(code_of(with(""), "the file has 0 bytes") == 65);
  CHECK(code_of(with("abc"), "the file has 3 bytes") == 65);
  CHECK(code_of(with("some text that is nothing in particular"), "header length") == 65);
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
    CHECK(code_of(indexed(folder, "{\"x\":" + std::string(100000, '[')), "no valid JSON") == 65);
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
       {"../x.safetensors"s, absolute, ".."s, "."s, ""s, "./y.safetensors"s, "a/y.safetensors"s, "..\\x.safetensors"s,
        "x\\y"s, "y.safetensors\0"s, "\xff"s, std::string(256, 'y')}) {
    write_file(folder / "in" / "model.safetensors.index.json", "{\"weight_map\":{\"a\":" + json_text(name) + "}}");
    CHECK(code_of(folder / "in") == 65);
  }
  write_file(folder / "in" / "model.safetensors.index.json", index_text({{"a", "link.safetensors"}}));
  fs::create_symlink("../x.safetensors", folder / "in" / "link.safetensors");
  CHECK(code_of(folder / "in", "the shard is a link to") == 65);
  fs::remove(folder / "in" / "link.safetensors");
  fs::create_symlink(folder / "x.safetensors", folder / "in" / "link.safetensors");
  CHECK(code_of(folder / "in", "the shard is a link to") == 65);
  fs::remove(folder / "in" / "link.safetensors");
  fs::create_symlink("y.safetensors", folder / "in" / "link.safetensors");
  CHECK(code_of(folder / "in") == 0);
  fs::remove(folder / "in" / "link.safetensors");
  fs::create_symlink("nowhere", folder / "in" / "link.safetensors");
  CHECK(code_of(folder / "in", "the shard is missing") == 66);
  // A folder reached through a link is that folder; a file that the user names may lie anywhere.
  fs::create_symlink("in", folder / "door");
  write_file(folder / "in" / "model.safetensors.index.json", index_text({{"a", "y.safetensors"}}));
  CHECK(code_of(folder / "door") == 0);
  fs::create_symlink("../x.safetensors", folder / "in" / "named.safetensors");
  CHECK(code_of(folder / "in" / "named.safetensors") == 0);
}

TEST_CASE("the download cache of links to blobs is read") {
  const TempFolder folder;
  const fs::path snapshot = folder / "models--x" / "snapshots" / "0123abc";
  fs::create_directories(snapshot);
  fs::create_directories(folder / "models--x" / "blobs");
  make_safetensors(folder / "models--x" / "blobs" / "beef", kA);
  fs::create_symlink("../../blobs/beef", snapshot / "model.safetensors");
  CHECK(code_of(snapshot) == 0);
  fs::remove(snapshot / "model.safetensors");
  make_safetensors(folder / "models--x" / "elsewhere", kA);
  fs::create_symlink("../../elsewhere", snapshot / "model.safetensors");
  CHECK(code_of(snapshot, "the shard is a link to") == 65);
}
