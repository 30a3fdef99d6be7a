#include <fmt/format.h>

#include <algorithm>

#include "export_formats.hpp"
#include "export_source.hpp"
#include "lmq/base/error.hpp"
#include "lmq/base/text.hpp"
#include "lmq/io/file.hpp"
#include "lmq/io/layout.hpp"
#include "lmq/io_hdf5/hdf5_format.hpp"
#include "table.hpp"
#include "terminal.hpp"
#include "version.hpp"

namespace lmq::app {
namespace {

constexpr const char* kMark = "lmq_export";  ///< root attribute of what an export may replace

std::uint64_t bytes_of(const ExportSource::Tensor& tensor) { return (tensor.count() * bits(tensor.dtype) + 7) / 8; }

/// Only an earlier export is replaced.
void check_replaceable_hdf5(const std::filesystem::path& path, LayoutFormat& format) {
  std::error_code ignored;
  if (!std::filesystem::exists(std::filesystem::symlink_status(path, ignored))) return;
  bool ours = false;
  try {
    const auto existing = format.open_guarded(path);
    ours = std::ranges::find(existing.layout.root, kMark, &Attribute::name) != existing.layout.root.end();
  } catch (const Error&) {
    ours = false;
  }
  if (!ours)
    fail(Errc::cannot_create, fmt::format("{}: is there already and is no export of lmq", printable(path.string())));
}

/// Contiguous datasets in that order.
FileLayout layout_of(const std::vector<const ExportSource::Tensor*>& order) {
  FileLayout layout;
  layout.root.push_back({kMark, std::string(kVersion)});
  for (const ExportSource::Tensor* tensor : order) {
    DatasetLayout dataset;
    dataset.path = "/" + tensor->name;
    dataset.dtype = tensor->dtype;
    dataset.shape = tensor->shape;
    dataset.piece_bytes = {bytes_of(*tensor)};
    layout.datasets.push_back(std::move(dataset));
  }
  return layout;
}

}  // namespace

Exported export_hdf5(const Options& options, const std::string&) {
  const ExportSource source(options.input);
  const auto format = make_hdf5_format();
  check_replaceable_hdf5(options.output, *format);
  std::vector<const ExportSource::Tensor*> order;
  for (const ExportSource::Tensor& tensor : source.tensors()) order.push_back(&tensor);
  std::ranges::sort(order, {}, [](const ExportSource::Tensor* tensor) { return "/" + tensor->name; });
  const std::filesystem::path beside = free_name_beside(options.output);
  File(beside, File::Mode::create_new).close();
  double rounding = 0, done = 0;
  std::uint64_t all = 0;
  for (const ExportSource::Tensor* tensor : order) all += bytes_of(*tensor);
  try {
    const FilePlaces places = format->create(beside, layout_of(order));
    const File file(beside, File::Mode::update);
    Progress progress("export",
                      !options.quiet && error_is_terminal() ? Progress::Style::in_place : Progress::Style::none);
    for (std::size_t t = 0; t < order.size(); ++t) {
      std::uint64_t at = places.offsets[t][0];
      const auto put = [&](std::span<const std::byte> bytes) {
        file.write(at, bytes);
        at += bytes.size();
        progress.at(done += static_cast<double>(bytes.size()), static_cast<double>(all));
      };
      source.bytes(*order[t], put, rounding);
    }
    file.sync();
    rename_durably(beside, options.output);
  } catch (...) {
    std::error_code ignored;
    std::filesystem::remove(beside, ignored);
    throw;
  }
  return {
      fmt::format("{}, {}: {}\nrounding to the original types adds a squared error of {:.3g}\n",
                  counted(order.size(), "tensor"), format_bytes(all), printable(options.output.string()), rounding) +
          outlived_text(source.outlived()),
      {{"tensors", order.size()},
       {"bytes", all},
       {"rounding_squared_error", rounding},
       {"left_out_tensors", source.outlived()}}};
}

}  // namespace lmq::app
