#pragma once
#include <vector>

#include "handle.hpp"
#include "lmq/io/layout.hpp"

namespace lmq::h5 {

/// Writes attributes, keeping HDF5's types and spaces for the next one.
class AttributeWriter {
 public:
  explicit AttributeWriter(const Calls& calls);
  void write(hid_t object, const Attribute& attribute);

 private:
  void put(hid_t object, const std::string& name, hid_t type, hid_t space, const void* value);
  void put_list(hid_t object, const std::string& name, hid_t type, std::size_t count, const void* values);
  const Calls& calls_;
  Plist names_;
  Space scalar_;
  Type text_;  // UTF-8 of variable length
};

/// The attributes of kinds that an Attribute can hold, in order of creation (of name, where that is not kept).
[[nodiscard]] std::vector<Attribute> read_attributes(const Calls& calls, hid_t object);

}  // namespace lmq::h5
