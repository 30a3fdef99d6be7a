#include "open_output.hpp"

#include <fmt/format.h>

#include "lmq/base/error.hpp"
#include "lmq/base/text.hpp"
#include "lmq/io/file.hpp"
#include "lmq/io_hdf5/hdf5_format.hpp"

namespace lmq::app {

QuantizedFile open_output(const std::filesystem::path& path) {
  File(path, File::Mode::read).close();  // what is missing is said to be so
  if (!is_hdf5(path)) fail(Errc::unsupported, fmt::format("{}: is no HDF5 file", printable(path.string())));
  return {path, *make_hdf5_format()};
}

}  // namespace lmq::app
