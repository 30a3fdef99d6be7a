#include "input.hpp"

#include "lmq/io/file.hpp"
#include "lmq/io_hdf5/hdf5_catalogue.hpp"

namespace lmq::app {

std::unique_ptr<Reader> open_input(const std::filesystem::path& path) {
  return open_reader(path, hdf5_input_formats());
}

bool is_foreign_hdf5(const std::filesystem::path& path) {
  return hdf5_input_formats().front().recognise(File(path, File::Mode::read));
}

}  // namespace lmq::app
