#pragma once
#include <memory>
#include <vector>

namespace lmq {

/// Buffers that one thread keeps between fits, so that rows and small groups allocate nothing: one object of each type
/// that was asked for. Never shared between threads; results do not depend on what it was used for before.
class Workspace {
 public:
  /// The object of type T, made at its first use. Cost: a look through the few types in use.
  template <class T>
  [[nodiscard]] T& get() {
    if (Slot* slot = find(&kType<T>)) return static_cast<Held<T>*>(slot)->object;
    slots_.push_back(std::make_unique<Held<T>>());
    return static_cast<Held<T>*>(slots_.back().get())->object;
  }

 private:
  template <class T>
  static constexpr char kType = 0;  // its address stands for the type
  struct Slot {
    explicit Slot(const void* of) : type(of) {}
    Slot(const Slot&) = delete;
    Slot& operator=(const Slot&) = delete;
    virtual ~Slot() = default;
    const void* type;
  };
  template <class T>
  struct Held final : Slot {
    Held() : Slot(&kType<T>) {}
    T object;
  };
  [[nodiscard]] Slot* find(const void* type) const noexcept;
  std::vector<std::unique_ptr<Slot>> slots_;
};

}  // namespace lmq
