// Codes of a quantized normal distribution through the record's coders, beside zstd on packed nibbles and memcpy.
// One core, CPU time, the best of several interleaved rounds: lmq_rans_bench [codes] [rounds]
#include <fmt/format.h>
#include <zstd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "bench_time.hpp"
#include "lmq/base/parallel.hpp"
#include "lmq/codec/model.hpp"
#include "lmq/codec/record.hpp"
#include "lmq/kernels/isa.hpp"
#include "lmq/kernels/pack.hpp"

namespace {

struct Case {
  std::string name;
  std::function<void()> body;
  std::size_t codes;
  double bits = 0;
  double best = 1e30;
};

/// Codes of normal values cut into `levels` equal steps over +-reach standard deviations.
std::vector<lmq::Code> normal_codes(std::size_t count, unsigned levels, double reach) {
  std::mt19937_64 random(levels);
  std::normal_distribution<double> normal;
  std::vector<lmq::Code> codes(count);
  for (lmq::Code& code : codes)
    code = static_cast<lmq::Code>(std::clamp((normal(random) / reach + 1) / 2 * levels, 0.0, levels - 1.0));
  return codes;
}

/// The coder alone: one block at a time in memory that is reused.
struct Coder {
  std::vector<lmq::Code> codes, back;
  lmq::RansEncodeTable encode_table;
  lmq::RansDecodeTable decode_table;
  std::vector<std::uint16_t> words;
  std::array<std::uint32_t, 64> states{};
  std::size_t begin = 0;
  double entropy = 0, stored = 0;  ///< bits; stored: a record's table, states and words

  explicit Coder(std::vector<lmq::Code> from) : codes(std::move(from)), back(codes.size()), words(codes.size() + 16) {
    lmq::CodeCounts counts{};
    lmq::count_codes(codes, counts);
    for (const std::uint64_t count : counts)
      if (count > 0) entropy -= double(count) * std::log2(double(count) / double(codes.size()));
    const lmq::RansModel model = lmq::choose_model(counts);
    lmq::make_rans_encode_table(model, encode_table);
    lmq::make_rans_decode_table(model, decode_table);
    encode();
    lmq::QuantizedUnit unit;
    unit.count = codes.size();
    unit.levels = 256;
    unit.book.resize(256);
    unit.codes = codes;
    const lmq::RecordLedger ledger = lmq::encode_record(unit, lmq::CoderChoice::rans).ledger;
    stored = 8.0 * double(ledger.tables + ledger.codes);
  }
  void encode() { states.fill(lmq::kRansLow), begin = lmq::rans_encode(encode_table, codes, states, words); }
  void decode() {
    lmq::RansCursor cursor{.state = states, .lanes = 64, .word = nullptr, .end = nullptr};
    cursor.word = std::as_bytes(std::span(words).subspan(begin)).data();
    cursor.end = cursor.word + 2 * (words.size() - begin);
    if (!lmq::rans_decode(decode_table, cursor, back) || !lmq::rans_finished(cursor)) std::abort();
  }
};

void run(std::vector<Case>& cases, int rounds) {
  for (int round = 0; round < rounds; ++round)
    for (Case& one : cases) {
      const double before = bench::cpu_seconds();
      double now = before;
      int calls = 0;
      do {
        one.body();
        ++calls;
        now = bench::cpu_seconds();
      } while (now - before < 0.02);
      one.best = std::min(one.best, (now - before) / calls);
    }
  for (const Case& one : cases)
    fmt::print("{:<44} {:8.0f} M codes/s{}\n", one.name, 1e-6 * double(one.codes) / one.best,
               one.bits > 0 ? fmt::format("  {:.4f} bits/code", one.bits / double(one.codes)) : "");
}

}  // namespace

// More than 40 lines: one measurement after the other, in the order of the table.
int main(int argc, char** argv) {
  const std::size_t count = argc > 1 ? std::stoull(argv[1]) : std::size_t{1} << 19;
  const int rounds = argc > 2 ? std::stoi(argv[2]) : 7;
  lmq::set_thread_count(1);
  fmt::print("{} codes, {}, one core\n", count, lmq::isa_name());
  std::vector<Case> cases;
  std::vector<Coder> coders;
  coders.reserve(8);
  const auto add = [&](const std::string& name, unsigned levels, double reach) {
    Coder& coder = coders.emplace_back(normal_codes(count, levels, reach));
    fmt::print("{:<24} entropy {:.4f} bits, coded {:.4f} (+{:.3f} %)\n", name, coder.entropy / double(count),
               coder.stored / double(count), 100 * (coder.stored / coder.entropy - 1));
    cases.push_back({name + ": encode", [&coder] { coder.encode(); }, count, coder.stored});
    cases.push_back({name + ": decode", [&coder] { coder.decode(); }, count, coder.stored});
  };
  add("16 levels, +-4 sigma", 16, 4);
  add("16 levels, +-2.5 sigma", 16, 2.5);
  add("4 levels", 4, 2);
  add("32 levels", 32, 4);
  add("64 levels", 64, 4);
  add("256 levels", 256, 4);

  lmq::QuantizedUnit unit;
  unit.count = count;
  unit.levels = 16;
  for (int k = 0; k < 16; ++k) unit.book.push_back(static_cast<float>(k));
  unit.codes = coders[0].codes;
  lmq::EncodedRecord record = lmq::encode_record(unit, lmq::CoderChoice::rans);
  lmq::EncodedRecord again;
  std::vector<float> values(count);
  cases.push_back({"record, 16 levels: encode", [&] { lmq::encode_record(unit, lmq::CoderChoice::cheapest, again); },
                   count, 8.0 * double(record.bytes.size())});
  cases.push_back(
      {"record, 16 levels: weights", [&] { lmq::decode_record_values(record.bytes, values, "bench"); }, count});
  const lmq::EncodedRecord words = lmq::encode_record(unit, lmq::CoderChoice::huffman);
  cases.push_back({"Huffman, 16 levels: encode", [&] { lmq::encode_record(unit, lmq::CoderChoice::huffman, again); },
                   count, 8.0 * double(words.bytes.size())});
  cases.push_back(
      {"Huffman, 16 levels: weights", [&] { lmq::decode_record_values(words.bytes, values, "bench"); }, count});
  std::vector<std::byte> nibbles(lmq::packed_bytes(count, 4)), nibbles_back(nibbles.size());
  lmq::pack_codes(unit.codes, 4, nibbles);
  cases.push_back(
      {"fixed width 4: pack", [&] { lmq::pack_codes(unit.codes, 4, nibbles); }, count, 4.0 * double(count)});
  std::vector<lmq::Code> unpacked(count);
  cases.push_back({"fixed width 4: unpack", [&] { lmq::unpack_codes(nibbles, 4, unpacked); }, count});
  lmq::CodeCounts counts{};
  cases.push_back({"counting codes", [&] { lmq::count_codes(unit.codes, counts); }, count});
  std::vector<std::byte> packed(ZSTD_compressBound(nibbles.size()));
  std::size_t size = ZSTD_compress(packed.data(), packed.size(), nibbles.data(), nibbles.size(), 1);
  cases.push_back({"zstd 1 on nibbles: encode",
                   [&] { size = ZSTD_compress(packed.data(), packed.size(), nibbles.data(), nibbles.size(), 1); },
                   count, 8.0 * double(size)});
  cases.push_back({"zstd 1 on nibbles: decode",
                   [&] {
                     if (ZSTD_isError(ZSTD_decompress(nibbles_back.data(), nibbles_back.size(), packed.data(), size)))
                       std::abort();
                   },
                   count});
  cases.push_back({"memcpy of the codes", [&] { std::memcpy(unpacked.data(), unit.codes.data(), count); }, count});
  run(cases, rounds);
  return 0;
}
