#pragma once
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "lmq/io/importance_file.hpp"
#include "model_config.hpp"

namespace lmq {

/// What an importance file has for a checkpoint, before any number was read (but for finding experts without
/// statistics).
struct ImportanceMatch {
  std::vector<ImportanceEntry> entries;  ///< ascending by weight; largest and mean still 0
  std::vector<std::string> unused, unknown;
};

/// Numbers [first, first + out.size()) of a tensor of the file as they lie there, as floats.
using ReadNumbers = std::function<void(std::uint32_t tensor, std::uint64_t first, std::span<float> out)>;

/// The checkpoint, which of its tensors importance is wanted for (empty: all), which want curvature between weights
/// (empty: none), and what its configuration says.
struct Wanted {
  const Catalogue& checkpoint;
  std::function<bool(std::size_t)> tensor, curvature;
  ModelConfig config;
};

/// Finds the entries of a file. `stacks`: those of an imatrix, empty for other formats; the older format's are cut into
/// experts here. `power` < 0: the default of each kind. Errc::malformed for shapes that do not fit;
/// Errc::unsupported where it cannot be told which tensor or which axis an entry speaks of.
[[nodiscard]] ImportanceMatch match_importance(const Catalogue& file, const Wanted& wanted, double power,
                                               std::vector<ImportanceStack>& stacks, const ReadNumbers& read);

}  // namespace lmq
