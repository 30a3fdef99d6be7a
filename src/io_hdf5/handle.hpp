#pragma once
#include <hdf5.h>

#include <string>
#include <string_view>
#include <utility>

#include "lmq/base/error.hpp"

namespace lmq::h5 {

/// One HDF5 object; move-only.
template <herr_t (*Close)(hid_t)>
class Handle {
 public:
  Handle() noexcept = default;
  explicit Handle(hid_t id) noexcept : id_(id) {}
  Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, H5I_INVALID_HID)) {}
  Handle& operator=(Handle&& other) noexcept { return std::swap(id_, other.id_), *this; }
  ~Handle() {
    if (id_ >= 0) Close(id_);
  }
  [[nodiscard]] hid_t get() const noexcept { return id_; }
  [[nodiscard]] hid_t release() noexcept { return std::exchange(id_, H5I_INVALID_HID); }

 private:
  hid_t id_ = H5I_INVALID_HID;
};
using Plist = Handle<H5Pclose>;
using FileId = Handle<H5Fclose>;
using Group = Handle<H5Gclose>;
using Dataset = Handle<H5Dclose>;
using Object = Handle<H5Oclose>;
using Space = Handle<H5Sclose>;
using Type = Handle<H5Tclose>;
using Attr = Handle<H5Aclose>;

/// While it lives, HDF5 prints nothing and loads no plug-in.
class Quiet {
 public:
  Quiet() noexcept;
  ~Quiet();
  Quiet(const Quiet&) = delete;
  Quiet& operator=(const Quiet&) = delete;

 private:
  H5E_auto2_t print_ = nullptr;
  void* print_data_ = nullptr;
  unsigned loading_ = 0;
};

/// Every HDF5 call passes through one of these: it knows the file, the object in hand and the kind of a failure.
class Calls {
 public:
  Calls(std::string file, Errc code) : file_(std::move(file)), code_(code) {}
  /// Names the object that the next calls are about, for example "dataset '/a'".
  void at(std::string_view kind, std::string_view path);
  template <class T>
  T operator()(T result, std::string_view call) const {
    if (result < 0) refuse(call);
    return result;
  }
  /// Fails with file and object before `what`.
  [[noreturn]] void fail(Errc code, std::string_view what) const;

 private:
  /// Fails with HDF5's innermost message.
  [[noreturn]] void refuse(std::string_view call) const;
  std::string file_;
  std::string object_;
  Errc code_;
};

}  // namespace lmq::h5
