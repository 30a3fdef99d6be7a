#include "lmq/io/file.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <vector>

#include "lmq/base/error.hpp"
#include "make_safetensors.hpp"

using namespace lmq;
using namespace lmq::test;
using Mode = File::Mode;

namespace {
template <class Action>
int code_of(Action action) {
  const auto error = error_of(action);
  if (error) CHECK(std::string(error->what()).find('\n') == std::string::npos);
  return error ? static_cast<int>(error->code) : 0;
}
}  // namespace

TEST_CASE("a file gives back what was written, at any offset") {
  const TempFolder folder;
  File file(folder / "a", Mode::create);
  CHECK(file.size() == 0);
  const std::vector<std::byte> text = bytes_of("hello, world");
  file.write(100, text);
  CHECK(file.size() == 112);
  std::vector<std::byte> back(text.size());
  file.read(100, back);
  CHECK(back == text);
  file.read(0, std::span(back).first(5));
  CHECK(back[0] == std::byte{0});  // a hole
  file.read(112, {});
  file.write(5000, {});
  CHECK(file.size() == 112);
  file.truncate(104);
  CHECK(file.size() == 104);
  file.sync();
  file.advise_soon(0, 104);
  file.advise_soon(~std::uint64_t{0}, 1);
  CHECK(file.stamp() == stamp_of(folder / "a"));
  file.close();
  file.close();
  CHECK(file.fd() == -1);
}

TEST_CASE("the five ways to open a file") {
  const TempFolder folder;
  const auto path = folder / "a";
  CHECK(code_of([&] { File(path, Mode::read); }) == 66);
  CHECK(code_of([&] { File(path, Mode::update); }) == 73);
  { File(path, Mode::create_new).write(0, bytes_of("abc")); }
  CHECK(code_of([&] { File(path, Mode::create_new); }) == 73);
  CHECK(File(path, Mode::append).size() == 3);
  File(path, Mode::append).write(3, bytes_of("def"));
  File(path, Mode::update).write(0, bytes_of("A"));
  CHECK(read_file(path) == bytes_of("Abcdef"));
  CHECK(File(path, Mode::create).size() == 0);
  CHECK(File(folder / "b", Mode::append).size() == 0);
  CHECK(code_of([&] { File(folder.path(), Mode::read); }) == 66);
  CHECK(code_of([&] { File(folder.path(), Mode::create); }) == 73);
  CHECK(code_of([&] { File(folder / "no" / "such", Mode::create); }) == 73);
  CHECK(code_of([&] { File(path, Mode::read).write(0, bytes_of("x")); }) == 74);
}

TEST_CASE("a file that ends too early says where") {
  const TempFolder folder;
  write_file(folder / "short", "12345");
  const File file(folder / "short", Mode::read);
  std::vector<std::byte> bytes(4);
  const auto error = error_of([&] { file.read(3, bytes); });
  REQUIRE(error);
  CHECK(error->code == Errc::io);
  CHECK_THAT(error->what(), Catch::Contains("short at byte 5") && Catch::Contains("2 more bytes"));
  CHECK(code_of([&] { file.read(~std::uint64_t{0}, bytes); }) == 74);
  CHECK(code_of([&] { file.write(std::uint64_t{1} << 63, bytes); }) == 74);
}

TEST_CASE("space is reserved without touching bytes, and never taken back") {
  const TempFolder folder;
  const File file(folder / "a", Mode::create);
  file.write(0, bytes_of("abc"));
  file.reserve(1 << 20);
  CHECK(file.size() == 1 << 20);
  file.reserve(10);
  file.reserve(0);
  CHECK(file.size() == 1 << 20);
  CHECK(read_file(folder / "a")[2] == std::byte{'c'});
  CHECK(code_of([&] { file.reserve(~std::uint64_t{0}); }) == 74);
}

TEST_CASE("no space left is an I/O error in words") {
  if (::access("/dev/full", W_OK) != 0) return;
  const File file("/dev/full", Mode::update);
  const auto error = error_of([&] { file.write(0, bytes_of("x")); });
  REQUIRE(error);
  CHECK(error->code == Errc::io);
  CHECK_THAT(error->what(), Catch::Contains("No space left on device") && Catch::Contains("at byte 0"));
}

TEST_CASE("a rename replaces, and tells what it could not do") {
  const TempFolder folder;
  write_file(folder / "new", "new");
  write_file(folder / "old", "old");
  rename_durably(folder / "new", folder / "old");
  CHECK(read_file(folder / "old") == bytes_of("new"));
  CHECK_FALSE(std::filesystem::exists(folder / "new"));
  CHECK(code_of([&] { rename_durably(folder / "new", folder / "old"); }) == 74);
  sync_directory(folder.path());
  sync_directory({});
  CHECK(code_of([&] { sync_directory(folder / "no"); }) == 74);
  CHECK(code_of([&] { (void)stamp_of(folder / "no"); }) == 66);
}

TEST_CASE("a File that moves keeps one owner") {
  const TempFolder folder;
  File a(folder / "a", Mode::create);
  const int fd = a.fd();
  File b(std::move(a));
  CHECK(b.fd() == fd);
  File c;
  c = std::move(b);
  CHECK(c.fd() == fd);
  CHECK(c.path() == folder / "a");
  c.close();
  CHECK(::fcntl(fd, F_GETFD) == -1);
}
