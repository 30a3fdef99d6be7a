#include "importance_owner.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "lmq/base/error.hpp"
#include "lmq/base/text.hpp"
#include "lmq/base/words.hpp"

namespace lmq {

/// An entry for this tensor, of whatever part of the model it is.
bool ImportanceOwner::has_entry(const TensorInfo& weight) const {
  const auto names = imatrix ? imatrix_names(weight.name) : schema_names(weight.name);
  return std::ranges::any_of(names, [&](const std::string& name) { return entries.contains(name); });
}

bool ImportanceOwner::speaks_of_kept() const {
  for (std::size_t i = 0; i < wanted.checkpoint.tensors.size(); ++i)
    if (wanted.tensor && !wanted.tensor(i) && has_entry(wanted.checkpoint.tensors[i])) return true;
  return false;
}

void ImportanceOwner::refuse() const {
  const std::string place = fmt::format("{} ({}): nothing in it belongs to the checkpoint",
                                        printable((file.folder / file.shards.front().name).native()), file.format);
  std::string expected = "no tensor of floats";
  for (const TensorInfo& weight : wanted.checkpoint.tensors) {
    if (imatrix && !decoder.has(weight.name) && has_entry(weight))
      fail(Errc::malformed,
           fmt::format("{}: entries such as '{}' speak of a text decoder, and the checkpoint has none{}: "
                       "'{}' is of another part",
                       place, printable(file.tensors.front().name), printable(decoder.why()), printable(weight.name)));
  }
  for (const TensorInfo& weight : wanted.checkpoint.tensors) {
    if (weight.shape.size() < 2 || !is_float(weight.value_type())) continue;
    const auto names = imatrix ? gguf_names(weight.name) : std::vector<GgufName>{};
    expected = fmt::format("'{}'", printable(weight.name));
    if (!names.empty()) expected += fmt::format(" as '{}'", names[0].name);
    if (!imatrix || !names.empty()) break;
  }
  fail(Errc::malformed,
       fmt::format("{}: found {}, expected for example {}", place,
                   file.tensors.empty() ? "no tensor"
                                        : fmt::format("{} such as '{}'", counted(file.tensors.size(), "tensor"),
                                                      printable(file.tensors.front().name)),
                   expected));
}

}  // namespace lmq
