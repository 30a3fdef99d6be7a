#pragma once
#include <stdexcept>
#include <string>

namespace lmq {

/// What went wrong, valued as the exit code of the command line (sysexits.h).
enum class Errc : int {
  usage = 64,          ///< an option, a recipe or a combination of them makes no sense
  malformed = 65,      ///< input breaks the rules of its format, or holds values that cannot be quantized
  missing = 66,        ///< input does not exist or cannot be opened
  unsupported = 69,    ///< input is well-formed, of a kind we do not support
  internal = 70,       ///< a broken invariant of ours
  cannot_create = 73,  ///< the output cannot be made
  io = 74,             ///< reading or writing failed, or space ran out
  interrupted = 75,    ///< stopped by a signal or a time limit: run the same command again to continue
};

/// The one error type. `what()` is one line that names file, tensor, field, what was found and what was expected.
struct Error : std::runtime_error {
  Error(Errc c, const std::string& what) : std::runtime_error(what), code(c) {}
  Errc code;
};

[[noreturn]] void fail(Errc code, const std::string& what);

}  // namespace lmq
