#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "lmq/io/file.hpp"
#include "lmq/run/task.hpp"

namespace lmq {

/// Version of what journals and spools hold. A change of any result's bytes raises it: other versions are not
/// continued.
inline constexpr std::uint32_t kJournalVersion = 4;

/// What a journal is about. It stands at its beginning:
///   8 bytes "LMQJRNL\n", u32 version, u32 run, u32 rank, text plan digest, text input stamp, u64 digest64 of
///   all these bytes
/// then entries: u32 length, `length` bytes (Finished), u64 digest64 of the length and the bytes.
struct JournalHeader {
  std::uint32_t run = 0;  ///< counts the starts of the program on this work directory
  std::uint32_t rank = 0;
  std::string plan_digest;
  std::string input_stamp;  ///< of the input's files: when it is another, values are compared before results are used
  [[nodiscard]] std::vector<std::byte> to_bytes() const;
};

/// Entry as it lies in the file.
[[nodiscard]] std::vector<std::byte> journal_entry(const Finished& finished);

inline constexpr std::size_t kJournalMagicBytes = 8;
/// Whether a file that begins with these bytes can be a journal: one that a machine's end has cut off may be empty.
[[nodiscard]] bool can_be_journal(std::span<const std::byte> first_bytes) noexcept;

struct JournalContents {
  bool readable = false;  ///< false: the header is torn or damaged; nothing can be taken from it
  std::uint32_t version = 0;
  JournalHeader header;
  std::vector<Finished> entries;
  std::uint64_t ignored_bytes = 0;  ///< torn or damaged tail
};
/// Everything up to the first byte that is not as it was written. Any byte string is handled.
[[nodiscard]] JournalContents read_journal(std::span<const std::byte> bytes, const std::string& source);
/// The same of a file, in pieces of 1 MiB: every entry goes to `use` with the place of its Finished's bytes in the file,
/// and none is kept. The header is in `about` before the first of them. Errc::io.
using JournalUse = std::function<void(Finished&& finished, std::uint64_t offset, std::uint32_t length)>;
void scan_journal(const File& file, JournalContents& about, const JournalUse& use);

}  // namespace lmq
