// Methods that see layers.
#include <string>

#include <algorithm>

#include "lmq/kernels/trellis.hpp"
#include "make_quantizer.hpp"

namespace lmq {
namespace {
/// Records hold no steps whose products with the largest code are no floats (docs/format.md): what takes larger ones,
/// weights beyond 2^123 or so, has to be stored otherwise. What the user can do about it is said.
void check_steps(const TrellisUnit& unit) {
  const auto largest = [](const auto& steps) { return steps.empty() ? 0 : int{*std::ranges::max_element(steps)}; };
  const double row = octave_eighths(largest(unit.row_step)), col = octave_eighths(largest(unit.col_step));
  if (double{unit.step} * row * col * (4.0 * kMaxTrellisCode) <= 0x1p127 && double{unit.step} * row <= 0x1p127) return;
  fail(Errc::usage,
       "its weights are too large for codes of a trellis (about 1e37 at most): take another method for it (--tensor "
       "'NAME=kmeans'), or keep it (--tensor 'NAME=keep')");
}

void check_window(const RowWindow& window) {
  const auto refuse = [](const char* what) { fail(Errc::internal, std::string("a window of a layer: ") + what); };
  const TensorView& view = window.view;
  if (!is_float(view.dtype)) refuse("the type cannot be quantized");
  if (view.bytes.size() != view.count * (bits(view.dtype) / 8)) refuse("the view's bytes and count differ");
  if (window.cols == 0 || view.count % window.cols != 0) refuse("it is not whole rows");
  if (window.lane_rows == 0 || window.workspace == nullptr) refuse("no lanes or no workspace");
  if (view.count / window.cols > kMaxTrellisLanes * window.lane_rows) refuse("more lanes than a record has");
  const Importance& importance = window.importance;
  const bool curved = !importance.gram.empty() || !importance.outer.empty();
  if (!covers(importance, view.count) || (curved && importance.length != window.cols))
    refuse("the importance does not cover it");
}
}  // namespace

LayerOutcome quantize_layer_unit(const RowWindow& window, const QuantSpec& spec) {
  check_window(window);
  LayerOutcome outcome;
  outcome.unit.method = spec.method;
  outcome.unit.source = window.view.dtype;
  outcome.stats = make_quantizer(spec)->quantize_layer(window, outcome.unit);
  if (outcome.unit.cols != window.cols || outcome.unit.rows * window.cols != window.view.count)
    fail(Errc::internal, "a method gave a unit of another shape");
  check_steps(outcome.unit);
  return outcome;
}

SpreadHistogram layer_spreads(const RowWindow& window, const QuantSpec& spec) {
  check_window(window);
  return make_quantizer(spec)->spreads(window);
}

LayerNeeds layer_needs(const QuantSpec& spec, const LayerShape& shape) {
  return make_quantizer(spec)->layer_needs(shape);
}

}  // namespace lmq
