#include "importance_facts.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "importance_names.hpp"
#include "lmq/base/error.hpp"
#include "lmq/base/text.hpp"

namespace lmq {

bool knows_curvature(const Catalogue& file, const std::set<std::string>& matrices) {
  return std::ranges::any_of(file.tensors,
                             [&](const TensorInfo& tensor) { return matrices.contains(with_dots(tensor.name)); });
}

double samples_of(const Catalogue& file) {
  for (const ShardInfo& shard : file.shards)
    if (const auto at = shard.metadata.find("samples"); at != shard.metadata.end()) {
      double samples = 0;
      const char* const end = at->second.data() + at->second.size();
      const auto [stop, error] = std::from_chars(at->second.data(), end, samples);
      if (error != std::errc{} || stop != end || !(samples >= 1))
        fail(Errc::malformed, fmt::format("{}: metadata 'samples': found '{}', expected a number from 1",
                                          printable((file.folder / shard.name).native()), printable(at->second, 40)));
      return std::min(samples, 1e15);
    }
  return 0;
}

}  // namespace lmq
