#include "open_output.hpp"

#include <fmt/format.h>

#include "lmq/base/error.hpp"
#include "lmq/base/text.hpp"
#include "lmq/io/file.hpp"
#include "lmq/io/input_formats.hpp"
#include "lmq/io_hdf5/hdf5_format.hpp"

namespace lmq::app {

QuantizedFile open_output(const std::filesystem::path& path) {
  const std::string shown = printable(path.string());
  constexpr std::string_view kExpected =
      "expected a file that lmq quantize made (a checkpoint goes into lmq quantize, or behind verify --against; lmq "
      "export --to safetensors takes none)";
  std::error_code error;
  if (std::filesystem::is_directory(path, error))
    fail(Errc::missing, fmt::format("{}: is a folder, {}", shown, kExpected));
  const File file(path, File::Mode::read);  // what is missing is said to be so
  if (!is_hdf5(path)) fail(Errc::unsupported, fmt::format("{}: found {}, {}", shown, kind_of(file), kExpected));
  return {path, *make_hdf5_format()};
}

}  // namespace lmq::app
