#include <cstdlib>
#include <cstring>

#include "machine.h"
#include "report.h"

namespace ptx_runner {
namespace {

constexpr std::size_t kUnit = 256, kMargin = 512;

}  // namespace

GlobalMemory& global_memory() {
  static auto* instance = new GlobalMemory;
  return *instance;
}

// What is given back is soon given out again, as by a pool; all its bytes are those of a NaN.
void* GlobalMemory::Take(std::size_t bytes) {
  const std::size_t whole = (bytes + kUnit - 1) / kUnit * kUnit + 2 * kMargin;
  char* taken = nullptr;
  for (std::size_t i = free_.size(); taken == nullptr && i-- > 0;) {
    if (free_[i].second != whole) continue;
    taken = static_cast<char*>(free_[i].first);
    free_.erase(free_.begin() + static_cast<std::ptrdiff_t>(i));
  }
  if (taken == nullptr) taken = static_cast<char*>(std::aligned_alloc(kUnit, whole));
  std::memset(taken, 0xff, whole);
  ranges_[reinterpret_cast<std::uintptr_t>(taken + kMargin)] = {bytes, false};
  given_out_ += bytes;
  return taken + kMargin;
}

void GlobalMemory::GiveBack(void* p) {
  const auto found = ranges_.find(reinterpret_cast<std::uintptr_t>(p));
  if (found == ranges_.end() || found->second.lent) {
    Fail("memory given back that was not given out, or twice");
  }
  const std::size_t bytes = found->second.bytes;
  std::memset(p, 0xff, bytes);
  ranges_.erase(found);
  last_end_ = 0;
  given_out_ -= bytes;
  free_.emplace_back(static_cast<char*>(p) - kMargin,
                     (bytes + kUnit - 1) / kUnit * kUnit + 2 * kMargin);
  constexpr std::size_t kMost = 64;
  if (free_.size() <= kMost) return;
  std::free(free_.front().first);
  free_.erase(free_.begin());
}

void GlobalMemory::Lend(const void* p, std::size_t bytes) {
  ranges_[reinterpret_cast<std::uintptr_t>(p)] = {bytes, true};
}

void GlobalMemory::TakeBack(const void* p) {
  ranges_.erase(reinterpret_cast<std::uintptr_t>(p));
  last_end_ = 0;
}

bool GlobalMemory::Holds(std::uintptr_t address, std::size_t bytes) {
  if (address >= last_begin_ && address + bytes <= last_end_) return true;
  auto found = ranges_.upper_bound(address);
  if (found == ranges_.begin()) return false;
  --found;
  if (address + bytes > found->first + found->second.bytes) return false;
  last_begin_ = found->first;
  last_end_ = found->first + found->second.bytes;
  return true;
}

}  // namespace ptx_runner
