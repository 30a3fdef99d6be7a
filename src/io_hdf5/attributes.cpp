#include "attributes.hpp"

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>
#include <optional>
#include <type_traits>

#include "lmq/base/text.hpp"

namespace lmq::h5 {
namespace {

struct Found {
  std::int64_t order;
  std::string name;
};

herr_t note_attribute(hid_t, const char* name, const H5A_info_t* info, void* out) {
  auto& found = *static_cast<std::vector<Found>*>(out);
  try {
    if (is_clean_utf8(name) && info->data_size <= kMaxAttributeBytes)
      found.push_back({info->corder_valid ? std::int64_t{info->corder} : 0, name});
  } catch (const std::bad_alloc&) {
    return -1;
  }
  return 0;
}

/// A text of variable length, which HDF5 allocates.
std::optional<std::string> read_variable_text(const Calls& calls, hid_t attribute, hid_t type) {
  char* read = nullptr;
  calls(H5Aread(attribute, type, static_cast<void*>(&read)), "H5Aread");
  if (read == nullptr) return std::string();
  const std::unique_ptr<char, herr_t (*)(void*)> owner(read, [](void* text) { return H5free_memory(text); });
  std::string text(read, strnlen(read, kMaxAttributeBytes + 1));
  if (text.size() > kMaxAttributeBytes || !is_clean_utf8(text)) return std::nullopt;
  return text;
}

std::optional<std::string> read_text(const Calls& calls, hid_t attribute, hid_t type) {
  if (calls(H5Tis_variable_str(type), "H5Tis_variable_str") > 0) return read_variable_text(calls, attribute, type);
  std::string text(H5Tget_size(type), '\0');
  if (text.empty() || text.size() > kMaxAttributeBytes) return std::nullopt;
  const H5T_str_t padding = calls(H5Tget_strpad(type), "H5Tget_strpad");
  calls(H5Aread(attribute, type, text.data()), "H5Aread");
  if (padding == H5T_STR_NULLTERM) text.resize(std::min(text.find('\0'), text.size()));
  const char pad = padding == H5T_STR_SPACEPAD ? ' ' : '\0';
  while (!text.empty() && text.back() == pad) text.pop_back();
  if (!is_clean_utf8(text)) return std::nullopt;
  return text;
}

// More than 5 parameters: what HDF5 has told of the attribute.
template <class T>
void read_numbers(const Calls& calls, hid_t attribute, hid_t type, bool scalar, std::size_t count,
                  std::optional<Attribute>& out) {
  std::vector<T> values(count);
  if (count > 0) calls(H5Aread(attribute, type, values.data()), "H5Aread");
  if (scalar)
    out->value = values.at(0);
  else if constexpr (std::is_signed_v<T> && std::is_integral_v<T>)
    out.reset();  // no list of signed integers
  else
    out->value = std::move(values);
}

/// Nothing when the attribute is of a kind that is not ours.
std::optional<Attribute> read_attribute(const Calls& calls, hid_t object, const std::string& name) {
  const Attr attribute{calls(H5Aopen(object, name.c_str(), H5P_DEFAULT), "H5Aopen")};
  const Type type{calls(H5Aget_type(attribute.get()), "H5Aget_type")};
  const Space space{calls(H5Aget_space(attribute.get()), "H5Aget_space")};
  const H5S_class_t extent = calls(H5Sget_simple_extent_type(space.get()), "H5Sget_simple_extent_type");
  const int rank =
      extent == H5S_SIMPLE ? calls(H5Sget_simple_extent_ndims(space.get()), "H5Sget_simple_extent_ndims") : 0;
  if (extent == H5S_NULL || rank > 1) return std::nullopt;
  const bool scalar = rank == 0;
  const auto count =
      static_cast<std::uint64_t>(calls(H5Sget_simple_extent_npoints(space.get()), "H5Sget_simple_extent_npoints"));
  std::optional<Attribute> out{Attribute{name, {}}};
  if (calls(H5Tget_class(type.get()), "H5Tget_class") == H5T_STRING) {
    if (!scalar) return std::nullopt;
    const auto text = read_text(calls, attribute.get(), type.get());
    if (!text) return std::nullopt;
    out->value = *text;
    return out;
  }
  if (count > kMaxAttributeBytes / 8) return std::nullopt;
  const auto is = [&](hid_t ours) { return calls(H5Tequal(type.get(), ours), "H5Tequal") > 0; };
  if (is(H5T_STD_I64LE))
    read_numbers<std::int64_t>(calls, attribute.get(), H5T_NATIVE_INT64, scalar, count, out);
  else if (is(H5T_STD_U64LE))
    read_numbers<std::uint64_t>(calls, attribute.get(), H5T_NATIVE_UINT64, scalar, count, out);
  else if (is(H5T_IEEE_F64LE))
    read_numbers<double>(calls, attribute.get(), H5T_NATIVE_DOUBLE, scalar, count, out);
  else
    out.reset();
  return out;
}

}  // namespace

AttributeWriter::AttributeWriter(const Calls& calls)
    : calls_(calls),
      names_(calls(H5Pcreate(H5P_ATTRIBUTE_CREATE), "H5Pcreate")),
      scalar_(calls(H5Screate(H5S_SCALAR), "H5Screate")),
      text_(calls(H5Tcopy(H5T_C_S1), "H5Tcopy")) {
  calls(H5Pset_char_encoding(names_.get(), H5T_CSET_UTF8), "H5Pset_char_encoding");
  calls(H5Tset_size(text_.get(), H5T_VARIABLE), "H5Tset_size");
  calls(H5Tset_cset(text_.get(), H5T_CSET_UTF8), "H5Tset_cset");
}

void AttributeWriter::put(hid_t object, const std::string& name, hid_t type, hid_t space, const void* value) {
  const Attr attribute{calls_(H5Acreate2(object, name.c_str(), type, space, names_.get(), H5P_DEFAULT), "H5Acreate2")};
  calls_(H5Awrite(attribute.get(), type, value), "H5Awrite");
}

void AttributeWriter::put_list(hid_t object, const std::string& name, hid_t type, std::size_t count,
                               const void* values) {
  const hsize_t dims[] = {count};
  const Space space{calls_(H5Screate_simple(1, dims, nullptr), "H5Screate_simple")};
  static const std::uint64_t nothing = 0;
  put(object, name, type, space.get(), count > 0 ? values : &nothing);
}

void AttributeWriter::write(hid_t object, const Attribute& attribute) {
  const auto& name = attribute.name;
  if (const auto* text = std::get_if<std::string>(&attribute.value)) {
    const char* value = text->c_str();
    put(object, name, text_.get(), scalar_.get(), static_cast<const void*>(&value));
  } else if (const auto* i = std::get_if<std::int64_t>(&attribute.value))
    put(object, name, H5T_STD_I64LE, scalar_.get(), i);
  else if (const auto* u = std::get_if<std::uint64_t>(&attribute.value))
    put(object, name, H5T_STD_U64LE, scalar_.get(), u);
  else if (const auto* d = std::get_if<double>(&attribute.value))
    put(object, name, H5T_IEEE_F64LE, scalar_.get(), d);
  else if (const auto* us = std::get_if<std::vector<std::uint64_t>>(&attribute.value))
    put_list(object, name, H5T_STD_U64LE, us->size(), us->data());
  else if (const auto* ds = std::get_if<std::vector<double>>(&attribute.value))
    put_list(object, name, H5T_IEEE_F64LE, ds->size(), ds->data());
}

std::vector<Attribute> read_attributes(const Calls& calls, hid_t object) {
  std::vector<Found> found;
  hsize_t from = 0;
  calls(H5Aiterate2(object, H5_INDEX_NAME, H5_ITER_INC, &from, note_attribute, &found), "H5Aiterate2");
  std::ranges::stable_sort(found, {}, &Found::order);
  std::vector<Attribute> attributes;
  for (const Found& each : found)
    if (auto attribute = read_attribute(calls, object, each.name)) attributes.push_back(std::move(*attribute));
  return attributes;
}

}  // namespace lmq::h5
