#include "lmq/plan/names.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <unordered_set>

#include "lmq/base/error.hpp"
#include "lmq/base/path_limits.hpp"
#include "lmq/base/text.hpp"
#include "recipe_words.hpp"

namespace lmq {
namespace {

constexpr std::string_view kOurs = "lmq";

void check_parts(std::string_view name) {
  const auto refuse = [&](std::string_view why) {
    fail(Errc::unsupported, fmt::format("tensor {}: {}, so HDF5 cannot hold it under this name", in_quotes(name), why));
  };
  if (name.empty()) refuse("the name is empty");
  if (name.front() == '/') refuse("the name begins with a slash");
  if (name.back() == '/') refuse("the name ends with a slash");
  if (!is_clean_utf8(name)) refuse("the name is not UTF-8 without NUL");
  if (const auto depth = static_cast<std::size_t>(std::ranges::count(name, '/')) + 1; depth > kMaxPathDepth)
    refuse(fmt::format("the name has {} parts between slashes, more than {}", depth, kMaxPathDepth));
  for (std::size_t begin = 0; begin <= name.size();) {
    const std::size_t end = std::min(name.find('/', begin), name.size());
    const std::string_view part = name.substr(begin, end - begin);
    if (part.empty()) refuse("the name has two slashes in a row");
    if (part.size() > kMaxPathPart)
      refuse(fmt::format("a part of the name has {} bytes, more than {}", part.size(), kMaxPathPart));
    if (part == ".") refuse("a part of the name is \".\", which means the group itself");
    if (begin == 0 && part == kOurs) refuse("\"lmq\" is the group of our own tables");
    begin = end + 1;
  }
}

}  // namespace

void check_names(const std::vector<TensorInfo>& tensors) {
  std::unordered_set<std::string_view> names;
  names.reserve(tensors.size());
  for (const TensorInfo& tensor : tensors) {
    check_parts(tensor.name);
    if (!names.insert(tensor.name).second)
      fail(Errc::unsupported, fmt::format("tensor {}: two tensors have this name", in_quotes(tensor.name)));
  }
  for (const TensorInfo& tensor : tensors) {
    const std::string_view name = tensor.name;
    for (std::size_t slash = name.find('/'); slash != name.npos; slash = name.find('/', slash + 1))
      if (names.contains(name.substr(0, slash)))
        fail(Errc::unsupported,
             fmt::format("tensors {} and {}: HDF5 cannot hold both, the first would have to be a dataset and "
                         "a group at once",
                         in_quotes(name.substr(0, slash)), in_quotes(name)));
  }
}

}  // namespace lmq
