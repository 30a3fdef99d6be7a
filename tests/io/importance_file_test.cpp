#include "lmq/io/importance_file.hpp"

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "make_safetensors.hpp"

using namespace lmq;
using namespace lmq::test;

namespace {
TensorInfo weight(std::string name, std::vector<std::uint64_t> shape) {
  TensorInfo info;
  info.name = std::move(name);
  info.shape = std::move(shape);
  return info;
}
}  // namespace

TEST_CASE("importance by column and by weight is found and read") {
  const TempFolder folder;
  const std::vector<float> each{1, 2, 3, 4, 5, 6};
  const auto path = make_safetensors(
      folder / "i.safetensors", {f32_tensor("a", {3}, {0, 2.5F, 1}), bf16_tensor("b", {2, 3}, each),
                                 TestTensor{"c", DType::f64, {2}, bytes_of(std::vector<double>{0.1, 1e-3})},
                                 TestTensor{"d", DType::f16, {2}, bytes_of(std::vector<std::uint16_t>{0x3C00, 0x4000})},
                                 f32_tensor("empty", {0}, {}), f32_tensor("nobody", {1}, {9})});
  const ImportanceFile here(path);
  const ImportanceFile there(Catalogue::from_bytes(here.catalogue().to_bytes()), here.largest());
  for (const ImportanceFile* file : {&here, &there}) {
    CHECK(file->largest() == std::vector<double>{2.5, 6, static_cast<double>(0.1F), 2, 0, 9});
    const auto a = file->find(weight("a", {2, 3}), 3);
    REQUIRE(a);
    CHECK(a->per_column);
    CHECK(a->largest == 2.5);
    std::vector<float> values{7, 7, 7, 7, 7};
    file->read(*a, 0, 3, values);
    CHECK(values == std::vector<float>{0, 2.5F, 1});
    const auto b = file->find(weight("b", {2, 3}), 3);
    REQUIRE(b);
    CHECK_FALSE(b->per_column);
    file->read(*b, 1, 4, values);
    CHECK(values == std::vector<float>{2, 3, 4, 5});
    file->read(*b, 6, 0, values);
    CHECK(values.empty());
    CHECK(error_of([&] { file->read(*b, 5, 2, values); })->code == Errc::internal);
    file->read(*file->find(weight("c", {2}), 2), 0, 2, values);
    CHECK(values == std::vector<float>{0.1F, 1e-3F});
    file->read(*file->find(weight("d", {4, 2}), 2), 0, 2, values);
    CHECK(values == std::vector<float>{1, 2});
    CHECK_FALSE(file->find(weight("e", {2, 3}), 3));
    const auto wrong = error_of([&] { (void)file->find(weight("a", {3, 2}), 2); });
    REQUIRE(wrong);
    CHECK(wrong->code == Errc::malformed);
    CHECK_THAT(wrong->what(),
               Catch::Contains("tensor 'a'") && Catch::Contains("[3], expected [2] (per column) or [3, 2]"));
    Catalogue checkpoint;
    checkpoint.tensors = {weight("a", {2, 3}), weight("b", {2, 3}), weight("c", {2}), weight("d", {2}),
                          weight("empty", {0})};
    CHECK(file->unused(checkpoint) == std::vector<std::string>{"nobody"});
  }
  CHECK(error_of([&] { ImportanceFile(here.catalogue(), {1.0}); })->code == Errc::internal);
}

TEST_CASE("importance that is negative, not finite or no float is refused with its place") {
  const TempFolder folder;
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN(), kInf = std::numeric_limits<float>::infinity();
  for (const float bad : {-1.0F, kNan, kInf, -kInf, -1e-40F}) {
    std::vector<float> values(300'001, 1.0F);  // longer than one piece
    values[300'000] = bad, values[270'000] = bad;
    make_safetensors(folder / "i.safetensors", {f32_tensor("a", {2}, {1, 2}), f32_tensor("w", {300'001}, values)});
    const auto error = error_of([&] { ImportanceFile(folder / "i.safetensors"); });
    REQUIRE(error);
    CHECK(error->code == Errc::malformed);
    CHECK_THAT(error->what(), Catch::Contains("tensor 'w': importance 270000 is"));
  }
  make_safetensors(folder / "i.safetensors", {TestTensor{"w", DType::f64, {1}, bytes_of(std::vector<double>{1e300})}});
  CHECK(error_of([&] { ImportanceFile(folder / "i.safetensors"); })->code == Errc::malformed);
  make_safetensors(folder / "i.safetensors", {byte_tensor("w", DType::u8, {1}, {1})});
  CHECK(error_of([&] { ImportanceFile(folder / "i.safetensors"); })->code == Errc::unsupported);
  CHECK(error_of([&] { ImportanceFile(folder / "none"); })->code == Errc::missing);
  make_safetensors(folder / "i.safetensors", {f32_tensor("w", {2}, {-0.0F, 0.0F})});
  CHECK_NOTHROW(ImportanceFile(folder / "i.safetensors"));
}
