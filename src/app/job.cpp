#include "job.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "default_method.hpp"
#include "format_grids.hpp"
#include "input.hpp"
#include "lmq/base/bytes.hpp"
#include "lmq/base/digest.hpp"
#include "lmq/base/parallel.hpp"
#include "lmq/base/text.hpp"
#include "lmq/base/words.hpp"
#include "lmq/io/file.hpp"
#include "lmq/io/input_formats.hpp"
#include "lmq/io_hdf5/hdf5_format.hpp"
#include "lmq/quant/gram_use.hpp"
#include "lmq/run/budget.hpp"
#include "lmq/run/quantize_run.hpp"
#include "terminal.hpp"

namespace lmq::app {
namespace {

/// What rank 0 hands to the others.
struct JobBroadcast {
  std::vector<std::byte> catalogue;
  std::string recipe;
};

std::vector<std::byte> to_bytes(const JobBroadcast& broadcast) {
  ByteWriter out;
  out.le(std::uint64_t{broadcast.catalogue.size()});
  out.raw(broadcast.catalogue);
  out.text(broadcast.recipe);
  return out.take();
}

JobBroadcast from_bytes(std::span<const std::byte> bytes) {
  ByteReader in(bytes, "message of rank 0");
  JobBroadcast broadcast;
  const auto catalogue = in.raw(in.le<std::uint64_t>("catalogue"), "catalogue");
  broadcast.catalogue.assign(catalogue.begin(), catalogue.end());
  broadcast.recipe = in.text("recipe");
  return broadcast;
}

Recipe recipe_from_file(const std::filesystem::path& path) {
  constexpr std::uint64_t kMax = 16u << 20;
  const File file(path, File::Mode::read);
  const std::uint64_t bytes = file.size();
  const std::string name = path.string();
  if (bytes > kMax) fail(Errc::malformed, fmt::format("{}: {} are no recipe", printable(name), format_bytes(bytes)));
  std::string text(static_cast<std::size_t>(bytes), '\0');
  file.read(0, std::as_writable_bytes(std::span(text)));
  if (text.find('\0') != text.npos)
    fail(Errc::usage, fmt::format("{}: found {}, expected a recipe in JSON", printable(name), kind_of(file)));
  return Recipe::parse(text, name);
}

/// What a recipe file leaves is made as without a recipe.
void add_rest(Recipe& recipe, const Options& options) {
  if (decides_all(recipe)) return;
  Rule rest = options.rule;
  if (!recipe.target && options.target) recipe.target = options.target;
  if (!rest.method && !recipe.target) rest.options["rate"] = kDefaultRate;
  rest = with_method(std::move(rest), recipe.target.has_value(), recipe.allocation);
  rest.match = "*";
  rest.place.text = kRest;
  (void)resolve(rest);
  recipe.rules.push_back(std::move(rest));
}

Recipe read_recipe(const Options& options) {
  Recipe recipe = options.recipe_file ? recipe_from_file(*options.recipe_file) : one_rule(options.rule);
  if (!options.recipe_file) {
    recipe.nonfinite = options.nonfinite;
    recipe.fp8 = options.fp8;
    recipe.importance_power = options.importance_power;
    recipe.importance_damping = options.importance_damping.value_or(kDefaultDamping);
    recipe.target = options.target;
    recipe.allocation = options.allocation;
  }
  if (options.recipe_file) add_rest(recipe, options);
  std::vector<Rule> rules;
  for (const Rule& rule : options.tensor_rules)
    rules.push_back(with_method(rule, recipe.target.has_value(), recipe.allocation));
  recipe.rules.insert(recipe.rules.begin(), rules.begin(), rules.end());
  return recipe;
}

void agree_on_plan(Comm& comm, const std::string& digest) {
  const auto bytes = std::as_bytes(std::span(digest));
  const auto all = comm.gather(std::vector<std::byte>(bytes.begin(), bytes.end()));
  run_agreed(comm, [&] {
    for (std::size_t rank = 1; rank < all.size(); ++rank)
      if (!std::ranges::equal(all[rank], all[0]))
        fail(Errc::internal,
             fmt::format("rank {} makes another plan than rank 0: is it another version of lmq?", rank));
  });
}

/// Catalogue and recipe, opened by rank 0 and handed to all. On rank 0: whether the recipe's size is the default of a
/// method, not the user's.
bool share_inputs(Comm& comm, const Options& options, Job& job, const std::function<void(const Reader&)>& check) {
  std::vector<std::byte> bytes;
  bool default_size = false;
  run_agreed(comm, [&] {
    if (comm.rank() != 0) return;
    job.recipe = read_recipe(options);
    job.reader = open_input(options.input);
    if (!options.format.empty()) job.recipe = read_recipe(with_plain_tensors(options, job.reader->catalogue()));
    if (check) check(*job.reader);
    for (const std::string& line : job.reader->catalogue().warnings) warn(line);
    if (const auto changed = with_layer_method(options, job.recipe, job.reader->catalogue())) {
      const bool said = job.recipe.target.has_value();
      job.recipe = read_recipe(*changed);
      default_size = !said && job.recipe.target.has_value();
      if (options.importance) job.chosen_method = *changed->rule.method;
    }
    tell_samples(job.recipe, samples_behind(options, job.reader->catalogue()));
    bytes = to_bytes({job.reader->catalogue().to_bytes(), job.recipe.canonical_json()});
  });
  bytes = comm.broadcast(std::move(bytes), 0);
  run_agreed(comm, [&] {
    if (comm.rank() == 0) return;
    const JobBroadcast broadcast = from_bytes(bytes);
    job.reader = open_reader(Catalogue::from_bytes(broadcast.catalogue));
    job.recipe = Recipe::parse(broadcast.recipe, "the recipe of rank 0");
  });
  return default_size;
}

bool quantizes(const Plan& plan) {
  return std::ranges::any_of(plan.tensors, [](const TensorPlan& t) { return t.treatment == Treatment::quantize; });
}

/// A size that nobody asked for refuses nothing: where it cannot be reached it becomes the least that can. default_size:
/// of rank 0. True when the recipe has changed.
bool raise_default_size(Comm& comm, const Options& options, Job& job, bool default_size) {
  constexpr std::uint64_t kRoom = 64;  // the recipe's text with the size in bytes
  std::uint64_t least = 0;
  std::vector<std::byte> bytes;
  run_agreed(comm, [&] {
    if (comm.rank() != 0) return;
    if (default_size) {
      least = sure_bytes(job.reader->catalogue(), job.plan, job.recipe.canonical_json(), provenance_json(job),
                         *make_hdf5_format());
      least = least > job.plan.target_bytes ? least + kRoom : 0;
    }
    if (least > 0 && quantizes(job.plan) && !options.quiet)
      note(fmt::format("4 bits a weight cannot be reached: the file takes {} at most", format_bytes(least)));
    ByteWriter out;
    out.le(least);
    bytes = out.take();
  });
  bytes = comm.broadcast(std::move(bytes), 0);
  least = ByteReader(bytes, "message of rank 0").le<std::uint64_t>("size");
  if (least > 0) job.recipe.target = Target{least, 0};
  return least > 0;
}

/// True where a method looks at what the file says between weights: methods that see layers, and some of rows.
bool looks_at_curvature(const TensorPlan& tensor) {
  if (tensor.lane_rows > 0) return true;
  if (tensor.treatment != Treatment::quantize || tensor.spec.granularity < Granularity::row) return false;
  return looks_at_gram(traits_of(tensor.spec));
}

/// For each method that looks at Gram matrices, the tensors for which it has none. One line each.
std::vector<std::string> nearest_level_lines(const Job& job) {
  constexpr std::size_t kNamed = 5;
  struct Wish {
    std::size_t tensors = 0, missing = 0;
    std::string names;
  };
  std::map<std::string_view, Wish> wishes;
  for (const TensorPlan& plan : job.plan.tensors) {
    if (plan.treatment != Treatment::quantize || plan.lane_rows > 0) continue;
    if (!looks_at_gram(traits_of(plan.spec))) continue;
    Wish& wish = wishes[find_quantizer(plan.spec.method)->name];
    ++wish.tensors;
    if (plan.importance.gram) continue;
    if (++wish.missing <= kNamed)
      wish.names += (wish.names.empty() ? "" : ", ") + printable(job.reader->catalogue().tensors[plan.tensor].name);
  }
  std::vector<std::string> lines;
  for (const auto& [method, wish] : wishes) {
    if (wish.missing == 0) continue;
    lines.push_back(
        fmt::format("{}: no Gram matrix (NAME.gram of --importance; rows and groups) for {} of {}, "
                    "whose weights get the nearest levels: {}",
                    method, wish.missing, counted(wish.tensors, "tensor"), wish.names));
    if (wish.missing > kNamed) lines.back() += fmt::format(" and {} more", wish.missing - kNamed);
  }
  return lines;
}

/// The importance of the tensors that `draft`, a plan without importance, quantizes: what is kept needs none and is not
/// compared with the file.
void share_importance(Comm& comm, const Options& options, Job& job, const Plan& draft) {
  if (!options.importance) return;
  std::vector<std::byte> bytes;
  run_agreed(comm, [&] {
    if (comm.rank() != 0) return;
    job.importance.emplace(open_importance(
        *options.importance, job.reader->catalogue(), job.recipe,
        [&](std::size_t tensor) { return draft.tensors[tensor].treatment == Treatment::quantize; },
        [&](std::size_t tensor) { return looks_at_curvature(draft.tensors[tensor]); }));
    for (const std::string& line : job.importance->catalogue().warnings) warn(line);
    bytes = job.importance->to_bytes();
  });
  bytes = comm.broadcast(std::move(bytes), 0);
  run_agreed(comm, [&] {
    if (comm.rank() != 0) job.importance.emplace(ImportanceFile::from_bytes(bytes));
  });
}

/// The catalogue's notes, and those on tensors that hold NaN or infinity.
std::vector<TensorNote> notes_of(const Catalogue& catalogue, const std::vector<std::uint32_t>& nonfinite) {
  std::vector<TensorNote> notes = catalogue.notes;
  for (const std::uint32_t tensor : nonfinite)
    if (!std::ranges::binary_search(catalogue.notes, tensor, {}, &TensorNote::tensor))
      notes.push_back({tensor, Fitness::nonfinite});
  std::ranges::sort(notes, {}, &TensorNote::tensor);
  return notes;
}

/// Packed weights and nothing else: no output is of use.
void refuse_packed(const Catalogue& catalogue, const Plan& plan) {
  bool packed = false;
  for (const TensorPlan& tensor : plan.tensors) {
    if (tensor.treatment != Treatment::keep || tensor.rule >= 0) return;
    packed = packed || std::ranges::binary_search(catalogue.notes, tensor.tensor, {}, &TensorNote::tensor);
  }
  if (packed)
    fail(Errc::unsupported,
         fmt::format("{}: nothing is left to quantize: its weights are quantized already; start from "
                     "the unquantized model",
                     printable(catalogue.folder.native())));
}

}  // namespace

std::function<ImportanceInfo(const TensorInfo&, std::uint64_t)> importance_lookup(
    const std::optional<ImportanceFile>& file) {
  if (!file) return {};
  return [&file](const TensorInfo& tensor, std::uint64_t cols) {
    const ImportanceEntry* const entry = file->find(tensor.name);
    if (entry == nullptr) return ImportanceInfo{};
    ImportanceInfo info = entry->info;
    if (info.length != cols)
      info.gram = info.gram_each = false, info.outer_rows = 0;  // other rows: by the diagonal alone
    return info;
  };
}

Job open_job(Comm& comm, const Options& options, bool scan, const std::function<void(const Reader&)>& check) {
  Job job;
  const bool default_size = share_inputs(comm, options, job, check);
  const Catalogue& catalogue = job.reader->catalogue();
  std::vector<std::uint32_t> nonfinite;
  if (scan && job.recipe.nonfinite == Recipe::Nonfinite::keep) nonfinite = find_nonfinite_tensors(comm, *job.reader);
  const std::vector<TensorNote> notes = notes_of(catalogue, nonfinite);
  run_agreed(comm, [&] {
    job.plan = make_plan(catalogue.tensors, {}, job.recipe, {}, notes);
    refuse_packed(catalogue, job.plan);
  });
  share_importance(comm, options, job, job.plan);
  const auto plan = [&] {
    std::string inputs;
    for (const ShardInfo& shard : catalogue.shards)
      inputs += fmt::format("{} {} {}\n", shard.name, shard.bytes, shard.header_digest);
    if (job.importance) inputs += job.importance->digest();
    job.plan = make_plan(catalogue.tensors, digest128_hex(std::as_bytes(std::span(inputs))), job.recipe,
                         importance_lookup(job.importance), notes);
  };
  run_agreed(comm, plan);
  if (raise_default_size(comm, options, job, default_size)) run_agreed(comm, plan);
  agree_on_plan(comm, job.plan.digest);
  if (comm.rank() == 0) {
    for (const std::string& line : idle_rules(job.reader->catalogue().tensors, job.recipe, job.plan)) warn(line);
    if (!options.quiet && !quantizes(job.plan))
      note("no tensor is quantized: all are kept as they are, the table says why");
    if (!options.quiet && !job.chosen_method.empty() && quantizes(job.plan))
      note(fmt::format("importance: what this file knows is best used by method {} (--method says another)",
                       job.chosen_method));
    if (!options.quiet)
      for (const auto& lines : {importance_lines(job), nearest_level_lines(job)})
        for (const std::string& line : lines) note(line);
  }
  return job;
}

}  // namespace lmq::app
