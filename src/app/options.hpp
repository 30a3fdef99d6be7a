#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "lmq/plan/recipe.hpp"
#include "lmq/run/quantize_run.hpp"

namespace lmq::app {

enum class Command : std::uint8_t { help, version, quantize, plan, inspect, verify, export_, methods };

/// What the command line says, checked as far as that is possible without opening a file.
struct Options {
  Command command = Command::help;
  std::string topic;             ///< help: the command it is about, empty: all of them
  std::filesystem::path input;   ///< the positional argument
  std::filesystem::path output;  ///< -o
  // quantize and plan
  std::optional<std::filesystem::path> recipe_file;
  std::optional<std::filesystem::path> importance;  ///< also verify
  Rule rule;                                        ///< what --method, --bits, ... ask for: one rule for all tensors
  std::vector<Rule> tensor_rules;                   ///< --tensor, before all others
  Recipe::Nonfinite nonfinite = Recipe::Nonfinite::refuse;
  Recipe::Fp8 fp8 = Recipe::Fp8::refuse;
  std::optional<double> importance_power;     ///< --importance-power
  std::optional<double> importance_damping;   ///< --importance-damping
  Allocation allocation = Allocation::slope;  ///< of that target
  std::optional<Target> target;               ///< of --target-size, or of --bits where they are no number of levels
  std::optional<std::uint64_t> memory;        ///< bytes a rank may hold; also verify
  std::size_t threads = 0;                    ///< 0: the default
  std::size_t ranks = 1;                      ///< plan
  std::vector<std::size_t> simulate;          ///< plan --simulate: numbers of ranks
  std::uint64_t storage = 100'000'000'000, rank_io = 5'000'000'000;  ///< bytes a second for that
  std::size_t cores = 0;                                             ///< that its ranks share; 0: one for each thread
  std::string curve_tensor;        ///< plan --curve: the tensor whose errors are wanted, by number of levels
  bool method_given = false;       ///< --method was given
  std::filesystem::path work_dir;  ///< OUT.h5.lmq-work when not given
  bool resume = true;
  bool force = false;  ///< quantize: an output or report that is none of ours is replaced, too
  double max_minutes = 0;
  bool dry_run = false;  ///< quantize: what plan prints
  bool quiet = false;    ///< no table, no notes, no progress
  ProgressMode progress = ProgressMode::automatic;
  std::vector<std::string>
      recipe_arguments;             ///< the options that shape the result, as typed, for suggested command lines
  std::optional<std::string> json;  ///< a report as JSON: "-" on standard output instead of text, else into that file
  bool summary = false;             ///< plan, inspect: a line for each kind of tensor
  std::string method;               ///< methods: the one that is asked for, empty: all
  // inspect
  std::optional<std::string> codebook;  ///< the tensor whose levels are asked for
  // verify
  std::optional<std::filesystem::path> against;
  std::uint64_t repeat = 0;  ///< draws of stochastic rounding that are averaged; 0: none
  // export
  std::string format;  ///< --to: a row of the table of exporters, perhaps with a variant: "gguf:q4_0"; quantize: --for
  std::optional<std::filesystem::path> source;  ///< model folder whose files, or GGUF file whose keys are copied
};

/// Errc::usage with one line: which option, what is wrong, what would be right (the nearest option for an unknown one).
[[nodiscard]] Options parse_options(int argc, char** argv);

/// Help for a command, or for all when `topic` is empty, in lines of `width` columns. Errc::usage for an unknown
/// command.
[[nodiscard]] std::string help_text(const std::string& topic, std::size_t width);

}  // namespace lmq::app
