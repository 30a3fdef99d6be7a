#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "lmq/quant/codebook.hpp"
#include "lmq/run/executor.hpp"

namespace lmq {

/// What quantizing a part of a tensor gave.
struct Trial {
  double weights = 0, records = 0;
  double bits = 0;  ///< of codes (their entropy; whole bits where the coder takes those), and of codebooks of rows and
                    ///< groups as they are stored: what grows with the weights
  double overhead =
      0;            ///< bytes that each record has once: header, coder tables and states, a codebook that serves it all
  double loss = 0;  ///< UnitStats::loss
  double squared_error = 0, energy = 0;
  std::size_t levels = 0;   ///< most of a codebook
  std::size_t numbers = 0;  ///< stored for the codebooks of a record, at most
};

/// Windows of a tensor of the plan, spread evenly over its units and held in memory to be quantized with several options:
/// whole rows, whole lanes, or any weights, as its method wants them. Gram matrices are left out.
class TrialWindows {
 public:
  /// most: weights wanted; the whole tensor where it has no more, and more where a row or lane has. Errors of readers.
  TrialWindows(const RunContext& context, const TensorPlan& tensor, std::uint64_t most);
  /// False where a weight is NaN or infinite: then there is no trial.
  [[nodiscard]] bool finite() const noexcept { return finite_; }
  /// All of the tensor is there.
  [[nodiscard]] bool whole() const noexcept { return whole_; }
  /// Quantizes and codes the windows. shared: the codebook of the tensor, or nullptr where windows have their own.
  [[nodiscard]] Trial run(const QuantSpec& spec, const Codebook* shared) const;

 private:
  struct Window {
    WorkUnit part;
    std::vector<std::byte> bytes;
    ImportanceWindow importance_window;
    Importance importance;
    TensorView view;
  };
  void load(const RunContext& context, const WorkUnit& part);
  const Plan& plan_;
  const TensorPlan& tensor_;
  std::vector<std::unique_ptr<Window>> windows_;  // views point into it
  bool finite_ = true, whole_ = true;
};

}  // namespace lmq
