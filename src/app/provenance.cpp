#include <algorithm>
#include <nlohmann/json.hpp>

#include "job.hpp"
#include "version.hpp"

namespace lmq::app {

std::string provenance_json(const Job& job) {
  using Json = nlohmann::json;  // objects are sorted by key: equal content, equal bytes
  const Catalogue& catalogue = job.reader->catalogue();
  Json shards = Json::array();
  const bool one_metadata = std::ranges::all_of(
      catalogue.shards, [&](const ShardInfo& shard) { return shard.metadata == catalogue.metadata; });
  for (const ShardInfo& shard : catalogue.shards) {
    shards.push_back({{"name", shard.name}, {"bytes", shard.bytes}, {"header_digest", shard.header_digest}});
    if (!one_metadata) shards.back()["metadata"] = shard.metadata;
  }
  Json shard_of = Json::object(), scale_of = Json::object(), scale_blocks = Json::object();
  for (std::size_t t = 0; t < catalogue.tensors.size(); ++t) {
    const TensorInfo& tensor = catalogue.tensors[t];
    shard_of[tensor.name] = tensor.shard;
    if (tensor.scale < 0) continue;
    scale_of[tensor.name] = catalogue.tensors[static_cast<std::size_t>(tensor.scale)].name;
    if (job.plan.tensors[t].treatment == Treatment::keep)
      scale_blocks[tensor.name] = {tensor.scale_block_rows, tensor.scale_block_cols};
  }
  Json metadata = Json::object();
  for (const auto& [key, value] : catalogue.metadata) metadata[key] = value;
  Json out{{"format", catalogue.format},
           {"shards", std::move(shards)},
           {"metadata", std::move(metadata)},
           {"lmq_version", kVersion}};
  if (!catalogue.index_name.empty()) out["index"] = catalogue.index_name;
  if (catalogue.shards.size() > 1) out["shard_of"] = std::move(shard_of);
  if (!scale_of.empty()) out["scale_of"] = std::move(scale_of);
  if (!scale_blocks.empty()) out["scale_blocks"] = std::move(scale_blocks);
  if (job.importance) {
    Json files = Json::array();
    for (const ShardInfo& shard : job.importance->catalogue().shards)
      files.push_back({{"name", shard.name}, {"bytes", shard.bytes}});
    out["importance"] = {
        {"digest", job.importance->digest()}, {"format", job.importance->format()}, {"files", std::move(files)}};
  }
  return out.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace lmq::app
