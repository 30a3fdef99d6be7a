#include "comm_laws.hpp"
#include "mpi_world.hpp"
#include "run/small_model.hpp"

using namespace lmq;
using namespace lmq::test;

TEST_CASE("mpi: the communicator keeps the laws", "[run][mpi]") {
  REQUIRE(started_by_mpi());
  REQUIRE_NOTHROW(all_comm_laws(*world));
}

TEST_CASE("mpi: the library says its version in one line", "[run][mpi]") {
  REQUIRE_FALSE(mpi_version().empty());
  REQUIRE(mpi_version().find('\n') == std::string::npos);
}

TEST_CASE("mpi: a whole run gives the bytes of one rank alone", "[run][mpi]") {
  std::optional<TempFolder> folder;
  std::string path;
  if (world->rank() == 0) {
    folder.emplace();
    path = folder->path().string();
    make_small_checkpoint(*folder / "model.safetensors");
  }
  const auto told = world->broadcast(
      {reinterpret_cast<const std::byte*>(path.data()), reinterpret_cast<const std::byte*>(path.data()) + path.size()},
      0);
  const std::filesystem::path home(std::string(reinterpret_cast<const char*>(told.data()), told.size()));
  const SmallRun run(home / "model.safetensors", home);
  FlatFormat format;
  (void)run_quantize(*world, run.reader(), nullptr, run.plan(), format, run.options("ours.flat"));
  if (world->rank() == 0) {
    const auto alone = make_self_comm();
    (void)run_quantize(*alone, run.reader(), nullptr, run.plan(), format, run.options("alone.flat"));
    REQUIRE(read_file(home / "ours.flat") == read_file(home / "alone.flat"));
  }
  world->barrier();
}

TEST_CASE("mpi: an error of one rank is every rank's error", "[run][mpi]") {
  std::optional<TempFolder> folder;
  std::string path;
  if (world->rank() == 0) {
    folder.emplace();
    path = folder->path().string();
    SmallOptions wrong;
    wrong.nan_in = "b.weight";
    make_small_checkpoint(*folder / "model.safetensors", wrong);
  }
  const auto told = world->broadcast(
      {reinterpret_cast<const std::byte*>(path.data()), reinterpret_cast<const std::byte*>(path.data()) + path.size()},
      0);
  const std::filesystem::path home(std::string(reinterpret_cast<const char*>(told.data()), told.size()));
  const SmallRun run(home / "model.safetensors", home);
  FlatFormat format;
  REQUIRE_THROWS_AS(run_quantize(*world, run.reader(), nullptr, run.plan(), format, run.options("ours.flat")),
                    AgreedError);
  world->barrier();
  REQUIRE(find_nonfinite_tensors(*world, run.reader()).size() == 1);
  world->barrier();
}
