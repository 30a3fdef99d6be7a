#pragma once
#include <optional>
#include <string>

#include "lmq/base/error.hpp"
#include "lmq/quant/quantizer.hpp"

namespace lmq {

/// Options that several methods of the family share: a method's struct has the members of those it takes.
/// What counts when cells are sought.
enum class Counting : std::uint8_t { weights, values };
/// Which level a weight gets.
enum class Assign : std::uint8_t { nearest, cells };
inline constexpr std::string_view kCountingWords[] = {"weights", "values"};
inline constexpr std::string_view kAssignWords[] = {"nearest", "cells"};
template <class Options>
inline constexpr auto kLambda =
    number_option<&Options::lambda>(
        "lambda", "price of what is penalised, in units of the squared error; it decides how many levels are left", 0,
        1e300)
        .spending();
template <class Options>
inline constexpr auto kLambdaRelative =
    number_option<&Options::lambda_relative>("lambda-relative",
                                             "lambda as a part of the one that leaves a single level", 0, 1)
        .spending();
template <class Options>
inline constexpr auto kCounting = word_option<&Options::counting>(
    "counting", "what counts when cells are sought: all weights, or each distinct value once as published",
    kCountingWords);
template <class Options>
inline constexpr auto kAssign = word_option<&Options::assign>(
    "assign", "weights get the nearest level, or that of their cell as published, never better", kAssignWords);

/// Errc::usage when both are given; levels are then at most as many as a codebook holds, unless said otherwise.
template <class Options>
void complete_lambda(const Options& options, std::size_t& levels, bool levels_given) {
  if (options.lambda && options.lambda_relative)
    fail(Errc::usage, "lambda and lambda-relative say the same thing: give one of them");
  if ((options.lambda || options.lambda_relative) && !levels_given) levels = 256;
}
/// "lambda 0.5" or "lambda-relative 0.5", the one that is given.
[[nodiscard]] std::string lambda_text(std::optional<double> lambda, std::optional<double> relative);

}  // namespace lmq
