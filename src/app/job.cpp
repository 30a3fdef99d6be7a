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
  std::vector<std::byte> catalogue, importance_catalogue;
  std::vector<double> largest;
  bool has_importance = false;
  std::string importance_digest, recipe;
};

std::vector<std::byte> to_bytes(const Handout& handout) {
  ByteWriter out;
  out.le(std::uint64_t{handout.catalogue.size()});
  out.raw(handout.catalogue);
  out.le(std::uint8_t{handout.has_importance});
  out.le(std::uint64_t{handout.importance_catalogue.size()});
  out.raw(handout.importance_catalogue);
  out.le(std::uint64_t{handout.largest.size()});
  out.array(std::span<const double>(handout.largest));
  out.text(handout.importance_digest);
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
  handout.has_importance = in.le<std::uint8_t>("importance") != 0;
  handout.importance_catalogue = block("importance catalogue");
  handout.largest = in.array<double>(in.le<std::uint64_t>("largest"), "largest");
  handout.importance_digest = in.text("importance digest");
  handout.recipe = in.text("recipe");
  return handout;
}

Recipe read_recipe(const Options& options) {
  if (!options.recipe_file) {
    Recipe recipe = one_rule(options.rule);
    recipe.nonfinite = options.nonfinite;
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
  const auto unused = importance->unused(catalogue);
  if (!unused.empty())
    warn(fmt::format("importance file: no tensor of the checkpoint has the name '{}'{}", printable(unused[0]),
                     unused.size() == 1 ? "" : fmt::format(" (and {} more)", unused.size() - 1)));
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
  return [&file](const TensorInfo& tensor, std::uint64_t cols) {
    const auto entry = file->find(tensor, cols);
    return entry ? ImportanceInfo{true, entry->per_column, entry->largest} : ImportanceInfo{};
  };
}

std::string digest_of_importance(const ImportanceFile& file) {
  constexpr std::uint64_t kBlock = std::uint64_t{1} << 22;
  struct Block {
    std::uint32_t tensor;
    std::uint64_t begin, count;
  };
  ByteWriter summary;
  std::vector<Block> blocks;
  const Catalogue& catalogue = file.catalogue();
  for (std::uint32_t t = 0; t < catalogue.tensors.size(); ++t) {
    const TensorInfo& tensor = catalogue.tensors[t];
    summary.text(tensor.name);
    summary.le(static_cast<std::uint8_t>(tensor.dtype));
    summary.le(std::uint64_t{tensor.shape.size()});
    summary.array(std::span<const std::uint64_t>(tensor.shape));
    for (std::uint64_t begin = 0; begin < tensor.count(); begin += kBlock)
      blocks.push_back({t, begin, std::min(kBlock, tensor.count() - begin)});
  }
  std::vector<std::uint64_t> digests(blocks.size());
  std::vector<std::vector<float>> values(thread_count());
  parallel_for_worker(blocks.size(), [&](std::size_t index, std::size_t worker) {
    const Block& block = blocks[index];
    file.read({.per_column = false, .tensor = block.tensor, .largest = 0}, block.begin, block.count, values[worker]);
    digests[index] = digest64(std::as_bytes(std::span<const float>(values[worker])));
  });
  summary.array(std::span<const std::uint64_t>(digests));
  return digest128_hex(summary.bytes());
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
      job.importance.emplace(*options.importance);
      job.importance_digest = digest_of_importance(*job.importance);
      handout.has_importance = true;
      handout.importance_catalogue = job.importance->catalogue().to_bytes();
      handout.largest = job.importance->largest();
      handout.importance_digest = job.importance_digest;
    }
    say_warnings(job.reader->catalogue(), job.importance);
    handout.catalogue = job.reader->catalogue().to_bytes();
    handout.recipe = job.recipe.canonical_json();
    bytes = to_bytes(handout);
  });
  bytes = comm.broadcast(std::move(bytes), 0);
  run_agreed(comm, [&] {
    if (comm.rank() == 0) return;
    Handout handout = from_bytes(bytes);
    job.reader = open_reader(Catalogue::from_bytes(handout.catalogue));
    if (handout.has_importance)
      job.importance.emplace(Catalogue::from_bytes(handout.importance_catalogue), std::move(handout.largest));
    job.importance_digest = std::move(handout.importance_digest);
    job.recipe = Recipe::parse(handout.recipe, "the recipe of rank 0");
  });
  std::vector<std::uint32_t> nonfinite;
  if (scan && job.recipe.nonfinite == Recipe::Nonfinite::keep) nonfinite = find_nonfinite_tensors(comm, *job.reader);
  run_agreed(comm, [&] {
    const Catalogue& catalogue = job.reader->catalogue();
    std::string inputs;
    for (const ShardInfo& shard : catalogue.shards)
      inputs += fmt::format("{} {} {}\n", shard.name, shard.bytes, shard.header_digest);
    inputs += job.importance_digest;
    job.plan = make_plan(catalogue.tensors, digest128_hex(std::as_bytes(std::span(inputs))), job.recipe,
                         importance_lookup(job.importance), nonfinite);
  });
  agree_on_plan(comm, job.plan.digest);
  return job;
}

}  // namespace lmq::app
