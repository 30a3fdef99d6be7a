#pragma once
#include <cmath>
#include <limits>
#include <string>

#include "lmq/quant/quantizer.hpp"

namespace lmq {

/// Options that several methods of the family share. Those of lambda come first and second wherever they are.
inline constexpr double kUnset = std::numeric_limits<double>::quiet_NaN();
inline constexpr std::string_view kCountingWords[] = {"weights", "values"};
inline constexpr std::string_view kAssignWords[] = {"nearest", "cells"};
inline constexpr MethodOption kLambda{
    .name = "lambda",
    .help = "price of what is penalised, in units of the squared error; it decides how many levels are left",
    .low = 0,
    .high = 1e300,
    .fallback = kUnset,
    .sets_rate = true};
inline constexpr MethodOption kLambdaRelative{.name = "lambda-relative",
                                              .help = "lambda as a part of the one that leaves a single level",
                                              .low = 0,
                                              .high = 1,
                                              .fallback = kUnset,
                                              .sets_rate = true};
inline constexpr MethodOption kCounting{
    .name = "counting",
    .help =
        "what counts when cells are sought: all weights, or each distinct value once as published (default weights)",
    .words = kCountingWords};
inline constexpr MethodOption kAssign{
    .name = "assign",
    .help = "weights get the nearest level, or that of their cell as published, never better (default nearest)",
    .words = kAssignWords};

/// Errc::usage when both are given; levels are then at most as many as a codebook holds, unless said otherwise.
void settle_lambda(QuantizerOptions& options, bool levels_given);
/// "lambda 0.5" or "lambda-relative 0.5".
[[nodiscard]] std::string lambda_text(double lambda, double relative);

}  // namespace lmq
