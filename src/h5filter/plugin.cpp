// The HDF5 filter plug-in. Only HDF5's headers are used: the library that loads the plug-in brings the functions.
#include <H5PLextern.h>

#include <cstdlib>

#include "lmq/base/filter_id.hpp"
#include "lmq/h5filter/decode_chunk.hpp"

namespace {

// cd_values: bytes of a whole chunk, low word, high word. 0 means failure to HDF5.
// More than 5 parameters: HDF5 prescribes them.
std::size_t filter(unsigned flags, std::size_t cd_nelmts, const unsigned cd_values[], std::size_t nbytes,
                   std::size_t* buf_size, void** buf) {
  if ((flags & H5Z_FLAG_REVERSE) == 0) return 0;  // records come from lmq only
  const std::uint64_t chunk_bytes = cd_nelmts >= 2 ? cd_values[0] | std::uint64_t{cd_values[1]} << 32 : 0;
  std::size_t bytes = 0;
  std::byte* floats = lmq::decode_chunk({static_cast<const std::byte*>(*buf), nbytes}, chunk_bytes, bytes);
  if (floats == nullptr) return 0;
  std::free(*buf);
  *buf = floats;
  *buf_size = bytes;
  return bytes;
}

// A filter that cannot encode: HDF5 asks before it writes a chunk through it.
htri_t can_apply(hid_t, hid_t, hid_t) { return 0; }

const H5Z_class2_t kFilter{.version = H5Z_CLASS_T_VERS,
                           .id = static_cast<H5Z_filter_t>(lmq::kLmqFilterId),
                           .encoder_present = 0,
                           .decoder_present = 1,
                           .name = "lmq quantized weights (libh5zlmq.so)",
                           .can_apply = can_apply,
                           .set_local = nullptr,
                           .filter = filter};

}  // namespace

extern "C" {
__attribute__((visibility("default"))) H5PL_type_t H5PLget_plugin_type() { return H5PL_TYPE_FILTER; }
__attribute__((visibility("default"))) const void* H5PLget_plugin_info() { return &kFilter; }
}
