#include "safetensors_header.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>

#include "json_events.hpp"
#include "lmq/base/digest.hpp"
#include "lmq/base/error.hpp"
#include "lmq/base/math.hpp"
#include "lmq/base/text.hpp"

namespace lmq {
namespace {

constexpr std::uint64_t kLargest = std::numeric_limits<std::int64_t>::max();

/// The JSON of a header: {"name": {"dtype": "F32", "shape": [..], "data_offsets": [begin, end]}, ...,
/// "__metadata__": {"key": "text", ...}}. Collects tensors whose offset and bytes are still relative to the data.
class HeaderEvents final : public JsonEvents {
 public:
  HeaderEvents(SafetensorsHeader& header, std::uint64_t data_bytes, const std::string& source)
      : JsonEvents(source, 8), header_(header), data_bytes_(data_bytes) {}

  bool start_object(std::size_t) override {
    if (at_ == At::tensor_value) seen_ = 0;
    return enter(at_, {{At::begin, At::root}, {At::tensor_value, At::tensor}, {At::metadata_value, At::metadata}}) ||
           unexpected("an object");
  }
  bool end_object() override {
    if (at_ == At::tensor) finish_tensor();
    at_ = at_ == At::root ? At::end : At::root;
    return true;
  }
  bool key(std::string& name) override {
    switch (at_) {
      case At::root:
        start_entry(name);
        break;
      case At::metadata:
        start_text(name);
        break;
      default:
        start_field(name);
        break;
    }
    return true;
  }
  bool string(std::string& text) override {
    if (at_ == At::text) return take_text(text);
    if (at_ != At::dtype) return unexpected("a text");
    const auto dtype = parse_dtype(text);
    if (!dtype) refuse_field(fmt::format("dtype '{}' is not supported", printable(text)), Errc::unsupported);
    tensor_.dtype = *dtype;
    at_ = At::tensor;
    return true;
  }
  /// Some writers say null where there is none.
  bool null() override {
    if (at_ != At::metadata_value) return unexpected("null");
    at_ = At::root;
    return true;
  }
  bool start_array(std::size_t) override {
    return enter(at_, {{At::shape_value, At::shape}, {At::offsets_value, At::offsets}}) || unexpected("an array");
  }
  bool end_array() override {
    if (at_ == At::offsets && offsets_.size() != 2)
      refuse_field(fmt::format("data_offsets: found {} numbers, expected 2", offsets_.size()));
    at_ = At::tensor;
    return true;
  }
  bool number_unsigned(std::uint64_t value) override {
    if (at_ != At::shape && at_ != At::offsets) return unexpected(std::to_string(value));
    if (value > kLargest) return unexpected(std::to_string(value));
    std::vector<std::uint64_t>& list = at_ == At::shape ? tensor_.shape : offsets_;
    const std::size_t limit = at_ == At::shape ? kRankLimit : 2;
    if (list.size() == limit)
      refuse_field(fmt::format("{}: found more than {} numbers", at_ == At::shape ? "shape" : "data_offsets", limit));
    list.push_back(value);
    return true;
  }

 protected:
  bool unexpected(const std::string& found) override {
    const char* wanted = "nothing more";
    switch (at_) {
      case At::begin:
        wanted = "an object of tensors";
        break;
      case At::tensor_value:
        wanted = "an object with dtype, shape and data_offsets";
        break;
      case At::metadata_value:
        wanted = "an object of texts in __metadata__";
        break;
      case At::text:
        wanted = "a text";
        break;
      case At::dtype:
        wanted = "dtype: a text";
        break;
      case At::shape_value:
        wanted = "shape: an array of whole numbers";
        break;
      case At::shape:
        wanted = "shape: a whole number 0 .. 2^63-1";
        break;
      case At::offsets_value:
        wanted = "data_offsets: an array [begin, end]";
        break;
      case At::offsets:
        wanted = "data_offsets: a whole number 0 .. 2^63-1";
        break;
      default:
        break;
    }
    refuse_field(fmt::format("found {}, expected {}", printable(found, 60), wanted));
  }

 private:
  enum class At {
    begin,
    root,
    tensor_value,
    tensor,
    dtype,
    shape_value,
    shape,
    offsets_value,
    offsets,
    metadata_value,
    metadata,
    text,
    end
  };
  static constexpr unsigned kDtype = 1, kShape = 2, kOffsets = 4;  // fields seen

  void start_entry(std::string& name) {
    if (name == "__metadata__") {
      if (std::exchange(metadata_seen_, true)) refuse("__metadata__ appears twice");
      tensor_.name = name;
      at_ = At::metadata_value;
      return;
    }
    if (name.size() > kNameLimit)
      refuse(fmt::format("tensor '{}': the name has {} bytes, expected at most {}", printable(name, 60), name.size(),
                         kNameLimit));
    if (!is_clean_utf8(name)) refuse(fmt::format("tensor '{}': the name is not UTF-8 without NUL", printable(name)));
    tensor_ = TensorInfo{};
    tensor_.name = std::move(name);
    offsets_.clear();
    at_ = At::tensor_value;
  }
  void start_text(std::string& name) {
    text_key_ = std::move(name);
    if (header_.metadata.contains(text_key_))
      refuse(fmt::format("__metadata__: '{}' appears twice", printable(text_key_)));
    at_ = At::text;
  }
  bool take_text(std::string& text) {
    header_.metadata.emplace(std::move(text_key_), std::move(text));
    at_ = At::metadata;
    return true;
  }
  void start_field(const std::string& name) {
    const unsigned field = name == "dtype" ? kDtype : name == "shape" ? kShape : name == "data_offsets" ? kOffsets : 0;
    if (field == 0)
      refuse_field(fmt::format("found the field '{}', expected dtype, shape or data_offsets", printable(name)),
                   Errc::unsupported);
    if (seen_ & field) refuse_field(fmt::format("{} appears twice", name));
    seen_ |= field;
    at_ = field == kDtype ? At::dtype : field == kShape ? At::shape_value : At::offsets_value;
  }
  void finish_tensor() {
    for (const auto& [field, name] : {std::pair{kDtype, "dtype"}, {kShape, "shape"}, {kOffsets, "data_offsets"}})
      if (!(seen_ & field)) refuse_field(fmt::format("{} is missing", name));
    std::uint64_t count = 0, bytes = 0;
    if (!count_elements(tensor_.shape, count))
      refuse_field(fmt::format("shape: the product of [{}] exceeds 2^63-1", fmt::join(tensor_.shape, ", ")));
    if (!count_bytes(tensor_.dtype, count, bytes))
      refuse_field(
          fmt::format("shape: {} elements of {} are no whole number of bytes below 2^63", count, name(tensor_.dtype)));
    const std::uint64_t begin = offsets_[0], end = offsets_[1];
    if (end < begin || end > data_bytes_)
      refuse_field(fmt::format("data_offsets: found [{}, {}], expected begin <= end <= {} (the bytes of data)", begin,
                               end, data_bytes_));
    if (end - begin != bytes)
      refuse_field(fmt::format("data_offsets: found {} bytes, expected {} for {} [{}]", end - begin, bytes,
                               name(tensor_.dtype), fmt::join(tensor_.shape, ", ")));
    tensor_.offset = begin;
    tensor_.bytes = bytes;
    header_.tensors.push_back(std::move(tensor_));
  }
  [[noreturn]] void refuse_field(const std::string& what, Errc code = Errc::malformed) const {
    if (at_ == At::begin || at_ == At::end || at_ == At::root) refuse(what, code);
    if (at_ == At::metadata_value) refuse("__metadata__: " + what, code);
    if (at_ == At::text) refuse(fmt::format("__metadata__: '{}': {}", printable(text_key_), what), code);
    refuse(fmt::format("tensor '{}': {}", printable(tensor_.name), what), code);
  }

  SafetensorsHeader& header_;
  std::uint64_t data_bytes_;
  At at_ = At::begin;
  TensorInfo tensor_;
  std::vector<std::uint64_t> offsets_;
  unsigned seen_ = 0;
  std::string text_key_;
  bool metadata_seen_ = false;
};

/// Sorts by name; a name that appears twice is refused.
void sort_by_name(std::vector<TensorInfo>& tensors, const std::string& source) {
  std::ranges::sort(tensors, {}, &TensorInfo::name);
  const auto twice = std::ranges::adjacent_find(tensors, {}, &TensorInfo::name);
  if (twice != tensors.end())
    fail(Errc::malformed, fmt::format("{}: tensor '{}' appears twice", source, printable(twice->name)));
}

/// The ranges, in order, must meet end to begin from 0 to `data_bytes`.
void check_tiling(const std::vector<TensorInfo>& tensors, std::uint64_t data_bytes, const std::string& source) {
  std::vector<std::size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  // An empty range sorts before the full one that begins at the same byte.
  std::ranges::sort(order, {}, [&](std::size_t i) { return std::pair(tensors[i].offset, tensors[i].bytes); });
  std::uint64_t end = 0;
  for (const std::size_t i : order) {
    const TensorInfo& tensor = tensors[i];
    if (tensor.offset != end)
      fail(Errc::malformed,
           fmt::format("{}: tensor '{}': data_offsets begin at {}, expected {} ({})", source, printable(tensor.name),
                       tensor.offset, end, tensor.offset > end ? "a hole before it" : "it overlaps another tensor"));
    end += tensor.bytes;
  }
  if (end != data_bytes)
    fail(Errc::malformed,
         fmt::format("{}: the tensors end at byte {} of the data, expected its end at {}", source, end, data_bytes));
}

}  // namespace

bool count_elements(std::span<const std::uint64_t> shape, std::uint64_t& count) noexcept {
  std::uint64_t product = 1;
  bool empty = false;
  for (const std::uint64_t dim : shape) {
    if (dim == 0)
      empty = true;
    else if (!checked_mul(product, dim, product) || product > kLargest)
      return false;
  }
  count = empty ? 0 : product;
  return true;
}

bool count_bytes(DType dtype, std::uint64_t count, std::uint64_t& bytes) noexcept {
  const std::uint64_t element = bits(dtype);
  // Eight elements are `element` bytes: so nothing overflows on the way.
  std::uint64_t whole = 0;
  const std::uint64_t rest = count % 8 * element;
  if (rest % 8 != 0 || !checked_mul(count / 8, element, whole) || !checked_add(whole, rest / 8, bytes)) return false;
  return bytes <= kLargest;
}

std::uint64_t safetensors_header_bytes(std::span<const std::byte> prefix, std::uint64_t file_bytes,
                                       const std::string& source) {
  if (file_bytes < 8 || prefix.size() < 8)
    fail(Errc::malformed,
         fmt::format("{}: the file has {} bytes, expected at least 8 of header length", source, file_bytes));
  std::uint64_t length = 0;
  std::memcpy(&length, prefix.data(), 8);
  if (length > file_bytes - 8)
    fail(Errc::malformed,
         fmt::format("{} at byte 0: header length {} exceeds the file ({} bytes)", source, length, file_bytes));
  if (length > kHeaderLimit)
    fail(Errc::malformed,
         fmt::format("{} at byte 0: header length {} exceeds the limit of {}", source, length, kHeaderLimit));
  if (length < 2)
    fail(Errc::malformed, fmt::format("{} at byte 0: header length {}, expected at least 2", source, length));
  return length;
}

SafetensorsHeader parse_safetensors_header(std::span<const std::byte> head, std::uint64_t file_bytes,
                                           const std::string& source) {
  const std::uint64_t length = safetensors_header_bytes(head, file_bytes, source);
  if (head.size() != 8 + length)
    fail(Errc::internal, fmt::format("{}: {} bytes of header were read", source, head.size()));
  const std::string_view text(reinterpret_cast<const char*>(head.data()) + 8, static_cast<std::size_t>(length));
  if (text.front() != '{')
    fail(Errc::malformed,
         fmt::format("{} at byte 8: the header begins with '{}', expected '{{'", source, printable(text.substr(0, 1))));
  const std::uint64_t data_begin = 8 + length, data_bytes = file_bytes - data_begin;
  SafetensorsHeader header;
  HeaderEvents events(header, data_bytes, source);
  parse_json(text, events);
  sort_by_name(header.tensors, source);
  check_tiling(header.tensors, data_bytes, source);
  for (TensorInfo& tensor : header.tensors) tensor.offset += data_begin;
  header.digest = digest128_hex(head);
  return header;
}

SafetensorsHeader read_safetensors_header(const File& file, std::uint64_t file_bytes) {
  const std::string source = printable(file.path().native());
  std::vector<std::byte> head(8);
  if (file_bytes >= 8) file.read(0, head);
  const std::uint64_t length = safetensors_header_bytes(head, file_bytes, source);
  head.resize(static_cast<std::size_t>(8 + length));
  file.read(8, std::span(head).subspan(8));
  return parse_safetensors_header(head, file_bytes, source);
}

}  // namespace lmq
