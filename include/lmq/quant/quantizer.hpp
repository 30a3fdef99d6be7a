#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "lmq/quant/codebook.hpp"
#include "lmq/quant/group.hpp"

namespace lmq {

struct QuantizerOptions {
  std::size_t levels = 16;   ///< wanted levels, 2..256
};

/// A codebook, or the ranges that must be measured more finely before it can be certified (never for a resolved group).
struct Fit {
  Codebook codebook;
  std::vector<KeyRange> look_closer;   ///< empty: the codebook is final
};

/// Which levels? Methods answer for a group; which level for each weight is nearest level unless a method says otherwise.
class Quantizer {
 public:
  virtual ~Quantizer() = default;
  /// group: not empty. The result does not depend on threads or instruction set.
  [[nodiscard]] virtual Fit fit(const Group& group) const = 0;
};

struct QuantizerEntry {
  std::uint16_t id;             ///< written to files: never reused, never renumbered
  std::string_view name;        ///< as on the command line
  std::string_view summary;     ///< one line for `lmq methods`
  std::string_view source;      ///< paper and section
  std::unique_ptr<Quantizer> (*make)(const QuantizerOptions&);
};

/// The table of methods, in the order of `lmq methods`.
[[nodiscard]] std::span<const QuantizerEntry> quantizers() noexcept;
/// Errc::usage names the known methods when there is none of that name.
[[nodiscard]] const QuantizerEntry& find_quantizer(std::string_view name);
/// nullptr when no method has that id.
[[nodiscard]] const QuantizerEntry* find_quantizer(std::uint16_t id) noexcept;

}  // namespace lmq
