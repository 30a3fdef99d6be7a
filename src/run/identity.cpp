#include "identity.hpp"

#include <string_view>

#include "lmq/base/bytes.hpp"
#include "lmq/base/digest.hpp"
#include "task_type.hpp"

namespace lmq {
namespace {

void put(ByteWriter& out, const QuantSpec& spec) {
  out.le(spec.method);
  write_options(out, spec.options);
  out.le(static_cast<std::uint8_t>(spec.granularity));
  out.le(spec.group);
  out.le(static_cast<std::uint8_t>(spec.level_type));
  out.le(static_cast<std::uint8_t>(spec.coder));
  out.le(static_cast<std::uint8_t>(spec.budgeted + 2 * spec.widths));
}

void put_tensor(ByteWriter& out, const RunContext& context, const TensorPlan& tensor) {
  const TensorInfo& info = context.reader.catalogue().tensors[tensor.tensor];
  out.text(info.name);
  out.le(static_cast<std::uint8_t>(info.dtype));
  out.le(std::uint8_t{info.scale >= 0});
  out.le(std::uint64_t{info.shape.size()});
  out.array(std::span<const std::uint64_t>(info.shape));
  for (const std::uint64_t value : {info.scale_block_rows, info.scale_block_cols, tensor.cols}) out.le(value);
  out.le(std::uint8_t{tensor.importance.present()});
  if (!tensor.importance.present()) return;
  out.le(static_cast<std::uint8_t>(tensor.importance.kind));
  for (const double value : {tensor.importance.largest, tensor.importance.mean}) out.le(value);
  for (const std::uint64_t value : {tensor.importance.length, tensor.importance.block_rows}) out.le(value);
  if (context.importance != nullptr) out.text(context.importance->digest());
  if (tensor.lane_rows == 0 && !tensor.importance.gram) return;
  for (const std::uint64_t value : {tensor.lane_rows, tensor.importance.outer_rows}) out.le(value);
  out.le(std::uint8_t{tensor.importance.gram});
}

void put_elements(ByteWriter& out, const RunContext& context, std::uint64_t unit) {
  const WorkUnit& work = context.plan.units.at(unit);
  put_tensor(out, context, context.plan.tensors[work.tensor]);
  out.le(work.begin);
  out.le(work.count);
}

/// What an identity begins with. Not inlined: GCC 12 sees a copy beyond the buffer there (array-bounds), which cannot be.
[[gnu::noinline]] void put_task(ByteWriter& out, std::string_view task) { out.text(task); }

void put_scope(ByteWriter& out, std::string_view task, const RunContext& context, std::uint64_t index) {
  put_task(out, task);
  const Scope& scope = context.plan.scopes.at(index);
  out.le(std::uint64_t{scope.tensors.size()});
  for (const std::uint32_t tensor : scope.tensors) put_tensor(out, context, context.plan.tensors[tensor]);
  out.le(scope.quantum);
  put(out, scope.spec);
}

}  // namespace

std::string solve_identity(const RunContext& context, std::uint64_t scope,
                           const std::optional<QuantizerOptions>& options, std::uint32_t round) {
  constexpr std::uint32_t kRoundOfVersion = 0xFFFF;  // TaskKey: the version stands above
  ByteWriter out;
  put_scope(out, "solve", context, scope);
  out.le(round & kRoundOfVersion);
  if (options) write_options(out, *options);
  return digest128_hex(out.bytes());
}

std::string curve_identity(const RunContext& context, std::uint64_t scope) {
  ByteWriter out;
  put_scope(out, "curve", context, scope);
  return digest128_hex(out.bytes());
}

std::string elements_identity(const RunContext& context, std::uint64_t unit) {
  ByteWriter out;
  put_task(out, "elements");
  put_elements(out, context, unit);
  return digest128_hex(out.bytes());
}

std::string unit_identity(const RunContext& context, const Task& task) {
  const WorkUnit& unit = context.plan.units.at(task.key.subject);
  ByteWriter out;
  put_task(out, type_of(task.key).name);
  put_elements(out, context, task.key.subject);
  out.le(importance_quantum_of(context.plan, unit));
  put(out, context.plan.tensors[unit.tensor].spec);
  out.raw(task.body);  // ranges to look at; options and codebook
  return digest128_hex(out.bytes());
}

std::string task_identity(const RunContext& context, const Task& task) {
  const auto identity = type_of(task.key).identity;
  return identity == nullptr ? std::string() : identity(context, task);
}

}  // namespace lmq
