#include "optimizer_state.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "lmq/base/text.hpp"
#include "lmq/base/words.hpp"

namespace lmq::h5 {
namespace {

bool names_optimizer(std::string_view part) { return part == "optimizer" || part.ends_with("_optimizer"); }

/// Keras 2 and the .h5 of Keras 3: "optimizer_weights/"; .keras and .weights.h5 of Keras 3: "optimizer/vars/",
/// "optimizer/inner_optimizer/vars/", "generator/optimizer/vars/", but not the layer "layers/optimizer/vars/".
bool is_optimizer_state(const std::string& name) {
  if (name.starts_with("optimizer_weights/")) return true;
  std::string_view before, part, rest = name;
  const auto next_part = [&] {
    const std::size_t end = std::min(rest.find('/'), rest.size());
    before = part, part = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
  };
  while (!rest.empty()) {
    next_part();
    const std::string_view next = rest.substr(0, std::min(rest.find('/'), rest.size()));
    if (names_optimizer(part) && before != "layers" && (next == "vars" || names_optimizer(next))) return true;
  }
  return false;
}

}  // namespace

std::string leave_out_optimizer(std::vector<std::string>& names) {
  const auto first = std::ranges::find_if(names, is_optimizer_state);
  if (first == names.end() || std::ranges::all_of(names, is_optimizer_state)) return {};
  const std::string example = printable(*first);
  const auto taken = std::erase_if(names, is_optimizer_state);
  return fmt::format("the state of the optimizer is not taken: {}, such as '/{}'", counted(taken, "dataset"), example);
}

}  // namespace lmq::h5
