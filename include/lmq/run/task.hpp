#pragma once
#include <compare>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lmq/base/bytes.hpp"
#include "lmq/container/contents.hpp"
#include "lmq/quant/codebook.hpp"
#include "lmq/quant/group.hpp"
#include "lmq/quant/quantizer.hpp"
#include "lmq/quant/rate.hpp"
#include "lmq/quant/unit.hpp"

namespace lmq {

/// What a rank can be asked to do; tasks.inc says what each is, TaskType what is asked of it. A kind that
/// is neither may be a test's own.
enum class TaskKind : std::uint8_t {
#define LMQ_TASK(name, number) name = number,
#include "lmq/run/tasks.inc"
#undef LMQ_TASK
};

/// subject: index of a unit (measure, quantize, copy, compare, check), of a scope (solve, curve), a rank (sync).
/// round: of measure and solve: how often the scope has been looked at more closely, from version * 2^16 on; of
/// quantize: the version of the scope's options (0: the plan's; others: a budget's, one after the other).
struct TaskKey {
  TaskKind kind = TaskKind::measure;
  std::uint64_t subject = 0;
  std::uint32_t round = 0;
  auto operator<=>(const TaskKey&) const = default;
};

/// What rank 0 deals. The result is a function of key and body alone, never of who does it or when.
struct Task {
  TaskKey key;
  std::vector<std::byte> body;  ///< measure: key ranges; solve: SolveOrder; quantize: QuantizeOrder; copy, compare:
                                ///< CopyOrder; curve: histogram
  double seconds = 0;           ///< estimated; only for dealing
  std::uint64_t source = 0;     ///< solve, curve: Finished::source of the result
  [[nodiscard]] std::vector<std::byte> to_bytes() const;
  [[nodiscard]] static Task from_bytes(std::span<const std::byte> bytes);
};

/// Where a finished task's payload lies: in spool-RUN-RANK of the work directory.
struct SpoolPlace {
  std::uint32_t run = 0, rank = 0;
  std::uint64_t offset = 0, length = 0;
  std::uint64_t digest = 0;  ///< digest64 of the payload
};

/// A task that is done, as the journal keeps it and as rank 0 hears of it.
struct Finished {
  TaskKey key;
  SpoolPlace place;             ///< measure, curve: histogram; quantize: record; else length 0
  std::string identity;         ///< task_identity; copy: CopyOrder::origin
  std::string elements;         ///< identity of the elements read (that of their check); of solve, curve, copy: empty
  std::uint64_t source = 0;     ///< digest64 of the values it was made from; of several units: of their digests
  bool same_input = true;       ///< not written: the input's files are untouched since
  std::vector<std::byte> body;  ///< solve: Fit; quantize: UnitResult; copy, compare: CopyResult; curve: ScopeCurve
  [[nodiscard]] std::vector<std::byte> to_bytes() const;
  /// Errc::malformed with `source` for bytes that cannot be one.
  [[nodiscard]] static Finished from_bytes(std::span<const std::byte> bytes, const std::string& source);
};

/// Options of a method, their values each with its kind.
void write_options(ByteWriter& out, const QuantizerOptions& options);

/// What a scope is to be solved with.
struct SolveOrder {
  std::optional<QuantizerOptions> options;  ///< a budget's choice; none: the plan's
  SpoolPlace place;                         ///< where the histogram lies; length 0: here
  std::vector<std::byte> histogram;
  [[nodiscard]] std::vector<std::byte> to_bytes() const;
  [[nodiscard]] static SolveOrder from_bytes(std::span<const std::byte> bytes);
};

/// What a unit is to be quantized with.
struct QuantizeOrder {
  std::optional<QuantizerOptions> options;  ///< a budget's choice; none: the plan's
  std::optional<Codebook> codebook;         ///< shared by the scope; none: the unit's own
  [[nodiscard]] std::vector<std::byte> to_bytes() const;
  [[nodiscard]] static QuantizeOrder from_bytes(std::span<const std::byte> bytes);
};

/// What bits would buy in a scope: points by descending slope or ascending levels (rate_curve).
struct ScopeCurve {
  std::vector<RatePoint> points;
  double mean_square = 0;  ///< of the scope's weights, by importance
};
[[nodiscard]] std::vector<std::byte> curve_to_bytes(const ScopeCurve& curve);
[[nodiscard]] ScopeCurve curve_from_bytes(std::span<const std::byte> bytes, const std::string& source);

/// A unit's bytes to the output: its record from a spool, or, when it is kept, its bytes from the checkpoint.
struct CopyOrder {
  SpoolPlace from;            ///< copy: length 0: kept; compare: length and digest of the bytes at `address`
  std::uint64_t address = 0;  ///< in the output file
  std::string output;         ///< path of the file that is being written
  std::string origin;         ///< copy: which file that is, whatever its name (origin_of_part)
  [[nodiscard]] std::vector<std::byte> to_bytes() const;
  [[nodiscard]] static CopyOrder from_bytes(std::span<const std::byte> bytes);
};

struct CopyResult {
  bool intact = true;        ///< false: bytes are not those of the digest (copy: the spool's, and none were written)
  std::uint64_t digest = 0;  ///< of the bytes written
  std::uint64_t bytes = 0;
  [[nodiscard]] std::vector<std::byte> to_bytes() const;
  [[nodiscard]] static CopyResult from_bytes(std::span<const std::byte> bytes);
};

[[nodiscard]] std::vector<std::byte> codebook_to_bytes(const Codebook& codebook);
[[nodiscard]] Codebook codebook_from_bytes(std::span<const std::byte> bytes, const std::string& source);
[[nodiscard]] std::vector<std::byte> ranges_to_bytes(std::span<const KeyRange> ranges);
[[nodiscard]] std::vector<KeyRange> ranges_from_bytes(std::span<const std::byte> bytes, const std::string& source);
[[nodiscard]] std::vector<std::byte> fit_to_bytes(const Fit& fit);
[[nodiscard]] Fit fit_from_bytes(std::span<const std::byte> bytes, const std::string& source);

}  // namespace lmq
