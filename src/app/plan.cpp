#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "commands.hpp"
#include "job.hpp"
#include "lmq/base/parallel.hpp"
#include "lmq/base/text.hpp"
#include "lmq/container/size.hpp"
#include "lmq/io_hdf5/hdf5_format.hpp"
#include "lmq/run/budget.hpp"
#include "lmq/run/forecast.hpp"
#include "plan_simulate.hpp"
#include "quality_notes.hpp"
#include "table.hpp"
#include "tensor_lines.hpp"
#include "terminal.hpp"
#include "yardstick.hpp"

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

Suggested suggest(const Options& options, std::size_t ranks, std::size_t threads) {
  const std::string line = fmt::format("{} --threads {}", quantize_line(options), threads);
  return {.srun = fmt::format("srun --mpi=pmix --ntasks={} --cpus-per-task={} {}", ranks, threads, line),
          .mpirun = fmt::format("mpirun -np {} --map-by slot:PE={} --bind-to core {}", ranks, threads, line)};
}

/// A command in lines that a shell reads as one, of at most `width` columns where no word is longer.
std::string in_shell_lines(const std::string& command, std::size_t width) {
  constexpr std::string_view kBreak = " \\\n    ";
  std::string text;
  std::size_t used = 0;
  for (std::size_t begin = 0; begin < command.size();) {
    std::size_t end = begin;
    for (bool quoted = false; end < command.size() && (quoted || command[end] != ' '); ++end)
      if (command[end] == '\'') quoted = !quoted;
    const std::string word = command.substr(begin, end - begin);
    const bool last = end == command.size();
    if (used > 0 && used + 1 + columns_of(word) + (last ? 0 : 2) > width) {
      text += kBreak;
      used = 4;
    } else if (used > 0) {
      text += ' ';
      ++used;
    }
    text += word;
    used += columns_of(word);
    begin = end + 1;
  }
  return text;
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

/// The rule that decides about a tensor; empty when none was asked.
std::string rule_of(const Job& job, const TensorPlan& plan) {
  return plan.rule < 0 ? "" : place_of(job.recipe.rules[static_cast<std::size_t>(plan.rule)]);
}

/// What happens to a tensor, and in brackets which rule says so.
std::string treatment_text(const Job& job, const TensorPlan& plan) {
  std::string text;
  if (plan.treatment == Treatment::quantize) {
    const QuantizerEntry* method = find_quantizer(plan.spec.method);
    text = fmt::format("{}", method == nullptr ? "?" : method->name);
    const bool layers = plan.lane_rows > 0;  // which have neither levels nor codebooks
    if (layers) text += fmt::format(" in lanes of {}", counted(plan.lane_rows, "row"));
    if (!layers && !plan.spec.budgeted) text += fmt::format(", {}", counted(plan.spec.options.levels, "level"));
    if (!layers && plan.spec.granularity != Granularity::tensor)
      text += fmt::format(" per {}", name(plan.spec.granularity));
    if (plan.spec.granularity == Granularity::group) text += fmt::format(" of {}", plan.spec.group);
  } else {
    text = plan.treatment == Treatment::keep ? fmt::format("kept: {}", plan.reason) : plan.reason;
  }
  std::string rule = rule_of(job, plan);
  if (const auto at = rule.find(": rules["); at != rule.npos) rule.erase(0, at + 2);
  if (plan.rule >= 0 && job.recipe.rules[static_cast<std::size_t>(plan.rule)].place.command_line) rule = "options";
  constexpr std::size_t kLongestRule = 24;  // --json has it whole
  return rule.empty() ? text : fmt::format("{} ({})", text, printable(rule, kLongestRule));
}

/// What quantized tensors are expected to become.
using Expected = Forecast;

/// The forecast of a tensor, or of its scope where a budget chooses; nullptr: nothing is known.
const ScopeForecast* forecast_of(const Expected& expected, const TensorPlan& plan) {
  if (plan.treatment != Treatment::quantize) return nullptr;
  const ScopeForecast& forecast =
      plan.spec.budgeted ? expected.scopes[static_cast<std::size_t>(plan.scope)] : expected.tensors[plan.tensor];
  return forecast.weights > 0 ? &forecast : nullptr;
}

/// Tensors that share a line.
struct Row {
  std::string name, type, shape, what;
  std::uint64_t units = 0, tensors = 0;
  std::size_t fewest_levels = 0, most_levels = 0;
  double weights = 0, bits = 0, distortion = 0, energy = 0;  // of what is expected
};

void add_forecast(const Job& job, const TensorPlan& plan, const ScopeForecast& forecast, Row& row) {
  const std::uint64_t count = job.reader->catalogue().tensors[plan.tensor].count();
  const double share = static_cast<double>(count) / forecast.weights;
  row.fewest_levels = row.weights > 0 ? std::min(row.fewest_levels, forecast.levels) : forecast.levels;
  row.most_levels = std::max(row.most_levels, forecast.levels);
  row.weights += static_cast<double>(count);
  row.bits += share * forecast.bits;
  row.distortion += share * forecast.distortion;
  row.energy += share * forecast.energy;
}

std::vector<Row> rows_of(const Job& job, bool summary, const Expected& expected) {
  std::vector<Row> rows;
  std::map<std::string, std::size_t> index;
  const auto& tensors = job.reader->catalogue().tensors;
  for (std::size_t t = 0; t < tensors.size(); ++t) {
    const TensorPlan& plan = job.plan.tensors[t];
    Row row{.name = summary ? name_pattern(tensors[t].name) : tensors[t].name,
            .type = std::string(name(tensors[t].dtype)),
            .shape = shape_text(tensors[t].shape),
            .what = treatment_text(job, plan)};
    if (summary) row.what = name_pattern(row.what);  // which may name other tensors
    const auto [at, fresh] =
        index.try_emplace(fmt::format("{}\n{}\n{}\n{}", row.name, row.type, row.shape, row.what), rows.size());
    if (fresh) rows.push_back(std::move(row));
    Row& sum = rows[at->second];
    sum.units += plan.units;
    if (++sum.tensors == 1) sum.name = tensors[t].name;
    if (sum.tensors == 2) sum.name = name_pattern(tensors[t].name);
    if (const ScopeForecast* forecast = forecast_of(expected, plan)) add_forecast(job, plan, *forecast, sum);
  }
  return rows;
}

/// Levels, bits per weight and signal to noise that are expected; "-" where nothing is known.
std::vector<std::string> expected_cells(const Row& row) {
  if (!(row.weights > 0)) return {"-", "-", "-"};
  return {row.most_levels == 0                   ? "-"  // codes without levels
          : row.fewest_levels == row.most_levels ? fmt::format("{}", row.most_levels)
                                                 : fmt::format("{}..{}", row.fewest_levels, row.most_levels),
          fmt::format("{:.2f}", row.bits / row.weights), decibel_text(row.distortion, row.energy)};
}

std::string plan_table(const Job& job, bool summary, const Expected& expected) {
  const std::vector<Row> rows = rows_of(job, summary || job.plan.tensors.size() > kMaxLines, expected);
  using enum Table::Align;
  std::vector<std::pair<std::string, Table::Align>> columns{{"tensor", left}, {"type", left}, {"shape", left}};
  columns.insert(columns.end(), {{"levels", right}, {"bits", right}, {"SNR dB", right}});
  columns.emplace_back("treatment (rule)", left);
  Table table(std::move(columns));
  for (std::size_t i = 0; i < std::min(rows.size(), kMaxLines); ++i) {
    std::vector<std::string> cells{counted_name(rows[i].name, rows[i].tensors), rows[i].type, rows[i].shape};
    const auto more = expected_cells(rows[i]);
    cells.insert(cells.end(), more.begin(), more.end());
    cells.push_back(printable(rows[i].what));
    table.row(std::move(cells));
  }
  std::string text = table.text(output_width());
  if (rows.size() > kMaxLines)
    text += fmt::format("... and {} (--json lists all tensors)\n", counted(rows.size() - kMaxLines, "more line"));
  return text;
}

/// Bytes of the output: what is expected; at most, where something is not known.
std::uint64_t output_bytes(const Job& job, const Expected& expected) {
  if (job.plan.target_bytes > 0) return std::min(static_cast<std::uint64_t>(expected.bytes), job.plan.target_bytes);
  const Plan likely = with_expected_levels(job.plan, expected.tensors);
  return estimate_output(job, likely,
                         [&](std::uint64_t unit) {
                           const WorkUnit& work = job.plan.units[unit];
                           const ScopeForecast& tensor = expected.tensors[work.tensor];
                           if (!(tensor.weights > 0)) return record_bound(job.plan, unit);
                           return static_cast<std::uint64_t>(
                               std::ceil(tensor.bits / 8 * (static_cast<double>(work.count) / tensor.weights)));
                         })
      .total();
}

/// Something is quantized of which nothing is known.
bool is_bound(const Job& job, const Expected& expected) {
  return std::ranges::any_of(job.plan.tensors, [&](const TensorPlan& plan) {
    return plan.treatment == Treatment::quantize && plan.units > 0 && forecast_of(expected, plan) == nullptr;
  });
}

void put_forecast(const ScopeForecast& forecast, bool budgeted, nlohmann::json& item) {
  if (budgeted && item.contains("levels")) item["levels"] = forecast.levels;
  item["expected_bits_per_weight"] = forecast.bits / forecast.weights;
  if (forecast.energy > 0 && forecast.distortion > 0)
    item["expected_snr_db"] = 10 * std::log10(forecast.energy / forecast.distortion);
}

/// Everything that plan says.
struct Report {
  const Job& job;
  const Expected& expected;
  MemoryEstimate memory;
  std::size_t ranks = 1, threads = 1;
  std::vector<Simulated> simulated = {};
};

/// A tensor of the plan.
nlohmann::json tensor_json(const Report& report, const TensorPlan& plan, const TensorInfo& info) {
  nlohmann::json item{{"name", info.name},   {"dtype", name(info.dtype)},
                      {"shape", info.shape}, {"treatment", treatment_name(plan.treatment)},
                      {"units", plan.units}, {"source_bytes", info.bytes}};
  item["rule"] = plan.rule < 0 ? nlohmann::json(nullptr) : nlohmann::json(rule_of(report.job, plan));
  if (plan.treatment != Treatment::quantize) {
    item["reason"] = plan.reason;
  } else {
    const QuantizerEntry* method = find_quantizer(plan.spec.method);
    item["method"] = method == nullptr ? "" : std::string(method->name);
    if (plan.lane_rows > 0)
      item["lane_rows"] = plan.lane_rows;
    else
      item.update({{"levels", plan.spec.options.levels}, {"granularity", name(plan.spec.granularity)}});
    item["chunk"] = plan.chunk;
    if (plan.spec.granularity == Granularity::group) item["group"] = plan.spec.group;
    if (const ScopeForecast* forecast = forecast_of(report.expected, plan))
      put_forecast(*forecast, plan.spec.budgeted, item);
  }
  return item;
}

nlohmann::json plan_json(const Options& options, const Report& report) {
  const auto& [job, expected, memory, ranks, threads, simulated] = report;
  const Counted counted = count(job);
  const Suggested suggested = suggest(options, ranks, threads);
  nlohmann::json list = nlohmann::json::array();
  const auto& tensors = job.reader->catalogue().tensors;
  for (std::size_t t = 0; t < tensors.size(); ++t) list.push_back(tensor_json(report, job.plan.tensors[t], tensors[t]));
  nlohmann::json json{{"plan_digest", job.plan.digest},
                      {"ranks", ranks},
                      {"threads", threads},
                      {"tensors", std::move(list)},
                      {"units", job.plan.units.size()},
                      {"scopes", job.plan.scopes.size()},
                      {"largest_unit_weights", counted.largest_unit},
                      {"weights", counted.weights},
                      {"source_bytes", counted.source_bytes},
                      {"importance", importance_json(job)},
                      {"target_bytes", job.plan.target_bytes},
                      {"estimated_output_bytes", output_bytes(job, expected)},
                      {"memory_per_rank_bytes", memory.total()},
                      {"memory",
                       {{"program", memory.program},
                        {"input", memory.input},
                        {"work", memory.work},
                        {"output", memory.output},
                        {"coordinator", memory.coordinator}}},
                      {"estimated_seconds", estimate_seconds(job.plan, ranks, threads)},
                      {"simulated", to_json(simulated)},
                      {"srun", suggested.srun},
                      {"mpirun", suggested.mpirun}};
  if (job.plan.target_bytes > 0) json["expected_loss"] = expected.loss;
  return json;
}

std::string plan_text(const Options& options, const Report& report) {
  const auto& [job, expected, memory, ranks, threads, simulated] = report;
  const Counted sums = count(job);
  const Suggested suggested = suggest(options, ranks, threads);
  const auto shared = std::ranges::count_if(job.plan.scopes, &Scope::shares_codebook);
  const std::size_t width = output_width();
  const std::string quality = expected_quality(job.plan, output_bytes(job, expected), sums.weights);
  return fmt::format(
      "{}\n{}: {} quantized, {} kept, {} folded;\n{} (the largest {}), {}\ninput {}, output {} {}\n{}"
      "memory per rank {}: program {}, input {},\n  work {}, output {}, coordinator (rank 0) {}\n"
      "about {} with {} of {}\n\n{}\n{}\n",
      plan_table(job, options.summary, expected), counted(sums.quantized_tensors + sums.kept + sums.folded, "tensor"),
      sums.quantized_tensors, sums.kept, sums.folded, counted(job.plan.units.size(), "unit"),
      counted(sums.largest_unit, "weight"), counted(static_cast<std::uint64_t>(shared), "shared codebook"),
      format_bytes(sums.source_bytes), is_bound(job, expected) ? "at most" : "about",
      format_bytes(output_bytes(job, expected)), quality.empty() ? quality : wrap(quality, width, 2),
      format_bytes(memory.total()), format_bytes(memory.program), format_bytes(memory.input), format_bytes(memory.work),
      format_bytes(memory.output), format_bytes(memory.coordinator),
      format_duration(estimate_seconds(job.plan, ranks, threads)), counted(ranks, "rank"), counted(threads, "thread"),
      in_shell_lines(suggested.srun, width), in_shell_lines(suggested.mpirun, width));
}

/// What is said of a size that is spent badly, in words.
std::vector<std::string> size_notes(const Options& options, const Job& job, const Expected& expected) {
  std::vector<std::string> notes;
  double weights = 0, books = 0, stored = 0;
  std::uint64_t group = 0;
  for (const TensorPlan& plan : job.plan.tensors) {
    const ScopeForecast* forecast = forecast_of(expected, plan);
    if (forecast == nullptr || plan.lane_rows > 0 || plan.spec.granularity < Granularity::row) continue;
    QuantSpec spec = plan.spec;
    if (spec.budgeted) spec.options.levels = std::max<std::size_t>(1, forecast->levels);
    const std::uint64_t count = plan.rows * plan.cols;
    weights += forecast->weights, stored += forecast->bits;
    books +=
        (spec.level_type == LevelType::f16 ? 16.0 : 32.0) * static_cast<double>(stored_numbers(spec, count, plan.cols));
    if (spec.granularity == Granularity::group) group = spec.group;
  }
  notes.push_back(beside_codes(options, group, weights, stored - books, stored));
  notes.push_back(unused_size(options, job.plan, output_bytes(job, expected)));
  std::erase(notes, "");
  return notes;
}

/// Reads what has to be measured.
Expected forecast(Comm& comm, const Options& options, const Job& job) {
  const RunContext context{*job.reader, job.importance ? &*job.importance : nullptr, job.plan, {}};
  if (job.plan.target_bytes == 0) {
    // What is simulated may be a checkpoint without values (docs/scaling.md).
    const bool tries = options.simulate.empty();
    return {.scopes = {},
            .tensors = tries ? forecast_tensors(comm, context) : std::vector<ScopeForecast>(job.plan.tensors.size())};
  }
  run_agreed(comm, [&] {
    if (comm.rank() == 0) check_target(job);
  });
  const bool shows =
      comm.rank() == 0 && !options.quiet && options.progress != ProgressMode::none && error_is_terminal();
  Progress progress("measuring", shows ? Progress::Style::in_place : Progress::Style::none);
  const std::uint64_t beside = bytes_beside(job.reader->catalogue(), job.plan, job.recipe.canonical_json(),
                                            provenance_json(job), *make_hdf5_format());
  Expected expected = forecast_budget(comm, context, beside, [&](double done, double all) { progress.at(done, all); });
  expected.tensors = forecast_tensors(comm, context);
  return expected;
}

}  // namespace

int plan(Comm& comm, const Options& options) {
  if (!options.curve_tensor.empty()) return comm.rank() == 0 ? plan_curve(options) : 0;
  const Job job = open_job(comm, options, options.dry_run, {});
  const Expected expected = forecast(comm, options, job);
  run_agreed(comm, [&] {
    if (comm.rank() != 0) return;
    const std::size_t ranks = options.dry_run ? static_cast<std::size_t>(comm.size()) : options.ranks;
    const std::size_t threads = thread_count();
    const Report report{job,   expected, estimate_memory(job.reader->catalogue().tensors, job.plan, threads, ranks),
                        ranks, threads,  simulate_runs(options, job, output_bytes(job, expected), threads)};
    check_memory(options, report.memory);
    if (job.recipe.nonfinite == Recipe::Nonfinite::keep && !options.dry_run && !options.quiet)
      note(
          "values are not looked at here: tensors with NaN or infinities, which quantize will keep, are planned as the "
          "others");
    if (expected.sampled && !options.quiet)
      note("the model is large: levels, bits and SNR are those of a part of each tensor");
    if (!options.quiet)
      for (const std::string& line : size_notes(options, job, expected)) note(line);
    if (options.json) print_json(*options.json, plan_json(options, report));
    if (options.json == "-" || options.quiet) return;
    print(plan_text(options, report));
    if (!report.simulated.empty()) print("\n" + simulation_text(options, report.simulated));
  });
  return 0;
}

}  // namespace lmq::app
