#pragma once
#include <string>

namespace lmq {

/// The system's words for an errno, thread-safe; where a limit of the shell is behind it (open files, file sizes), with
/// the name of that limit.
[[nodiscard]] std::string system_words(int number);
/// Whether nothing is wrong with what was to be opened: this process or machine has too many other files open.
[[nodiscard]] bool out_of_descriptors(int number) noexcept;

}  // namespace lmq
