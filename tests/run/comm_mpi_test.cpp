#include "comm_laws.hpp"
#include "mpi_world.hpp"
#include "run/small_model.hpp"

using namespace lmq;
using namespace lmq::test;

namespace {

/// A folder of rank 0 with the small checkpoint in it, known to every rank.
class SharedFolder {
 public:
  explicit SharedFolder(const SmallOptions& options = {}) {
    std::string path;
    if (world->rank() == 0) {
      own_.emplace();
      path = own_->path().string();
      make_small_checkpoint(*own_ / "model.safetensors", options);
    }
    const auto bytes = std::as_bytes(std::span(path));
    const auto told = world->broadcast({bytes.begin(), bytes.end()}, 0);
    home_ = std::string(reinterpret_cast<const char*>(told.data()), told.size());
  }
  [[nodiscard]] const std::filesystem::path& home() const { return home_; }
  [[nodiscard]] std::filesystem::path model() const { return home_ / "model.safetensors"; }

 private:
  std::optional<TempFolder> own_;
  std::filesystem::path home_;
};

}  // namespace

TEST_CASE("mpi: the communicator keeps the laws", "[run][mpi]") {
  REQUIRE(started_by_mpi());
  REQUIRE_NOTHROW(all_comm_laws(*world));
}

TEST_CASE("mpi: the library says its version in one line", "[run][mpi]") {
  REQUIRE_FALSE(mpi_version().empty());
  REQUIRE(mpi_version().find('\n') == std::string::npos);
}

TEST_CASE("mpi: a whole run gives the bytes of one rank alone", "[run][mpi]") {
  const SharedFolder folder;
  const SmallRun run(folder.model(), folder.home());
  FlatFormat format;
  (void)run_quantize(*world, run.reader(), nullptr, run.plan(), format, run.options("ours.flat"));
  if (world->rank() == 0) {
    const auto alone = make_self_comm();
    (void)run_quantize(*alone, run.reader(), nullptr, run.plan(), format, run.options("alone.flat"));
    REQUIRE(read_file(folder.home() / "ours.flat") == read_file(folder.home() / "alone.flat"));
  }
  world->barrier();
}

TEST_CASE("mpi: an error of one rank is every rank's error", "[run][mpi]") {
  const SharedFolder folder({.nan_in = "b.weight"});
  const SmallRun run(folder.model(), folder.home());
  FlatFormat format;
  REQUIRE_THROWS_AS(run_quantize(*world, run.reader(), nullptr, run.plan(), format, run.options("ours.flat")),
                    AgreedError);
  world->barrier();
  REQUIRE(find_nonfinite_tensors(*world, run.reader()).size() == 1);
  world->barrier();
}
