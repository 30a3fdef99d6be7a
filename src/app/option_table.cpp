#include "option_table.hpp"

#include <fmt/format.h>
#include <boost/program_options/value_semantic.hpp>
#include <sstream>

#include "lmq/base/error.hpp"
#include "lmq/plan/recipe.hpp"

namespace lmq::app {
namespace {

namespace po = boost::program_options;

constexpr CommandEntry kCommands[] = {
    {Command::quantize, "quantize", "INPUT -o OUT.h5 [options]", "quantize a checkpoint into one HDF5 file",
     "INPUT is a .safetensors file, a folder of shards or their index.json. The output is the same, byte for byte, for "
     "any\n"
     "number of ranks and threads. A run that was stopped (exit code 75) or killed continues when the same command "
     "runs again.\n"
     "\n"
     "Examples:\n"
     "  lmq quantize model/ -o model.h5 --method kmeans --bits 4\n"
     "  lmq quantize model/ -o model.h5 --bits 3 --granularity row --memory 4G\n"
     "  mpirun -np 16 lmq quantize model/ -o model.h5 --recipe recipe.json --max-time 110\n"
     "  srun --mpi=pmix lmq quantize model/ -o model.h5 --levels 12 --coder rans\n"},
    {Command::plan, "plan", "INPUT [options] [--ranks N]", "what quantize would do; nothing is computed",
     "Takes the options of quantize and prints units, bytes, memory and seconds, and lines to start it with.\n"
     "\n"
     "Examples:\n"
     "  lmq plan model/ --bits 4 --ranks 16 --threads 8\n"
     "  lmq plan model/ --recipe recipe.json --json | jq .memory_per_rank_bytes\n"
     "  lmq plan model/ --path model.layers.0.mlp.up_proj.weight\n"},
    {Command::inspect, "inspect", "FILE [--codebook TENSOR] [--json]", "what a file holds",
     "FILE is a checkpoint (.safetensors, folder, index.json) or a file that lmq wrote; told apart by content.\n"
     "With --codebook every line is one codebook: its first row and first column, then its levels.\n"
     "\n"
     "Examples:\n"
     "  lmq inspect model/\n"
     "  lmq inspect model.h5 --codebook model.layers.0.mlp.up_proj.weight\n"
     "  lmq inspect model.h5 --json | jq '.tensors[] | select(.method != \"raw\") | .bits_per_weight'\n"},
    {Command::verify, "verify", "OUT.h5 [--against INPUT] [options]",
     "check a file, and its errors against the original",
     "Every record is decoded and every digest compared; with --against the errors are measured anew and must equal "
     "those\n"
     "recorded. Exit code 0: all is well, 1: there are differences, one line each. Under mpirun the ranks share the "
     "work.\n"
     "\n"
     "Examples:\n"
     "  lmq verify model.h5\n"
     "  mpirun -np 4 lmq verify model.h5 --against model/\n"},
    {Command::export_, "export", "FILE --to FORMAT -o PATH [--source FROM]",
     "write a file of lmq, or any checkpoint, in another format",
     "FORMAT:\n"
     "  safetensors  tensors under their names, in their original types, in the shards they came from; PATH is a "
     "folder, or\n"
     "               one file when it ends in .safetensors. What was kept raw is equal bit for bit. With --source "
     "FOLDER the\n"
     "               folder is a model again: configuration, tokenizer, code, licence; what was left out is listed.\n"
     "  gguf         for llama.cpp: blocks (Q4_0, Q8_0, ...) where they decode to the very same values, else F16; keys "
     "and\n"
     "               tokenizer come from --source MODEL.gguf. gguf:q4_0 (q4_1, q8_0, iq4_nl, tq2_0, f16, bf16, f32): "
     "matrices\n"
     "               in the best blocks of that type; stock llama.cpp runs the file.\n"
     "  hdf5         plain HDF5, in the original types, read without a plug-in.\n"
     "gguf and hdf5 take any checkpoint that lmq reads, too.\n"
     "\n"
     "Examples:\n"
     "  lmq export model.h5 --to safetensors -o model-dequantized/ --source model/\n"
     "  lmq export model-f16.gguf --to gguf:q4_0 -o model-q4_0.gguf\n"},
    {Command::methods, "methods", "[--json]", "the table of methods with their sources",
     "Examples:\n"
     "  lmq methods\n"
     "  lmq methods --json | jq '.methods[] | select(.uses_importance) | .name'\n"},
};

/// Options that say what the result is to be; those of a recipe's rules first.
void add_recipe_options(po::options_description& table) {
  const auto text = [] { return po::value<std::string>(); };
  table.add_options()  //
      ("method,m", text()->value_name("M"),
       "how levels are found: see lmq methods (default: equal steps for the whole model, entropy-coded; kmeans with "
       "--levels, rows or groups)")  //
      ("bits,b", text()->value_name("B"),
       "bits of the whole file for each weight, everything counted, any number (default: codes of 4 bits)")  //
      ("levels", text()->value_name("K"), "levels per codebook, 2 to 256, instead of --bits")                //
      ("target-size", text()->value_name("SIZE"),
       "size of the whole file, for example 3.5G: shared out at one slope")  //
      ("granularity", text()->value_name("G"),
       "what shares a codebook: model, tensor, row or group (default tensor)")                                       //
      ("group", text()->value_name("N"), "weights per codebook inside a row (default 128 for --granularity group)")  //
      ("coder", text()->value_name("C"),
       "how codes are stored: cheapest, fixed, rans, huffman or planes (default cheapest)")  //
      ("level-type", text()->value_name("T"),
       "how levels are stored: f32 or f16 (default f32; f16 for rows and groups)")  //
      ;
  for (const MethodOption* known : method_options())
    table.add_options()(std::string(known->name).c_str(), text()->value_name(known->words.empty() ? "X" : "WORD"),
                        fmt::format("{} ({})", known->help, methods_with_option(known->name)).c_str());
  table.add_options()  //
      ("recipe", text()->value_name("R.json"),
       "rules by tensor name, instead of the options above, --nonfinite and --fp8")  //
      ("importance", text()->value_name("FILE"),
       "what errors weigh: statistics of the inputs, squared gradients, Adam's moments (safetensors, HDF5) or "
       "llama.cpp's imatrix; docs/importance.md")  //
      ("importance-power", text()->value_name("P"),
       "exponent of the importance, above 0 up to 2 (default 1; 0.5 for Adam's second moments)")  //
      ("importance-damping", text()->value_name("D"),
       "how far the importance of a tensor's rows and columns is drawn to its mean: (h + D mean) / (1 + D) (default 1; "
       "0: "
       "as it is)")  //
      ("nonfinite", text()->value_name("WHAT"),
       "tensors with NaN or infinities: refuse or keep raw (default refuse)")  //
      ("fp8", text()->value_name("WHAT"),
       "8-bit floats without a known scale: refuse, or quantize as plain values (default refuse)")                   //
      ("memory", text()->value_name("SIZE"), "what a rank may hold, for example 4G (default: what the plan needs)")  //
      ("threads,t", text()->value_name("N"), "threads of a rank (default: its share of the CPUs)");
}

void add_command_options(Command command, po::options_description& table) {
  const auto text = [] { return po::value<std::string>(); };
  auto add = table.add_options();
  switch (command) {
    case Command::quantize:
      add("output,o", text()->value_name("OUT.h5"),
          "the file to make; an older output of lmq stays until the new one is complete");
      add("force", "replace a file that is no output of lmq, too (never one of the input's)");
      add_recipe_options(table);
      add("work-dir", text()->value_name("DIR"),
          "finished records and journals, seen by all ranks (default OUT.h5.lmq-work)");
      add("resume", text()->value_name("WHEN"), "continue what the work directory holds: auto or never (default auto)");
      add("max-time", text()->value_name("MIN"), "stop cleanly, with exit code 75, before MIN minutes are over");
      add("json", text()->value_name("FILE"), "write the report there as JSON");
      add("progress", text()->value_name("HOW"), "auto, plain (lines for a log) or none (default auto)");
      break;
    case Command::plan:
      add("output,o", text()->value_name("OUT.h5"), "named in the suggested command lines");
      add_recipe_options(table);
      add("ranks,n", text()->value_name("N"), "ranks to plan for (default 1)");
      add("path", text()->value_name("TENSOR"),
          "instead: levels against error of one tensor by every method, or by --method with its options; --levels: "
          "that number only");
      add("json", "print JSON");
      break;
    case Command::inspect:
      add("codebook", text()->value_name("TENSOR"), "the levels of one quantized tensor as plain numbers, instead");
      add("json", "print JSON");
      break;
    case Command::verify:
      add("against", text()->value_name("INPUT"), "the original: names, shapes, values and errors are compared");
      add("repeat", text()->value_name("R"),
          "average R independent draws of stochastic rounding: the error of the mean falls like 1/R, without bias");
      add("importance", text()->value_name("FILE"), "the importance file of the run: weighted errors are compared too");
      add("threads,t", text()->value_name("N"), "threads of a rank (default: its share of the CPUs)");
      add("json", "print JSON");
      add("progress", text()->value_name("HOW"), "auto, plain (lines for a log) or none (default auto)");
      break;
    case Command::export_:
      add("to", text()->value_name("FORMAT"), "safetensors, gguf, gguf:TYPE or hdf5");
      add("output,o", text()->value_name("PATH"), "the file, or the folder, to make");
      add("source", text()->value_name("FROM"),
          "safetensors: the model's folder, of which all but the weights is copied; gguf: a .gguf file, whose keys "
          "are");
      add("threads,t", text()->value_name("N"), "threads (default: all CPUs)");
      break;
    case Command::methods:
      add("json", "print JSON");
      break;
    default:
      break;
  }
  add("help,h", "this text");
}

}  // namespace

std::span<const CommandEntry> commands() noexcept { return kCommands; }

const CommandEntry* find_command(std::string_view name) noexcept {
  for (const CommandEntry& entry : kCommands)
    if (entry.name == name) return &entry;
  return nullptr;
}

po::options_description option_table(Command command) {
  po::options_description table("Options", 120, 80);
  add_command_options(command, table);
  return table;
}

std::vector<std::string> option_names(Command command) {
  std::vector<std::string> names;
  const po::options_description table = option_table(command);
  for (const auto& option : table.options()) names.push_back(fmt::format("--{}", option->long_name()));
  return names;
}

std::string help_text(const std::string& topic) {
  if (topic.empty()) {
    std::string text =
        "lmq: quantizes large trained checkpoints into one HDF5 file\n\nusage: lmq COMMAND [arguments]\n\n";
    for (const CommandEntry& entry : kCommands) text += fmt::format("  {:<9} {}\n", entry.name, entry.summary);
    text +=
        "\n  lmq COMMAND --help    options and examples of a command\n"
        "  lmq --version         version, build and libraries\n\n"
        "Examples:\n"
        "  lmq quantize model/ -o model.h5 --method kmeans --bits 4\n"
        "  lmq verify model.h5 --against model/\n\n"
        "Exit codes: 0 done; 1 verify found a difference; 64 usage; 65 malformed input; 66 input missing; 69 "
        "unsupported;\n"
        "70 internal; 73 output cannot be made; 74 I/O or out of space; 75 interrupted, run the same command again.\n";
    return text;
  }
  const CommandEntry* entry = find_command(topic);
  if (entry == nullptr) {
    std::vector<std::string> names;
    for (const CommandEntry& known : kCommands) names.emplace_back(known.name);
    const std::string near = nearest(topic, names);
    fail(Errc::usage, fmt::format("unknown command '{}'{}", topic,
                                  near.empty() ? "; lmq --help lists them" : fmt::format("; did you mean {}?", near)));
  }
  std::ostringstream table;
  table << option_table(entry->command);
  return fmt::format("usage: lmq {} {}\n\n{}\n\n{}{}{}", entry->name, entry->arguments, entry->summary, table.str(),
                     entry->text.empty() ? "" : "\n", entry->text);
}

}  // namespace lmq::app
