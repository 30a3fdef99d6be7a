#include "unit_rows.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "assigner.hpp"
#include "core/grid_rounding.hpp"
#include "core/steps.hpp"
#include "core/unit_errors.hpp"
#include "lmq/base/math.hpp"
#include "lmq/base/parallel.hpp"
#include "lmq/base/pool.hpp"
#include "lmq/base/random.hpp"
#include "lmq/kernels/pack.hpp"
#include "lmq/kernels/widen.hpp"

namespace lmq {
namespace {
constexpr std::size_t kFitTask = std::size_t{1} << 14;    // weights whose codebooks are fitted in one task, about
constexpr std::size_t kLongGroup = std::size_t{1} << 16;  // whose scratch is not kept: 10 to 150 bytes a weight

/// Where the codebooks of a window lie: `groups` to a row.
struct Layout {
  std::uint64_t cols, group, groups, codebooks;
  explicit Layout(const QuantizedUnit& unit)
      : cols(unit.cols), group(unit.group), groups(ceil_div(cols, group)), codebooks(unit.count / cols * groups) {}
  [[nodiscard]] std::uint64_t begin(std::uint64_t book) const { return book / groups * cols + book % groups * group; }
  [[nodiscard]] std::uint64_t end(std::uint64_t book) const {
    return std::min(begin(book) + group, (book / groups + 1) * cols);
  }
  [[nodiscard]] std::uint64_t book_of(std::uint64_t weight) const {
    return weight / cols * groups + weight % cols / group;
  }
};

/// What a fit gave: how many levels, and their grid when they are one (step 0: a single level).
struct FittedBook {
  std::uint16_t count = 0;
  bool is_grid = false;
  float low = 0, step = 0;
};

/// What one worker keeps between windows.
struct RowScratch {
  Workspace fit;
  std::vector<float> values, importance;
  Assigner assigner;
  std::vector<float> decoded;  // of one task of error sums
};
Pool<RowScratch>& pool() {
  static Pool<RowScratch> scratch;
  return scratch;
}

/// Importance of the weights [begin, begin + count); empty when there is none. `room` holds what has to be made.
std::span<const float> group_importance(const Importance& importance, std::uint64_t begin, std::size_t count,
                                        std::vector<float>& room) {
  if (importance.kind == Importance::Kind::none) return {};
  if (importance.kind == Importance::Kind::weights)
    return importance.values.subspan(static_cast<std::size_t>(begin), count);
  room.resize(count);
  importance_at(importance, begin, room);
  return room;
}

void put_cuts(std::span<const float> from, std::span<float> to) {
  if (!to.empty()) to[0] = std::numeric_limits<float>::quiet_NaN();
  std::ranges::copy(from, to.begin());
}

/// Calls fit(b, values, importance, scratch) for every codebook b, in parallel.
template <class Fit>
void each_codebook(const TensorView& view, const Importance& importance, const Layout& layout, const Fit& fit) {
  const std::uint64_t per_task = std::max<std::uint64_t>(1, kFitTask / layout.group);
  PerWorker<RowScratch> scratch(pool(), thread_count());
  parallel_for_worker(ceil_div(layout.codebooks, per_task), [&](std::size_t task, std::size_t worker) {
    RowScratch& mine = scratch[worker];
    const std::uint64_t end = std::min((task + 1) * per_task, layout.codebooks);
    for (std::uint64_t b = task * per_task; b < end; ++b) {
      const std::uint64_t begin = layout.begin(b);
      mine.values.resize(static_cast<std::size_t>(layout.end(b) - begin));
      widen(view.dtype, bytes_of(view, begin, mine.values.size()), mine.values);
      fit(b, mine.values, group_importance(importance, begin, mine.values.size(), mine.importance), mine.fit);
    }
  });
  scratch.finish([&](RowScratch& mine) {
    if (layout.group >= kLongGroup) mine = RowScratch{};
  });
}

/// Where fits put what they give, for each codebook in turn.
struct BookRoom {
  std::size_t levels;     // of a codebook; short ones repeat their last
  std::span<float> book;  // [codebooks][levels]
  std::span<float> cuts;  // [codebooks][levels - 1]: of a codebook of n levels n - 1, or NaN first when it has none;
                          // empty: the method has none
};

/// Fits every codebook.
std::vector<FittedBook> fit_books(const RowWindow& window, const Quantizer& quantizer, const Layout& layout,
                                  const BookRoom& room) {
  const std::size_t levels = room.levels;
  std::vector<FittedBook> fitted(static_cast<std::size_t>(layout.codebooks));
  each_codebook(
      window.view, quantizer.traits().importance ? window.importance : Importance{}, layout,
      [&](std::uint64_t b, std::span<const float> values, std::span<const float> weights, Workspace& scratch) {
        const Codebook codebook = quantizer.fit_values(values, weights, scratch);
        const auto from = codebook.levels();
        if (from.size() > levels) fail(Errc::internal, "a method gave more levels than were asked for");
        float* to = std::ranges::copy(from, room.book.data() + b * levels).out;
        std::fill(to, room.book.data() + (b + 1) * levels, from.back());
        if (!room.cuts.empty()) put_cuts(codebook.cuts(), room.cuts.subspan(b * (levels - 1), levels - 1));
        fitted[b] = {static_cast<std::uint16_t>(from.size()), codebook.step() > 0 || from.size() == 1, codebook.low(),
                     codebook.step()};
      });
  return fitted;
}

/// Numbers of every codebook of a method whose codebooks are all alike, to unit.book, as they are stored.
void fit_numbered(const RowWindow& window, const Quantizer& quantizer, const Layout& layout, QuantizedUnit& unit) {
  const ParametricCodebook& books = quantizer.traits().numbered;
  unit.kind = books.kind;
  unit.levels = static_cast<std::uint32_t>(books.levels);
  unit.book.resize(static_cast<std::size_t>(layout.codebooks) * books.numbers);
  each_codebook(
      window.view, window.importance, layout,
      [&](std::uint64_t b, std::span<const float> values, std::span<const float> weights, Workspace& scratch) {
        quantizer.fit_numbers(values, weights, scratch, std::span(unit.book).subspan(b * books.numbers, books.numbers));
      });
  round_levels(unit.book, unit.level_type);
  for (float& number : unit.book) number += 0.0f;  // -0 becomes +0
}

/// Turns what the fits gave into the unit's book: a grid or a table, as narrow as the largest codebook, rounded to what
/// can be stored (outwards when `cover`). `levels`: levels asked for, the width of unit.book before.
void store_books(std::span<const FittedBook> fitted, std::size_t levels, bool cover, QuantizedUnit& unit) {
  const bool all_grids = std::ranges::all_of(fitted, &FittedBook::is_grid);
  const bool any_step = std::ranges::any_of(fitted, [](const FittedBook& one) { return one.step > 0; });
  if (all_grids && any_step) {
    unit.kind = CodebookKind::grid;
    unit.levels = static_cast<std::uint32_t>(levels);  // of a constant group all are equal: its step is 0
    unit.book.resize(fitted.size() * 2);
    for (std::size_t b = 0; b < fitted.size(); ++b)
      unit.book[2 * b] = fitted[b].low, unit.book[2 * b + 1] = fitted[b].step;
  } else {
    unit.kind = CodebookKind::table;
    unit.levels = static_cast<std::uint32_t>(levels);
    narrow_tables(unit, std::ranges::max(fitted, {}, &FittedBook::count).count);
  }
  if (cover && unit.kind == CodebookKind::table)
    round_levels_covering(unit.book, unit.levels, unit.level_type);
  else if (unit.kind == CodebookKind::grid)
    round_grids(unit.book, unit.levels, unit.level_type);
  else
    round_levels(unit.book, unit.level_type);
  for (float& number : unit.book) number += 0.0f;  // -0 becomes +0
}

/// The levels of one codebook of the unit as they will be read.
std::span<const float> levels_of(const QuantizedUnit& unit, std::uint64_t book, std::array<float, 256>& room) {
  if (unit.kind == CodebookKind::table)
    return std::span(unit.book).subspan(static_cast<std::size_t>(book * unit.levels), unit.levels);
  const auto levels = std::span(room).first(unit.levels);
  grid_levels(unit.book[2 * book], unit.book[2 * book + 1], levels);
  return levels;
}

/// How a window's weights get their codes.
struct RowRounding {
  const TensorView& view;
  const Layout& layout;
  ParametricCodebook books;
  std::span<const FittedBook> fitted = {};
  std::span<const float> cuts = {};  // as fit_books gave them; empty: none
  std::size_t stride = 0;            // of the cuts
  Rounding rounding = Rounding::nearest;
  std::uint64_t key = 0, first = 0;  // of the draws
  [[nodiscard]] std::span<const float> cuts_of(std::uint64_t book) const {
    if (cuts.empty() || fitted[book].count < 2) return {};
    const auto mine = cuts.subspan(static_cast<std::size_t>(book) * stride, fitted[book].count - 1u);
    return std::isnan(mine[0]) ? std::span<const float>{} : mine;
  }
};

/// Codes of the weights [begin, begin + count) and their levels.
void assign_task(const RowRounding& how, std::uint64_t begin, std::size_t count, RowScratch& scratch,
                 QuantizedUnit& unit) {
  const TensorView& view = how.view;
  const Layout& layout = how.layout;
  scratch.decoded.resize(count);
  std::array<float, 256> room;
  for (std::uint64_t at = begin; at < begin + count;) {
    const std::uint64_t book = layout.book_of(at);
    const auto length = static_cast<std::size_t>(std::min(layout.end(book), begin + count) - at);
    const auto codes = std::span(unit.codes).subspan(static_cast<std::size_t>(at), length);
    const auto decoded = std::span(scratch.decoded).subspan(at - begin, length);
    if (how.books.numbers > 0) {
      const auto numbers = std::span(unit.book).subspan(book * how.books.numbers, how.books.numbers);
      const SignCode signs(how.books.kind, numbers, how.books.levels, how.books.rule);
      const auto order = std::span(signs.codes).first(signs.in_order ? 0 : signs.intervals);
      scratch.assigner.prepare({{}, std::span(signs.cuts).first(signs.intervals - 1), Rounding::cuts, 0, order},
                               view.dtype, length);
      scratch.assigner.assign(bytes_of(view, at, length), 0, codes);
      table_values(codes, std::span(signs.levels).first(signs.level_count), decoded);
    } else {
      const auto levels = levels_of(unit, book, room);
      scratch.assigner.prepare({levels, how.cuts_of(book), how.rounding, how.key}, view.dtype, length);
      scratch.assigner.assign(bytes_of(view, at, length), how.first + at, codes);
      table_values(codes, levels, decoded);
    }
    at += length;
  }
}

/// Codes of all weights and their errors.
UnitStats assign_rows(const RowRounding& how, const Importance& importance, QuantizedUnit& unit) {
  PerWorker<RowScratch> scratch(pool(), thread_count());
  std::vector<std::uint64_t> task_begin(thread_count());
  const TensorView& view = how.view;
  const UnitStats stats = sum_errors(
      view.count, importance,
      [&](std::uint64_t begin, std::size_t count, std::size_t worker) {
        task_begin[worker] = begin;
        assign_task(how, begin, count, scratch[worker], unit);
      },
      [&](std::uint64_t begin, std::size_t count, std::span<const float> scale, std::size_t worker) {
        const auto decoded = std::span<const float>(scratch[worker].decoded)
                                 .subspan(static_cast<std::size_t>(begin - task_begin[worker]), count);
        return error_of_values(view.dtype, bytes_of(view, begin, count), decoded, scale);
      });
  scratch.finish([](RowScratch&) {});
  return stats;
}
}  // namespace

UnitStats quantize_rows(const RowWindow& window, std::size_t levels, const Quantizer& quantizer, const Draws& draws,
                        QuantizedUnit& unit) {
  const Layout layout(unit);
  const Traits& traits = quantizer.traits();
  if (traits.numbered.numbers > 0) {
    fit_numbered(window, quantizer, layout, unit);
    return assign_rows({.view = window.view, .layout = layout, .books = traits.numbered}, window.importance, unit);
  }
  unit.book.resize(static_cast<std::size_t>(layout.codebooks) * levels);
  const bool with_cuts = traits.rounding == Rounding::cuts && levels > 1;
  std::vector<float> cuts(with_cuts ? static_cast<std::size_t>(layout.codebooks) * (levels - 1) : 0);
  const auto fitted = fit_books(window, quantizer, layout, {levels, unit.book, cuts});
  store_books(fitted, levels, traits.rounding == Rounding::stochastic, unit);
  const RowRounding how{window.view, layout,     traits.numbered, fitted,
                        cuts,        levels - 1, traits.rounding, draw_key(traits.seed, draws.tensor),
                        draws.first};
  return assign_rows(how, window.importance, unit);
}

std::uint64_t rows_scratch_bytes(const RowsWork& work, const MethodCost& cost) noexcept {
  // Fitted books (16 bytes each) and the book before it is stored, cuts; for each worker the values of a group with
  // their importance, the solver's columns, a map and the decoded values of a task.
  constexpr std::uint64_t kMap = std::uint64_t{1} << 17, kDecoded = 16 * kErrorBlock * sizeof(float);
  constexpr std::uint64_t kPatterns = 65536, kSorted = 32, kWeights = 24;
  const std::uint64_t group = std::max<std::uint64_t>(1, work.group), codebooks = ceil_div(work.count, group);
  const std::uint64_t by_level =
      std::min<std::uint64_t>(group, std::max<std::uint64_t>(512, 24 * work.levels)) * work.levels;
  const std::uint64_t each = cost.value_bytes + (work.weighted ? kWeights : 0);
  const std::uint64_t solver = work.narrow && !work.weighted && group > kPatterns
                                   ? group * std::min(each, kSorted) + kPatterns * each
                                   : group * each;
  const std::uint64_t fitting =
      std::min<std::uint64_t>(work.threads, ceil_div(codebooks, std::max<std::uint64_t>(1, kFitTask / group)));
  return (codebooks + 1) * (16 + 2 * work.levels * sizeof(float)) +
         fitting * (group * 2 * sizeof(float) + solver + by_level * cost.level_bytes) +
         work.threads * (kMap + std::min<std::uint64_t>(kDecoded, work.count * sizeof(float)));
}

}  // namespace lmq
