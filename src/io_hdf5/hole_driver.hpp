#pragma once
#include <exception>
#include <memory>
#include <optional>

#include "handle.hpp"
#include "lmq/io/file.hpp"

namespace lmq::h5 {

/// A file as HDF5 sees it through our driver: everything passes, but inside `drop_raw` a raw access is
/// noted and dropped - its buffer is never touched. That is how payload stays out of HDF5, and how the place of a chunk
/// is learnt in constant time (HDF5 1.10's own inquiry walks over all chunks before it, quadratic for a whole dataset).
/// Outside it HDF5 may have raw data of its own: large attributes of objects with many of them.
struct HoleFile {
  struct Raw {
    std::uint64_t address = 0;
    std::uint64_t bytes = 0;
  };
  enum class Mode { create, read };

  HoleFile(File f, Mode m) : file(std::move(f)), mode(m), end(m == Mode::read ? file.size() : 0) {}
  /// To read a file that lies inside another: `bytes` of them from `begin` on.
  HoleFile(File f, std::uint64_t begin, std::uint64_t bytes)
      : file(std::move(f)), mode(Mode::read), base(begin), end(bytes) {}
  /// Runs one HDF5 call that moves one chunk from or to `buffer`, without moving it; then `raw` says from or to where.
  /// Other raw accesses of the call pass: HDF5 may write a heap of texts, which counts as raw data, to make room in its
  /// cache.
  template <class Call>
  auto drop_raw(const void* buffer, Call call) {
    raw.reset();
    dropped = buffer;
    const auto result = call();
    dropped = nullptr;
    return result;
  }
  /// Throws what the driver met; HDF5 itself is told of no failed write, so that it can always clean up after itself.
  void rethrow() const {
    if (error) std::rethrow_exception(error);
  }

  File file;
  Mode mode;
  std::uint64_t base = 0;         ///< where HDF5's address 0 is
  std::uint64_t end;              ///< bytes of the file that exist
  std::uint64_t allocated = 0;    ///< bytes that HDF5 has given away ("end of allocation")
  const void* dropped = nullptr;  ///< inside drop_raw: the buffer whose access is dropped
  std::optional<Raw> raw;         ///< the last access that was dropped
  std::exception_ptr error;       ///< the first failure of the file itself
};

/// The registered driver. Ordinary bytes come out of it: any other driver opens the file.
class HoleDriver {
 public:
  explicit HoleDriver(const Calls& calls);
  ~HoleDriver() { H5FDunregister(id_); }
  HoleDriver(const HoleDriver&) = delete;
  HoleDriver& operator=(const HoleDriver&) = delete;
  /// File access properties that lead to `file`; it must outlive H5Fcreate or H5Fopen, not the file opened by them.
  [[nodiscard]] Plist access(const Calls& calls, const std::shared_ptr<HoleFile>& file) const;

 private:
  hid_t id_;
};

/// Address space that nobody may touch, to hand to HDF5 in place of raw data.
class Untouchable {
 public:
  Untouchable() noexcept = default;
  ~Untouchable() { release(); }
  Untouchable(const Untouchable&) = delete;
  Untouchable& operator=(const Untouchable&) = delete;
  /// At least `bytes` of it. Errc::internal when there is no address space left.
  [[nodiscard]] void* cover(std::size_t bytes);

 private:
  void release() noexcept;
  void* start_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace lmq::h5
