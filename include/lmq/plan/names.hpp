#pragma once
#include <vector>

#include "lmq/base/tensor.hpp"

namespace lmq {

/// Errc::unsupported when the names cannot all be paths of datasets in one HDF5 file, beside our own group "lmq": one
/// line that names the tensor, or both tensors of a clash. O(bytes of all names).
void check_names(const std::vector<TensorInfo>& tensors);

}  // namespace lmq
