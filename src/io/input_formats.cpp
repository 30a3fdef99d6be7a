#include "lmq/io/input_formats.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <system_error>

#include "inputs.hpp"
#include "lmq/base/error.hpp"
#include "lmq/base/text.hpp"
#include "lmq/io/zip.hpp"
#include "one_file.hpp"

namespace lmq {
namespace fs = std::filesystem;
namespace {

constexpr std::array kFormats{
    InputFormat{"GGUF", ".gguf", is_gguf, read_gguf, true},
    InputFormat{"PyTorch", ".bin .pt .pth .ckpt", is_torch, read_torch},
    InputFormat{"NumPy archive", ".npz", is_npz, read_npz},
    InputFormat{"NumPy array", ".npy", is_npy, read_npy},
};

/// An archive that is none of the others: it says what is wrong with it, or what it holds.
Catalogue refuse_zip(const fs::path& path) {
  std::vector<std::string> names;
  const File file(path, File::Mode::read);
  for (const ZipEntry& entry : read_zip(file))
    if (names.size() < 3) names.push_back(entry.name);
  fail(Errc::unsupported,
       fmt::format(
           "{}: a zip archive of neither PyTorch, NumPy nor Keras (it holds {}): unpack it and name the checkpoint "
           "in it",
           printable(path.native()), printable(fmt::format("{}", fmt::join(names, ", ")))));
}
constexpr InputFormat kOtherZip{"zip archive", "", is_zip, refuse_zip};

const InputFormat* format_of(const File& file, std::span<const InputFormat> more) {
  for (const std::span<const InputFormat> table : {std::span<const InputFormat>(kFormats), more})
    for (const InputFormat& format : table)
      if (format.recognise(file)) return &format;
  return is_zip(file) ? &kOtherZip : nullptr;
}

bool has_extension(std::string_view name, std::string_view extensions) {
  const auto dot = name.rfind('.');
  if (dot == name.npos || dot == 0) return false;
  for (std::size_t begin = 0; begin < extensions.size();) {
    const std::size_t end = std::min(extensions.find(' ', begin), extensions.size());
    if (extensions.substr(begin, end - begin) == name.substr(dot)) return true;
    begin = end + 1;
  }
  return false;
}

/// What a training leaves beside the weights.
bool is_training_state(std::string_view name) {
  for (const std::string_view start : {"optimizer", "scheduler", "training_args", "rng_state", "scaler"})
    if (name.starts_with(start)) return true;
  return false;
}

/// Files of other formats in a folder, told by content too, one for each numbered set, ascending; nothing when
/// safetensors lie there.
std::vector<fs::path> foreign_files(const fs::path& folder, std::span<const InputFormat> more) {
  std::vector<fs::path> files;
  std::error_code error;
  for (fs::directory_iterator entries(folder, error), end; !error && entries != end; entries.increment(error)) {
    const std::string name = entries->path().filename().native();
    if (name.ends_with(".safetensors") || (name.ends_with(".json") && name.find(".safetensors.index.") != name.npos))
      return {};
    bool known = false;
    for (const std::span<const InputFormat> table : {std::span<const InputFormat>(kFormats), more})
      for (const InputFormat& format : table) known = known || has_extension(name, format.extensions);
    if (known && !is_training_state(name) && name.front() != '.' && entries->is_regular_file(error) &&
        format_of(File(entries->path(), File::Mode::read), more) != nullptr)
      files.push_back(entries->path());
  }
  std::ranges::sort(files);
  std::vector<fs::path> firsts;
  std::vector<fs::path> set;
  for (const fs::path& file : files) {
    if (std::ranges::find(set, file) != set.end()) continue;
    firsts.push_back(file);
    set = numbered_set(file);
  }
  return firsts;
}

}  // namespace

std::span<const InputFormat> input_formats() noexcept { return kFormats; }

bool format_renames(std::string_view name) noexcept {
  const auto at = std::ranges::find(kFormats, name, &InputFormat::name);
  return at != kFormats.end() && at->renames;
}

ChosenFormat choose_format(const fs::path& input, std::span<const InputFormat> more) {
  std::error_code error;
  fs::path file = input;
  if (fs::is_directory(input, error)) {
    const std::vector<fs::path> files = foreign_files(input, more);
    if (files.empty()) return {};
    if (files.size() > 1) {
      std::vector<std::string> names;
      for (const fs::path& each : files) names.push_back(each.filename().native());
      fail(Errc::usage,
           fmt::format("{}: the folder holds {} checkpoints, name one of them: {}", printable(input.native()),
                       files.size(), printable(fmt::format("{}", fmt::join(names, ", ")), 1000)));
    }
    file = files[0];
  }
  if (!fs::is_regular_file(file, error)) return {};
  const InputFormat* const format = format_of(File(file, File::Mode::read), more);
  return format == nullptr ? ChosenFormat{} : ChosenFormat{format, file};
}

}  // namespace lmq
