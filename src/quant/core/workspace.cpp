#include "lmq/quant/workspace.hpp"

namespace lmq {

Workspace::Slot* Workspace::find(const void* type) const noexcept {
  for (const std::unique_ptr<Slot>& slot : slots_)
    if (slot->type == type) return slot.get();
  return nullptr;
}

}  // namespace lmq
