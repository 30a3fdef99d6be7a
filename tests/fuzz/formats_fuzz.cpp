// libFuzzer target: a file of any format of the table is refused by an lmq::Error, or gives a catalogue that keeps its
// promises and tensors that can be read. Built and run by scripts/fuzz-formats.
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "inputs.hpp"
#include "lmq/base/error.hpp"
#include "lmq/base/text.hpp"
#include "lmq/io/reader.hpp"

namespace {

void require(bool truth) {
  if (!truth) std::abort();
}

void read_all(const lmq::Reader& reader) {
  std::vector<std::byte> scratch;
  for (const lmq::TensorInfo& tensor : reader.catalogue().tensors) {
    if (tensor.count() > 1 << 16) continue;
    const auto view = reader.view(tensor, 0, tensor.count(), scratch);
    require(view.count == tensor.count() && view.bytes.size() == (tensor.count() * lmq::bits(view.dtype) + 7) / 8);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const int fd = memfd_create("input", 0);
  require(fd >= 0 && write(fd, data, size) == static_cast<ssize_t>(size));
  const std::string path = "/proc/self/fd/" + std::to_string(fd);
  try {
    const auto chosen = lmq::choose_format(path, {});
    if (chosen.format != nullptr) {
      const lmq::Catalogue catalogue = chosen.format->read(chosen.file);
      const auto bytes = catalogue.to_bytes();
      require(lmq::Catalogue::from_bytes(bytes).to_bytes() == bytes);
      read_all(*lmq::open_reader(catalogue));
    }
  } catch (const lmq::Error& error) {
    const std::string what = error.what();
    require(what == lmq::printable(what, what.size() + 1));  // one clean line, whatever the input says
    require(error.code == lmq::Errc::malformed || error.code == lmq::Errc::unsupported);
  }
  close(fd);
  return 0;
}
