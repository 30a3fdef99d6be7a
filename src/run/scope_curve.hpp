#pragma once
#include "lmq/quant/group.hpp"
#include "lmq/quant/rate.hpp"
#include "lmq/quant/spread_histogram.hpp"
#include "lmq/quant/unit.hpp"
#include "lmq/run/executor.hpp"
#include "lmq/run/task.hpp"

namespace lmq {

/// How the codes of a scope will be stored.
[[nodiscard]] RateCount rate_count(const QuantSpec& spec) noexcept;
/// What bits would buy in a scope whose weights have these statistics: at 38 slopes, from where no bit pays to some nine
/// bits, a quarter of a bit apart; of methods without slopes by the number of levels (rate_curve). Scopes of fewer than
/// 2^20 weights, of which there may be many, are looked at in 256 bins at every other slope. What records hold beside
/// codes is counted. Where rows or groups have codebooks of their own
/// some of them are made with a part of these options; the others lie between.
[[nodiscard]] ScopeCurve curve_of(const Group& group, const RunContext& context, const Scope& scope);
/// The same of a scope of layers, at 120 slopes: spreads of a layer lie octaves apart.
[[nodiscard]] ScopeCurve curve_of(const SpreadHistogram& spreads, const Plan& plan, const Scope& scope);

}  // namespace lmq
