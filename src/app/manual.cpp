// The manual pages: lmq --man [COMMAND].
#include "manual.hpp"

#include <fmt/format.h>

#include "lmq/plan/recipe.hpp"
#include "option_table.hpp"
#include "version.hpp"

namespace lmq::app {
namespace {

/// Text as roff shows it unchanged: no escapes, no hyphens instead of minus signs, no requests at the beginning of a line.
std::string plain(std::string_view text) {
  std::string out;
  bool begins = true;
  for (const char c : text) {
    if (begins && (c == '.' || c == '\'')) out += "\\&";
    if (c == '\\')
      out += "\\e";
    else if (c == '-')
      out += "\\-";
    else
      out += c;
    begins = c == '\n';
  }
  return out;
}

std::string header(std::string_view name, std::string_view summary) {
  return fmt::format(".TH {} 1 \"\" \"lmq {}\" \"User Commands\"\n.SH NAME\n{} \\- {}\n", name, kVersion, plain(name),
                     plain(summary));
}

/// An indented paragraph under its own heading.
std::string item(std::string_view heading, std::string_view text) {
  return fmt::format(".TP\n{}\n{}\n", heading, plain(text));
}

std::string option_item(const OptionEntry& entry) {
  std::string heading = entry.letter == 0 ? "" : fmt::format("\\fB\\-{}\\fR, ", entry.letter);
  heading += fmt::format("\\fB\\-\\-{}\\fR", plain(entry.name));
  if (!entry.value.empty()) heading += fmt::format(" \\fI{}\\fR", plain(entry.value));
  return item(heading, entry.help);
}

/// The paragraphs of a command; lines that begin with a space stay as they are, "Examples:" begins a section.
std::string paragraphs(std::string_view text) {
  std::string out = ".SH DESCRIPTION\n";
  bool kept = false;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    const bool keep = line.starts_with(' ');
    if (keep != kept) out += keep ? ".nf\n" : ".fi\n";
    kept = keep;
    if (line == "Examples:")
      out += ".SH EXAMPLES\n";
    else if (line.empty())
      out += ".PP\n";
    else
      out += fmt::format("{}\n{}", plain(line), keep ? "" : ".PP\n");
  }
  return kept ? out + ".fi\n" : out;
}

std::string method_items() {
  std::string text = ".SH OPTIONS OF METHODS\n";
  for (const MethodOption* known : method_options())
    text += item(fmt::format("\\fB\\-\\-{}\\fR \\fIX\\fR", plain(known->name)), known->help);
  return text;
}

std::string exit_items() {
  std::string text = ".SH EXIT STATUS\n";
  for (std::string_view rest = exit_codes(); !rest.empty();) {
    std::string_view part = rest.substr(0, rest.find(';'));
    rest.remove_prefix(std::min(part.size() + 1, rest.size()));
    part.remove_prefix(std::min(part.find_first_not_of(' '), part.size()));
    const std::size_t end = part.find(' ');
    text += item(part.substr(0, end), part.substr(end + 1));
  }
  return text;
}

std::string environment_items() {
  return ".SH ENVIRONMENT\n" +
         item("\\fBOMP_NUM_THREADS\\fR, \\fBSLURM_CPUS_PER_TASK\\fR",
              "threads of a rank where --threads is not given; else it takes its share of the CPUs it may run on") +
         item("\\fBHDF5_PLUGIN_PATH\\fR",
              "folders where other programs look for libh5zlmq.so to read the output; lmq itself needs none") +
         item("\\fBLMQ_ISA\\fR", "baseline, or an instruction set above which none is used; the output is the same") +
         item("\\fBCOLUMNS\\fR", "width of help and tables where standard output is no terminal");
}

std::string see_also(std::string_view but) {
  std::string text = ".SH SEE ALSO\n";
  if (!but.empty()) text += ".BR lmq (1),\n";
  std::string names;
  for (const CommandEntry& entry : commands())
    if (entry.name != but) names += fmt::format("{}.BR lmq\\-{} (1)", names.empty() ? "" : ",\n", entry.name);
  return text + names + "\n";
}

std::string overview() {
  std::string text = header("lmq", "quantizes large trained checkpoints into one HDF5 file");
  text +=
      ".SH SYNOPSIS\n\\fBlmq\\fR \\fICOMMAND\\fR [\\fIarguments\\fR]\n.br\n\\fBlmq \\-\\-help\\fR | "
      "\\fB\\-\\-version\\fR\n"
      ".br\n\\fBlmq \\-\\-man\\fR [\\fICOMMAND\\fR] | \\fB\\-\\-completion bash\\fR\n.SH COMMANDS\n";
  for (const CommandEntry& entry : commands())
    text += item(fmt::format("\\fBlmq\\-{}\\fR(1)", entry.name), entry.summary);
  text +=
      ".SH OPTIONS\n" + item("\\fB\\-\\-help\\fR", "the commands; lmq COMMAND --help: options of one of them") +
      item("\\fB\\-\\-version\\fR", "version, build and libraries") +
      item("\\fB\\-\\-man\\fR [\\fICOMMAND\\fR]", "this page, or that of a command, as roff: lmq --man | man -l -") +
      item("\\fB\\-\\-completion bash\\fR", "completion for bash: source <(lmq --completion bash)");
  return text + exit_items() + environment_items() + see_also("");
}

}  // namespace

std::string man_page(const std::string& topic) {
  if (topic.empty()) return overview();
  const CommandEntry* entry = find_command(topic);
  if (entry == nullptr) return help_text(topic, 80);  // throws with the nearest command
  std::string text = header(fmt::format("lmq-{}", entry->name), entry->summary);
  text += fmt::format(".SH SYNOPSIS\n\\fBlmq {}\\fR {}\n{}.SH OPTIONS\n", entry->name, plain(entry->arguments),
                      paragraphs(entry->text));
  std::string options;
  for (const OptionEntry* option : options_of(entry->command)) options += option_item(*option);
  // Examples come last in the text of a command, and after the options on a page.
  const std::size_t examples = text.find(".SH EXAMPLES\n");
  std::string tail;
  if (examples != std::string::npos) {
    const std::size_t end = text.rfind(".SH OPTIONS\n");
    tail = text.substr(examples, end - examples);
    text.erase(examples, end - examples);
  }
  text += options;
  if (takes_method_options(entry->command)) text += method_items();
  return text + exit_items() + environment_items() + tail + see_also(entry->name);
}

}  // namespace lmq::app
