// A layout and its places as bytes, from the child process that read them.
#include <type_traits>

#include "format.hpp"
#include "guard.hpp"
#include "lmq/base/bytes.hpp"
#include "lmq/base/text.hpp"

namespace lmq::h5 {
namespace {

using Numbers = std::vector<std::uint64_t>;

void put(ByteWriter& out, const Numbers& numbers) {
  out.le(std::uint64_t{numbers.size()});
  out.array(std::span<const std::uint64_t>(numbers));
}

Numbers numbers(ByteReader& in) { return in.array<std::uint64_t>(in.le<std::uint64_t>("numbers"), "numbers"); }

void put(ByteWriter& out, const std::vector<Attribute>& attributes) {
  out.le(std::uint64_t{attributes.size()});
  for (const Attribute& attribute : attributes) {
    out.text(attribute.name);
    out.le(static_cast<std::uint8_t>(attribute.value.index()));
    std::visit(
        [&](const auto& value) {
          using T = std::decay_t<decltype(value)>;
          if constexpr (std::is_same_v<T, std::string>)
            out.text(value);
          else if constexpr (std::is_arithmetic_v<T>)
            out.le(value);
          else
            out.le(std::uint64_t{value.size()}), out.array(std::span(value));
        },
        attribute.value);
  }
}

std::vector<Attribute> attributes(ByteReader& in) {
  std::vector<Attribute> attributes;
  for (auto left = in.le<std::uint64_t>("attributes"); left > 0; --left) {
    Attribute attribute{in.text("name"), {}};
    switch (in.le<std::uint8_t>("kind")) {
      case 0:
        attribute.value = in.text("text");
        break;
      case 1:
        attribute.value = in.le<std::int64_t>("value");
        break;
      case 2:
        attribute.value = in.le<std::uint64_t>("value");
        break;
      case 3:
        attribute.value = in.le<double>("value");
        break;
      case 4:
        attribute.value = numbers(in);
        break;
      default:
        attribute.value = in.array<double>(in.le<std::uint64_t>("values"), "values");
    }
    attributes.push_back(std::move(attribute));
  }
  return attributes;
}

std::vector<std::byte> to_bytes(const LayoutFormat::Existing& existing) {
  ByteWriter out;
  put(out, existing.layout.root);
  out.le(std::uint64_t{existing.layout.groups.size()});
  for (const GroupLayout& group : existing.layout.groups) out.text(group.path), put(out, group.attributes);
  out.le(std::uint64_t{existing.layout.datasets.size()});
  for (std::size_t d = 0; d < existing.layout.datasets.size(); ++d) {
    const DatasetLayout& dataset = existing.layout.datasets[d];
    out.text(dataset.path);
    for (const bool flag : {dataset.encoded, dataset.deflated, dataset.text}) out.le(std::uint8_t{flag});
    out.le(static_cast<std::uint8_t>(dataset.dtype));
    for (const Numbers* list : {&dataset.shape, &dataset.chunk, &dataset.piece_bytes, &existing.places.offsets[d]})
      put(out, *list);
    put(out, dataset.attributes);
  }
  out.le(existing.places.file_bytes);
  return out.take();
}

LayoutFormat::Existing from_bytes(std::span<const std::byte> bytes, const std::string& file) {
  ByteReader in(bytes, file);
  LayoutFormat::Existing existing;
  existing.layout.root = attributes(in);
  for (auto left = in.le<std::uint64_t>("groups"); left > 0; --left) {
    GroupLayout group{in.text("path"), {}};
    group.attributes = attributes(in);
    existing.layout.groups.push_back(std::move(group));
  }
  for (auto left = in.le<std::uint64_t>("datasets"); left > 0; --left) {
    DatasetLayout dataset;
    dataset.path = in.text("path");
    for (bool* flag : {&dataset.encoded, &dataset.deflated, &dataset.text}) *flag = in.le<std::uint8_t>("flag") != 0;
    dataset.dtype = static_cast<DType>(in.le<std::uint8_t>("type"));
    for (Numbers* list : {&dataset.shape, &dataset.chunk, &dataset.piece_bytes}) *list = numbers(in);
    existing.places.offsets.push_back(numbers(in));
    dataset.attributes = attributes(in);
    existing.layout.datasets.push_back(std::move(dataset));
  }
  existing.places.file_bytes = in.le<std::uint64_t>("file bytes");
  return existing;
}

}  // namespace

LayoutFormat::Existing open_file_guarded(const std::filesystem::path& path) {
  const std::string file = printable(path.string());
  return from_bytes(run_guarded(file, [&] { return to_bytes(open_file(path)); }), file);
}

}  // namespace lmq::h5
