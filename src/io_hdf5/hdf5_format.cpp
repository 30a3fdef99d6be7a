#include "lmq/io_hdf5/hdf5_format.hpp"

#include <fmt/format.h>
#include <hdf5.h>

#include <array>
#include <span>

#include "format.hpp"
#include "lmq/io/file.hpp"

#if !H5_VERSION_GE(1, 10, 5)
#error "HDF5 1.10.5 or newer is needed (H5Dget_chunk_info_by_coord)"
#endif

namespace lmq {
namespace {

class Hdf5Format final : public LayoutFormat {
 public:
  FilePlaces create(const std::filesystem::path& path, const FileLayout& layout) override {
    return h5::create_file(path, layout);
  }
  std::uint64_t metadata_bytes(const FileLayout& layout) const override { return h5::metadata_bytes(layout); }
  Existing open(const std::filesystem::path& path) override { return h5::open_file(path); }
  Existing open_guarded(const std::filesystem::path& path) override { return h5::open_file_guarded(path); }
};

}  // namespace

std::unique_ptr<LayoutFormat> make_hdf5_format() { return std::make_unique<Hdf5Format>(); }

std::string hdf5_version() {
  unsigned major = 0, minor = 0, release = 0;
  H5get_libversion(&major, &minor, &release);
#ifdef H5_HAVE_PARALLEL
  constexpr std::string_view kBuild = "parallel";
#else
  constexpr std::string_view kBuild = "serial";
#endif
  return fmt::format("{}.{}.{} ({})", major, minor, release, kBuild);
}

bool is_hdf5(const std::filesystem::path& path) {
  constexpr std::array<char, 8> kSignature{'\x89', 'H', 'D', 'F', '\r', '\n', '\x1a', '\n'};
  std::array<char, 8> begin{};
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(path, ignored)) return false;
  const File file(path, File::Mode::read);
  if (file.size() < begin.size()) return false;
  file.read(0, std::as_writable_bytes(std::span(begin)));
  return begin == kSignature;
}

}  // namespace lmq
