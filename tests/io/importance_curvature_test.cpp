// Curvature between weights in importance files: matrices of inputs, diagonal blocks of outputs.
#include <catch2/catch.hpp>
#include <limits>

#include "lmq/io/importance_file.hpp"
#include "make_safetensors.hpp"

using namespace lmq;
using namespace lmq::test;

namespace {
Catalogue checkpoint_of(const std::vector<std::pair<std::string, std::vector<std::uint64_t>>>& weights) {
  Catalogue catalogue;
  for (const auto& [name, shape] : weights) {
    TensorInfo info;
    info.name = name;
    info.shape = shape;
    catalogue.tensors.push_back(info);
  }
  return catalogue;
}

ImportanceFile open(const std::filesystem::path& path, const Catalogue& checkpoint, double damping = 0) {
  return ImportanceFile(path, checkpoint, {.damping = damping, .curvature = [](std::size_t) { return true; }});
}

/// count matrices [n, n], symmetric, with diagonals of their own.
std::vector<float> matrices(std::size_t count, std::size_t n) {
  std::vector<float> made;
  for (std::size_t m = 0; m < count; ++m)
    for (std::size_t i = 0; i < n; ++i)
      for (std::size_t j = 0; j < n; ++j)
        made.push_back(i == j ? static_cast<float>(10 * m + i + 5) : -0.25F * static_cast<float>(i + j + m));
  return made;
}
}  // namespace

TEST_CASE("curvature of both sides is read with the rows it belongs to; its diagonals serve as importance") {
  const TempFolder folder;
  const auto gram = matrices(1, 3), outer = matrices(3, 2);
  const auto path = make_safetensors(folder / "i.safetensors",
                                     {f32_tensor("w.gram", {3, 3}, gram), f32_tensor("w.outer", {3, 2, 2}, outer)});
  for (const ImportanceFile& file :
       {open(path, checkpoint_of({{"w", {5, 3}}}), 1),
        ImportanceFile::from_bytes(open(path, checkpoint_of({{"w", {5, 3}}})).to_bytes())}) {
    const ImportanceEntry& entry = *file.find("w");
    CHECK(entry.info.kind == ImportanceKind::outer);
    ImportanceWindow window;
    file.read(entry, 0, 15, window);
    CHECK(window.values == std::vector<float>{5, 6, 7});         // undamped, whatever the damping of the file
    CHECK(window.rows == std::vector<float>{5, 6, 15, 16, 25});  // the last block is of one row
    CHECK(entry.outer_mean == Approx((5 + 6 + 15 + 16 + 25) / 5.0));
    file.read_curvature(entry, 0, 15, window);
    CHECK(window.gram == gram);
    CHECK(window.outer == outer);
    CHECK(window.importance.outer_rows == 2);
    CHECK(window.importance.gram_key != 0);
    file.read_curvature(entry, 12, 3, window);
    CHECK(window.outer == std::vector<float>(outer.begin() + 8, outer.end()));
    file.read_curvature(entry, 6, 9, window);
    CHECK(window.outer == std::vector<float>(outer.begin() + 4, outer.end()));
    CHECK(error_of([&] { file.read_curvature(entry, 3, 6, window); })->code == Errc::internal);  // within a block
    CHECK(error_of([&] { file.read_curvature(entry, 1, 3, window); })->code == Errc::internal);  // no whole row
  }
}

TEST_CASE("who does not want curvature gets diagonals, damped as others are") {
  const TempFolder folder;
  const auto path = make_safetensors(folder / "i.safetensors", {f32_tensor("w.gram", {2, 2}, {1, 0.5F, 0.5F, 3}),
                                                                f32_tensor("w.outer", {1, 2, 2}, {2, 1, 1, 4})});
  const ImportanceFile file(path, checkpoint_of({{"w", {2, 2}}}), {.damping = 1});
  const ImportanceEntry& entry = *file.find("w");
  ImportanceWindow window;
  file.read(entry, 0, 4, window);
  CHECK(window.values == std::vector<float>{1.5F, 2.5F});
  CHECK(window.rows == std::vector<float>{2.5F, 3.5F});
  CHECK(entry.gram.tensor < 0);
  CHECK(entry.outer.tensor < 0);
  CHECK(file.unused().empty());
}

TEST_CASE("an exponent leaves diagonals alone to be used") {
  const TempFolder folder;
  const auto path = make_safetensors(folder / "i.safetensors", {f32_tensor("w.gram", {2, 2}, {4, 0.5F, 0.5F, 9})});
  const ImportanceFile file(path, checkpoint_of({{"w", {2, 2}}}),
                            {.power = 0.5, .curvature = [](std::size_t) { return true; }});
  CHECK(file.find("w")->gram.tensor < 0);
  ImportanceWindow window;
  file.read(*file.find("w"), 0, 4, window);
  CHECK(window.values == std::vector<float>{2, 3});
}

TEST_CASE("a stack of experts has matrices of each expert, or of all") {
  const TempFolder folder;
  const auto grams = matrices(2, 3), outers = matrices(4, 2);
  const auto path = make_safetensors(
      folder / "i.safetensors", {f32_tensor("a.gram", {2, 3, 3}, grams), f32_tensor("a.outer", {2, 2, 2, 2}, outers),
                                 f32_tensor("b.gram", {3, 3}, matrices(1, 3)), f32_tensor("c.columns", {3}, {1, 2, 3}),
                                 f32_tensor("c.gram", {2, 3, 3}, grams)});
  const ImportanceFile file = open(path, checkpoint_of({{"a", {2, 3, 3}}, {"b", {2, 3, 3}}, {"c", {2, 3, 3}}}));
  ImportanceWindow window;
  file.read_curvature(*file.find("a"), 9, 9, window);
  CHECK(window.gram == std::vector<float>(grams.begin() + 9, grams.end()));
  CHECK(window.outer == std::vector<float>(outers.begin() + 8, outers.end()));
  const std::uint64_t key = window.importance.gram_key;
  file.read_curvature(*file.find("a"), 0, 6, window);
  CHECK(window.gram == std::vector<float>(grams.begin(), grams.begin() + 9));
  CHECK(window.outer == std::vector<float>(outers.begin(), outers.begin() + 4));
  CHECK(window.importance.gram_key != key);
  file.read_curvature(*file.find("b"), 9, 9, window);
  CHECK(window.gram == matrices(1, 3));
  CHECK(window.importance.outer.empty());
  file.read_curvature(*file.find("c"), 9, 9, window);
  CHECK(window.gram == std::vector<float>(grams.begin() + 9, grams.end()));
  CHECK(error_of([&] { file.read_curvature(*file.find("a"), 6, 9, window); })->code == Errc::internal);  // two experts
}

TEST_CASE("layers may share a Gram matrix by name; it has one key") {
  const TempFolder folder;
  const auto path = make_safetensors(folder / "i.safetensors", {f32_tensor("k.gram", {2, 2}, {1, 0, 0, 2})},
                                     {{"q.gram_of", "k"}, {"note", "of people"}});
  const ImportanceFile file = open(path, checkpoint_of({{"k", {3, 2}}, {"q", {4, 2}}}));
  ImportanceWindow k, q;
  file.read_curvature(*file.find("k"), 0, 6, k);
  file.read_curvature(*file.find("q"), 0, 8, q);
  CHECK(k.gram == q.gram);
  CHECK(k.importance.gram_key == q.importance.gram_key);
  const auto lost =
      make_safetensors(folder / "lost.safetensors", {f32_tensor("k.gram", {2, 2}, {1, 0, 0, 2})}, {{"q.gram_of", "v"}});
  const auto error = error_of([&] { open(lost, checkpoint_of({{"k", {3, 2}}, {"q", {4, 2}}})); });
  REQUIRE(error);
  CHECK(error->code == Errc::malformed);
  CHECK_THAT(error->what(), Catch::Contains("q.gram_of") && Catch::Contains("v.gram"));
}

TEST_CASE("matrices that are none are refused with their place") {
  const TempFolder folder;
  const auto refuse = [&](const std::vector<float>& gram, const std::vector<float>& outer,
                          const std::vector<std::string>& words) {
    const auto path = make_safetensors(folder / "i.safetensors",
                                       {f32_tensor("w.gram", {2, 2}, gram), f32_tensor("w.outer", {2, 2, 2}, outer)});
    const auto error = error_of([&] {
      const ImportanceFile file = open(path, checkpoint_of({{"w", {3, 2}}}));
      ImportanceWindow window;
      file.read_curvature(*file.find("w"), 0, 6, window);
    });
    REQUIRE(error);
    CHECK(error->code == Errc::malformed);
    for (const std::string& word : words) CHECK_THAT(error->what(), Catch::Contains(word));
  };
  const std::vector<float> good{1, 0.5F, 0.5F, 1}, blocks{1, 0, 0, 1, 2, 0, 0, 0};
  const float nan = std::numeric_limits<float>::quiet_NaN();
  refuse({1, 0.5F, 0.4F, 1}, blocks, {"w.gram", "[1, 0]", "symmetric"});
  refuse({1, nan, 0.5F, 1}, blocks, {"w.gram", "importance 1 is", "nan"});
  refuse({1, 0.5F, 0.5F, -1}, blocks, {"w.gram", "importance 3 is -1"});
  refuse(good, {1, 0, 0, 1, 2, 0.1F, 0.2F, 1}, {"w.outer", "[1, 1, 0]", "symmetric"});
  refuse(good, {1, 0, 0, 1, -2, 0, 0, 1}, {"w.outer", "importance 4 is -2"});
  refuse({0, 0.5F, 0.4999999F, 1}, blocks, {"w.gram", "[1, 0]"});  // beside a diagonal of 0 to the last bit
}

TEST_CASE("matrices of other sizes are refused before anything is read") {
  const TempFolder folder;
  const auto refuse = [&](const TestTensor& tensor, const std::vector<std::uint64_t>& weight) {
    const auto path = make_safetensors(folder / "i.safetensors", {tensor});
    const auto error = error_of([&] { open(path, checkpoint_of({{"w", weight}})); });
    REQUIRE(error);
    CHECK(error->code == Errc::malformed);
    CHECK_THAT(error->what(), Catch::Contains("'w'"));
  };
  refuse(f32_tensor("w.gram", {3, 3}, matrices(1, 3)), {3, 2});
  refuse(f32_tensor("w.gram", {2, 3}, {1, 2, 3, 4, 5, 6}), {3, 2});
  refuse(f32_tensor("w.gram", {2, 2, 2}, matrices(2, 2)), {3, 2});
  refuse(f32_tensor("w.outer", {2, 2}, matrices(1, 2)), {3, 2});
  refuse(f32_tensor("w.outer", {1, 2, 2}, matrices(1, 2)), {3, 2});
  refuse(f32_tensor("w.outer", {3, 2, 2}, matrices(3, 2)), {3, 2});
  refuse(f32_tensor("w.outer", {2, 2, 1}, {1, 2, 3, 4}), {3, 2});
  refuse(f32_tensor("w.outer", {1, 2, 2}, matrices(1, 2)), {2});
}
