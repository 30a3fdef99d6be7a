#include <catch2/catch.hpp>
#include <random>

#include "io/make_safetensors.hpp"
#include "lmq/run/journal.hpp"
#include "lmq/run/spool.hpp"

using namespace lmq;
using namespace lmq::test;

namespace {

const JournalHeader kHeader{3, 5, "0123456789abcdef0123456789abcdef", "stamp"};

Finished entry(std::uint64_t number) {
  Finished finished;
  finished.key = {TaskKind{static_cast<std::uint8_t>(1 + number % 3)}, number * 17,
                  static_cast<std::uint32_t>(number % 2)};
  finished.place = {3, 5, number * 1000, 1000 + number, number * 0x9E3779B97F4A7C15u};
  finished.body.assign(number % 40, static_cast<std::byte>(number));
  return finished;
}

bool same(const Finished& a, const Finished& b) { return a.to_bytes() == b.to_bytes(); }

std::vector<std::byte> journal_of(std::size_t entries, std::vector<std::size_t>* ends = nullptr) {
  std::vector<std::byte> bytes = kHeader.to_bytes();
  if (ends) ends->push_back(bytes.size());
  for (std::size_t i = 0; i < entries; ++i) {
    const auto more = journal_entry(entry(i));
    bytes.insert(bytes.end(), more.begin(), more.end());
    if (ends) ends->push_back(bytes.size());
  }
  return bytes;
}

}  // namespace

TEST_CASE("journal: what was written is read", "[run][journal]") {
  const std::size_t entries = GENERATE(0u, 1u, 2u, 50u);
  const auto contents = read_journal(journal_of(entries), "test");
  REQUIRE(contents.readable);
  REQUIRE(contents.version == kJournalVersion);
  REQUIRE(contents.header.run == 3);
  REQUIRE(contents.header.rank == 5);
  REQUIRE(contents.header.plan_digest == kHeader.plan_digest);
  REQUIRE(contents.header.input_stamp == kHeader.input_stamp);
  REQUIRE(contents.ignored_bytes == 0);
  REQUIRE(contents.entries.size() == entries);
  for (std::size_t i = 0; i < entries; ++i) REQUIRE(same(contents.entries[i], entry(i)));
}

TEST_CASE("journal: torn at any byte it gives the entries before", "[run][journal]") {
  std::vector<std::size_t> ends;
  const auto bytes = journal_of(20, &ends);
  for (std::size_t length = 0; length <= bytes.size(); ++length) {
    const auto contents = read_journal(std::span(bytes).first(length), "test");
    const std::size_t whole =
        static_cast<std::size_t>(std::upper_bound(ends.begin(), ends.end(), length) - ends.begin());
    REQUIRE(contents.readable == (whole > 0));
    REQUIRE(contents.entries.size() == (whole > 0 ? whole - 1 : 0));
    REQUIRE(contents.ignored_bytes == length - (whole > 0 ? ends[whole - 1] : 0));
  }
}

TEST_CASE("journal: a flipped bit anywhere never gives a wrong entry", "[run][journal]") {
  std::vector<std::size_t> ends;
  const auto bytes = journal_of(12, &ends);
  for (std::size_t at = 0; at < bytes.size(); ++at) {
    auto damaged = bytes;
    damaged[at] ^= static_cast<std::byte>(1u << (at % 8));
    const auto contents = read_journal(damaged, "test");
    const auto whole = static_cast<std::size_t>(std::upper_bound(ends.begin(), ends.end(), at) - ends.begin());
    REQUIRE(contents.readable == (whole > 0));
    REQUIRE(contents.entries.size() == (whole > 0 ? whole - 1 : 0));
    for (std::size_t i = 0; i < contents.entries.size(); ++i) REQUIRE(same(contents.entries[i], entry(i)));
  }
}

TEST_CASE("journal: noise is no journal, and zeros after a journal are a torn tail", "[run][journal]") {
  std::mt19937 draw(7);
  for (int round = 0; round < 300; ++round) {
    std::vector<std::byte> noise(draw() % 400);
    for (std::byte& byte : noise) byte = static_cast<std::byte>(draw());
    REQUIRE_FALSE(read_journal(noise, "test").readable);
    auto bytes = journal_of(3);
    const std::size_t length = bytes.size();
    bytes.insert(bytes.end(), noise.begin(), noise.end());
    REQUIRE(read_journal(bytes, "test").entries.size() == 3);
    bytes.resize(length);
    bytes.resize(length + 1 + noise.size());
    REQUIRE(read_journal(bytes, "test").entries.size() == 3);
  }
}

TEST_CASE("journal: every kind of body survives its bytes", "[run][journal]") {
  UnitResult result;
  result.stats = {1.5, 2.5, 3.5, 0.25};
  result.ledger = {1, 2, 3, 4};
  result.entropy_bits = 77.5;
  result.source_digest = 0xABCDEF;
  result.codebook = {CodebookKind::grid, {-1.0f, 0.5f}};
  const auto back = UnitResult::from_bytes(result.to_bytes(), "test");
  REQUIRE(back.to_bytes() == result.to_bytes());
  REQUIRE(back.codebook == result.codebook);
  REQUIRE(back.ledger.total() == 10);

  const Codebook table = Codebook::table({3.0f, -1.0f, 0.25f}), grid = Codebook::grid(-1.0f, 0.125f, 9);
  for (const Codebook& book : {table, grid}) {
    const Codebook again = codebook_from_bytes(codebook_to_bytes(book), "test");
    REQUIRE(again.kind() == book.kind());
    REQUIRE(std::ranges::equal(again.levels(), book.levels()));
    REQUIRE(again.step() == book.step());
    Fit fit;
    fit.codebook = book;
    REQUIRE(std::ranges::equal(fit_from_bytes(fit_to_bytes(fit), "test").codebook.levels(), book.levels()));
  }
  Fit closer;
  closer.refine = {{5, 9, 2}, {100, 200, 0}};
  const Fit fit = fit_from_bytes(fit_to_bytes(closer), "test");
  REQUIRE(fit.refine.size() == 2);
  REQUIRE(fit.refine[1].end == 200);
  REQUIRE(ranges_from_bytes({}, "test").empty());
  REQUIRE_THROWS_AS(codebook_from_bytes({}, "test"), Error);
  REQUIRE_THROWS_AS(fit_from_bytes(std::vector<std::byte>(3), "test"), Error);
}

TEST_CASE("journal: a scan of a file gives what read_journal gives of its bytes, and where each entry lies",
          "[run][journal]") {
  TempFolder folder;
  std::vector<std::size_t> ends;
  auto bytes = journal_of(30, &ends);
  for (const std::size_t length :
       {std::size_t{5} << 18, std::size_t{3} << 20, std::size_t{0}}) {  // over pieces of 1 MiB
    Finished large = entry(7);
    large.body.assign(length, std::byte{0x5A});
    const auto more = journal_entry(large);
    bytes.insert(bytes.end(), more.begin(), more.end());
    ends.push_back(bytes.size());
  }
  std::vector<std::size_t> lengths{0, 1, kJournalMagicBytes, ends[0] - 1, bytes.size() - 1, bytes.size()};
  for (const std::size_t end : ends) lengths.insert(lengths.end(), {end, end + 1, end + 5});
  for (std::size_t flip = 0; flip < 2; ++flip)
    for (const std::size_t length : lengths) {
      if (length > bytes.size()) continue;
      CAPTURE(length, flip);
      auto torn = bytes;
      torn.resize(length);
      if (flip == 1 && length > 0) torn[length * 2 / 3] ^= std::byte{0x10};
      const auto path = folder / "journal";
      File(path, File::Mode::create).write(0, torn);
      const JournalContents expected = read_journal(torn, "test");
      JournalContents about;
      std::vector<Finished> entries;
      scan_journal(File(path, File::Mode::read), about,
                   [&](Finished&& finished, std::uint64_t offset, std::uint32_t size) {
                     REQUIRE(about.readable);
                     REQUIRE(offset + size <= torn.size());
                     const auto there = std::span(torn).subspan(offset, size);
                     REQUIRE(std::ranges::equal(finished.to_bytes(), there));
                     entries.push_back(std::move(finished));
                   });
      REQUIRE(about.readable == expected.readable);
      REQUIRE(about.entries.empty());
      REQUIRE(about.ignored_bytes == expected.ignored_bytes);
      REQUIRE(about.header.plan_digest == expected.header.plan_digest);
      REQUIRE(entries.size() == expected.entries.size());
      for (std::size_t i = 0; i < entries.size(); ++i) REQUIRE(same(entries[i], expected.entries[i]));
    }
}
