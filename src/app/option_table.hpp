#pragma once
#include <boost/program_options/options_description.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "options.hpp"

namespace lmq::app {

/// One command as the user sees it.
struct CommandEntry {
  Command command;
  std::string_view name;
  std::string_view arguments;  ///< "INPUT -o OUT.h5 [options]"
  std::string_view summary;    ///< one line
  std::string_view text;       ///< what help adds after the options: explanations and examples
};

[[nodiscard]] std::span<const CommandEntry> commands() noexcept;
/// nullptr when there is no such command.
[[nodiscard]] const CommandEntry* find_command(std::string_view name) noexcept;
/// The options a command takes; values are strings, checked in options.cpp.
[[nodiscard]] boost::program_options::options_description option_table(Command command);
/// Long names of these options.
[[nodiscard]] std::vector<std::string> option_names(Command command);

}  // namespace lmq::app
