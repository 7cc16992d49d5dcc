// A workspace from the heap, for a host that has no allocator of its own to ask.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

namespace linreg_ops {

class HeapWorkspace {
 public:
  // 64-byte aligned memory that lives as long as this object, or null.
  void* operator()(std::int64_t bytes) {
    memory_.reset(static_cast<char*>(
        ::operator new(static_cast<std::size_t>(bytes), std::align_val_t{64}, std::nothrow)));
    return memory_.get();
  }

 private:
  struct Delete {
    void operator()(char* memory) const { ::operator delete(memory, std::align_val_t{64}); }
  };
  std::unique_ptr<char, Delete> memory_;
};

}  // namespace linreg_ops
