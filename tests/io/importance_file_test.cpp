#include "lmq/io/importance_file.hpp"

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "make_safetensors.hpp"

using namespace lmq;
using namespace lmq::test;

namespace {
/// A checkpoint that exists in its catalogue alone.
Catalogue checkpoint_of(const std::vector<std::pair<std::string, std::vector<std::uint64_t>>>& weights) {
  Catalogue catalogue;
  for (const auto& [name, shape] : weights) {
    TensorInfo info;
    info.name = name;
    info.shape = shape;
    catalogue.tensors.push_back(info);
  }
  std::ranges::sort(catalogue.tensors, {}, &TensorInfo::name);
  return catalogue;
}

std::uint64_t count_of(const std::vector<std::uint64_t>& shape) {
  std::uint64_t count = 1;
  for (const std::uint64_t dim : shape) count *= dim;
  return count;
}

/// The importance of every weight of a tensor, read by windows of `window` weights and put together as it is meant.
std::vector<float> all_of(const ImportanceFile& file, const std::string& weight, std::uint64_t count,
                          std::uint64_t window) {
  const ImportanceEntry* entry = file.find(weight);
  REQUIRE(entry != nullptr);
  std::vector<float> values;
  ImportanceWindow read;
  for (std::uint64_t begin = 0; begin < count; begin += window) {
    const std::uint64_t length = std::min(window, count - begin);
    file.read(*entry, begin, length, read);
    const Importance& importance = read.importance;
    for (std::uint64_t i = 0; i < length; ++i) {
      if (importance.kind == ImportanceKind::weights) {
        values.push_back(importance.values[i]);
        continue;
      }
      const std::uint64_t at = importance.first_column + i, row = at / importance.length;
      const std::uint64_t block = importance.block_rows == 0 ? 0 : (importance.first_row + row) / importance.block_rows;
      const float factor = importance.rows.empty() ? 1.0F : importance.rows[row];
      values.push_back(factor * importance.values[block * importance.length + at % importance.length]);
    }
  }
  return values;
}

/// Equal for any window, on the rank that opened the file and on another.
void check_values(const ImportanceFile& file, const std::string& weight, const std::vector<float>& expected) {
  const ImportanceFile there = ImportanceFile::from_bytes(file.to_bytes());
  CHECK(there.digest() == file.digest());
  for (const std::uint64_t window :
       {std::uint64_t{1}, std::uint64_t{2}, std::uint64_t{5}, std::uint64_t{expected.size()}}) {
    CHECK(all_of(file, weight, expected.size(), window) == expected);
    CHECK(all_of(there, weight, expected.size(), window) == expected);
  }
  const ImportanceEntry& entry = *file.find(weight);
  double sum = 0;
  float largest = 0;
  for (const float value : expected) sum += double{value}, largest = std::max(largest, value);
  CHECK(entry.info.mean == Approx(sum / static_cast<double>(expected.size())).epsilon(1e-6));
  CHECK(entry.info.largest >= largest);
  CHECK(entry.info.largest <= 1.000001 * largest);
  CHECK(there.find(weight)->info.largest == entry.info.largest);
  CHECK(there.find(weight)->info.mean == entry.info.mean);
}
}  // namespace

TEST_CASE("importance by columns, rows, both, weights and Gram matrix is found by name and read in windows") {
  const TempFolder folder;
  const std::vector<float> each{1, 2, 3, 4, 5, 6};
  const auto path = make_safetensors(
      folder / "i.safetensors",
      {f32_tensor("a", {3}, {0, 2.5F, 1}), bf16_tensor("b", {2, 3}, each),
       TestTensor{"c.columns", DType::f64, {2}, bytes_of(std::vector<double>{0.1, 1e-3})},
       TestTensor{"d.rows", DType::f16, {2}, bytes_of(std::vector<std::uint16_t>{0x3C00, 0x4000})},
       f32_tensor("e.columns", {3}, {1, 2, 4}), f32_tensor("e.rows", {2}, {0.5F, 3}),
       f32_tensor("f.gram", {2, 2}, {7, -1, -1, 9}), f32_tensor("g.weights", {2, 2, 2}, {1, 2, 3, 4, 5, 6, 7, 8}),
       f32_tensor("h", {4}, {1, 2, 3, 4}), f32_tensor("i.exp_avg_sq", {1, 2}, {4, 9}),
       f32_tensor("nobody.columns", {1}, {9})});
  const Catalogue checkpoint = checkpoint_of({{"a", {2, 3}},
                                              {"b", {2, 3}},
                                              {"c", {2, 2}},
                                              {"d", {2, 3}},
                                              {"e", {2, 3}},
                                              {"f", {3, 2}},
                                              {"g", {2, 2, 2}},
                                              {"h", {2, 2, 2}},
                                              {"i", {1, 2}},
                                              {"none", {2, 3}}});
  const ImportanceFile file(path, checkpoint);
  check_values(file, "a", {0, 2.5F, 1, 0, 2.5F, 1});
  check_values(file, "b", each);
  check_values(file, "c", {0.1F, 1e-3F, 0.1F, 1e-3F});
  check_values(file, "d", {1, 1, 1, 2, 2, 2});
  check_values(file, "e", {0.5F, 1, 2, 3, 6, 12});
  check_values(file, "f", {7, 9, 7, 9, 7, 9});
  check_values(file, "g", {1, 2, 3, 4, 5, 6, 7, 8});
  check_values(file, "h", {1, 2, 3, 4, 1, 2, 3, 4});
  check_values(file, "i", {2, 3});  // Adam's second moment: its root
  CHECK(file.find("a")->info.kind == ImportanceKind::columns);
  CHECK(file.find("b")->info.kind == ImportanceKind::weights);
  CHECK(file.find("d")->info.kind == ImportanceKind::rows);
  CHECK(file.find("e")->info.kind == ImportanceKind::outer);
  CHECK(file.find("none") == nullptr);
  CHECK(file.unused() == std::vector<std::string>{"nobody.columns"});
  ImportanceWindow window;
  CHECK(error_of([&] { file.read(*file.find("b"), 5, 2, window); })->code == Errc::internal);
}

TEST_CASE("a stack of experts takes columns and rows of each expert or of all") {
  const TempFolder folder;
  const std::vector<std::pair<std::string, std::vector<std::uint64_t>>> weights{{"m.experts.down", {3, 2, 4}},
                                                                                {"conv", {3, 2, 4}}};
  std::vector<float> each(12), rows(6), all{1, 2, 3, 4};
  for (std::size_t i = 0; i < each.size(); ++i) each[i] = static_cast<float>(i + 1);
  for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<float>(10 * (i + 1));
  make_safetensors(folder / "i.safetensors",
                   {f32_tensor("conv.columns", {4}, all), f32_tensor("conv.rows", {3, 2}, rows),
                    f32_tensor("m.experts.down.columns", {3, 4}, each), f32_tensor("m.experts.down.rows", {6}, rows)});
  const ImportanceFile file(folder / "i.safetensors", checkpoint_of(weights));
  std::vector<float> stack, shared;
  for (std::size_t e = 0; e < 3; ++e)
    for (std::size_t r = 0; r < 2; ++r)
      for (std::size_t c = 0; c < 4; ++c) {
        stack.push_back(rows[e * 2 + r] * each[e * 4 + c]);
        shared.push_back(rows[e * 2 + r] * all[c]);
      }
  check_values(file, "m.experts.down", stack);
  check_values(file, "conv", shared);
  CHECK(file.find("m.experts.down")->info.block_rows == 2);
}

TEST_CASE("exponents: roots and products alone, for every kind the same when asked for") {
  CHECK(raised(9, 1u << 23) == 3);
  CHECK(raised(3, 1u << 24) == 3);
  CHECK(raised(3, 2u << 24) == 9);
  CHECK(raised(0, 1u << 23) == 0);
  for (const double power : {0.25, 0.3, 0.9999, 1.7})
    for (const double value : {1e-300, 1e-20, 0.3, 1.0, 12345.678, 1e30})
      CHECK(raised(value, static_cast<std::uint32_t>(std::lround(std::ldexp(power, 24)))) ==
            Approx(std::pow(value, power)).epsilon(1e-4));
  const TempFolder folder;
  make_safetensors(folder / "i.safetensors", {f32_tensor("a.columns", {2}, {4, 16}), f32_tensor("b.rows", {1}, {9}),
                                              f32_tensor("c.weights", {1, 2}, {25, 0}),
                                              f32_tensor("optimizer.state.d.exp_avg_sq", {1, 2}, {1, 4})});
  const Catalogue checkpoint = checkpoint_of({{"a", {1, 2}}, {"b", {1, 2}}, {"c", {1, 2}}, {"d", {1, 2}}});
  const ImportanceFile plain(folder / "i.safetensors", checkpoint);
  check_values(plain, "a", {4, 16});
  check_values(plain, "d", {1, 2});
  const ImportanceFile half(folder / "i.safetensors", checkpoint, {.power = 0.5});
  check_values(half, "a", {2, 4});
  check_values(half, "b", {3, 3});
  check_values(half, "c", {5, 0});
  check_values(half, "d", {1, 2});
  CHECK(half.digest() != plain.digest());
  check_values(ImportanceFile(folder / "i.safetensors", checkpoint, {.power = 1.0}), "d", {1, 4});
  make_safetensors(folder / "i.safetensors", {f32_tensor("a.columns", {2}, {4, 1e30F})});
  const auto error = error_of([&] { ImportanceFile(folder / "i.safetensors", checkpoint, {.power = 2.0}); });
  REQUIRE(error);
  CHECK_THAT(error->what(), Catch::Contains("'a.columns': importance 1 is 1e+30"));
}

TEST_CASE("second moments lie under many names; the rest of an optimizer's state is passed over") {
  const TempFolder folder;
  const Catalogue checkpoint =
      checkpoint_of({{"model.a.weight", {2}}, {"model.b.weight", {2}}, {"model.c.weight", {2}}});
  make_safetensors(
      folder / "i.safetensors",
      {f32_tensor("exp_avg_sq.model.c.weight", {2}, {1, 4}), f32_tensor("model.a.weight.exp_avg", {2}, {-1, 1}),
       f32_tensor("model.a.weight.exp_avg_sq", {2}, {4, 9}), byte_tensor("model.a.weight.step", DType::u8, {1}, {3}),
       f32_tensor("odd.exp_avg_sq", {1}, {1}), f32_tensor("state.module.model.b.weight.exp_avg_sq", {2}, {16, 25})});
  const ImportanceFile file(folder / "i.safetensors", checkpoint);
  check_values(file, "model.a.weight", {2, 3});
  check_values(file, "model.b.weight", {4, 5});
  check_values(file, "model.c.weight", {1, 2});
  CHECK(file.unused() == std::vector<std::string>{"odd.exp_avg_sq"});
}

TEST_CASE("importance that is negative, not finite or no float is refused with its place") {
  const TempFolder folder;
  const Catalogue checkpoint = checkpoint_of({{"a", {2}}, {"w", {300'001}}, {"x", {2, 3}}});
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN(), kInf = std::numeric_limits<float>::infinity();
  for (const float bad : {-1.0F, kNan, kInf, -kInf, -1e-40F}) {
    std::vector<float> values(300'001, 1.0F);  // longer than one piece
    values[300'000] = bad, values[270'000] = bad;
    make_safetensors(folder / "i.safetensors", {f32_tensor("a", {2}, {1, 2}), f32_tensor("w", {300'001}, values)});
    const auto error = error_of([&] { ImportanceFile(folder / "i.safetensors", checkpoint); });
    REQUIRE(error);
    CHECK(error->code == Errc::malformed);
    CHECK_THAT(error->what(), Catch::Contains("tensor 'w': importance 270000 is"));
  }
  const auto refused = [&](const std::vector<TestTensor>& tensors) {
    make_safetensors(folder / "i.safetensors", tensors);
    const auto error = error_of([&] { ImportanceFile(folder / "i.safetensors", checkpoint); });
    REQUIRE(error);
    return *error;
  };
  CHECK(refused({TestTensor{"a", DType::f64, {2}, bytes_of(std::vector<double>{1, 1e300})}}).code == Errc::malformed);
  CHECK(refused({byte_tensor("a", DType::u8, {2}, {1, 1})}).code == Errc::unsupported);
  CHECK_THAT(refused({f32_tensor("x.rows", {2}, {1, 1e30F}), f32_tensor("x.columns", {3}, {1e30F, 1, 1})}).what(),
             Catch::Contains("'x'") && Catch::Contains("no finite float"));
  CHECK(error_of([&] { ImportanceFile(folder / "none", checkpoint); })->code == Errc::missing);
  make_safetensors(folder / "i.safetensors", {f32_tensor("a", {2}, {-0.0F, 0.0F})});
  CHECK_NOTHROW(ImportanceFile(folder / "i.safetensors", checkpoint));
  write_file(folder / "i.txt", "words that are no importance");
  CHECK(error_of([&] { ImportanceFile(folder / "i.txt", checkpoint); })->code == Errc::unsupported);
}

TEST_CASE("wrong shapes and files that belong to nothing are refused by name, with what was found and expected") {
  const TempFolder folder;
  const std::vector<std::uint64_t> shape{3, 2};
  const Catalogue checkpoint = checkpoint_of({{"a", shape}, {"s", {2, 2, 3}}});
  const struct {
    const char* name;
    std::vector<std::uint64_t> shape;
    const char* words;
  } cases[] = {{"a", {3}, "tensor 'a': importance has shape [3], but 'a' has shape [3, 2]: expected [2]"},
               {"a.columns", {3}, "'a.columns'"},
               {"a.columns", {2, 3}, "'a.columns'"},
               {"a.rows", {2}, "'a.rows': importance has shape [2], but 'a' has shape [3, 2]: expected [3]"},
               {"a.weights", {6}, "'a.weights'"},
               {"a.gram", {2, 3}, "'a.gram'"},
               {"a.exp_avg_sq", {2, 3}, "'a.exp_avg_sq'"},
               {"s.columns", {2}, "[3] or [2, 3] (for each expert)"},
               {"b.columns",
                {2},
                "nothing in it belongs to the checkpoint: found 1 tensor such as 'b.columns', "
                "expected for example 'a'"}};
  for (const auto& one : cases) {
    make_safetensors(folder / "i.safetensors",
                     {f32_tensor(one.name, one.shape, std::vector<float>(count_of(one.shape), 1.0F))});
    const auto error = error_of([&] { ImportanceFile(folder / "i.safetensors", checkpoint); });
    INFO(one.name);
    REQUIRE(error);
    CHECK(error->code == Errc::malformed);
    CHECK_THAT(error->what(), Catch::Contains(one.words));
  }
}
