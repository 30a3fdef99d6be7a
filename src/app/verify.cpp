#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "commands.hpp"
#include "input.hpp"
#include "job.hpp"
#include "launch.hpp"
#include "lmq/base/bytes.hpp"
#include "lmq/base/digest.hpp"
#include "lmq/base/parallel.hpp"
#include "lmq/base/text.hpp"
#include "lmq/quant/gram_use.hpp"
#include "open_output.hpp"
#include "table.hpp"
#include "terminal.hpp"
#include "verify_draws.hpp"
#include "verify_units.hpp"

namespace lmq::app {
namespace {

using Lines = std::vector<std::string>;

/// The ledger against the file and the tables.
void check_ledger(const QuantizedFile& file, Lines& out) {
  std::uint64_t sum = 0, record_bytes = 0, raw_bytes = 0, ledger_records = 0, ledger_raw = 0;
  for (const StoredUnit& unit : file.units())
    (file.tensors()[unit.tensor].treatment == Treatment::quantize ? record_bytes : raw_bytes) += unit.bytes;
  for (const auto& purpose : file.ledger()) {
    sum += purpose.bytes;
    if (purpose.name == "raw")
      ledger_raw += purpose.bytes;
    else if (purpose.name != "side" && purpose.name != "metadata")
      ledger_records += purpose.bytes;
  }
  const auto compare = [&](const char* what, std::uint64_t ledger, std::uint64_t found) {
    if (ledger != found)
      out.push_back(fmt::format("{}: ledger: {} {} bytes, found are {}", file.name(), what, ledger, found));
  };
  compare("all purposes make", sum, file.places().file_bytes);
  compare("records take", ledger_records, record_bytes);
  compare("raw tensors take", ledger_raw, raw_bytes);
}

/// A tensor's numbers against the sums over its units.
void check_sums(const QuantizedFile& file, Lines& out) {
  for (const StoredTensor& tensor : file.tensors()) {
    if (tensor.treatment != Treatment::quantize || tensor.first_unit + tensor.units > file.units().size()) continue;
    double squared = 0, energy = 0, largest = 0;
    std::uint64_t bytes = 0;
    for (std::uint64_t u = tensor.first_unit; u < tensor.first_unit + tensor.units; ++u) {
      const StoredUnit& unit = file.units()[u];
      squared += unit.squared_error, energy += unit.energy, bytes += unit.bytes;
      largest = std::max(largest, unit.largest_error);
    }
    const double bits = tensor.count() > 0 ? 8 * static_cast<double>(bytes) / static_cast<double>(tensor.count()) : 0;
    const auto compare = [&](const char* what, double stated, double sum) {
      if (stated != sum && !(std::abs(stated - sum) <= 1e-12 * std::abs(sum)))
        out.push_back(fmt::format("{}, tensor '{}': {} is {}, its units make {}", file.name(),
                                  printable(tensor.line.name), what, stated, sum));
    };
    compare("the squared error", tensor.line.squared_error, squared);
    compare("the energy", tensor.line.energy, energy);
    compare("the largest error", tensor.line.largest_error, largest);
    compare("bits per weight", tensor.line.bits_per_weight, bits);
  }
}

/// Names, types and shapes of both; fills original.tensor_of.
void match_tensors(const QuantizedFile& file, Original& original, Lines& out) {
  const auto& listed = original.reader->catalogue().tensors;
  std::vector<bool> met(listed.size(), false);
  original.tensor_of.assign(file.tensors().size(), -1);
  for (std::size_t t = 0; t < file.tensors().size(); ++t) {
    const StoredTensor& tensor = file.tensors()[t];
    const auto at = std::ranges::lower_bound(listed, tensor.line.name, {}, &TensorInfo::name);
    const auto differs = [&](const std::string& what) {
      out.push_back(fmt::format("{}, tensor '{}': {}", file.name(), printable(tensor.line.name), what));
    };
    if (at == listed.end() || at->name != tensor.line.name) {
      differs("the original has none of that name");
      continue;
    }
    met[static_cast<std::size_t>(at - listed.begin())] = true;
    if (tensor.treatment == Treatment::fold) {
      if (at->scales < 0) differs("missing, and the original's is no block scale");
    } else if (at->dtype != tensor.dtype) {
      differs(fmt::format("was {}, the original is {}", name(tensor.dtype), name(at->dtype)));
    } else if (at->shape != tensor.line.shape) {
      differs(fmt::format("shape {}, the original's is {}", shape_text(tensor.line.shape), shape_text(at->shape)));
    } else {
      original.tensor_of[t] = at - listed.begin();
    }
  }
  for (std::size_t i = 0; i < listed.size(); ++i)
    if (!met[i])
      out.push_back(fmt::format("{}: the original's tensor '{}' is missing", file.name(), printable(listed[i].name)));
}

/// What all ranks have in hand.
struct Inputs {
  std::unique_ptr<QuantizedFile> file;
  std::unique_ptr<Reader> reader;
  std::optional<ImportanceFile> importance;
  std::optional<CodebookList> codebooks;
  Original original;
  Lines differences;  // found by every rank alike, from headers and tables
};

std::string recorded_importance(const QuantizedFile& file) {
  const nlohmann::json& provenance = file.provenance();
  if (!provenance.is_object() || !provenance.contains("importance")) return "";
  const auto& importance = provenance["importance"];
  return importance.is_object() && importance.value("digest", nlohmann::json()).is_string()
             ? importance["digest"].get<std::string>()
             : "";
}

/// Whether the method of a tensor saw the curvature between weights, by what the file's recipe says of it; false for a
/// method we do not know.
bool saw_curvature(const StoredTensor& tensor, const TensorPlan& plan) {
  const QuantizerEntry* const entry = find_quantizer(plan.spec.method);
  if (tensor.treatment != Treatment::quantize || entry == nullptr || entry->name != tensor.line.method) return false;
  return plan.lane_rows > 0 || (plan.spec.granularity >= Granularity::row && looks_at_gram(traits_of(plan.spec)));
}

/// Rank 0 reads the file; all get what it found.
void share_importance(Comm& comm, const Options& options, Inputs& inputs) {
  std::vector<std::byte> bytes;
  run_agreed(comm, [&] {
    if (comm.rank() != 0) return;
    Recipe recipe = Recipe::parse(inputs.file->recipe().dump(), inputs.file->name() + ", /lmq/recipe");
    if (!inputs.file->recipe().contains("importance_damping"))
      recipe.importance_damping = 0;  // made before there was one
    const Plan plan = make_plan(inputs.reader->catalogue().tensors, "", recipe, {}, inputs.reader->catalogue().notes);
    std::vector<bool> quantized(inputs.reader->catalogue().tensors.size(), false), layers = quantized;
    for (std::size_t t = 0; t < inputs.original.tensor_of.size(); ++t)
      if (const std::int64_t at = inputs.original.tensor_of[t]; at >= 0) {
        const StoredTensor& tensor = inputs.file->tensors()[t];
        quantized[static_cast<std::size_t>(at)] = tensor.treatment == Treatment::quantize;
        layers[static_cast<std::size_t>(at)] = saw_curvature(tensor, plan.tensors[static_cast<std::size_t>(at)]);
      }
    bytes =
        open_importance(
            *options.importance, inputs.reader->catalogue(), recipe,
            [&](std::size_t tensor) { return quantized[tensor]; }, [&](std::size_t tensor) { return layers[tensor]; })
            .to_bytes();
  });
  bytes = comm.broadcast(std::move(bytes), 0);
  run_agreed(comm, [&] { inputs.importance.emplace(ImportanceFile::from_bytes(bytes)); });
}

/// The importance given must be that of the run.
void compare_importance(Inputs& inputs) {
  const std::string recorded = recorded_importance(*inputs.file);
  inputs.original.weighted_is_squared = recorded.empty();
  if (!inputs.importance) return;
  const std::string& digest = inputs.importance->digest();
  if (digest == recorded)
    inputs.original.importance = &*inputs.importance;
  else
    inputs.differences.push_back(recorded.empty() ? fmt::format("{}: was made without importance", inputs.file->name())
                                                  : fmt::format("{}: was made with importance {}, the file given is {}",
                                                                inputs.file->name(), recorded, digest));
}

/// The codebooks that the file lists, once for all tensors.
void read_codebooks(Inputs& inputs) {
  try {
    inputs.original.listed = &inputs.codebooks.emplace(*inputs.file);
  } catch (const Error& error) {
    inputs.differences.push_back(error.what());
  }
}

void open_inputs(Comm& comm, const Options& options, Inputs& inputs) {
  std::vector<std::byte> bytes;
  run_agreed(comm, [&] {
    if (options.importance && !options.against)
      fail(Errc::usage, "verify: --importance needs --against: errors are measured against the original");
    if (options.repeat > 0 && !options.against)
      fail(Errc::usage, "verify: --repeat needs --against: draws are averaged against the original");
    inputs.file = std::make_unique<QuantizedFile>(open_output(options.input));
    inputs.differences = inputs.file->findings();
    check_ledger(*inputs.file, inputs.differences);
    check_sums(*inputs.file, inputs.differences);
    read_codebooks(inputs);
    if (comm.rank() != 0 || !options.against) return;
    inputs.reader = open_input(*options.against);
    for (const std::string& warning : inputs.reader->catalogue().warnings) warn(warning);
    bytes = inputs.reader->catalogue().to_bytes();
  });
  if (!options.against) return;
  bytes = comm.broadcast(std::move(bytes), 0);
  run_agreed(comm, [&] {
    if (comm.rank() != 0) inputs.reader = open_reader(Catalogue::from_bytes(bytes));
    inputs.original.reader = inputs.reader.get();
    match_tensors(*inputs.file, inputs.original, inputs.differences);
  });
  if (options.importance) share_importance(comm, options, inputs);
  compare_importance(inputs);
}

std::vector<std::byte> to_bytes(const std::vector<UnitFound>& found) {
  ByteWriter out;
  out.le(std::uint64_t{found.size()});
  for (const UnitFound& one : found) out.le(one.unit), out.le(one.stored);
  return out.take();
}

void append(std::span<const std::byte> bytes, std::vector<std::uint64_t>& stored) {
  ByteReader in(bytes, "message of another rank");
  for (auto left = in.le<std::uint64_t>("units"); left > 0; --left) {
    const auto unit = in.le<std::uint64_t>("unit");
    const auto digest = in.le<std::uint64_t>("digest");
    if (unit < stored.size()) stored[unit] = digest;
  }
}

/// Each record vouches for itself; all together they must be those that were written.
void check_stored(const QuantizedFile& file, const std::vector<std::vector<std::byte>>& found, Lines& out) {
  std::vector<std::uint64_t> stored(file.units().size());
  for (const auto& bytes : found) append(bytes, stored);
  if (!file.stored_digest()) return;
  if (const std::uint64_t digest = stored_digest_of(stored); digest != *file.stored_digest())
    out.push_back(fmt::format("{}: the stored bytes of all units have digest {}, recorded is {}", file.name(),
                              hex(digest), hex(*file.stored_digest())));
}

std::vector<std::byte> to_bytes(const std::vector<Difference>& differences) {
  ByteWriter out;
  out.le(std::uint64_t{differences.size()});
  for (const Difference& difference : differences) out.le(difference.unit), out.text(difference.text);
  return out.take();
}

void append(std::span<const std::byte> bytes, std::vector<Difference>& differences) {
  ByteReader in(bytes, "message of another rank");
  for (auto left = in.le<std::uint64_t>("differences"); left > 0; --left) {
    const auto unit = in.le<std::uint64_t>("unit");
    differences.push_back({unit, in.text("text")});
  }
}

std::vector<std::byte> to_bytes(const std::vector<UnitDraws>& draws) {
  ByteWriter out;
  out.le(std::uint64_t{draws.size()});
  for (const auto& [unit, sums] : draws) {
    out.le(unit);
    for (const double sum :
         {sums.weights, sums.one, sums.one_expected, sums.mean, sums.mean_expected, sums.mean_variance, sums.bias})
      out.le(sum);
  }
  return out.take();
}

void append(std::span<const std::byte> bytes, std::vector<UnitDraws>& draws) {
  ByteReader in(bytes, "message of another rank");
  for (auto left = in.le<std::uint64_t>("draws"); left > 0; --left) {
    UnitDraws one;
    one.unit = in.le<std::uint64_t>("unit");
    for (double* sum : {&one.sums.weights, &one.sums.one, &one.sums.one_expected, &one.sums.mean,
                        &one.sums.mean_expected, &one.sums.mean_variance, &one.sums.bias})
      *sum = in.le<double>("sum");
    draws.push_back(one);
  }
}

/// What the units in hand may take: --memory less what the program and the file's tables take, or 64 MiB a thread.
std::uint64_t memory_for_units(const Options& options, const Inputs& inputs) {
  const std::uint64_t least = most_bytes_held(*inputs.file, inputs.original);
  if (!options.memory) return std::max(least, (std::uint64_t{64} << 20) * thread_count());
  const std::uint64_t others = resident_bytes();
  if (others + least > *options.memory)
    fail(Errc::usage, fmt::format("--memory {}: a rank needs {} (program and tables {}, the largest unit {})",
                                  format_bytes(*options.memory), format_bytes(others + least), format_bytes(others),
                                  format_bytes(least)));
  return *options.memory - others;
}

/// table: of draws, or empty. Where nobody can read it the exit code tells.
void say(const Options& options, const Inputs& inputs, const std::string& table, const Lines& differences,
         double seconds) {
  const QuantizedFile& file = *inputs.file;
  std::uint64_t records = 0;
  for (const StoredUnit& unit : file.units()) records += file.tensors()[unit.tensor].treatment == Treatment::quantize;
  const std::uint64_t bytes = file.places().file_bytes;
  if (options.json) {
    const nlohmann::json json{{"file", options.input.string()},
                              {"differences", differences},
                              {"tensors", file.tensors().size()},
                              {"units", file.units().size()},
                              {"records", records},
                              {"file_bytes", bytes},
                              {"compared_with_original", options.against.has_value()},
                              {"seconds", seconds}};
    print_json(*options.json, json);
  }
  if (options.json == "-") return;
  const std::string verdict = fmt::format(
      "{}: {}, {}, {} decoded, {}{}: {} in {}", file.name(), counted(file.tensors().size(), "tensor"),
      counted(file.units().size(), "unit"), counted(records, "record"), format_bytes(bytes),
      options.against ? ", errors measured against the original" : "",
      differences.empty() ? "no difference" : counted(differences.size(), "difference"), format_duration(seconds));
  if (output_is_closed()) return warn(fmt::format("standard output is closed; {}", verdict));
  std::string text = options.quiet ? "" : table;
  for (const std::string& difference : differences) text += hanging(printable(difference, 2000), output_width());
  if (!options.quiet) text += wrap(verdict, output_width(), 0);
  print(text);
}

/// What is wrong with the units of this rank.
std::vector<UnitFound> check_my_units(Comm& comm, const Options& options, const Inputs& inputs) {
  const bool shows = comm.rank() == 0 && options.progress != ProgressMode::none;
  const bool in_place = options.progress == ProgressMode::automatic && error_is_terminal();
  Progress progress("verify", !shows     ? Progress::Style::none
                              : in_place ? Progress::Style::in_place
                                         : Progress::Style::lines);
  std::vector<UnitFound> found;
  run_agreed(comm, [&] {
    const Share share{static_cast<std::uint64_t>(comm.rank()), static_cast<std::uint64_t>(comm.size())};
    found = check_units(*inputs.file, inputs.original, share, memory_for_units(options, inputs), progress);
  });
  return found;
}

}  // namespace

int verify(Comm& comm, const Options& options) {
  const double started = monotonic_seconds();
  Inputs inputs;
  open_inputs(comm, options, inputs);
  const std::vector<UnitFound> my_units = check_my_units(comm, options, inputs);
  std::vector<Difference> mine;
  for (const UnitFound& one : my_units)
    for (const std::string& text : one.texts) mine.push_back({one.unit, text});
  std::vector<UnitDraws> my_draws;
  run_agreed(comm, [&] {
    if (options.repeat > 0)
      my_draws = repeat_draws(*inputs.file, inputs.original, options.repeat, static_cast<std::uint64_t>(comm.rank()),
                              static_cast<std::uint64_t>(comm.size()), mine);
  });
  const auto all_draws = comm.gather(to_bytes(my_draws));
  const auto all = comm.gather(to_bytes(mine));
  const auto all_units = comm.gather(to_bytes(my_units));
  int code = 0;
  run_agreed(comm, [&] {
    if (comm.rank() != 0) return;
    std::vector<Difference> found;
    for (const auto& bytes : all) append(bytes, found);
    std::ranges::stable_sort(found, {}, &Difference::unit);
    Lines differences = inputs.differences;
    for (Difference& difference : found) differences.push_back(std::move(difference.text));
    check_stored(*inputs.file, all_units, differences);
    std::vector<UnitDraws> draws;
    for (const auto& bytes : all_draws) append(bytes, draws);
    std::string table;
    if (options.repeat > 0) table = say_draws(*inputs.file, std::move(draws), options.repeat, differences);
    code = differences.empty() ? 0 : 1;
    say(options, inputs, table, differences, monotonic_seconds() - started);
  });
  const auto agreed = comm.broadcast({static_cast<std::byte>(code)}, 0);
  return static_cast<int>(agreed.at(0));
}

}  // namespace lmq::app
