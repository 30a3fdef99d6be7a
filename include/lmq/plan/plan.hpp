#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "lmq/base/tensor.hpp"
#include "lmq/plan/recipe.hpp"
#include "lmq/quant/unit.hpp"

namespace lmq {

/// Weights per unit aimed at; part of the format's sameness, never of the machine.
inline constexpr std::uint64_t kUnitWeights = std::uint64_t{1} << 22;

enum class Treatment : std::uint8_t {
  quantize = 0,
  keep = 1,     ///< stored raw in its own type
  fold = 2,     ///< a block scale that is folded into the values of another tensor: not stored
};

/// What the plan knows of a tensor's importance.
struct ImportanceInfo {
  bool present = false;
  bool per_column = false;
  double largest = 0;
};

struct TensorPlan {
  std::uint32_t tensor = 0;             ///< index into the catalogue's tensors (plan.tensors has the same order)
  Treatment treatment = Treatment::keep;
  std::string reason;                   ///< why it is kept or folded; empty when quantized
  QuantSpec spec;                       ///< when quantized
  ImportanceInfo importance;
  std::uint64_t rows = 0, cols = 0;     ///< the matrix it is seen as; rows * cols == count()
  std::vector<std::uint64_t> chunk;     ///< HDF5 chunk dimensions of a quantized tensor; empty when kept
  std::uint64_t first_unit = 0;         ///< its units are first_unit .. first_unit + units - 1, in element order
  std::uint64_t units = 0;
  std::int64_t scope = -1;              ///< scope that solves its codebook, -1: every unit has its own codebooks
};

/// Elements [begin, begin + count) of one tensor: what a rank does at once, one record of the output.
struct WorkUnit {
  std::uint32_t tensor = 0;             ///< index into Plan::tensors
  std::uint64_t begin = 0, count = 0;
  double seconds = 0;                   ///< estimated, one core
};

/// Everything that shares one codebook and is larger than a unit.
struct Scope {
  std::vector<std::uint32_t> tensors;   ///< indices into Plan::tensors
  std::uint64_t weights = 0;
  QuantSpec spec;
  double quantum = 1;                   ///< of the importance of all its tensors
};

struct Plan {
  std::vector<TensorPlan> tensors;      ///< one per tensor of the catalogue, same order
  std::vector<WorkUnit> units;
  std::vector<Scope> scopes;
  std::string digest;                   ///< digest128_hex of catalogue (names, types, shapes, header digests), recipe and importance
};

/// Pure: the same plan on every rank. `importance` says what the importance file has for a tensor seen with that row
/// length (may throw). Errc::usage when a rule cannot apply (for example row granularity with rows over the limit);
/// Errc::unsupported for names that HDF5 cannot hold side by side ("a" and "a/b"), empty parts, or ours ("lmq").
/// `nonfinite` lists tensors (catalogue indices) to keep for their NaN or infinities (--nonfinite keep).
[[nodiscard]] Plan make_plan(const std::vector<TensorInfo>& tensors, const std::string& catalogue_digest, const Recipe& recipe,
                             const std::function<ImportanceInfo(const TensorInfo&, std::uint64_t cols)>& importance,
                             const std::vector<std::uint32_t>& nonfinite = {});

/// Bytes a rank holds at most, by purpose; their sum is what `plan` promises and `--memory` bounds.
struct MemoryEstimate {
  std::uint64_t program = 0;      ///< the process itself (libraries, MPI)
  std::uint64_t input = 0;        ///< views read ahead and in hand, importance
  std::uint64_t work = 0;         ///< codes, codebooks, scratch of solvers and statistics
  std::uint64_t output = 0;       ///< encoded records and copy buffers
  std::uint64_t coordinator = 0;  ///< rank 0 only: statistics of open scopes, results, layout
  [[nodiscard]] std::uint64_t total() const noexcept { return program + input + work + output + coordinator; }
};
[[nodiscard]] MemoryEstimate estimate_memory(const std::vector<TensorInfo>& tensors, const Plan& plan, std::size_t threads);
/// Wall seconds with `ranks` ranks of `threads` threads, from measured costs per weight.
[[nodiscard]] double estimate_seconds(const Plan& plan, std::size_t ranks, std::size_t threads);

}  // namespace lmq
