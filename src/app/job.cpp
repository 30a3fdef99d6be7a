#include "job.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "lmq/base/bytes.hpp"
#include "lmq/base/digest.hpp"
#include "lmq/base/parallel.hpp"
#include "lmq/base/text.hpp"
#include "lmq/io/file.hpp"
#include "lmq/run/quantize_run.hpp"
#include "terminal.hpp"

namespace lmq::app {
namespace {

/// What rank 0 hands to the others.
struct Handout {
  std::vector<std::byte> catalogue;
  std::vector<std::byte> importance;  ///< empty: none
  std::string recipe;
};

std::vector<std::byte> to_bytes(const Handout& handout) {
  ByteWriter out;
  out.le(std::uint64_t{handout.catalogue.size()});
  out.raw(handout.catalogue);
  out.le(std::uint64_t{handout.importance.size()});
  out.raw(handout.importance);
  out.text(handout.recipe);
  return out.take();
}

Handout from_bytes(std::span<const std::byte> bytes) {
  ByteReader in(bytes, "message of rank 0");
  const auto block = [&](const char* field) {
    const auto raw = in.raw(in.le<std::uint64_t>(field), field);
    return std::vector<std::byte>(raw.begin(), raw.end());
  };
  Handout handout;
  handout.catalogue = block("catalogue");
  handout.importance = block("importance");
  handout.recipe = in.text("recipe");
  return handout;
}

Recipe read_recipe(const Options& options) {
  if (!options.recipe_file) {
    Recipe recipe = one_rule(options.rule);
    recipe.nonfinite = options.nonfinite;
    recipe.importance_power = options.importance_power;
    recipe.target = options.target;
    return recipe;
  }
  constexpr std::uint64_t kMost = 64u << 20;
  const File file(*options.recipe_file, File::Mode::read);
  const std::uint64_t bytes = file.size();
  const std::string name = options.recipe_file->string();
  if (bytes > kMost) fail(Errc::malformed, fmt::format("{}: {} are no recipe", printable(name), format_bytes(bytes)));
  std::string text(static_cast<std::size_t>(bytes), '\0');
  file.read(0, std::as_writable_bytes(std::span(text)));
  return Recipe::parse(text, name);
}

/// Says what the inputs make worth saying; rank 0.
void say_warnings(const Catalogue& catalogue, const std::optional<ImportanceFile>& importance) {
  for (const std::string& line : catalogue.warnings) warn(line);
  if (!importance) return;
  for (const std::string& line : importance->catalogue().warnings) warn(line);
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

}  // namespace

std::function<ImportanceInfo(const TensorInfo&, std::uint64_t)> importance_lookup(
    const std::optional<ImportanceFile>& file) {
  if (!file) return {};
  return [&file](const TensorInfo& tensor, std::uint64_t) {
    const ImportanceEntry* const entry = file->find(tensor.name);
    if (entry == nullptr) return ImportanceInfo{};
    return ImportanceInfo{true, entry->kind, entry->largest, entry->mean, entry->length, entry->block_rows};
  };
}

Job open_job(Comm& comm, const Options& options, bool scan, const std::function<void(const Reader&)>& check) {
  Job job;
  std::vector<std::byte> bytes;
  run_agreed(comm, [&] {
    if (comm.rank() != 0) return;
    job.recipe = read_recipe(options);
    job.reader = open_reader(options.input);
    if (check) check(*job.reader);
    Handout handout;
    if (options.importance) {
      job.importance.emplace(open_importance(*options.importance, job.reader->catalogue(), job.recipe));
      handout.importance = job.importance->to_bytes();
    }
    say_warnings(job.reader->catalogue(), job.importance);
    handout.catalogue = job.reader->catalogue().to_bytes();
    handout.recipe = job.recipe.canonical_json();
    bytes = to_bytes(handout);
  });
  bytes = comm.broadcast(std::move(bytes), 0);
  run_agreed(comm, [&] {
    if (comm.rank() == 0) return;
    const Handout handout = from_bytes(bytes);
    job.reader = open_reader(Catalogue::from_bytes(handout.catalogue));
    if (!handout.importance.empty()) job.importance.emplace(ImportanceFile::from_bytes(handout.importance));
    job.recipe = Recipe::parse(handout.recipe, "the recipe of rank 0");
  });
  std::vector<std::uint32_t> nonfinite;
  if (scan && job.recipe.nonfinite == Recipe::Nonfinite::keep) nonfinite = find_nonfinite_tensors(comm, *job.reader);
  run_agreed(comm, [&] {
    const Catalogue& catalogue = job.reader->catalogue();
    std::string inputs;
    for (const ShardInfo& shard : catalogue.shards)
      inputs += fmt::format("{} {} {}\n", shard.name, shard.bytes, shard.header_digest);
    if (job.importance) inputs += job.importance->digest();
    job.plan = make_plan(catalogue.tensors, digest128_hex(std::as_bytes(std::span(inputs))), job.recipe,
                         importance_lookup(job.importance), nonfinite);
  });
  agree_on_plan(comm, job.plan.digest);
  if (comm.rank() == 0)
    for (const std::string& line : importance_lines(job)) note(line);
  return job;
}

}  // namespace lmq::app
