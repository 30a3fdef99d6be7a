#include "../../src/io_hdf5/guard.hpp"

#include <signal.h>

#include <catch2/catch.hpp>
#include <cstdio>
#include <new>

#include "lmq/base/error.hpp"

using namespace lmq;

namespace {

std::pair<Errc, std::string> failure(const std::function<std::vector<std::byte>()>& body) {
  try {
    (void)h5::run_guarded("a.h5", body);
  } catch (const Error& error) {
    return {error.code, error.what()};
  }
  return {Errc{}, "no failure"};
}

}  // namespace

TEST_CASE("a guarded body's bytes come back whole, of any size", "[io_hdf5][guard]") {
  for (const std::size_t size : {0U, 1U, 65536U, 1'000'003U}) {
    const auto bytes = h5::run_guarded("a.h5", [&] {
      std::vector<std::byte> made(size);
      for (std::size_t i = 0; i < size; ++i) made[i] = static_cast<std::byte>(i * 31);
      return made;
    });
    REQUIRE(bytes.size() == size);
    for (std::size_t i = 0; i < size; i += 997) REQUIRE(bytes[i] == static_cast<std::byte>(i * 31));
  }
}

TEST_CASE("a guarded body's error is thrown here; a signal is a malformed file, in one line", "[io_hdf5][guard]") {
  const auto [code, what] = failure([]() -> std::vector<std::byte> { fail(Errc::unsupported, "a.h5: odd"); });
  REQUIRE(code == Errc::unsupported);
  REQUIRE(what == "a.h5: odd");
  for (const int number : {SIGSEGV, SIGABRT, SIGFPE, SIGBUS, SIGKILL}) {
    const auto [ended, why] = failure([number]() -> std::vector<std::byte> {
      std::fprintf(stderr, "lines of a library\n");
      raise(number);
      return {};
    });
    CAPTURE(number, why);
    REQUIRE(ended == Errc::malformed);
    REQUIRE_THAT(why, Catch::StartsWith("a.h5: ") && Catch::Contains("damaged") && !Catch::Contains("\n"));
  }
  REQUIRE(failure([]() -> std::vector<std::byte> { throw std::bad_alloc(); }).first == Errc::malformed);
}
