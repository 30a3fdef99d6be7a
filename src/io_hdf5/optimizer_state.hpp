#pragma once
#include <string>
#include <vector>

namespace lmq::h5 {

/// Takes out of the names of a Keras file's datasets what is state of its optimizer (moments, steps), where there are
/// weights beside it. Returns a warning, or nothing where nothing was taken out.
[[nodiscard]] std::string leave_out_optimizer(std::vector<std::string>& names);

}  // namespace lmq::h5
