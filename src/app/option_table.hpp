#pragma once
#include <boost/program_options/options_description.hpp>
#include <cstdint>
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
  std::string_view text;       ///< what help adds after the options: paragraphs and examples, wrapped when shown
};

/// Where help shows an option.
enum class Topic : std::uint8_t { files, spending, running, seldom };

/// One option of some commands; the same name may mean different things to different commands.
struct OptionEntry {
  std::string_view name;   ///< without its dashes
  char letter;             ///< 0: none
  std::string_view value;  ///< what help calls it; empty: a flag
  std::string_view help;
  Topic topic;
  unsigned commands;            ///< sum of bit(command)
  std::string_view field = {};  ///< key of a recipe's rule that it sets
  bool of_recipe = false;       ///< says what a recipe says: not together with --recipe
  bool repeats = false;         ///< may be given more than once
};
[[nodiscard]] constexpr unsigned bit(Command command) noexcept { return 1u << static_cast<unsigned>(command); }

[[nodiscard]] std::span<const CommandEntry> commands() noexcept;
/// nullptr when there is no such command.
[[nodiscard]] const CommandEntry* find_command(std::string_view name) noexcept;
/// The options of a command, without those of methods, in the order of help.
[[nodiscard]] std::vector<const OptionEntry*> options_of(Command command);
/// The words that an option of this name takes, with spaces between; empty where it takes others than fixed words, or words
/// that a table elsewhere names (methods, formats of exports).
[[nodiscard]] std::string_view choices_of(std::string_view option) noexcept;
/// Whether a command takes the options of methods.
[[nodiscard]] bool takes_method_options(Command command) noexcept;
/// The same with those of methods, for the parser; values are strings, checked in options.cpp.
[[nodiscard]] boost::program_options::options_description option_table(Command command);
/// Long names of these options.
[[nodiscard]] std::vector<std::string> option_names(Command command);

}  // namespace lmq::app
