#include "hole_driver.hpp"

#if __has_include(<H5FDdevelop.h>)
#include <H5FDdevelop.h>  // 1.13 moved the driver interface here
#endif
#include <sys/mman.h>

#include <fmt/format.h>
#include <algorithm>
#include <cstring>
#include <new>

namespace lmq::h5 {
namespace {

struct OpenFile {
  H5FD_t common{};  // first: HDF5 sees only this part
  std::shared_ptr<HoleFile> hole;
};
/// What the access properties carry.
struct AccessInfo {
  const std::shared_ptr<HoleFile>* hole;
};

HoleFile& hole_of(const H5FD_t* file) { return *reinterpret_cast<const OpenFile*>(file)->hole; }

H5FD_t* open_file(const char*, unsigned, hid_t access, haddr_t) {
  const auto* info = static_cast<const AccessInfo*>(H5Pget_driver_info(access));
  if (info == nullptr) return nullptr;
  auto* file = new (std::nothrow) OpenFile;
  if (file == nullptr) return nullptr;
  file->hole = *info->hole;
  return &file->common;
}

herr_t close_file(H5FD_t* file) {
  delete reinterpret_cast<OpenFile*>(file);
  return 0;
}

herr_t query(const H5FD_t*, unsigned long* flags) {
  *flags = H5FD_FEAT_AGGREGATE_METADATA | H5FD_FEAT_ACCUMULATE_METADATA | H5FD_FEAT_DEFAULT_VFD_COMPATIBLE;
  return 0;
}

haddr_t get_eoa(const H5FD_t* file, H5FD_mem_t) { return hole_of(file).allocated; }

herr_t set_eoa(H5FD_t* file, H5FD_mem_t, haddr_t address) {
  hole_of(file).allocated = address;
  return 0;
}

haddr_t get_eof(const H5FD_t* file, H5FD_mem_t) {
  const HoleFile& hole = hole_of(file);
  return hole.mode == HoleFile::Mode::create ? std::max(hole.allocated, hole.end) : hole.end;
}

// More than 5 parameters: HDF5 prescribes them.
herr_t read_bytes(H5FD_t* file, H5FD_mem_t type, hid_t, haddr_t address, size_t bytes, void* buffer) {
  HoleFile& hole = hole_of(file);
  if (hole.dropped != nullptr && buffer == hole.dropped && type == H5FD_MEM_DRAW) {
    hole.raw = {address, bytes};
    return 0;
  }
  const bool inside = address <= hole.end && bytes <= hole.end - address;
  if (!inside && hole.mode == HoleFile::Mode::read) return -1;  // another driver would give zeros past the end
  const std::size_t there = address >= hole.end ? 0 : std::min<std::uint64_t>(bytes, hole.end - address);
  try {
    hole.file.read(hole.base + address, {static_cast<std::byte*>(buffer), there});
  } catch (...) {
    if (!hole.error) hole.error = std::current_exception();
    return -1;
  }
  std::memset(static_cast<std::byte*>(buffer) + there, 0, bytes - there);
  return 0;
}

// More than 5 parameters: HDF5 prescribes them.
herr_t write_bytes(H5FD_t* file, H5FD_mem_t type, hid_t, haddr_t address, size_t bytes, const void* buffer) {
  HoleFile& hole = hole_of(file);
  if (hole.mode == HoleFile::Mode::read) return -1;
  if (hole.dropped != nullptr && buffer == hole.dropped && type == H5FD_MEM_DRAW) {
    hole.raw = {address, bytes};
    return 0;
  }
  if (hole.error) return 0;
  try {
    hole.file.write(address, {static_cast<const std::byte*>(buffer), bytes});
    hole.end = std::max<std::uint64_t>(hole.end, address + bytes);
  } catch (...) {
    hole.error = std::current_exception();
  }
  return 0;
}

/// Assigned field by field: the struct has gained members in 1.13 and 1.14, and those we do not name are zero.
H5FD_class_t driver_class() {
  H5FD_class_t driver{};
#ifdef H5FD_CLASS_VERSION
  driver.version = H5FD_CLASS_VERSION;
#endif
#ifdef H5_VFD_RESERVED
  driver.value = static_cast<H5FD_class_value_t>(511);  // 256..511 are free for private use
#endif
  driver.name = "lmq_hole";
  driver.maxaddr = haddr_t{1} << 62;
  driver.fc_degree = H5F_CLOSE_STRONG;
  driver.fapl_size = sizeof(AccessInfo);
  driver.open = open_file;
  driver.close = close_file;
  driver.query = query;
  driver.get_eoa = get_eoa;
  driver.set_eoa = set_eoa;
  driver.get_eof = get_eof;
  driver.read = read_bytes;
  driver.write = write_bytes;
  constexpr H5FD_mem_t kMap[] = H5FD_FLMAP_DICHOTOMY;
  std::copy(std::begin(kMap), std::end(kMap), driver.fl_map);
  return driver;
}

}  // namespace

HoleDriver::HoleDriver(const Calls& calls) {
  static const H5FD_class_t driver = driver_class();
  id_ = calls(H5FDregister(&driver), "H5FDregister");
}

Plist HoleDriver::access(const Calls& calls, const std::shared_ptr<HoleFile>& file) const {
  Plist access{calls(H5Pcreate(H5P_FILE_ACCESS), "H5Pcreate")};
  const AccessInfo info{&file};
  calls(H5Pset_driver(access.get(), id_, &info), "H5Pset_driver");
  return access;
}

void* Untouchable::cover(std::size_t bytes) {
  if (bytes <= bytes_) return start_;
  release();
  void* const start = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (start == MAP_FAILED) fail(Errc::internal, fmt::format("no address space for {} bytes", bytes));
  start_ = start, bytes_ = bytes;
  return start_;
}

void Untouchable::release() noexcept {
  if (start_ != nullptr) munmap(start_, bytes_);
  start_ = nullptr, bytes_ = 0;
}

}  // namespace lmq::h5
