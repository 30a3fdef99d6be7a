// Records of trellis codes: bits beside the bound and speed, one core: lmq_trellis_bench [rows] [cols] [lane rows]
#include <fmt/format.h>

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "bench_time.hpp"
#include "lmq/base/parallel.hpp"
#include "lmq/codec/trellis_record.hpp"
#include "lmq/kernels/isa.hpp"
#include "lmq/kernels/trellis.hpp"

namespace {
using namespace lmq;

/// Normal weights of `steps` standard deviations in steps; all of the class nearest to it.
/// More than 5 parameters: sizes of a layer and two sums that are measured.
TrellisUnit coded(unsigned states, std::uint64_t rows, std::uint64_t cols, std::uint64_t lane_rows, double steps,
                  double& error, double& energy) {
  std::mt19937_64 random(7);
  std::normal_distribution<double> normal;
  TrellisUnit unit;
  unit.states = states, unit.rows = rows, unit.cols = cols, unit.lane_rows = lane_rows;
  unit.row_step.assign(rows, 0), unit.col_step.assign(cols, 0), unit.col_spread.assign(cols, 0);
  unit.row_spread.assign(rows, static_cast<std::int8_t>(std::lrint(kSpreadOfOne + 3 * std::log2(steps))));
  unit.codes.resize(rows * cols);
  const TrellisRates rates = make_trellis_rates(spread_family(), states, states == 1 ? kScalarRho : kTrellisRho);
  constexpr std::size_t kRun = 4096;
  TrellisScratch scratch;
  scratch.reserve(kRun);
  const std::vector<std::uint8_t> spread(kRun, static_cast<std::uint8_t>(unit.row_spread[0]));
  std::vector<std::int32_t> target, code(kRun);
  std::vector<std::uint64_t> place;
  error = energy = 0;
  for (std::uint64_t lane = 0; lane < unit.lanes(); ++lane) {
    unsigned state = 0;
    const auto flush = [&] {
      const auto codes = std::span(code).first(target.size());
      unsigned at = state;
      state = trellis_search(rates, {target, std::span(spread).first(target.size()), {}}, state, scratch, codes);
      for (std::size_t i = 0; i < codes.size(); ++i) {
        unit.codes[place[i]] = codes[i];
        const double off = target[i] / 256.0 - trellis_value(states, at & 1, spread[0], codes[i]);
        error += off * off, energy += target[i] / 65536.0 * target[i];
        at = states == 1 ? 0 : trellis_next(trellis_taps(states), at, codes[i]);
      }
      target.clear(), place.clear();
    };
    for (std::uint64_t d = lane_rows + cols - 1; d-- > 0;)
      for (std::uint64_t i = std::min(d, lane_rows - 1) + 1; i-- > (d >= cols ? d - cols + 1 : 0);) {
        if (lane * lane_rows + i >= rows) continue;
        place.push_back((lane * lane_rows + i) * cols + d - i);
        target.push_back(static_cast<std::int32_t>(std::lrint(256 * steps * normal(random))));
        if (target.size() == kRun) flush();
      }
    flush();
  }
  return unit;
}
}  // namespace

int main(int argc, char** argv) {
  const auto argument = [&](int at, std::uint64_t otherwise) { return argc > at ? std::stoull(argv[at]) : otherwise; };
  const std::uint64_t rows = argument(1, 2048), cols = argument(2, 2048), lane_rows = argument(3, (rows + 15) / 16);
  lmq::set_thread_count(1);
  fmt::print("{} x {}, lanes of {} rows, {}\nstates  bits    gap  encode ns  decode M/s\n", rows, cols, lane_rows,
             lmq::isa_name());
  const double count = static_cast<double>(rows * cols);
  for (const unsigned states : {1U, 8U, 32U})
    for (const double bits : {1.0, 2.0, 3.0, 4.0}) {
      double error, energy;
      const auto unit =
          coded(states, rows, cols, lane_rows, std::exp2(bits - (states == 1 ? 1.34 : 0.9)), error, energy);
      lmq::EncodedRecord record;
      const double encode = bench::best_of(2, [&] { record = lmq::encode_trellis_record(unit); });
      std::vector<float> values(unit.codes.size());
      const double decode = bench::best_of(5, [&] { lmq::decode_record_values(record.bytes, values, "bench"); });
      const double stored = 8.0 * static_cast<double>(record.bytes.size()) / count;
      fmt::print("{:6} {:6.3f} {:6.4f} {:8.1f} {:8.0f}\n", states, stored, stored - 0.5 * std::log2(energy / error),
                 1e9 * encode / count, 1e-6 * count / decode);
    }
  return 0;
}
