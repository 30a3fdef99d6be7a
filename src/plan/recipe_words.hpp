#pragma once
#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "lmq/plan/recipe.hpp"

namespace lmq {

template <class T>
struct Word {
  std::string_view name;
  T value;
};
/// The words of the JSON text, in the order error messages list them.
inline constexpr std::array kGranularityWords{
    Word<Granularity>{"model", Granularity::model}, Word<Granularity>{"tensor", Granularity::tensor},
    Word<Granularity>{"row", Granularity::row}, Word<Granularity>{"group", Granularity::group}};
inline constexpr std::array kLevelTypeWords{Word<LevelType>{"f32", LevelType::f32},
                                            Word<LevelType>{"f16", LevelType::f16}};
#define LMQ_CODER(name, number, whole_bits, coder) Word<CoderChoice>{#name, CoderChoice::name},
inline constexpr std::array kCoderWords{
    Word<CoderChoice>{"cheapest", CoderChoice::cheapest},
#include "lmq/base/coders.inc"
};
#undef LMQ_CODER
inline constexpr std::array kNonfiniteWords{Word<Recipe::Nonfinite>{"refuse", Recipe::Nonfinite::refuse},
                                            Word<Recipe::Nonfinite>{"keep", Recipe::Nonfinite::keep}};
inline constexpr std::array kFp8Words{Word<Recipe::Fp8>{"refuse", Recipe::Fp8::refuse},
                                      Word<Recipe::Fp8>{"plain", Recipe::Fp8::plain}};

inline constexpr std::array kAllocationWords{
    Word<Allocation>{"slope", Allocation::slope}, Word<Allocation>{"lagrangian", Allocation::lagrangian},
    Word<Allocation>{"exact", Allocation::exact}, Word<Allocation>{"uniform", Allocation::uniform},
    Word<Allocation>{"dropbits", Allocation::dropbits}};

inline constexpr std::size_t kMinLevels = 2, kMaxLevels = 256;
inline constexpr std::uint64_t kMaxBits = 8;
inline constexpr std::uint64_t kMinGroup = 8, kMaxGroup = 65536;
inline constexpr std::uint64_t kMaxRank = 32;  // of an HDF5 dataset

/// `"a", "b", "c"`, and ` (did you mean "b"?)` when `found` is close to one of them.
[[nodiscard]] std::string one_of(const std::vector<std::string_view>& allowed, std::string_view found);
[[nodiscard]] std::vector<std::string_view> method_names();
/// True when the pattern matches every name.
[[nodiscard]] bool matches_all(std::string_view pattern) noexcept;
/// Text from outside in quotes, on one line, shortened.
[[nodiscard]] std::string in_quotes(std::string_view text);

}  // namespace lmq
