#include "format_grids.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "lmq/base/error.hpp"
#include "lmq/base/text.hpp"
#include "lmq/base/words.hpp"
#include "lmq/io/layer_kinds.hpp"
#include "lmq/quant/quantizer.hpp"

namespace lmq::app {
namespace {

constexpr std::string_view kMethod = "learned";  ///< least layer loss on such grids (docs/methods/learned-grids.md)
constexpr std::string_view kZeroPoint = "zero-point";  ///< the option of methods whose codes lie on uniform grids

/// What a method must keep to.
struct FormatGrid {
  std::size_t levels = 0;
  std::uint64_t group = 0;  ///< weights that share a scale; 0: a row
  std::string_view zero;    ///< word of kZeroPoint
};

struct BlockGrid {
  std::string_view word;
  FormatGrid grid;
};
constexpr std::array kBlocks{
    BlockGrid{"gguf:q4_0", {16, 32, "on"}},
    BlockGrid{"gguf:q4_1", {16, 32, "free"}},
    BlockGrid{"gguf:q8_0", {256, 32, "on"}},
    BlockGrid{"gguf:tq2_0", {3, 256, "on"}},
};
constexpr std::string_view kPacked[] = {"compressed-tensors:int", "gptq:int"};
constexpr std::string_view kWidths = "2348";
constexpr std::pair<std::string_view, std::uint64_t> kSizes[] = {
    {"channel", 0}, {"g32", 32}, {"g64", 64}, {"g128", 128}};

bool is_packed(std::string_view word) noexcept {
  return std::ranges::any_of(kPacked, [&](std::string_view begin) { return word.starts_with(begin); });
}

[[noreturn]] void refuse_word(const std::string& word) {
  std::string known;
  std::vector<std::string> all;
  for (const BlockGrid& block : kBlocks) known += fmt::format("{}, ", block.word), all.emplace_back(block.word);
  for (const std::string_view begin : kPacked)
    for (const char width : kWidths)
      for (const auto& [size, group] : kSizes) all.push_back(fmt::format("{}{}-{}", begin, width, size));
  const std::string near = nearest(word, std::vector<std::string_view>(all.begin(), all.end()));
  fail(
      Errc::usage,
      fmt::format("--for {}: expected {}compressed-tensors:intB-gN or gptq:intB-gN (B 2, 3, 4, 8; gN g32, g64, g128 or "
                  "channel){}",
                  printable(word), known, near.empty() ? "" : fmt::format(" (did you mean {}?)", near)));
}

/// "compressed-tensors:int4-g32"
FormatGrid grid_of(const std::string& word) {
  for (const BlockGrid& block : kBlocks)
    if (block.word == word) return block.grid;
  for (const std::string_view begin : kPacked) {
    if (!word.starts_with(begin) || word.size() < begin.size() + 3) continue;
    const char width = word[begin.size()];
    if (kWidths.find(width) == kWidths.npos || word[begin.size() + 1] != '-') continue;
    for (const auto& [name, group] : kSizes)
      if (word.substr(begin.size() + 2) == name) return {std::size_t{1} << (width - '0'), group, "on"};
  }
  refuse_word(word);
}

/// A pattern that matches the name alone.
std::string literal(const std::string& name) {
  std::string pattern;
  for (const char c : name) pattern += c == '*' || c == '?' || c == '[' ? fmt::format("[{}]", c) : std::string(1, c);
  return pattern;
}

}  // namespace

void take_format_grid(Rule& rule, const std::string& word) {
  const FormatGrid grid = grid_of(word);
  if (!rule.method) rule.method = kMethod;
  const auto& options = find_quantizer(*rule.method).options;
  if (std::ranges::find(options, kZeroPoint, &MethodOption::name) == options.end())
    fail(Errc::usage, fmt::format("--for {}: --method {} has no uniform grids (learned, gptq, cpq have)",
                                  printable(word), *rule.method));
  set_field(rule, "levels", fmt::format("{}", grid.levels));
  set_field(rule, "granularity", grid.group == 0 ? "row" : "group");
  if (grid.group != 0) set_field(rule, "group", fmt::format("{}", grid.group));
  set_field(rule, "level_type", "f16");
  set_field(rule, std::string(kZeroPoint), std::string(grid.zero));
}

Options with_plain_tensors(const Options& options, const Catalogue& checkpoint) {
  if (!is_packed(options.format)) return options;
  Options changed = options;
  const std::vector<LayerKind> kinds = layer_kinds(checkpoint, checkpoint.folder);
  for (std::size_t t = 0; t < kinds.size(); ++t) {
    if (kinds[t] == LayerKind::linear || checkpoint.tensors[t].shape.size() < 2) continue;
    Rule rule;
    rule.match = literal(checkpoint.tensors[t].name);
    rule.keep = true;
    changed.tensor_rules.push_back(std::move(rule));
  }
  return changed;
}

}  // namespace lmq::app
