#include "lmq/run/task.hpp"

#include <string_view>

#include "lmq/base/bytes.hpp"
#include "task_type.hpp"

namespace lmq {
namespace {

constexpr const char* kMessage = "message between ranks";

void put_key(ByteWriter& out, const TaskKey& key) {
  out.le(static_cast<std::uint8_t>(key.kind));
  out.le(key.subject);
  out.le(key.round);
}

TaskKey get_key(ByteReader& in) {
  TaskKey key;
  const auto kind = in.le<std::uint8_t>("task kind");
  if (find_task_type(TaskKind{kind}) == nullptr)
    in.refuse("task kind " + std::to_string(kind) + ", which there is none of");
  key.kind = TaskKind{kind};
  key.subject = in.le<std::uint64_t>("subject");
  key.round = in.le<std::uint32_t>("round");
  return key;
}

void put_place(ByteWriter& out, const SpoolPlace& place) {
  out.le(place.run);
  out.le(place.rank);
  out.le(place.offset);
  out.le(place.length);
  out.le(place.digest);
}

SpoolPlace get_place(ByteReader& in) {
  SpoolPlace place;
  place.run = in.le<std::uint32_t>("run");
  place.rank = in.le<std::uint32_t>("rank");
  place.offset = in.le<std::uint64_t>("offset");
  place.length = in.le<std::uint64_t>("length");
  place.digest = in.le<std::uint64_t>("digest");
  return place;
}

void put_block(ByteWriter& out, std::span<const std::byte> bytes) {
  out.le(static_cast<std::uint64_t>(bytes.size()));
  out.raw(bytes);
}

std::vector<std::byte> get_block(ByteReader& in, std::string_view field) {
  const auto length = in.le<std::uint64_t>(field);
  const auto bytes = in.raw(length, field);
  return {bytes.begin(), bytes.end()};
}

std::vector<float> get_floats(ByteReader& in, std::string_view field) {
  return in.array<float>(in.le<std::uint32_t>(field), field);
}

void put_floats(ByteWriter& out, std::span<const float> values) {
  out.le(static_cast<std::uint32_t>(values.size()));
  out.array(values);
}

void put_options(ByteWriter& out, const std::optional<QuantizerOptions>& options) {
  out.le(static_cast<std::uint8_t>(options.has_value()));
  if (options) write_options(out, *options);
}

OptionValue get_value(ByteReader& in) {
  switch (in.le<std::uint8_t>("kind of option")) {
    case 0:
      return {};
    case 1:
      return in.le<double>("option");
    case 2:
      return in.le<std::uint64_t>("option");
    case 3:
      return OptionWord{in.le<std::uint8_t>("option")};
    default:
      in.refuse("no kind of option");
  }
}

std::optional<QuantizerOptions> get_options(ByteReader& in) {
  if (in.le<std::uint8_t>("options") == 0) return std::nullopt;
  QuantizerOptions options;
  options.levels = static_cast<std::size_t>(in.le<std::uint64_t>("levels"));
  for (auto count = in.le<std::uint32_t>("options"); count > 0; --count) options.values.push_back(get_value(in));
  return options;
}

}  // namespace

void write_options(ByteWriter& out, const QuantizerOptions& options) {
  out.le(static_cast<std::uint64_t>(options.levels));
  out.le(static_cast<std::uint32_t>(options.values.size()));
  for (const OptionValue& value : options.values) {
    out.le(static_cast<std::uint8_t>(value.index()));
    if (const auto* number = std::get_if<double>(&value)) out.le(*number);
    if (const auto* whole = std::get_if<std::uint64_t>(&value)) out.le(*whole);
    if (const auto* word = std::get_if<OptionWord>(&value)) out.le(word->index);
  }
}

std::vector<std::byte> Task::to_bytes() const {
  ByteWriter out;
  put_key(out, key);
  out.le(seconds);
  out.le(source);
  put_block(out, body);
  return out.take();
}

Task Task::from_bytes(std::span<const std::byte> bytes) {
  ByteReader in(bytes, kMessage);
  Task task;
  task.key = get_key(in);
  task.seconds = in.le<double>("seconds");
  task.source = in.le<std::uint64_t>("source");
  task.body = get_block(in, "body");
  return task;
}

std::vector<std::byte> Finished::to_bytes() const {
  ByteWriter out;
  put_key(out, key);
  put_place(out, place);
  out.text(identity);
  out.text(elements);
  out.le(source);
  put_block(out, body);
  return out.take();
}

Finished Finished::from_bytes(std::span<const std::byte> bytes, const std::string& source) {
  ByteReader in(bytes, source);
  Finished finished;
  finished.key = get_key(in);
  finished.place = get_place(in);
  finished.identity = in.text("identity");
  finished.elements = in.text("elements");
  finished.source = in.le<std::uint64_t>("source");
  finished.body = get_block(in, "body");
  return finished;
}

std::vector<std::byte> SolveOrder::to_bytes() const {
  ByteWriter out;
  put_options(out, options);
  put_place(out, place);
  put_block(out, histogram);
  return out.take();
}

SolveOrder SolveOrder::from_bytes(std::span<const std::byte> bytes) {
  ByteReader in(bytes, kMessage);
  SolveOrder order;
  order.options = get_options(in);
  order.place = get_place(in);
  order.histogram = get_block(in, "histogram");
  return order;
}

std::vector<std::byte> QuantizeOrder::to_bytes() const {
  ByteWriter out;
  put_options(out, options);
  put_block(out, codebook ? codebook_to_bytes(*codebook) : std::vector<std::byte>());
  return out.take();
}

QuantizeOrder QuantizeOrder::from_bytes(std::span<const std::byte> bytes) {
  ByteReader in(bytes, kMessage);
  QuantizeOrder order;
  order.options = get_options(in);
  if (const auto codebook = get_block(in, "codebook"); !codebook.empty())
    order.codebook = codebook_from_bytes(codebook, kMessage);
  return order;
}

std::vector<std::byte> curve_to_bytes(const ScopeCurve& curve) {
  ByteWriter out;
  out.le(curve.mean_square);
  out.le(static_cast<std::uint32_t>(curve.points.size()));
  for (const RatePoint& point : curve.points) {
    for (const double value : {point.lambda, point.bits, point.distortion}) out.le(value);
    out.le(static_cast<std::uint32_t>(point.levels));
  }
  return out.take();
}

ScopeCurve curve_from_bytes(std::span<const std::byte> bytes, const std::string& source) {
  ByteReader in(bytes, source);
  ScopeCurve curve;
  curve.mean_square = in.le<double>("mean square");
  const auto count = in.le<std::uint32_t>("points");
  if (count == 0 || count > 4096) in.refuse(std::to_string(count) + " points of a curve, expected 1 to 4096");
  for (std::uint32_t i = 0; i < count; ++i) {
    RatePoint point;
    for (double* value : {&point.lambda, &point.bits, &point.distortion}) *value = in.le<double>("point of a curve");
    point.levels = in.le<std::uint32_t>("levels");
    curve.points.push_back(point);
  }
  return curve;
}

std::vector<std::byte> CopyOrder::to_bytes() const {
  ByteWriter out;
  put_place(out, from);
  out.le(address);
  out.text(output);
  out.text(origin);
  return out.take();
}

CopyOrder CopyOrder::from_bytes(std::span<const std::byte> bytes) {
  ByteReader in(bytes, kMessage);
  CopyOrder order;
  order.from = get_place(in);
  order.address = in.le<std::uint64_t>("address");
  order.output = in.text("output");
  order.origin = in.text("origin");
  return order;
}

std::vector<std::byte> CopyResult::to_bytes() const {
  ByteWriter out;
  out.le(static_cast<std::uint8_t>(intact));
  out.le(digest);
  out.le(bytes);
  return out.take();
}

CopyResult CopyResult::from_bytes(std::span<const std::byte> bytes) {
  ByteReader in(bytes, kMessage);
  CopyResult result;
  result.intact = in.le<std::uint8_t>("intact") != 0;
  result.digest = in.le<std::uint64_t>("digest");
  result.bytes = in.le<std::uint64_t>("bytes");
  return result;
}

std::vector<std::byte> codebook_to_bytes(const Codebook& codebook) {
  ByteWriter out;
  out.le(static_cast<std::uint8_t>(codebook.kind()));
  out.le(codebook.step());
  put_floats(out, codebook.levels());
  put_floats(out, codebook.cuts());
  out.le(static_cast<std::uint32_t>(codebook.prices().size()));
  out.array(codebook.prices());
  put_floats(out, codebook.numbers());
  out.le(static_cast<std::uint8_t>(codebook.rule()));
  return out.take();
}

Codebook codebook_from_bytes(std::span<const std::byte> bytes, const std::string& source) {
  ByteReader in(bytes, source);
  const auto kind = in.le<std::uint8_t>("codebook kind");
  const auto step = in.le<float>("codebook step");
  std::vector<float> levels = get_floats(in, "codebook levels");
  std::vector<float> cuts = get_floats(in, "codebook cuts");
  std::vector<double> prices = in.array<double>(in.le<std::uint32_t>("codebook prices"), "codebook prices");
  std::vector<float> numbers = get_floats(in, "codebook numbers");
  const auto rule = static_cast<SignRule>(in.le<std::uint8_t>("codebook rule"));
  if (levels.empty() || levels.size() > 256) in.refuse(std::to_string(levels.size()) + " levels, expected 1 to 256");
  if (CodebookKind{kind} == CodebookKind::bases) return Codebook::bases(std::move(numbers), rule);
  if (CodebookKind{kind} == CodebookKind::centred && numbers.size() == 1)
    return Codebook::centred(numbers.front(), levels.size());
  const Codebook book = CodebookKind{kind} == CodebookKind::grid ? Codebook::grid(levels.front(), step, levels.size())
                                                                 : Codebook::table(std::move(levels));
  if (!prices.empty()) return book.with_prices(std::move(prices));
  return cuts.empty() ? book : book.with_cuts(std::move(cuts));
}

std::vector<std::byte> ranges_to_bytes(std::span<const KeyRange> ranges) {
  ByteWriter out;
  out.le(static_cast<std::uint32_t>(ranges.size()));
  for (const KeyRange& range : ranges) out.le(range.begin), out.le(range.end), out.le(range.span_bits);
  return out.take();
}

std::vector<KeyRange> ranges_from_bytes(std::span<const std::byte> bytes, const std::string& source) {
  if (bytes.empty()) return {};
  ByteReader in(bytes, source);
  const auto numbers = in.array<std::uint32_t>(std::uint64_t{3} * in.le<std::uint32_t>("ranges"), "ranges");
  std::vector<KeyRange> ranges;
  for (std::size_t i = 0; i < numbers.size(); i += 3) ranges.push_back({numbers[i], numbers[i + 1], numbers[i + 2]});
  return ranges;
}

std::vector<std::byte> fit_to_bytes(const Fit& fit) {
  ByteWriter out;
  const bool final_one = fit.refine.empty();
  out.le(static_cast<std::uint8_t>(final_one));
  out.raw(final_one ? codebook_to_bytes(fit.codebook) : ranges_to_bytes(fit.refine));
  return out.take();
}

Fit fit_from_bytes(std::span<const std::byte> bytes, const std::string& source) {
  ByteReader in(bytes, source);
  const bool final_one = in.le<std::uint8_t>("fit") != 0;
  const auto rest = in.raw(in.left(), "fit");
  Fit fit;
  if (final_one)
    fit.codebook = codebook_from_bytes(rest, source);
  else
    fit.refine = ranges_from_bytes(rest, source);
  if (!final_one && fit.refine.empty()) in.refuse("neither codebook nor ranges");
  return fit;
}

}  // namespace lmq
