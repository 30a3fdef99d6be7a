#include "handle.hpp"

#include <fmt/format.h>

#include "lmq/base/text.hpp"

namespace lmq::h5 {

Quiet::Quiet() noexcept {
  H5Eget_auto2(H5E_DEFAULT, &print_, &print_data_);
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  H5PLget_loading_state(&loading_);
  H5PLset_loading_state(0);
}

Quiet::~Quiet() {
  H5PLset_loading_state(loading_);
  H5Eclear2(H5E_DEFAULT);
  H5Eset_auto2(H5E_DEFAULT, print_, print_data_);
}

void Calls::at(std::string_view kind, std::string_view path) {
  object_ = fmt::format("{} '{}': ", kind, printable(path));
}

void Calls::fail(Errc code, std::string_view what) const {
  lmq::fail(code, fmt::format("{}: {}{}", file_, object_, what));
}

void Calls::refuse(std::string_view call) const {
  std::string words = "HDF5 gives no reason";
  const auto innermost = [](unsigned, const H5E_error2_t* error, void* out) -> herr_t {
    if (error->desc != nullptr) *static_cast<std::string*>(out) = error->desc;
    return 1;  // stop: the first of an upward walk is where it happened
  };
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, innermost, &words);
  fail(code_, fmt::format("{}: {}", call, printable(words)));
}

}  // namespace lmq::h5
