#pragma once
#include <cstddef>
#include <functional>
#include <string>
#include <vector>

namespace lmq::h5 {

/// Runs `body` in a child process and returns what it returns. libhdf5 may crash, loop or ask for any memory when the
/// metadata it reads are damaged, and may write lines of its own when a process ends: all that stays in the child.
/// Errors of the body (lmq::Error) are thrown here with code and text. Errc::malformed, beginning with `file`, when the
/// child ends by a signal or comes near its bounds (kGuardedBytes, kGuardedSeconds); Errc::internal when there can be
/// no child. `body` may use threads of no library. Cost: a fork, about 1 ms.
[[nodiscard]] std::vector<std::byte> run_guarded(const std::string& file,
                                                 const std::function<std::vector<std::byte>()>& body);

}  // namespace lmq::h5
