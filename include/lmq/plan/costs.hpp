#pragma once
#include <cstdint>
#include <string_view>

#include "lmq/quant/unit.hpp"

namespace lmq {

/// What the estimates of `lmq plan` are made of. Nanoseconds on one core; calibrated by measurement, never part of the
/// output: changing a number here changes no byte of a file. What a method takes is its own (MethodCost).
struct Costs {
  double histogram_narrow = 0.6;  ///< per weight: statistics of 8- and 16-bit sources
  double histogram_wide = 3;      ///< per weight: statistics of F32 and F64 sources, first look and read
  double refine = 0.6;            ///< per weight and power of two of the levels: looks of wide sources
  double quantize_shared = 2.4;   ///< per weight: assign by a shared codebook, measure the error, encode, write
  double many_levels = 2.0;       ///< per weight more beyond 16 levels
  double trellis = 90;            ///< per weight: encode the codes of a trellis, decode them again, read importance
  double encode = 1.5;            ///< per weight: encode codes with codebooks per row or group
  double rows_easier = 45;        ///< per weight less in long rows, whose neighbours help
  double rows_narrow = 0.45;      ///< part of it in long rows of 16-bit sources, which have equal values
  double copy = 0.5;              ///< per byte of a kept tensor
  double carry_bin = 700;         ///< per bin of a shared codebook of wide sources: refined, sent, kept
  double weigh = 5;               ///< per weight: read importance, count and measure with it; twice for layers
  double unit = 2.5e5;            ///< per unit: its tasks dealt, journalled, laid out, its coder's tables chosen
  double start = 6e7;             ///< once per run: catalogue, plan, layout, commit
};
inline constexpr Costs kCosts{};

/// Resident bytes of a process of ours before it touches a tensor, and what MPI adds as soon as there are several; what
/// rank 0 holds more once it has laid out a file: HDF5, the lock (Open MPI 4.1 and HDF5 1.10 on Debian 12, measured with
/// a model of one small tensor: 20.5 MiB alone; 25 and 32 MiB of two ranks; stories260k with a size 23.5 MiB, with 8
/// threads 24.0, of which .9 MiB are work).
inline constexpr std::uint64_t kProgramBytes = std::uint64_t{35} << 19, kMpiBytes = std::uint64_t{9} << 20,
                               kRankZeroBytes = std::uint64_t{5} << 20;
/// Bytes the coordinator keeps per unit: result, place in the file, layout entries.
inline constexpr std::uint64_t kResultBytes = 150;
/// Bytes the coordinator keeps per tensor beside its name: layout, report line, texts of the tables.
inline constexpr std::uint64_t kTensorBytes = 1200;
/// Bytes HDF5 holds per tensor while it lays out the file, and of all tensors at most: its cache of metadata.
inline constexpr std::uint64_t kLayoutBytes = 5120, kMaxLayoutBytes = std::uint64_t{40} << 20;
/// Times that the codebooks which the file lists are held while a run estimates its size, and once it lays the file out.
inline constexpr std::uint64_t kListsEstimated = 3, kListsLaidOut = 2;
/// Bytes a budget and the schedule keep per scope: what bits would buy, options (3,000 tensors of 64 x 32: 5.8 KB).
inline constexpr std::uint64_t kCurveBytes = 6144;
/// Coders, their tables and records of all that is tried on a part of rows or groups (stories260k by rows with a size:
/// 3.2 MiB more than without).
inline constexpr std::uint64_t kTrialBytes = std::uint64_t{7} << 19;
/// Scopes whose statistics the coordinator holds at the same time, per rank: two measurements under way, one fit.
inline constexpr std::uint64_t kOpenScopesPerRank = 3;
/// Bytes per weight that coding a record holds beside it; of a trellis with it.
inline constexpr std::uint64_t kRecordBytes = 2;
inline constexpr std::uint64_t kTrellisRecordBytes = 12;
/// Bytes of a bin in a histogram, in the solver's view of it, and in a message.
inline constexpr std::uint64_t kHistogramBinBytes = 64, kGroupBinBytes = 40, kMessageBinBytes = 45;

/// Seconds one core needs for `count` weights of a quantized tensor of rows of `cols`, all passes. weighted: with
/// importance.
[[nodiscard]] double quantize_seconds(DType value_type, const QuantSpec& spec, std::uint64_t count, std::uint64_t cols,
                                      bool weighted);
/// The same of a method that sees layers, from what it says of the window; factor: the curvature's factor is made, too.
[[nodiscard]] double layer_seconds(const LayerNeeds& needs, std::uint64_t count, bool factor, bool weighted) noexcept;
/// Seconds one core needs to solve one codebook that `count` weights share.
[[nodiscard]] double solve_seconds(DType value_type, const QuantSpec& spec, std::uint64_t count, bool weighted);
/// Scopes of fewer weights are looked at in so many bins (no more than a codebook has levels) for what bits would buy.
inline constexpr std::uint64_t kFewWeights = std::uint64_t{1} << 20, kFewBins = 256;
/// Weights of a scope of `count` that are quantized for what bits would buy, where rows or groups have codebooks: an
/// eighth, 2,048 to 16,384.
[[nodiscard]] std::uint64_t tried_weights(std::uint64_t count) noexcept;
/// Seconds one core needs to find what bits would buy in `count` weights in rows of `cols`; 0 unless a budget chooses the
/// options.
[[nodiscard]] double curve_seconds(DType value_type, const QuantSpec& spec, std::uint64_t count, std::uint64_t cols,
                                   bool weighted);
/// Seconds one core needs to store `bytes` raw.
[[nodiscard]] double copy_seconds(std::uint64_t bytes) noexcept;

}  // namespace lmq
