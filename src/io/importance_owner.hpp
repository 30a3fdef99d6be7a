#pragma once
#include <map>
#include <string>

#include "importance_match.hpp"
#include "importance_names.hpp"

namespace lmq {

/// Whose importance a file holds, where nothing in it belongs to a tensor that it is wanted for.
struct ImportanceOwner {
  const Catalogue& file;
  const Wanted& wanted;
  const TextDecoder& decoder;
  bool imatrix = false;                               ///< entries have llama.cpp's names
  const std::map<std::string, std::size_t>& entries;  ///< by name
  /// The file is of this checkpoint, though of tensors for which nothing is wanted.
  [[nodiscard]] bool speaks_of_kept() const;
  /// Errc::malformed: what was found, what was expected.
  [[noreturn]] void refuse() const;

 private:
  [[nodiscard]] bool has_entry(const TensorInfo& weight) const;
};

}  // namespace lmq
