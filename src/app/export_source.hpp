#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "export_fp8.hpp"
#include "lmq/base/dtype.hpp"
#include "lmq/container/quantized_file.hpp"
#include "lmq/io/input_formats.hpp"
#include "lmq/io/reader.hpp"

namespace lmq::app {

/// What an exporter takes tensors from: a file that lmq wrote, or any checkpoint that lmq reads.
class ExportSource {
 public:
  struct Tensor {
    std::string name;
    DType dtype = DType::f32;  ///< of the values; BF16 where block scales are folded into an 8-bit type
    std::vector<std::uint64_t> shape;
    bool quantized = false;  ///< by lmq
    std::size_t index = 0;   ///< in the file's own list
    [[nodiscard]] std::uint64_t count() const noexcept;
  };
  /// Errors as for opening either. Errc::malformed where a file of ours has findings.
  explicit ExportSource(const std::filesystem::path& path);

  [[nodiscard]] const std::vector<Tensor>& tensors() const noexcept { return tensors_; }
  /// Names of tensors that told of FP8 weights whose scales are folded in now: they are not among tensors().
  [[nodiscard]] const std::set<std::string>& outlived() const noexcept { return outlived_; }
  /// Format of the checkpoint it came from: "GGUF", ...
  [[nodiscard]] const std::string& format() const noexcept { return format_; }
  /// Names are that format's own, not those of the model's modules.
  [[nodiscard]] bool renamed() const noexcept { return format_renames(format_); }
  /// All values in order as floats, in pieces; digests are compared on the way.
  void floats(const Tensor& tensor, const std::function<void(std::span<const float>)>& take) const;
  /// The same in runs of whole blocks of `elements` values.
  void blocks(const Tensor& tensor, std::size_t elements,
              const std::function<void(std::span<const float>)>& take) const;
  /// The same as values of the tensor's type: as stored, or rounded to it. Adds to `rounding` the squared error of that.
  void bytes(const Tensor& tensor, const std::function<void(std::span<const std::byte>)>& take, double& rounding) const;

 private:
  /// Are the values those of records, or 8-bit floats with a scale?
  [[nodiscard]] bool decodes(const Tensor& tensor) const;
  void stored_floats(const Tensor& tensor, const std::function<void(std::span<const float>)>& take) const;
  void each_piece(const Tensor& tensor, const std::function<void(const TensorView&)>& take) const;
  std::unique_ptr<QuantizedFile> file_;
  std::unique_ptr<KeptFp8> kept_;  // with file_
  std::unique_ptr<Reader> reader_;
  std::string format_;
  std::vector<Tensor> tensors_;
  std::set<std::string> outlived_;
};

/// Errc::interrupted when a signal has come since the command began (SignalGuard): what was begun goes on the way out.
void heed_signals();

/// The tensors of a file that lmq wrote, as a catalogue: names, types, shapes; scales >= 0 for those that are folded
/// (of which weight does not matter).
[[nodiscard]] Catalogue catalogue_of(const QuantizedFile& file);
/// outlived_companions (io) of a file that lmq wrote. kept: kept weights whose scales are folded, too, or null.
[[nodiscard]] std::set<std::string> outlived_tensors(const QuantizedFile& file, const KeptFp8* kept);
/// A line that names them; empty for none.
[[nodiscard]] std::string outlived_text(const std::set<std::string>& names);

}  // namespace lmq::app
