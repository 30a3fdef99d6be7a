#pragma once
#include <string>
#include <string_view>

namespace lmq::app {

/// A manual page, made of the tables that help is made of: of a command, or of the whole program when `topic` is empty.
/// The roff of man(7). Errc::usage for an unknown command.
[[nodiscard]] std::string man_page(const std::string& topic);

/// Completion of commands, options, methods and words for bash, from the same tables; needs bash alone.
[[nodiscard]] std::string bash_completion();

/// "0 done; 1 ...": what the exit codes mean, a part each between semicolons.
[[nodiscard]] std::string_view exit_codes() noexcept;

}  // namespace lmq::app
