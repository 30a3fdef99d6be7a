#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace lmq {

/// Weights of a layer counted by what decides about their rate, before any work: their *spread* in steps of c = 1, that
/// is the root mean square of a weight times the pivots of both sides (A_ii B_jj of F = A A^T, S = B B^T; 1 where nothing
/// is known), in eighths of an octave. A weight of spread s with a step of c / (A_ii B_jj) takes about log2(s / c) bits.
/// Integers, so that sums do not depend on who counted what.
class SpreadHistogram {
 public:
  static constexpr int kLowest = -512, kBins = 1024;  ///< 2^-64 to 2^64; what lies outside counts at the ends
  static constexpr double kGainOne = 16, kMaxGain = 65536;

  /// `weights` weights of spread 2^(eighths / 8). gain: squared errors of others that reach the target of one of them,
  /// in squared errors of its own; counted in sixteenths.
  void add(int eighths, std::uint64_t weights, double gain = 0);
  void merge(const SpreadHistogram& other);

  [[nodiscard]] std::uint64_t weights() const noexcept;
  /// Of the weights times their pivots: the distortion where nothing is coded, per weight.
  [[nodiscard]] double mean_square() const noexcept;
  [[nodiscard]] bool empty() const noexcept { return count_.empty(); }
  struct Bin {
    double square = 0;          ///< of the spread
    std::uint64_t weights = 0;  ///< > 0
    double gain = 0;            ///< their mean
  };
  /// Bins that hold weights, ascending.
  [[nodiscard]] std::vector<Bin> bins() const;

  /// For messages between ranks: 20 bytes a bin that holds weights.
  [[nodiscard]] std::vector<std::byte> to_bytes() const;
  /// Errc::malformed names `source` when the bytes are no histogram (any byte string is handled).
  [[nodiscard]] static SpreadHistogram from_bytes(std::span<const std::byte> bytes, const std::string& source);
  friend bool operator==(const SpreadHistogram&, const SpreadHistogram&) = default;

 private:
  std::vector<std::uint64_t> count_, gain_;  // [kBins], or empty: nothing was counted
};

}  // namespace lmq
