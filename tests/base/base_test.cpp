#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <cstring>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "lmq/base/bytes.hpp"
#include "lmq/base/digest.hpp"
#include "lmq/base/dtype.hpp"
#include "lmq/base/math.hpp"
#include "lmq/base/parallel.hpp"
#include "lmq/base/tensor.hpp"
#include "lmq/base/text.hpp"
#include "lmq/base/words.hpp"

using namespace lmq;
using namespace std::string_literals;

namespace {
template <class Action>
int code_of(Action action) {
  try {
    action();
  } catch (const Error& error) {
    CHECK(std::string(error.what()).find('\n') == std::string::npos);
    return static_cast<int>(error.code);
  }
  return 0;
}
struct ThreadsRestored {
  ~ThreadsRestored() { set_thread_count(0); }
};
}  // namespace

TEST_CASE("what a ByteWriter puts, a ByteReader takes") {
  ByteWriter out;
  out.le(std::uint8_t{7});
  out.le(std::uint64_t{0x0123456789ABCDEF});
  out.le(-2.5F);
  const std::vector<std::string> texts{"grün", ""};
  for (const std::string& text : texts) out.text(text);
  out.array(std::span<const std::uint16_t>(std::vector<std::uint16_t>{1, 2, 65535}));
  CHECK(out.size() == 1 + 8 + 4 + 4 + 5 + 4 + 6);
  const std::vector<std::byte> bytes = out.take();
  CHECK(std::to_integer<int>(bytes[1]) == 0xEF);  // little-endian

  ByteReader in(bytes, "test");
  CHECK(in.le<std::uint8_t>("a") == 7);
  CHECK(in.le<std::uint64_t>("b") == 0x0123456789ABCDEF);
  CHECK(in.le<float>("c") == -2.5F);
  CHECK(in.text("d") == "grün");
  CHECK(in.text("e").empty());
  CHECK(in.array<std::uint16_t>(3, "f") == std::vector<std::uint16_t>{1, 2, 65535});
  CHECK(in.left() == 0);
  CHECK(in.raw(0, "g").empty());
  CHECK(code_of([&] { (void)in.le<std::uint8_t>("h"); }) == 65);
}

TEST_CASE("a ByteReader refuses every truncation, and counts that cannot be") {
  ByteWriter out;
  out.text("a name");
  for (const std::uint32_t value : {3, 1, 2, 3}) out.le(value);
  const std::vector<std::byte> bytes = out.take();
  const auto parse = [](std::span<const std::byte> some) {
    ByteReader in(some, "test");
    (void)in.text("name");
    (void)in.le<std::uint32_t>("number");
    (void)in.array<std::uint32_t>(3, "values");
  };
  CHECK_NOTHROW(parse(bytes));
  for (std::size_t keep = 0; keep < bytes.size(); ++keep)
    CHECK(code_of([&] { parse(std::span(bytes).first(keep)); }) == 65);

  ByteReader in(bytes, "test");
  CHECK(code_of([&] { (void)in.array<double>(~std::uint64_t{0}, "values"); }) == 65);
  CHECK(code_of([&] { (void)in.array<double>((std::uint64_t{1} << 61) + 1, "values"); }) == 65);  // times 8 wraps to 8
  CHECK(code_of([&] { (void)in.raw(bytes.size() + 1, "bytes"); }) == 65);
  CHECK(in.offset() == 0);
  try {
    in.refuse("wrong");
  } catch (const Error& error) {
    CHECK(error.what() == "test at byte 0: wrong"s);
  }
}

// More than 40 lines: a list of texts and what they mean.
TEST_CASE("sizes: a letter alone and with i is a power of 1024, with B alone of 1000, and nothing else passes") {
  const auto size = [](const char* text) { return parse_size(text, "--memory"); };
  CHECK(size("0") == 0);
  CHECK(size("4096") == 4096);
  CHECK(size("12B") == 12);
  const char letters[] = "KMGTPE";
  std::uint64_t binary = 1, decimal = 1;
  for (int i = 0; i < 6; ++i) {
    binary *= 1024, decimal *= 1000;
    for (const char letter : {letters[i], static_cast<char>(letters[i] - 'A' + 'a')}) {
      const std::string unit(1, letter);
      CAPTURE(unit);
      for (const char* tail : {"", "i", "iB", "ib"}) CHECK(size(("3" + unit + tail).c_str()) == 3 * binary);
      for (const char* tail : {"B", "b"}) CHECK(size(("3" + unit + tail).c_str()) == 3 * decimal);
      CHECK(size(("2 " + unit + "B").c_str()) == 2 * decimal);
    }
  }
  CHECK(size("1.5GiB") == std::uint64_t{3} << 29);
  CHECK(size(".5k") == 512);
  CHECK(size("2.GB") == 2'000'000'000);
  // Never more than what was written: fractions go down, and no digit is lost.
  CHECK(size("0.9999B") == 0);
  CHECK(size("1.9999999999999999999999K") == 2047);
  CHECK(size("9007199254740993") == 9007199254740993u);
  CHECK(size("9223372036854775807") == 9223372036854775807u);
  for (const char* text : {"",
                           "G",
                           "-1",
                           "-4G",
                           "4X",
                           "4GG",
                           "4G ",
                           "4 ",
                           "nan",
                           "inf",
                           "1e3",
                           "1e30",
                           "9E",
                           "8E",
                           "4GiBs",
                           "0x10",
                           " 4",
                           "4,5G",
                           ".",
                           ".G",
                           "+4",
                           "9223372036854775808",
                           "99999999999999999999"}) {
    CAPTURE(text);
    CHECK(code_of([&] { (void)size(text); }) == 64);
  }
}

TEST_CASE("times: minutes alone, or numbers with units, and nothing else passes") {
  const auto seconds = [](const char* text) { return parse_duration(text, "--max-time"); };
  CHECK(seconds("110") == 6600);
  CHECK(seconds("0.5") == 30);
  CHECK(seconds("90s") == 90);
  CHECK(seconds("45min") == 2700);
  CHECK(seconds("45m") == 2700);
  CHECK(seconds("2h") == 7200);
  CHECK(seconds("1.5h") == 5400);
  CHECK(seconds("1h30m") == 5400);
  CHECK(seconds("1h 30min 5s") == 5405);
  CHECK(seconds("1d") == 86400);
  for (const char* text :
       {"", "0", "0s", "-1", "nan", "inf", "h", "1w", "2H30", "1h30", "1e3", "2 hours", "1h-3m", "1e300d"}) {
    CAPTURE(text);
    CHECK(code_of([&] { (void)seconds(text); }) == 64);
  }
}

TEST_CASE("counted: one thing, many things") {
  CHECK(counted(0, "tensor") == "0 tensors");
  CHECK(counted(1, "tensor") == "1 tensor");
  CHECK(counted(2048, "tensor") == "2,048 tensors");
  CHECK(counted(1, "index", "indexes") == "1 index");
  CHECK(counted(2, "index", "indexes") == "2 indexes");
  CHECK(with_commas(~0ULL) == "18,446,744,073,709,551,615");
}

TEST_CASE("nearest: the word with the fewest edits, none when all are far") {
  constexpr std::string_view words[] = {"kmeans", "uniform", "bits", "row", "target-size"};
  CHECK(nearest("kmaens", words) == "kmeans");
  CHECK(nearest("kmean", words) == "kmeans");
  CHECK(nearest("bit", words) == "bits");
  CHECK(nearest("rows", words) == "row");
  CHECK(nearest("target", words) == "target-size");  // begins with it
  CHECK(nearest("KMEANS", words) == "kmeans");
  CHECK(nearest("Row", words) == "row");
  CHECK(nearest("zzzzzz", words).empty());
  CHECK(nearest("", words).empty());
  CHECK(nearest("x", {}).empty());
  CHECK(nearest(std::string(100000, 'k'), words).empty());
}

TEST_CASE("bytes and durations are told shortly") {
  CHECK(format_bytes(0) == "0 B");
  CHECK(format_bytes(1023) == "1023 B");
  CHECK(format_bytes(1536) == "1.50 KiB");
  CHECK(format_bytes(std::uint64_t{20} << 30) == "20.0 GiB");
  CHECK(format_bytes(~std::uint64_t{0}) == "16.0 EiB");
  CHECK(format_duration(3.21) == "3.2 s");
  CHECK(format_duration(250) == "4 min 10 s");
  CHECK(format_duration(7500) == "2 h 05 min");
}

TEST_CASE("UTF-8 is well-formed or refused") {
  for (const std::string& good : {""s, "a"s, "model.layers.0.weight"s, "\x7F"s, "é"s, "漢字"s, "\U0001F600"s,
                                  "\xEE\x80\x80"s, "\xF4\x8F\xBF\xBF"s})
    CHECK(is_clean_utf8(good));
  const std::vector<std::string> bad{
      "\0"s,           "a\0b"s,     "\x80"s,         "\xC0\x80"s,         "\xC1\xBF"s,         "\xC3"s,
      "\xE0\x80\x80"s, "\xE2\x82"s, "\xED\xA0\x80"s, "\xF0\x80\x80\x80"s, "\xF4\x90\x80\x80"s, "\xF5\x80\x80\x80"s,
      "\xFF"s,         "\xC3\x28"s, "a\xE2\x82"s};
  for (const std::string& text : bad) CHECK_FALSE(is_clean_utf8(text));
  // Against the definition: every code point's encoding passes, and no 2-byte string that is none does.
  std::size_t pairs = 0;
  for (int a = 0; a < 256; ++a)
    for (int b = 0; b < 256; ++b) pairs += is_clean_utf8(std::string{static_cast<char>(a), static_cast<char>(b)});
  CHECK(pairs == 127 * 127 + 30 * 64);
}

TEST_CASE("texts from outside are printed in one line, without control characters") {
  CHECK(printable("model.layers.0/é") == "model.layers.0/é");
  CHECK(printable("a\nb\x1b[31m\x7f") == "a\\x0ab\\x1b[31m\\x7f");
  CHECK(printable("\0"s) == "\\x00");
  CHECK(printable("\xC3(") == "\\xc3(");
  CHECK(printable("\xC2\x9B") == "\\xc2\\x9b");  // a control character of two bytes
  CHECK(printable(std::string(1000, 'x'), 10) == "xxxxxxxxxx...");
  CHECK(printable("ééé", 3) == "é...");
}

TEST_CASE("types know their names, numbers and bits") {
  std::set<std::string_view> names;
  std::size_t types = 0, floats = 0;
  for (int id = 0; id < 256; ++id) {
    const auto type = dtype_from_id(static_cast<std::uint8_t>(id));
    if (!type) continue;
    ++types, floats += is_float(*type);
    names.insert(name(*type));
    CHECK(parse_dtype(name(*type)) == type);
    CHECK(static_cast<int>(*type) == id);
  }
  CHECK(types == 22);
  CHECK(names.size() == types);
  CHECK(floats == 8);
  CHECK(bits(DType::f4) == 4);
  CHECK(bits(DType::f6_e3m2) == 6);
  CHECK(bits(DType::boolean) == 8);
  CHECK(bits(DType::c64) == 64);
  CHECK_FALSE(is_float(DType::f8_e8m0));
  for (const char* text : {"", "f32", "F32 ", "FLOAT", "BF16\n"}) CHECK_FALSE(parse_dtype(text));
  CHECK(TensorInfo{.name = "s", .shape = {}}.count() == 1);
  CHECK(TensorInfo{.name = "e", .shape = {3, 0, 5}}.count() == 0);
  CHECK(TensorInfo{.name = "m", .shape = {3, 4, 5}}.count() == 60);
}

TEST_CASE("numbers change their type only where they fit") {
  CHECK(narrow<std::uint8_t>(255, "n") == 255);
  CHECK(code_of([] { (void)narrow<std::uint8_t>(256, "n"); }) == 70);
  CHECK(code_of([] { (void)narrow<std::uint32_t>(-1, "n"); }) == 70);
  CHECK(code_of([] { (void)narrow<std::int32_t>(std::uint64_t{1} << 31, "n"); }) == 70);
  std::uint64_t out = 0;
  CHECK(checked_mul(std::uint64_t{1} << 32, (std::uint64_t{1} << 32) - 1, out));
  CHECK_FALSE(checked_mul(std::uint64_t{1} << 32, std::uint64_t{1} << 32, out));
  CHECK_FALSE(checked_add(~std::uint64_t{0}, 1, out));
  CHECK(ceil_div(0, 8) == 0);
  CHECK(ceil_div(17, 8) == 3);
  CHECK(ceil_div(~std::uint64_t{0}, 2) == std::uint64_t{1} << 63);
}

TEST_CASE("digests are those of the published algorithm") {
  CHECK(hex(digest64(std::string_view{})) == "2d06800538d394c2");
  CHECK(digest128_hex({}) == "99aa06d3014798d86001c324468d497f");
  CHECK(hex(0xAB) == "00000000000000ab");
  CHECK(digest64("a") != digest64("b"));
}

TEST_CASE("parallel_for calls each index once, for any number of threads") {
  const ThreadsRestored restored;
  for (const std::size_t threads : {1, 2, 7}) {
    set_thread_count(threads);
    CHECK(thread_count() == threads);
    for (const std::size_t count : {0, 1, 2, 100}) {
      std::vector<std::atomic<int>> calls(count);
      parallel_for_worker(count, [&](std::size_t index, std::size_t worker) {
        if (worker < threads) ++calls[index];
      });
      CHECK(std::all_of(calls.begin(), calls.end(), [](const auto& c) { return c == 1; }));
    }
  }
}

TEST_CASE("parallel_for throws the failure of the lowest index, after all have ended") {
  const ThreadsRestored restored;
  for (const std::size_t threads : {1, 3}) {
    set_thread_count(threads);
    for (int repeat = 0; repeat < 20; ++repeat) {
      std::atomic<int> ended{0};
      std::string what;
      try {
        parallel_for(50, [&](std::size_t index) {
          ++ended;
          if (index % 10 == 7) throw std::runtime_error(std::to_string(index));
        });
      } catch (const std::runtime_error& error) {
        what = error.what();
      }
      CHECK(what == "7");
      CHECK(ended == 50);
    }
  }
}

TEST_CASE("a parallel_for inside another runs serially and still reports") {
  const ThreadsRestored restored;
  set_thread_count(3);
  std::atomic<int> sum{0};
  parallel_for(4, [&](std::size_t) { parallel_for(5, [&](std::size_t index) { sum += static_cast<int>(index); }); });
  CHECK(sum == 40);
  CHECK(code_of([] {
          parallel_for(2, [](std::size_t) { parallel_for(2, [](std::size_t) { fail(Errc::io, "inner"); }); });
        }) == 74);
}
