#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <optional>
#include <string_view>

#include "inputs.hpp"
#include "lmq/base/error.hpp"
#include "lmq/base/math.hpp"
#include "lmq/base/text.hpp"
#include "lmq/io/placement.hpp"
#include "lmq/io/zip.hpp"
#include "one_file.hpp"
#include "pickle.hpp"
#include "safetensors_header.hpp"

namespace lmq {
namespace {

using Kind = PickleValue::Kind;
constexpr std::uint64_t kMaxPickle = std::uint64_t{256} << 20;
constexpr int kMaxNesting = 64;
constexpr std::size_t kMaxVisits = std::size_t{1} << 22;  // values met on the way through all dictionaries
constexpr std::string_view kPickle = "/data.pkl";
constexpr std::string_view kConvert =
    "torch.save(torch.load(FILE, map_location='cpu')['state_dict'], NEW) writes plain weights";

struct TypeName {
  std::string_view name;
  DType dtype;
};
constexpr TypeName kStorages[] = {{"DoubleStorage", DType::f64}, {"FloatStorage", DType::f32},
                                  {"HalfStorage", DType::f16},   {"BFloat16Storage", DType::bf16},
                                  {"LongStorage", DType::i64},   {"IntStorage", DType::i32},
                                  {"ShortStorage", DType::i16},  {"CharStorage", DType::i8},
                                  {"ByteStorage", DType::u8},    {"BoolStorage", DType::boolean}};
constexpr TypeName kDtypes[] = {{"float64", DType::f64},
                                {"float32", DType::f32},
                                {"float16", DType::f16},
                                {"bfloat16", DType::bf16},
                                {"int64", DType::i64},
                                {"int32", DType::i32},
                                {"int16", DType::i16},
                                {"int8", DType::i8},
                                {"uint8", DType::u8},
                                {"uint16", DType::u16},
                                {"uint32", DType::u32},
                                {"uint64", DType::u64},
                                {"bool", DType::boolean},
                                {"float8_e4m3fn", DType::f8_e4m3},
                                {"float8_e5m2", DType::f8_e5m2},
                                {"float8_e8m0fnu", DType::f8_e8m0},
                                {"float8_e4m3fnuz", DType::f8_e4m3fnuz},
                                {"float8_e5m2fnuz", DType::f8_e5m2fnuz}};

std::optional<DType> named_type(std::span<const TypeName> types, std::string_view name) {
  for (const TypeName& type : types)
    if (type.name == name) return type.dtype;
  return std::nullopt;
}

/// The part of a torch name behind "torch.", or nothing.
std::string_view torch_name(std::string_view global) {
  for (const std::string_view module : {"torch.storage.", "torch."})
    if (global.starts_with(module)) return global.substr(module.size());
  return {};
}

constexpr std::string_view kRebuild = "torch._utils._rebuild_tensor", kRebuild2 = "torch._utils._rebuild_tensor_v2",
                           kRebuild3 = "torch._utils._rebuild_tensor_v3",
                           kParameter = "torch._utils._rebuild_parameter",
                           kParameterState = "torch._utils._rebuild_parameter_with_state";

bool is_allowed(std::string_view global) {
  if (global == "collections.OrderedDict" || global == "torch.Size" || global == kRebuild || global == kRebuild2 ||
      global == kRebuild3 || global == kParameter || global == kParameterState)
    return true;
  const std::string_view name = torch_name(global);
  return !name.empty() &&
         (named_type(kStorages, name) || named_type(kDtypes, name) || name == "UntypedStorage" || name == "device");
}

/// One tensor as a pickle tells it.
struct Found {
  std::string name;
  TensorInfo info;
  Placement placement;  ///< plain when it is one row
};

/// Reads one archive into a catalogue.
class Archive {
 public:
  Archive(Catalogue& catalogue, TensorList& list, const std::filesystem::path& path)
      : catalogue_(catalogue),
        list_(list),
        file_(path, File::Mode::read),
        source_(printable(path.native())),
        entries_(read_zip(file_)) {
    for (const ZipEntry& entry : entries_)
      if (entry.name.ends_with(kPickle)) root_ = entry.name.substr(0, entry.name.size() - kPickle.size());
    for (const ZipEntry& entry : entries_) by_name_[entry.name] = &entry;
  }

  void read() {
    if (by_name_.contains(root_ + "/constants.pkl"))
      fail(Errc::unsupported,
           fmt::format("{}: a TorchScript archive: torch.save(torch.jit.load(FILE).state_dict(), NEW) "
                       "writes its weights",
                       source_));
    shard_ = add_shard(catalogue_, file_, zip_digest(entries_));
    if (const ZipEntry* order = member("byteorder")) {
      const auto word = read_member(file_, *order, 16);
      swapped_ = std::string_view(reinterpret_cast<const char*>(word.data()), word.size()) == "big";
    }
    const auto bytes = read_member(file_, *by_name_.at(root_ + std::string(kPickle)), kMaxPickle);
    try {
      pickle_ = read_pickle(bytes, source_ + ", data.pkl", is_allowed);
    } catch (const Error& error) {
      if (error.code != Errc::unsupported) throw;
      fail(error.code, fmt::format("{}; {}", error.what(), kConvert));
    }
    walk("", weights_of_training(), 0);
    if (skipped_ > 0)
      catalogue_.warnings.push_back(fmt::format("{}: {} values that are no tensors are not taken, such as '{}'",
                                                source_, skipped_, printable(example_)));
    if (tensors_ == 0)
      fail(Errc::unsupported, fmt::format("{}: the archive holds no tensors in dictionaries or lists", source_));
  }

 private:
  const PickleValue& at(std::uint32_t index) const { return pickle_.values[index]; }
  [[nodiscard]] const ZipEntry* member(const std::string& name) const {
    const auto found = by_name_.find(root_ + "/" + name);
    return found == by_name_.end() ? nullptr : found->second;
  }
  [[noreturn]] void refuse(const std::string& name, const std::string& what) const {
    fail(Errc::malformed, fmt::format("{}: tensor '{}': {}", source_, printable(name), what));
  }
  [[noreturn]] void unsupported(const std::string& name, const std::string& what) const {
    fail(Errc::unsupported, fmt::format("{}: tensor '{}': {}; {}", source_, printable(name), what, kConvert));
  }

  /// Of what a training keeps, the dictionary of the model; else all of it.
  std::uint32_t weights_of_training() {
    const PickleValue& root = at(pickle_.root);
    if (root.kind != Kind::dictionary) return pickle_.root;
    for (const std::string_view wanted : {"state_dict", "model_state_dict", "model", "module"})
      for (std::size_t i = 0; i + 1 < root.items.size(); i += 2)
        if (at(root.items[i]).text == wanted && at(root.items[i + 1]).kind == Kind::dictionary) {
          std::string others;
          for (std::size_t j = 0; j + 1 < root.items.size(); j += 2)
            if (j != i) others += fmt::format("{}{}", others.empty() ? "" : ", ", at(root.items[j]).text);
          if (!others.empty())
            catalogue_.warnings.push_back(
                fmt::format("{}: '{}' is taken; not taken: {}", source_, wanted, printable(others)));
          return root.items[i + 1];
        }
    return pickle_.root;
  }

  void walk(const std::string& name, std::uint32_t index, int depth) {
    if (depth > kMaxNesting || ++visits_ > kMaxVisits)
      fail(Errc::malformed, fmt::format("{}: data.pkl: nested more than {} deep, or endless", source_, kMaxNesting));
    const PickleValue& value = at(index);
    const auto below = [&](const std::string& key) { return name.empty() ? key : name + "." + key; };
    switch (value.kind) {
      case Kind::dictionary:
        for (std::size_t i = 0; i + 1 < value.items.size(); i += 2) {
          const PickleValue& key = at(value.items[i]);
          walk(below(key.kind == Kind::integer ? std::to_string(key.integer) : key.text), value.items[i + 1],
               depth + 1);
        }
        return;
      case Kind::list:
      case Kind::tuple:
        for (std::size_t i = 0; i < value.items.size(); ++i) walk(below(std::to_string(i)), value.items[i], depth + 1);
        return;
      case Kind::call:
        return add(name.empty() ? "tensor" : name, tensor_of(name, value));
      default:
        if (skipped_++ == 0) example_ = name;
    }
  }

  /// The call that rebuilds the tensor itself, out of those that wrap it.
  const PickleValue& tensor_of(const std::string& name, const PickleValue& call) const {
    const PickleValue* inner = &call;
    for (int depth = 0; depth < 4; ++depth) {
      const std::string& callee = at(inner->items[0]).text;
      const PickleValue& arguments = at(inner->items[1]);
      if (callee == kRebuild || callee == kRebuild2 || callee == kRebuild3) return *inner;
      if ((callee != kParameter && callee != kParameterState) || arguments.items.empty() ||
          at(arguments.items[0]).kind != Kind::call)
        break;
      inner = &at(arguments.items[0]);
    }
    unsupported(name, fmt::format("made by {}", printable(at(call.items[0]).text)));
  }

  std::uint64_t unsigned_of(const std::string& name, std::uint32_t index, const char* field) const {
    const PickleValue& value = at(index);
    if (value.kind != Kind::integer || value.integer < 0) refuse(name, fmt::format("{} is no number from 0 on", field));
    return static_cast<std::uint64_t>(value.integer);
  }
  std::vector<std::uint64_t> sizes_of(const std::string& name, std::uint32_t index, const char* field) const {
    const PickleValue& value = at(index);
    if (value.kind != Kind::tuple) refuse(name, fmt::format("{} is no tuple", field));
    if (value.items.size() > kRankLimit) unsupported(name, fmt::format("{} dimensions", value.items.size()));
    std::vector<std::uint64_t> sizes;
    for (const std::uint32_t item : value.items) sizes.push_back(unsigned_of(name, item, field));
    return sizes;
  }

  /// The member that a persistent id ('storage', class, key, device, count) names, and the type of its elements.
  struct Storage {
    const ZipEntry* entry = nullptr;
    std::optional<DType> dtype;
    std::uint64_t count = 0;
  };
  Storage storage_of(const std::string& name, std::uint32_t index) const {
    const PickleValue& reference = at(index);
    if (reference.kind != Kind::reference) refuse(name, "its storage is no persistent id");
    const PickleValue& id = at(reference.items[0]);
    if (id.kind != Kind::tuple || id.items.size() < 5 || at(id.items[0]).text != "storage" ||
        at(id.items[1]).kind != Kind::global || at(id.items[2]).kind != Kind::text)
      refuse(name, "its storage is not named by ('storage', class, key, device, count)");
    Storage storage;
    storage.dtype = named_type(kStorages, torch_name(at(id.items[1]).text));
    storage.entry = member("data/" + at(id.items[2]).text);
    storage.count = unsigned_of(name, id.items[4], "the count of its storage");
    if (storage.entry == nullptr)
      refuse(name, fmt::format("its storage '{}' is not there", printable(at(id.items[2]).text)));
    if (storage.entry->deflated) unsupported(name, "its storage is deflated");
    return storage;
  }

  Found found(const std::string& name, const PickleValue& call) const {
    const std::string& callee = at(call.items[0]).text;
    const std::vector<std::uint32_t>& arguments = at(call.items[1]).items;
    const bool third = callee == kRebuild3;
    if (arguments.size() < (third ? 7u : 4u)) refuse(name, fmt::format("{} arguments to rebuild it", arguments.size()));
    const Storage storage = storage_of(name, arguments[0]);
    Found out;
    out.name = name;
    const std::optional<DType> dtype = third ? named_type(kDtypes, torch_name(at(arguments[6]).text)) : storage.dtype;
    if (!dtype) unsupported(name, "a type that is not read");
    out.info.name = name;
    out.info.dtype = *dtype;
    out.info.shard = shard_;
    const std::uint64_t width = bits(*dtype) / 8, first = unsigned_of(name, arguments[1], "the offset in its storage");
    out.info.shape = sizes_of(name, arguments[2], "a size");
    out.placement.strides = sizes_of(name, arguments[3], "a stride");
    std::uint64_t bytes = 0, start = 0, count = 0;
    if (!checked_mul(storage.count, third && !storage.dtype ? 1 : width, bytes) || bytes != storage.entry->size)
      refuse(name,
             fmt::format("its storage has {} bytes, not those of {} elements", storage.entry->size, storage.count));
    if (!count_elements(out.info.shape, count) || !checked_mul(first, width, start) || start > storage.entry->size)
      refuse(name, "its place is not in its storage");
    out.info.offset = storage.entry->offset + start;
    place(out, storage.entry->size - start, count);
    return out;
  }

  /// A row where the strides are those of one; else strided, inside the `left` bytes.
  void place(Found& out, std::uint64_t left, std::uint64_t count) const {
    if (out.placement.strides.size() != out.info.shape.size()) refuse(out.name, "sizes and strides of other counts");
    const std::uint64_t width = bits(out.info.dtype) / 8;
    std::uint64_t expected = 1;
    bool row = true;
    for (std::size_t d = out.info.shape.size(); d-- > 0 && count > 0;) {
      row = row && (out.info.shape[d] == 1 || out.placement.strides[d] == expected);
      expected *= out.info.shape[d];
    }
    if (row) out.placement.strides = {};
    out.placement.swapped = swapped_ && width > 1;
    out.info.bytes = placed_bytes(out.info, out.placement);
    if (count == 0) out.info.bytes = 0, out.placement = {};
    if (out.info.bytes > left)
      refuse(out.name, fmt::format("{} bytes from its first element on, its storage has {}", out.info.bytes, left));
    // A view that repeats its elements could stand for any number of them.
    if (count > 0 && count / 1024 > out.info.bytes / width) unsupported(out.name, "a view that repeats its elements");
  }

  void add(const std::string& name, const PickleValue& call) {
    Found tensor = found(name, call);
    ++tensors_;
    if (tensor.info.bytes > 0) {
      const auto [same, fresh] =
          seen_.try_emplace(fmt::format("{} {} {} {}", tensor.info.offset, static_cast<int>(tensor.info.dtype),
                                        fmt::join(tensor.info.shape, ","), fmt::join(tensor.placement.strides, ",")),
                            name);
      if (!fresh) {
        if (shared_++ == 0)
          catalogue_.warnings.push_back(fmt::format("{}: '{}' is '{}' under another name: stored once", source_,
                                                    printable(name), printable(same->second)));
        catalogue_.metadata[name] = same->second;
        return;
      }
    }
    list_.add(std::move(tensor.info), std::move(tensor.placement));
  }

  Catalogue& catalogue_;
  TensorList& list_;
  File file_;
  std::string source_;
  std::vector<ZipEntry> entries_;
  std::string root_;
  std::map<std::string, const ZipEntry*> by_name_;
  Pickle pickle_;
  std::uint32_t shard_ = 0;
  bool swapped_ = false;
  std::map<std::string, std::string> seen_;  ///< place and view -> first name
  std::size_t tensors_ = 0, skipped_ = 0, shared_ = 0, visits_ = 0;
  std::string example_;
};

}  // namespace

bool is_torch(const File& file) {
  if (!is_zip(file)) return false;
  try {
    const auto entries = read_zip(file);
    return std::ranges::any_of(entries, [](const ZipEntry& entry) {
      return entry.name.ends_with(kPickle) && entry.name.find('/') == entry.name.size() - kPickle.size();
    });
  } catch (const Error&) {
    return false;  // it is said what is wrong where the archive is read
  }
}

Catalogue read_torch(const std::filesystem::path& path) {
  Catalogue catalogue = folder_catalogue(path, "PyTorch");
  TensorList list;
  for (const std::filesystem::path& part : numbered_set(path)) Archive(catalogue, list, part).read();
  list.give(catalogue, printable(path.native()));
  for (ShardInfo& shard : catalogue.shards) shard.metadata = catalogue.metadata;
  return catalogue;
}

}  // namespace lmq
