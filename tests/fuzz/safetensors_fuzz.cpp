// libFuzzer target: what comes from outside is refused by an lmq::Error, or keeps the promises of its parser. The first
// byte of an input says which parser gets the rest. Built and run by scripts/fuzz-safetensors.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>

#include "lmq/base/error.hpp"
#include "lmq/base/text.hpp"
#include "lmq/io/reader.hpp"
#include "safetensors_header.hpp"
#include "shard_index.hpp"

namespace {

void require(bool truth) {
  if (!truth) std::abort();
}

/// A whole file: the ranges tile its data, the shapes agree with the bytes.
void fuzz_header(std::span<const std::byte> file) {
  const std::uint64_t length = lmq::safetensors_header_bytes(file, file.size(), "fuzz");
  const auto header =
      lmq::parse_safetensors_header(file.first(8 + static_cast<std::size_t>(length)), file.size(), "fuzz");
  std::uint64_t bytes = 0;
  const std::string* previous = nullptr;
  for (const lmq::TensorInfo& tensor : header.tensors) {
    require(!previous || *previous < tensor.name);
    previous = &tensor.name;
    require(lmq::is_clean_utf8(tensor.name) && tensor.shape.size() <= lmq::kRankLimit);
    require(tensor.offset >= 8 + length && tensor.offset + tensor.bytes <= file.size());
    std::uint64_t count = 0, expected = 0;
    require(lmq::count_elements(tensor.shape, count) && lmq::count_bytes(tensor.dtype, count, expected));
    require(count == tensor.count() && expected == tensor.bytes);
    bytes += tensor.bytes;
  }
  require(bytes == file.size() - 8 - length);
}

void fuzz_index(std::string_view text) {
  for (const auto& [tensor, shard] : lmq::parse_shard_index(text, "fuzz").shard_of)
    require(lmq::is_clean_utf8(tensor) && lmq::is_inner_path(shard));
}

/// There is one way to write a catalogue.
void fuzz_catalogue(std::span<const std::byte> bytes) {
  const std::vector<std::byte> again = lmq::Catalogue::from_bytes(bytes).to_bytes();
  require(std::equal(bytes.begin(), bytes.end(), again.begin(), again.end()));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const auto bytes = std::as_bytes(std::span(data + 1, size - 1));
  try {
    if (data[0] % 3 == 0) fuzz_header(bytes);
    if (data[0] % 3 == 1) fuzz_index({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
    if (data[0] % 3 == 2) fuzz_catalogue(bytes);
  } catch (const lmq::Error& error) {
    const std::string what = error.what();
    require(what == lmq::printable(what, what.size() + 1));  // one clean line, whatever the input says
    require(error.code == lmq::Errc::malformed || error.code == lmq::Errc::unsupported);
  }
  return 0;
}
