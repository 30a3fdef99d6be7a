#include "option_table.hpp"

#include <fmt/format.h>

#include <boost/program_options/value_semantic.hpp>
#include <utility>

#include "lmq/plan/recipe.hpp"

namespace lmq::app {
namespace {

namespace po = boost::program_options;

constexpr CommandEntry kCommands[] = {
    {Command::quantize, "quantize", "INPUT -o OUT.h5 [options]", "quantize a checkpoint into one HDF5 file",
     "INPUT is a .safetensors file, a folder of shards or their index.json. The output is the same, byte for byte, for "
     "any number of ranks and threads. A run that was stopped (exit code 75) or killed continues when the same command "
     "runs again.\n"
     "SIZE is a number of bytes, or with K, M, G, T: 4G and 4GiB are powers of 1024, 4GB of 1000. TIME is minutes, or "
     "90s, 45min, 2h, 1h30m.\n"
     "\n"
     "Examples:\n"
     "  lmq quantize model/ -o model.h5 --bits 4\n"
     "  lmq quantize model/ -o model.h5 --bits 3 --granularity row --memory 4G\n"
     "  lmq quantize model/ -o model.h5 --tensor '*embed*=6' --tensor 'lm_head*=keep'\n"
     "  mpirun -np 16 lmq quantize model/ -o model.h5 --recipe r.json --max-time 2h\n"
     "  srun --mpi=pmix lmq quantize model/ -o model.h5 --method ecsq --target-size 2G\n"},
    {Command::plan, "plan", "INPUT [options] [--ranks N]", "what quantize would do; nothing is written",
     "Takes the options of quantize and prints what happens to each tensor and which rule says so, units, bytes, "
     "memory "
     "and seconds, and lines to start it with. Where a size is to be reached it reads the checkpoint once (of more "
     "than "
     "2^31 weights a part) and says what bits and errors are expected. lmq quantize --dry-run prints the same.\n"
     "\n"
     "Examples:\n"
     "  lmq plan model/ --bits 4 --ranks 16 --threads 8\n"
     "  lmq plan model/ --recipe recipe.json --json | jq .memory_per_rank_bytes\n"
     "  lmq plan model/ --bits 4 --threads 64 --simulate 1,8,64 --storage 100GB\n"
     "  lmq plan model/ --curve model.layers.0.mlp.up_proj.weight\n"},
    {Command::inspect, "inspect", "FILE [--codebook TENSOR] [--json]", "what a file holds",
     "FILE is a checkpoint (.safetensors, folder, index.json) or a file that lmq wrote; told apart by content. With "
     "--codebook every line is one codebook: its first row and first column, then its levels.\n"
     "\n"
     "Examples:\n"
     "  lmq inspect model/ --summary\n"
     "  lmq inspect model.h5 --codebook model.layers.0.mlp.up_proj.weight\n"
     "  lmq inspect model.h5 --json | jq '.tensors[] | .name, .bits_per_weight'\n"},
    {Command::verify, "verify", "OUT.h5 [--against INPUT] [options]",
     "check a file, and its errors against the original",
     "Every record is decoded and every digest compared; with --against the errors are measured anew and must equal "
     "those recorded. Exit code 0: all is well, 1: there are differences, one line each. Under mpirun the ranks share "
     "the work.\n"
     "\n"
     "Examples:\n"
     "  lmq verify model.h5\n"
     "  mpirun -np 4 lmq verify model.h5 --against model/\n"},
    {Command::export_, "export", "FILE --to FORMAT -o PATH [--source FROM]",
     "write a file of lmq, or any checkpoint, in another format",
     "safetensors: tensors under their names, in their original types, in the shards they came from; PATH is a folder, "
     "or one file when it ends in .safetensors. What was kept raw is equal bit for bit. With --source FOLDER the "
     "folder "
     "is a model again: configuration, tokenizer, code, licence, sub-folders; what was left out is listed.\n"
     "gguf: for llama.cpp, blocks (Q4_0, Q8_0, ...) where they decode to the very same values, else F16; keys and "
     "tokenizer come from --source MODEL.gguf. gguf:q4_0 (q4_1, q8_0, iq4_nl, tq2_0, f16, bf16, f32): matrices in the "
     "best blocks of that type; stock llama.cpp runs the file.\n"
     "compressed-tensors, gptq: a model folder whose linear layers are packed integers, for vLLM, transformers, "
     "GPTQModel: those whose values are integers times a scale as they are; with int4-g32 (int2, int3, int4, int8; "
     "g32, "
     "g64, g128, channel) all of them rounded to the best ones. --source FOLDER is the model's folder.\n"
     "hdf5: plain HDF5, in the original types, read without a plug-in. All but safetensors take any checkpoint that "
     "lmq "
     "reads, too.\n"
     "\n"
     "Examples:\n"
     "  lmq export model.h5 --to safetensors -o model-dequantized/ --source model/\n"
     "  lmq export model.h5 --to compressed-tensors -o model-int4/ --source model/\n"
     "  lmq export model-f16.gguf --to gguf:q4_0 -o model-q4_0.gguf\n"},
    {Command::methods, "methods", "[METHOD] [--json]",
     "the table of methods with their sources, or one method's options",
     "Examples:\n"
     "  lmq methods\n"
     "  lmq methods ecsq\n"
     "  lmq methods --json | jq '.methods[] | select(.uses_importance) | .name'\n"},
};

constexpr unsigned kQuantize = bit(Command::quantize), kPlan = bit(Command::plan), kVerify = bit(Command::verify),
                   kInspect = bit(Command::inspect), kExport = bit(Command::export_), kMethods = bit(Command::methods);
constexpr unsigned kJob = kQuantize | kPlan;

/// In the order of help: by topic, the most used first.
constexpr OptionEntry kOptions[] = {
    {"output", 'o', "OUT.h5", "the file to make; an older output of lmq stays until the new one is complete",
     Topic::files, kQuantize},
    {"force", 0, "", "replace a file that is no output of lmq, too (never one of the input's)", Topic::files,
     kQuantize},
    {"output", 'o', "OUT.h5", "named in the suggested command lines", Topic::files, kPlan},
    {"to", 0, "FORMAT", "safetensors, gguf, compressed-tensors, gptq or hdf5, some with :VARIANT", Topic::files,
     kExport},
    {"output", 'o', "PATH", "the file, or the folder, to make", Topic::files, kExport},
    {"source", 0, "FROM",
     "the model's folder, of which all but the weights is copied; gguf: a .gguf file, whose keys are", Topic::files,
     kExport},
    {"against", 0, "INPUT", "the original: names, shapes, values and errors are compared", Topic::files, kVerify},
    {"importance", 0, "FILE",
     "what errors weigh: statistics of the inputs, squared gradients, Adam's moments (safetensors, HDF5) or "
     "llama.cpp's imatrix; docs/importance.md",
     Topic::files, kJob},
    {"importance", 0, "FILE", "the importance file of the run: weighted errors are compared too", Topic::files,
     kVerify},
    {"recipe", 0, "R.json", "rules by tensor name instead of one for all; docs/recipe.md", Topic::files, kJob},
    {"codebook", 0, "TENSOR", "the levels of one quantized tensor as plain numbers, instead", Topic::files, kInspect},

    {"method", 'm', "M",
     "how weights are coded: see lmq methods (default: waterfill where a size is asked for or there is importance; "
     "else "
     "equal steps for the whole model; kmeans with --levels, rows or groups)",
     Topic::spending, kJob, "method", true},
    {"bits",
     'b',
     "B",
     "bits of the whole file for each weight, everything counted, any number (default: codes of 4 bits)",
     Topic::spending,
     kJob,
     {},
     true},
    {"levels", 0, "K", "levels per codebook, 2 to 256, instead of --bits", Topic::spending, kJob, "levels", true},
    {"target-size",
     0,
     "SIZE",
     "the whole file is never larger, everything counted; shared out at one slope",
     Topic::spending,
     kJob,
     {},
     true},
    {"bit-allocation",
     0,
     "HOW",
     "how the size is shared out: slope (any number of levels), or in whole bits, 1 to 8 a tensor: exact, lagrangian, "
     "uniform, dropbits (default slope); docs/methods/learned-grids.md",
     Topic::spending,
     kJob,
     {},
     true},
    {"for",
     0,
     "FORMAT:TYPE",
     "the best codes that an export holds: gguf:q4_0 (q4_1, q8_0, tq2_0), compressed-tensors:int4-g32, gptq:int4-g128; "
     "docs/formats.md",
     Topic::spending,
     kJob,
     {},
     true},
    {"tensor",
     0,
     "PATTERN=WHAT",
     "otherwise for tensors whose names fit: a number of bits, keep, a method, or fields of a rule such as "
     "levels=12,granularity=row; before a recipe's rules; again and again, the first that fits decides",
     Topic::spending,
     kJob,
     {},
     false,
     true},
    {"granularity", 0, "G", "what shares a codebook: model, tensor, row or group (default tensor)", Topic::spending,
     kJob, "granularity", true},
    {"group", 0, "N", "weights per codebook inside a row (default 128 for --granularity group)", Topic::spending, kJob,
     "group", true},

    {"memory", 0, "SIZE", "what a rank may hold, for example 4G (default: what the plan needs)", Topic::running, kJob},
    {"memory", 0, "SIZE", "what a rank may hold (default: 64M a thread, or what the largest unit needs)",
     Topic::running, kVerify},
    {"threads", 't', "N", "threads of a rank (default: its share of the CPUs)", Topic::running, kJob | kVerify},
    {"threads", 't', "N", "threads (default: all CPUs)", Topic::running, kExport},
    {"ranks", 'n', "N", "ranks to plan for (default 1)", Topic::running, kPlan},
    {"simulate", 0, "N,...",
     "how long runs with so many ranks take on a cluster, and where their time goes (--threads of each)",
     Topic::running, kPlan},
    {"cores", 0, "N", "--simulate: that all ranks share, on one machine (default: one for each thread)", Topic::running,
     kPlan},
    {"storage", 0, "SIZE", "--simulate: what the file system gives all ranks together each second (default 100GB)",
     Topic::running, kPlan},
    {"rank-io", 0, "SIZE", "--simulate: what it gives one rank each second (default 5GB)", Topic::running, kPlan},
    {"max-time", 0, "TIME", "stop cleanly, with exit code 75, before this time is over", Topic::running, kQuantize},
    {"dry-run", 0, "", "what lmq plan prints, for these ranks; no file is made", Topic::running, kQuantize},
    {"summary", 0, "", "a line for each kind of tensor: names that differ in numbers together", Topic::running,
     kJob | kInspect},
    {"curve", 0, "TENSOR",
     "instead: levels against error of one tensor by every method, or by --method with its options; --levels: that "
     "number only",
     Topic::running, kPlan},
    {"json", 0, "[FILE]", "the report as JSON on standard output (alone, or -) or into FILE", Topic::running,
     kJob | kInspect | kVerify | kExport | kMethods},
    {"quiet", 'q', "", "no table, no notes, no progress: warnings and errors only", Topic::running,
     kQuantize | kPlan | kInspect | kVerify | kExport | kMethods},
    {"progress", 0, "HOW", "auto, plain (lines for a log) or none (default auto)", Topic::running, kQuantize | kVerify},

#define LMQ_CODER(name, number, whole_bits, coder) ", " #name
    {"coder", 0, "C",
     "how codes are stored: cheapest"
#include "lmq/base/coders.inc"
     " (default cheapest)",
     Topic::seldom, kJob, "coder", true},
#undef LMQ_CODER
    {"level-type", 0, "T", "how levels are stored: f32 or f16 (default f32; f16 for rows and groups)", Topic::seldom,
     kJob, "level_type", true},
    {"nonfinite",
     0,
     "WHAT",
     "tensors with NaN or infinities: refuse or keep raw (default refuse)",
     Topic::seldom,
     kJob,
     {},
     true},
    {"fp8",
     0,
     "WHAT",
     "8-bit floats without a known scale: refuse, or quantize as plain values (default refuse)",
     Topic::seldom,
     kJob,
     {},
     true},
    {"importance-power",
     0,
     "P",
     "exponent of the importance, above 0 up to 2 (default 1; 0.5 for Adam's second moments)",
     Topic::seldom,
     kJob,
     {},
     true},
    {"importance-damping",
     0,
     "D",
     "how far the importance of a tensor's rows and columns is drawn to its mean: (h + D mean) / (1 + D) (default 1; "
     "0: as it is)",
     Topic::seldom,
     kJob,
     {},
     true},
    {"work-dir", 0, "DIR", "finished records and journals, seen by all ranks (default OUT.h5.lmq-work)", Topic::seldom,
     kQuantize},
    {"resume", 0, "WHEN", "continue what the work directory holds: auto or never (default auto)", Topic::seldom,
     kQuantize},
    {"repeat", 0, "R",
     "average R independent draws of stochastic rounding: the error of the mean falls like 1/R, without bias",
     Topic::seldom, kVerify},
    {"help", 'h', "", "this text", Topic::seldom, kJob | kInspect | kVerify | kExport | kMethods},
};

constexpr std::pair<std::string_view, std::string_view> kChoices[] = {
    {"granularity", "model tensor row group"},
#define LMQ_CODER(name, number, whole_bits, coder) " " #name
    {"coder", "cheapest"
#include "lmq/base/coders.inc"
    },
#undef LMQ_CODER
    {"level-type", "f32 f16"},
    {"nonfinite", "refuse keep"},
    {"fp8", "refuse plain"},
    {"progress", "auto plain none"},
    {"resume", "auto never"},
};

void add(po::options_description& table, const OptionEntry& entry) {
  const std::string names =
      entry.letter == 0 ? std::string(entry.name) : fmt::format("{},{}", entry.name, entry.letter);
  if (entry.value.empty())
    table.add_options()(names.c_str(), "");
  else if (entry.value.starts_with('['))
    table.add_options()(names.c_str(), po::value<std::string>()->implicit_value("-"));
  else if (entry.repeats)
    table.add_options()(names.c_str(), po::value<std::vector<std::string>>()->composing());
  else
    table.add_options()(names.c_str(), po::value<std::string>());
}

}  // namespace

std::span<const CommandEntry> commands() noexcept { return kCommands; }

const CommandEntry* find_command(std::string_view name) noexcept {
  for (const CommandEntry& entry : kCommands)
    if (entry.name == name) return &entry;
  return nullptr;
}

std::vector<const OptionEntry*> options_of(Command command) {
  std::vector<const OptionEntry*> found;
  for (const OptionEntry& entry : kOptions)
    if ((entry.commands & bit(command)) != 0) found.push_back(&entry);
  return found;
}

std::string_view choices_of(std::string_view option) noexcept {
  for (const auto& [name, words] : kChoices)
    if (name == option) return words;
  return {};
}

bool takes_method_options(Command command) noexcept { return (bit(command) & kJob) != 0; }

po::options_description option_table(Command command) {
  po::options_description table;
  for (const OptionEntry* entry : options_of(command)) add(table, *entry);
  if (takes_method_options(command))
    for (const MethodOption* known : method_options())
      table.add_options()(std::string(known->name).c_str(), po::value<std::string>());
  return table;
}

std::vector<std::string> option_names(Command command) {
  std::vector<std::string> names;
  const po::options_description table = option_table(command);
  for (const auto& option : table.options()) names.push_back(fmt::format("--{}", option->long_name()));
  return names;
}

}  // namespace lmq::app
