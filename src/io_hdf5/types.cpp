#include "types.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <array>

#include "lmq/base/math.hpp"

namespace lmq::h5 {
namespace {

struct IntegerRow {
  DType type;
  std::size_t bytes;
  bool is_signed;
};
constexpr std::array kIntegers{
    IntegerRow{DType::u8, 1, false},  IntegerRow{DType::i8, 1, true},   IntegerRow{DType::u16, 2, false},
    IntegerRow{DType::i16, 2, true},  IntegerRow{DType::u32, 4, false}, IntegerRow{DType::i32, 4, true},
    IntegerRow{DType::u64, 8, false}, IntegerRow{DType::i64, 8, true},
};

/// A float with the sign on top, then the exponent, then the mantissa with its leading one implied.
struct FloatRow {
  DType type;
  std::size_t bytes, exponent_bits, mantissa_bits, bias;
};
constexpr std::array kFloats{
    FloatRow{DType::f16, 2, 5, 10, 15},
    FloatRow{DType::bf16, 2, 8, 7, 127},
    FloatRow{DType::f32, 4, 8, 23, 127},
    FloatRow{DType::f64, 8, 11, 52, 1023},
};

hid_t integer_id(DType type) {
  switch (type) {
    case DType::i8:
      return H5T_STD_I8LE;
    case DType::i16:
      return H5T_STD_I16LE;
    case DType::u16:
      return H5T_STD_U16LE;
    case DType::i32:
      return H5T_STD_I32LE;
    case DType::u32:
      return H5T_STD_U32LE;
    case DType::i64:
      return H5T_STD_I64LE;
    case DType::u64:
      return H5T_STD_U64LE;
    default:
      return H5T_STD_U8LE;
  }
}

bool little_endian(const Calls& calls, hid_t type) {
  const H5T_order_t order = calls(H5Tget_order(type), "H5Tget_order");
  return order == H5T_ORDER_LE || H5Tget_size(type) == 1;
}

std::optional<DType> recognise_integer(const Calls& calls, hid_t type) {
  const std::size_t bytes = H5Tget_size(type);
  const bool whole = H5Tget_precision(type) == 8 * bytes && calls(H5Tget_offset(type), "H5Tget_offset") == 0;
  const bool is_signed = calls(H5Tget_sign(type), "H5Tget_sign") == H5T_SGN_2;
  for (const IntegerRow& row : kIntegers)
    if (whole && row.bytes == bytes && row.is_signed == is_signed) return row.type;
  return std::nullopt;
}

std::optional<DType> recognise_float(const Calls& calls, hid_t type) {
  std::size_t sign = 0, exponent = 0, exponent_bits = 0, mantissa = 0, mantissa_bits = 0;
  calls(H5Tget_fields(type, &sign, &exponent, &exponent_bits, &mantissa, &mantissa_bits), "H5Tget_fields");
  if (H5Tget_norm(type) != H5T_NORM_IMPLIED || H5Tget_offset(type) != 0 || mantissa != 0) return std::nullopt;
  for (const FloatRow& row : kFloats)
    if (row.bytes == H5Tget_size(type) && 8 * row.bytes == H5Tget_precision(type) && sign == 8 * row.bytes - 1 &&
        exponent == row.mantissa_bits && exponent_bits == row.exponent_bits && mantissa_bits == row.mantissa_bits &&
        H5Tget_ebias(type) == row.bias)
      return row.type;
  return std::nullopt;
}

}  // namespace

StoredAs stored_as(DType type) noexcept {
  switch (type) {
    case DType::boolean:
    case DType::f8_e4m3:
    case DType::f8_e5m2:
    case DType::f8_e8m0:
    case DType::f8_e4m3fnuz:
    case DType::f8_e5m2fnuz:
      return {DType::u8, true, false, false};
    case DType::f4:
    case DType::f6_e2m3:
    case DType::f6_e3m2:
      return {DType::u8, true, true, false};
    case DType::c64:
      return {DType::f32, true, false, true};
    default:
      return {type, false, false, false};
  }
}

Type make_type(const Calls& calls, DType element) {
  for (const FloatRow& row : kFloats) {
    if (row.type != element) continue;
    Type type{calls(H5Tcopy(row.bytes == 8 ? H5T_IEEE_F64LE : H5T_IEEE_F32LE), "H5Tcopy")};
    if (row.bytes > 2) return type;
    calls(H5Tset_fields(type.get(), 15, row.mantissa_bits, row.exponent_bits, 0, row.mantissa_bits), "H5Tset_fields");
    calls(H5Tset_size(type.get(), row.bytes), "H5Tset_size");
    calls(H5Tset_ebias(type.get(), row.bias), "H5Tset_ebias");
    return type;
  }
  return Type{calls(H5Tcopy(integer_id(element)), "H5Tcopy")};
}

Type make_text_type(const Calls& calls, std::uint64_t bytes) {
  Type type{calls(H5Tcopy(H5T_C_S1), "H5Tcopy")};
  calls(H5Tset_size(type.get(), static_cast<std::size_t>(bytes)), "H5Tset_size");
  calls(H5Tset_strpad(type.get(), H5T_STR_NULLPAD), "H5Tset_strpad");
  calls(H5Tset_cset(type.get(), H5T_CSET_UTF8), "H5Tset_cset");
  return type;
}

std::optional<DType> recognise(const Calls& calls, hid_t type) {
  const H5T_class_t kind = calls(H5Tget_class(type), "H5Tget_class");
  if ((kind != H5T_INTEGER && kind != H5T_FLOAT) || !little_endian(calls, type)) return std::nullopt;
  return kind == H5T_INTEGER ? recognise_integer(calls, type) : recognise_float(calls, type);
}

std::optional<std::uint64_t> element_count(const std::vector<std::uint64_t>& shape) noexcept {
  std::uint64_t count = 1;
  for (const std::uint64_t dim : shape)
    if (dim == 0) return 0;
  for (const std::uint64_t dim : shape)
    if (!checked_mul(count, dim, count)) return std::nullopt;
  return count;
}

std::optional<std::uint64_t> element_bytes(DType type, std::optional<std::uint64_t> count) noexcept {
  std::uint64_t whole = 0;
  if (!count || !checked_mul(*count, bits(type), whole)) return std::nullopt;
  return ceil_div(whole, 8);
}

std::vector<std::uint64_t> chunk_grid(const std::vector<std::uint64_t>& shape,
                                      const std::vector<std::uint64_t>& chunk) {
  std::vector<std::uint64_t> grid(shape.size());
  for (std::size_t i = 0; i < grid.size(); ++i) grid[i] = ceil_div(shape[i], chunk[i]);
  return grid;
}

bool has_whole_chunks(const DatasetLayout& dataset) noexcept {
  for (std::size_t i = 0; i < dataset.chunk.size(); ++i)
    if (dataset.shape[i] % dataset.chunk[i] != 0) return false;
  return true;
}

void ChunkWalk::next() noexcept {
  for (std::size_t i = at_.size(); i-- > 0;) {
    if (chunk_[i] < shape_[i] - at_[i]) {
      at_[i] += chunk_[i];
      return;
    }
    at_[i] = 0;
  }
}

std::string ChunkWalk::text() const { return fmt::format("chunk ({})", fmt::join(at_, ", ")); }

}  // namespace lmq::h5
