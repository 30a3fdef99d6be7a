#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "lmq/base/importance.hpp"
#include "lmq/base/tensor.hpp"
#include "lmq/base/tensor_note.hpp"
#include "lmq/plan/recipe.hpp"
#include "lmq/quant/unit.hpp"

namespace lmq {

/// Weights per unit aimed at; part of the format's sameness, never of the machine.
inline constexpr std::uint64_t kUnitWeights = std::uint64_t{1} << 22;
/// Weights of a lane of a method that sees layers, at most: a lane is never cut, so it is one unit at least.
inline constexpr std::uint64_t kLongestLane = std::uint64_t{1} << 29;
/// Longest row of granularity row and group: a row is never cut, so it is one unit at least.
inline constexpr std::uint64_t kLongestRow = std::uint64_t{1} << 28;
/// Bytes per unit of a kept tensor, at most.
inline constexpr std::uint64_t kKeepUnitBytes = std::uint64_t{16} << 20;

enum class Treatment : std::uint8_t {
  quantize = 0,
  keep = 1,  ///< stored raw in its own type
  fold = 2,  ///< a block scale that is folded into the values of another tensor: not stored
};

struct TensorPlan {
  std::uint32_t tensor = 0;  ///< index into the catalogue's tensors (plan.tensors has the same order)
  Treatment treatment = Treatment::keep;
  std::string reason;  ///< why it is kept or folded; empty when quantized
  QuantSpec spec;      ///< when quantized
  ImportanceInfo importance;
  std::uint64_t rows = 0, cols = 0;  ///< the matrix it is seen as; rows * cols == count()
  std::vector<std::uint64_t> chunk;  ///< HDF5 chunk dimensions of a quantized tensor; empty when kept
  std::uint64_t first_unit = 0;      ///< its units are first_unit .. first_unit + units - 1, in element order
  std::uint64_t units = 0;
  std::uint64_t lane_rows = 0;  ///< of a method that sees layers (units are multiples of it); else 0
  bool token_rows = false;      ///< rows are tokens, the most frequent first (RowWindow::vocabulary)
  std::int64_t scope = -1;      ///< scope it is measured with, -1: every unit is on its own
  std::int64_t rule = -1;  ///< index into the recipe's rules of the one that decided, -1: none matched or was asked
};

/// Elements [begin, begin + count) of one tensor: what a rank does at once, one record of the output. Quantized: one
/// chunk of the grid `chunk`, at most kUnitWeights weights unless one row or lane has more. Kept: at most kKeepUnitBytes, whole
/// bytes.
struct WorkUnit {
  std::uint32_t tensor = 0;  ///< index into Plan::tensors
  std::uint64_t begin = 0, count = 0;
  double seconds = 0;  ///< estimated, one core
};

/// What is measured before it is quantized: everything that shares one codebook and is larger than a unit; and, where a
/// budget decides how many bits it gets (spec.budgeted), any tensor: its codebooks may still be of rows or groups.
struct Scope {
  std::vector<std::uint32_t> tensors;  ///< indices into Plan::tensors
  std::uint64_t weights = 0;
  QuantSpec spec;
  double quantum = 1;   ///< of the importance of all its tensors
  double seconds = 0;   ///< to solve its codebook, estimated, one core
  bool layers = false;  ///< statistics are of spreads (SpreadHistogram), not of values (ValueHistogram)
  /// One codebook serves the whole scope; else units have their own and the statistics are for the budget alone.
  [[nodiscard]] bool shares_codebook() const noexcept { return spec.granularity <= Granularity::tensor; }
};

struct Plan {
  std::vector<TensorPlan> tensors;  ///< one per tensor of the catalogue, same order
  std::vector<WorkUnit> units;
  std::vector<Scope> scopes;
  std::uint64_t target_bytes = 0;  ///< of the whole file: options of budgeted scopes are chosen for it; 0: no such aim
  Allocation allocation = Allocation::slope;  ///< how they are chosen
  std::string digest;  ///< digest128_hex of catalogue (names, types, shapes, header digests), recipe and importance
};

/// Pure: the same plan on every rank, for any ranks and threads.
/// tensors           the catalogue's, ascending by name
/// catalogue_digest  text that stands for the contents of all inputs, the importance file too; part of the digest
/// importance        what the importance file has for a tensor seen with that row length (may throw); asked for
///                   quantized tensors only; empty: no importance
/// notes             tensors that cannot be quantized like others, ascending: kept, or refused when a rule would
///                   quantize them
/// Kept              means own type and bytes: when the tensor is block-scaled, its scale is kept too (as_stored)
/// Errors            Errc::unsupported and Errc::malformed as notes say. Errc::usage when a rule matches no tensor (but
///                   built-in ones, optional ones, and those that match all), or cannot apply: rows over kLongestRow,
///                   row_axes beyond the dimensions, one
///                   codebook for tensors with and without importance or of 16 and of 32 bits. Errc::unsupported for
///                   names that HDF5 cannot hold side by side ("a" and "a/b"), empty parts, ours ("lmq"), more than
///                   32 dimensions
/// Cost              about 3 microseconds per tensor, 32 bytes per unit
[[nodiscard]] Plan make_plan(const std::vector<TensorInfo>& tensors, const std::string& catalogue_digest,
                             const Recipe& recipe,
                             const std::function<ImportanceInfo(const TensorInfo&, std::uint64_t cols)>& importance,
                             const std::vector<TensorNote>& notes = {});

/// A line for each rule that matches tensors and decides none that would not be treated so anyway, because earlier
/// rules do or because they are kept: which, and why. Rules that match everything are not among them.
[[nodiscard]] std::vector<std::string> idle_rules(const std::vector<TensorInfo>& tensors, const Recipe& recipe,
                                                  const Plan& plan);

/// The tensor as it is to be read and stored: a kept one without its scale (the bytes of the file in their own type), a
/// quantized one as it is. Pass the result to Reader::view.
[[nodiscard]] TensorInfo as_stored(const TensorInfo& tensor, Treatment treatment);
/// What a method that sees layers knows of a unit of `count` weights before it is read.
[[nodiscard]] LayerShape layer_shape(const TensorPlan& tensor, std::uint64_t count) noexcept;
/// Quantum of the importance of a unit: that of its scope, else of its own weights.
[[nodiscard]] double importance_quantum_of(const Plan& plan, const WorkUnit& unit) noexcept;

/// Bytes a rank holds at most, by purpose; their sum is what `plan` promises and `--memory` bounds.
struct MemoryEstimate {
  std::uint64_t program = 0;      ///< the process itself (libraries, MPI)
  std::uint64_t input = 0;        ///< views read ahead and in hand, importance
  std::uint64_t work = 0;         ///< codes, codebooks, scratch of solvers and statistics, of the unit that takes most
  std::uint64_t output = 0;       ///< its record while it is coded, beyond what work has left by then
  std::uint64_t coordinator = 0;  ///< rank 0 only: statistics of open scopes, results, layout
  [[nodiscard]] std::uint64_t total() const noexcept { return program + input + work + output + coordinator; }
};
/// Upper bound for the pipeline of lmq_run: one view in hand and one read ahead, as large as the largest, and the unit that
/// takes most; ranks other than 0 hold total() - coordinator, which grows with `ranks` by the scopes open at once. Constants:
/// lmq/plan/costs.hpp.
[[nodiscard]] MemoryEstimate estimate_memory(const std::vector<TensorInfo>& tensors, const Plan& plan,
                                             std::size_t threads, std::size_t ranks = 1);
/// Wall seconds with `ranks` ranks of `threads` threads each (>= 1), from the costs of lmq/plan/costs.hpp.
[[nodiscard]] double estimate_seconds(const Plan& plan, std::size_t ranks, std::size_t threads);

}  // namespace lmq
