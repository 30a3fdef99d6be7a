#pragma once
#include <map>
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
  hid_t text_type(std::size_t bytes);
  void put(hid_t object, const std::string& name, hid_t type, hid_t space, const void* value);
  void put_list(hid_t object, const std::string& name, hid_t type, std::size_t count, const void* values);
  const Calls& calls_;
  Plist names_;
  Space scalar_;
  std::map<std::size_t, Type> texts_;
};

/// The attributes of kinds that an Attribute can hold, in order of creation (of name, where that is not kept).
[[nodiscard]] std::vector<Attribute> read_attributes(const Calls& calls, hid_t object);

}  // namespace lmq::h5
