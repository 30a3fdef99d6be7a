#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "commands.hpp"
#include "job.hpp"
#include "lmq/base/parallel.hpp"
#include "lmq/base/text.hpp"
#include "table.hpp"
#include "terminal.hpp"

namespace lmq::app {
namespace {

/// A word for a POSIX shell.
std::string quoted_word(const std::string& word) {
  constexpr std::string_view kPlain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./=+:,@%";
  if (!word.empty() && word.find_first_not_of(kPlain) == word.npos) return word;
  std::string text = "'";
  for (const char c : word) text += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return text + "'";
}

std::string quantize_line(const Options& options) {
  const std::string output = options.output.empty() ? "OUT.h5" : options.output.string();
  std::string line = fmt::format("lmq quantize {} -o {}", quoted_word(options.input.string()), quoted_word(output));
  for (const std::string& argument : options.recipe_arguments) line += fmt::format(" {}", quoted_word(argument));
  return line;
}

struct Suggested {
  std::string srun, mpirun;
};

Suggested suggest(const Options& options, std::size_t threads) {
  const std::string line = fmt::format("{} --threads {}", quantize_line(options), threads);
  return {.srun = fmt::format("srun --mpi=pmix --ntasks={} --cpus-per-task={} {}", options.ranks, threads, line),
          .mpirun = fmt::format("mpirun -np {} --map-by slot:PE={} --bind-to core {}", options.ranks, threads, line)};
}

struct Counted {
  std::uint64_t source_bytes = 0, weights = 0, quantized_tensors = 0, kept = 0, folded = 0, largest_unit = 0;
};

Counted count(const Job& job) {
  Counted counted;
  const auto& tensors = job.reader->catalogue().tensors;
  for (std::size_t t = 0; t < tensors.size(); ++t) {
    const Treatment treatment = job.plan.tensors[t].treatment;
    counted.source_bytes += tensors[t].bytes;
    if (treatment != Treatment::fold) counted.weights += tensors[t].count();
    (treatment == Treatment::quantize ? counted.quantized_tensors
     : treatment == Treatment::keep   ? counted.kept
                                      : counted.folded) += 1;
  }
  for (const WorkUnit& unit : job.plan.units) counted.largest_unit = std::max(counted.largest_unit, unit.count);
  return counted;
}

std::string_view treatment_name(Treatment treatment) {
  return treatment == Treatment::quantize ? "quantize" : treatment == Treatment::keep ? "keep" : "fold";
}

std::string spec_text(const QuantSpec& spec) {
  const QuantizerEntry* method = find_quantizer(spec.method);
  std::string text = fmt::format("{} {} levels per {}", method == nullptr ? "?" : method->name, spec.options.levels,
                                 name(spec.granularity));
  if (spec.granularity == Granularity::group) text += fmt::format(" of {}", spec.group);
  return text;
}

std::string plan_table(const Job& job) {
  constexpr std::size_t kMost = 60;
  struct Row {
    std::string name, type, shape, what;
    std::uint64_t units = 0, tensors = 0;
  };
  std::vector<Row> rows;
  std::map<std::string, std::size_t> index;
  const auto& tensors = job.reader->catalogue().tensors;
  for (std::size_t t = 0; t < tensors.size(); ++t) {
    const TensorPlan& plan = job.plan.tensors[t];
    const bool quantized = plan.treatment == Treatment::quantize;
    Row row{
        .name = tensors[t].name,
        .type = std::string(name(tensors[t].dtype)),
        .shape = shape_text(tensors[t].shape),
        .what = quantized ? spec_text(plan.spec) : fmt::format("{}: {}", treatment_name(plan.treatment), plan.reason),
        .units = plan.units,
        .tensors = 1};
    if (tensors.size() > kMost) row.name = name_pattern(row.name);
    const auto [at, fresh] =
        index.try_emplace(fmt::format("{}\n{}\n{}\n{}", row.name, row.type, row.shape, row.what), rows.size());
    if (fresh)
      rows.push_back(std::move(row));
    else
      rows[at->second].units += row.units, rows[at->second].tensors += 1;
  }
  using enum Table::Align;
  Table table({{"tensor", left}, {"type", left}, {"shape", left}, {"units", right}, {"treatment", left}});
  for (std::size_t i = 0; i < std::min(rows.size(), kMost); ++i)
    table.row({rows[i].tensors > 1 ? fmt::format("{} ({} tensors)", printable(rows[i].name), rows[i].tensors)
                                   : printable(rows[i].name),
               rows[i].type, rows[i].shape, fmt::format("{}", rows[i].units), printable(rows[i].what)});
  std::string text = table.text();
  if (rows.size() > kMost)
    text += fmt::format("... and {} more lines (--json lists all tensors)\n", rows.size() - kMost);
  return text;
}

nlohmann::json plan_json(const Options& options, const Job& job, const MemoryEstimate& memory, std::size_t threads) {
  const Counted counted = count(job);
  const Suggested suggested = suggest(options, threads);
  nlohmann::json list = nlohmann::json::array();
  const auto& tensors = job.reader->catalogue().tensors;
  for (std::size_t t = 0; t < tensors.size(); ++t) {
    const TensorPlan& plan = job.plan.tensors[t];
    nlohmann::json item{{"name", tensors[t].name},   {"dtype", name(tensors[t].dtype)},
                        {"shape", tensors[t].shape}, {"treatment", treatment_name(plan.treatment)},
                        {"units", plan.units},       {"source_bytes", tensors[t].bytes}};
    if (plan.treatment != Treatment::quantize) {
      item["reason"] = plan.reason;
    } else {
      const QuantizerEntry* method = find_quantizer(plan.spec.method);
      item["method"] = method == nullptr ? "" : std::string(method->name);
      item["levels"] = plan.spec.options.levels;
      item["granularity"] = name(plan.spec.granularity);
      item["chunk"] = plan.chunk;
      if (plan.spec.granularity == Granularity::group) item["group"] = plan.spec.group;
    }
    list.push_back(std::move(item));
  }
  return {{"plan_digest", job.plan.digest},
          {"ranks", options.ranks},
          {"threads", threads},
          {"tensors", std::move(list)},
          {"units", job.plan.units.size()},
          {"scopes", job.plan.scopes.size()},
          {"largest_unit_weights", counted.largest_unit},
          {"weights", counted.weights},
          {"source_bytes", counted.source_bytes},
          {"importance", importance_json(job)},
          {"estimated_output_bytes", estimate_output(job).total()},
          {"memory_per_rank_bytes", memory.total()},
          {"memory",
           {{"program", memory.program},
            {"input", memory.input},
            {"work", memory.work},
            {"output", memory.output},
            {"coordinator", memory.coordinator}}},
          {"estimated_seconds", estimate_seconds(job.plan, options.ranks, threads)},
          {"srun", suggested.srun},
          {"mpirun", suggested.mpirun}};
}

std::string plan_text(const Options& options, const Job& job, const MemoryEstimate& memory, std::size_t threads) {
  const Counted counted = count(job);
  const Suggested suggested = suggest(options, threads);
  return fmt::format(
      "{}\n{} tensors: {} quantized, {} kept, {} folded; {} units (the largest {} weights), {} shared codebook{}\n"
      "input {}, output about {}\n"
      "memory per rank {}: program {}, input {}, work {}, output {}, coordinator (rank 0) {}\n"
      "about {} with {} rank{} of {} thread{}\n\n{}\n{}\n",
      plan_table(job), counted.quantized_tensors + counted.kept + counted.folded, counted.quantized_tensors,
      counted.kept, counted.folded, with_commas(job.plan.units.size()), with_commas(counted.largest_unit),
      job.plan.scopes.size(), job.plan.scopes.size() == 1 ? "" : "s", format_bytes(counted.source_bytes),
      format_bytes(estimate_output(job).total()), format_bytes(memory.total()), format_bytes(memory.program),
      format_bytes(memory.input), format_bytes(memory.work), format_bytes(memory.output),
      format_bytes(memory.coordinator), format_duration(estimate_seconds(job.plan, options.ranks, threads)),
      options.ranks, options.ranks == 1 ? "" : "s", threads, threads == 1 ? "" : "s", suggested.srun, suggested.mpirun);
}

}  // namespace

int plan(const Options& options) {
  if (!options.path_tensor.empty()) return plan_path(options);
  const std::unique_ptr<Comm> comm = make_self_comm();
  const Job job = open_job(*comm, options, false, {});
  const std::size_t threads = thread_count();
  const MemoryEstimate memory = estimate_memory(job.reader->catalogue().tensors, job.plan, threads, options.ranks);
  check_memory(options, memory);
  if (job.recipe.nonfinite == Recipe::Nonfinite::keep)
    note(
        "values are not looked at here: tensors with NaN or infinities, which quantize will keep, are planned as the "
        "others");
  if (options.json)
    print(plan_json(options, job, memory, threads).dump(2, ' ', false, nlohmann::json::error_handler_t::replace) +
          '\n');
  else
    print(plan_text(options, job, memory, threads));
  return 0;
}

}  // namespace lmq::app
