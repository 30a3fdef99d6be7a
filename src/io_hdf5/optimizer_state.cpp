#include "optimizer_state.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "lmq/base/text.hpp"
#include "lmq/base/words.hpp"

namespace lmq::h5 {
namespace {

/// Keras 2 and the .h5 of Keras 3; .keras and .weights.h5 of Keras 3.
bool is_optimizer_state(const std::string& name) {
  return name.starts_with("optimizer_weights/") || name.starts_with("optimizer/vars/");
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
