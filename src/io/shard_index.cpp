#include "shard_index.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "json_events.hpp"
#include "lmq/base/text.hpp"
#include "lmq/io/json_text.hpp"
#include "safetensors_header.hpp"

namespace lmq {
namespace {

/// A path without the parts that lead nowhere: "./a//b" as "a/b". What is absolute stays so, and ".." is no such part.
std::string plainly(std::string_view path) {
  std::string plain;
  for (std::size_t begin = 0; begin <= path.size();) {
    const std::size_t end = std::min(path.find('/', begin), path.size());
    const std::string_view part = path.substr(begin, end - begin);
    const bool says_nothing = part == "." || (part.empty() && begin > 0 && end < path.size());
    if (!says_nothing) plain += fmt::format("{}{}", begin == 0 || plain.empty() ? "" : "/", part);
    if (begin == 0 && part.empty()) plain = "/";
    begin = end + 1;
  }
  return plain;
}

class IndexEvents final : public JsonEvents {
 public:
  IndexEvents(ShardIndex& index, const std::string& source) : JsonEvents(source, 0), index_(index) {}

  bool start_object(std::size_t) override {
    if (skipped_depth_ > 0 || at_ == At::ignored) return enter_ignored();
    return enter(at_, {{At::begin, At::root}, {At::map_value, At::map}, {At::metadata_value, At::metadata}}) ||
           unexpected("an object");
  }
  bool end_object() override {
    if (skipped_depth_ > 0) return leave_ignored();
    at_ = at_ == At::root ? At::end : At::root;
    return true;
  }
  bool start_array(std::size_t) override {
    if (skipped_depth_ > 0 || at_ == At::ignored) return enter_ignored();
    return enter(at_, {{At::shard, At::shards}}) || unexpected("an array");
  }
  bool end_array() override {
    if (at_ != At::shards) return leave_ignored();
    if (!index_.shard_of.contains(tensor_))
      refuse(fmt::format("weight_map: tensor '{}': found an empty list, expected a file name", printable(tensor_)));
    at_ = At::map;
    return true;
  }
  bool key(std::string& name) override {
    if (skipped_depth_ > 0) return true;
    if (at_ == At::root)
      start_root_entry(name);
    else if (at_ == At::metadata)
      start_metadata_entry(name);
    else
      start_map_entry(name);
    return true;
  }
  bool string(std::string& text) override {
    if (at_ != At::shard && at_ != At::shards) return scalar("a text");
    const std::string written = std::exchange(text, plainly(text));
    if (!is_inner_path(text))
      refuse(fmt::format("weight_map: tensor '{}': found shard '{}', expected a file in the index's folder or below it",
                         printable(tensor_), printable(written)));
    if (!index_.shard_of.emplace(tensor_, text).second) index_.further_shards_of[tensor_].push_back(std::move(text));
    if (at_ == At::shard) at_ = At::map;
    return true;
  }
  bool null() override { return scalar("null"); }
  bool boolean(bool value) override { return scalar(value ? "true" : "false"); }
  bool number_integer(std::int64_t value) override { return scalar(std::to_string(value)); }
  bool number_unsigned(std::uint64_t value) override { return number(static_cast<double>(value)); }
  bool number_float(double value, const std::string&) override { return number(value); }

  [[nodiscard]] bool has_map() const noexcept { return map_seen_; }

 protected:
  bool unexpected(const std::string& found) override {
    const char* wanted = "an object with weight_map";
    switch (at_) {
      case At::map_value:
        wanted = "weight_map: an object";
        break;
      case At::metadata_value:
        wanted = "metadata: an object";
        break;
      case At::total_size:
        wanted = "metadata: total_size: a number of bytes";
        break;
      case At::shard:
      case At::shards:
        wanted = "a file name in weight_map";
        break;
      default:
        break;
    }
    refuse(fmt::format("found {}, expected {}", found, wanted));
  }

 private:
  enum class At { begin, root, map_value, map, shard, shards, metadata_value, metadata, total_size, ignored, end };

  void start_root_entry(const std::string& name) {
    if (name == "weight_map") {
      if (std::exchange(map_seen_, true)) refuse("weight_map appears twice");
      at_ = At::map_value;
    } else if (name == "metadata") {
      if (std::exchange(metadata_seen_, true)) refuse("metadata appears twice");
      at_ = At::metadata_value;
    } else {
      ignore_for(At::root);
    }
  }
  void start_metadata_entry(const std::string& name) {
    if (name != "total_size") return ignore_for(At::metadata);
    if (index_.total_size) refuse("metadata: total_size appears twice");
    at_ = At::total_size;
  }
  void start_map_entry(std::string& name) {
    if (name.size() > kNameLimit || !is_clean_utf8(name))
      refuse(fmt::format("weight_map: tensor '{}': the name is not UTF-8 without NUL of at most {} bytes",
                         printable(name), kNameLimit));
    if (index_.shard_of.contains(name)) refuse(fmt::format("weight_map: tensor '{}' appears twice", printable(name)));
    tensor_ = std::move(name);
    at_ = At::shard;
  }
  /// One value of any kind is passed over; then `back`.
  void ignore_for(At back) {
    at_ = At::ignored;
    back_ = back;
  }
  bool enter_ignored() {
    if (++skipped_depth_ > kJsonDepth) refuse(fmt::format("the JSON nests deeper than {} levels", kJsonDepth));
    return true;
  }
  bool leave_ignored() {
    if (--skipped_depth_ == 0) at_ = back_;
    return true;
  }
  bool scalar(const std::string& found) {
    if (skipped_depth_ > 0) return true;
    if (at_ != At::ignored) return unexpected(found);
    at_ = back_;
    return true;
  }
  bool number(double value) {
    if (skipped_depth_ > 0 || at_ != At::total_size) return scalar("a number");
    index_.total_size = value;
    at_ = At::metadata;
    return true;
  }

  ShardIndex& index_;
  At at_ = At::begin, back_ = At::root;
  std::size_t skipped_depth_ = 0;
  std::string tensor_;
  bool map_seen_ = false, metadata_seen_ = false;
};

}  // namespace

bool is_plain_file_name(std::string_view name) noexcept {
  return !name.empty() && name.size() <= 255 && name != "." && name != ".." && name.find_first_of("/\\") == name.npos &&
         is_clean_utf8(name);
}

bool is_inner_path(std::string_view path) noexcept {
  constexpr std::size_t kLongest = 4096;
  if (path.size() > kLongest) return false;
  for (std::size_t begin = 0; begin <= path.size();) {
    const std::size_t end = std::min(path.find('/', begin), path.size());
    if (!is_plain_file_name(path.substr(begin, end - begin))) return false;
    begin = end + 1;
  }
  return true;
}

ShardIndex parse_shard_index(std::string_view text, const std::string& source) {
  ShardIndex index;
  IndexEvents events(index, source);
  parse_json(text, events);
  if (!events.has_map())
    fail(Errc::malformed,
         fmt::format("{}: weight_map is missing: no index of shards; name the checkpoint or its folder", source));
  if (index.shard_of.empty()) fail(Errc::malformed, fmt::format("{}: weight_map names no tensor", source));
  return index;
}

}  // namespace lmq
