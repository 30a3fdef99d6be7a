#include "launch.hpp"

#include <fmt/format.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <new>
#include <string_view>
#include <system_error>

#include "lmq/base/parallel.hpp"
#include "lmq/base/words.hpp"
#include "lmq/io/system_words.hpp"
#include "lmq/run/mpi_comm.hpp"
#include "terminal.hpp"

namespace lmq::app {
namespace {

/// The first of these variables that holds a whole number, or `otherwise`.
template <std::size_t N>
long first_number(const std::array<const char*, N>& names, long otherwise) noexcept {
  for (const char* name : names) {
    const char* text = std::getenv(name);
    if (text == nullptr) continue;
    const std::string_view digits(text);
    long value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (error == std::errc{} && end != digits.data()) return value;  // SLURM_TASKS_PER_NODE says "4(x2)"
  }
  return otherwise;
}

std::string host_name() {
  char name[256] = {};
  return ::gethostname(name, sizeof name - 1) == 0 ? name : "an unknown host";
}

}  // namespace

int launch_rank() noexcept {
  if (!started_by_mpi()) return 0;
  return static_cast<int>(first_number(std::array{"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"}, 0));
}

std::size_t launch_local_ranks() noexcept {
  if (!started_by_mpi()) return 1;
  const long ranks =
      first_number(std::array{"OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "SLURM_STEP_TASKS_PER_NODE"}, 1);
  return static_cast<std::size_t>(std::max(ranks, 1L));
}

long launch_strangers() noexcept {
  if (started_by_mpi() || first_number(std::array{"SLURM_PROCID"}, 1) != 0) return 1;
  return first_number(std::array{"SLURM_STEP_NUM_TASKS"}, 1);
}

Failure current_failure() {
  try {
    throw;
  } catch (const Error& error) {
    return {static_cast<int>(error.code), error.what()};
  } catch (const std::bad_alloc&) {
    return {static_cast<int>(Errc::io), "out of memory: lmq plan says what a rank needs; fewer threads need less"};
  } catch (const std::filesystem::filesystem_error& error) {
    return {static_cast<int>(Errc::io),
            fmt::format("{}: {}", error.path1().string(), system_words(error.code().value()))};
  } catch (const std::exception& error) {
    return {static_cast<int>(Errc::internal), fmt::format("internal error: {}", error.what())};
  } catch (...) {
    return {static_cast<int>(Errc::internal), "internal error of an unknown kind"};
  }
}

int with_comm(int& argc, char**& argv, const std::function<int(Comm&)>& body) {
  const std::unique_ptr<Comm> comm = started_by_mpi() ? make_mpi_comm(argc, argv) : make_self_comm();
  try {
    return body(*comm);
  } catch (const AgreedError& error) {
    if (comm->rank() == 0) complain(error.what());
    return static_cast<int>(error.code);
  } catch (...) {
    const Failure failure = current_failure();
    if (comm->size() == 1) {
      complain(failure.line);
      return failure.code;
    }
    complain(fmt::format("{} (rank {} on {})", failure.line, comm->rank(), host_name()));
    comm->abort(failure.code);
    std::abort();  // never reached
  }
}

void choose_threads(std::size_t asked) {
  const std::size_t local = launch_local_ranks();
  const auto online = static_cast<std::size_t>(std::max(::sysconf(_SC_NPROCESSORS_ONLN), 1L));
  cpu_set_t mask;
  const std::size_t allowed =
      ::sched_getaffinity(0, sizeof mask, &mask) == 0 ? static_cast<std::size_t>(CPU_COUNT(&mask)) : online;
  const bool told = std::getenv("OMP_NUM_THREADS") != nullptr || std::getenv("SLURM_CPUS_PER_TASK") != nullptr;
  if (asked > 0) set_thread_count(asked);
  // Ranks that are not bound would each take the whole machine.
  else if (!told && local > 1 && allowed == online)
    set_thread_count(std::max<std::size_t>(1, online / local));
  const std::size_t wanted = local * thread_count();
  if (wanted > online && launch_rank() == 0)
    warn(fmt::format("{} of {} on a machine of {}", counted(local, "rank"), counted(thread_count(), "thread"),
                     counted(online, "CPU")));
}

}  // namespace lmq::app
