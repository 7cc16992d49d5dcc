// cp.async, whose groups a thread awaits, and cp.async.bulk with the mbarriers that count its
// bytes. What is under way is NaN until somebody has awaited it.
#include <cstring>

#include "block.h"
#include "report.h"

namespace ptx_runner {

void Block::StartCopyAsync(Thread& t, const Instruction& i) {
  const auto to = static_cast<std::uint32_t>(t.registers[i.from[0]] + i.offset);
  const std::uintptr_t from = t.registers[i.from[1]];
  std::memset(Shared(t, to, i.bytes), 0xff, i.bytes);
  CheckGlobal(t, from, i.bytes);
  Check(t, shared_.Write(to - kSharedBase, i.bytes, Number(t), t.clock));
  t.open_group.push_back({to, i.bytes, from});
}

void Block::AwaitCopies(Thread& t, const Instruction& i) {
  while (static_cast<std::int64_t>(t.groups.size()) > i.offset) {
    for (const CopyAsync& copy : t.groups.front()) {
      std::memcpy(shared_.at(copy.to - kSharedBase), reinterpret_cast<void*>(copy.from),
                  copy.bytes);
      Check(t, shared_.Write(copy.to - kSharedBase, copy.bytes, Number(t), t.clock));
    }
    t.groups.erase(t.groups.begin());
  }
}

Block::Barrier& Block::BarrierAt(const Thread& t, std::uint32_t address) {
  const auto found = barriers_.find(address);
  if (found != barriers_.end()) return found->second;
  Fault(t, "no mbarrier there");
  Fail("%s", faults().first.back().c_str());
}

void Block::StartCopyBulk(Thread& t, const Instruction& i) {
  const auto to = static_cast<std::uint32_t>(t.registers[i.from[0]]);
  const std::uintptr_t from = t.registers[i.from[1]];
  const auto bytes = static_cast<std::uint32_t>(t.registers[i.from[2]]);
  const auto address = static_cast<std::uint32_t>(t.registers[i.from[3]]);
  if (to % 16 || from % 16 || bytes % 16 || bytes == 0) Fault(t, "a bulk copy misaligned or empty");
  if (to < kSharedBase || to + bytes > kSharedBase + shared_.size() ||
      !global_memory().Holds(from, bytes)) {
    Fault(t, "a bulk copy out of bounds");
    Fail("%s", faults().first.back().c_str());
  }
  const Barrier& barrier = BarrierAt(t, address);
  Check(t, shared_.StartCopy(to - kSharedBase, bytes, Number(t), t.clock,
                             static_cast<int>(address - kSharedBase) / 8, barrier.phase,
                             [this](int writer) { return threads_[writer].clock.fences; }));
  std::memset(shared_.at(to - kSharedBase), 0xff, bytes);
  copies_.push_back({to, from, bytes, address});
}

bool Block::DoSomeCopies(std::mt19937_64& rng) {
  if (copies_.empty()) return false;
  for (auto tries = 1 + rng() % 3; tries > 0 && !copies_.empty(); --tries) {
    const auto at = copies_.begin() + static_cast<std::ptrdiff_t>(rng() % copies_.size());
    std::memcpy(shared_.at(at->to - kSharedBase), reinterpret_cast<void*>(at->from), at->bytes);
    Barrier& barrier = barriers_.at(at->barrier);
    barrier.bytes -= at->bytes;
    copies_.erase(at);
    Complete(barrier);
  }
  return true;
}

void Block::Complete(Barrier& barrier) {
  if (barrier.pending != 0 || barrier.bytes != 0) return;
  ++barrier.phase;
  barrier.pending = 1;
}

void Block::InitBarrier(Thread& t, const Instruction& i) {
  const auto address = static_cast<std::uint32_t>(t.registers[i.from[0]]);
  Shared(t, address, 8);
  Check(t, shared_.Write(address - kSharedBase, 8, Number(t), t.clock));
  if (t.registers[i.from[1]] != 1) Fault(t, "an mbarrier of more than one arrival");
  if ((address - kSharedBase) / 8 >= t.clock.phases.size()) Fail("too many mbarriers");
  barriers_[address] = Barrier();
}

void Block::ExpectBytes(Thread& t, const Instruction& i) {
  const auto address = static_cast<std::uint32_t>(t.registers[i.from[0]]);
  Barrier& barrier = BarrierAt(t, address);
  if (barrier.pending == 0) Fault(t, "an mbarrier armed twice in a phase");
  if (t.clock.phases[(address - kSharedBase) / 8] < barrier.phase) {
    Fault(t, "an mbarrier armed by a thread that did not await its last phase");
  }
  constexpr std::uint32_t kMost = (1u << 20) - 1;
  const auto bytes = static_cast<std::uint32_t>(t.registers[i.from[1]]);
  if (bytes > kMost) Fault(t, "an mbarrier's bytes out of range");
  barrier.bytes += bytes;
  --barrier.pending;
  Complete(barrier);
}

bool Block::TryWait(Thread& t, const Instruction& i) {
  const auto address = static_cast<std::uint32_t>(t.registers[i.from[0]]);
  const Barrier& barrier = BarrierAt(t, address);
  const bool passed = (barrier.phase & 1) != (t.registers[i.from[1]] & 1);
  std::uint32_t& awaited = t.clock.phases[(address - kSharedBase) / 8];
  if (passed) awaited = std::max(awaited, barrier.phase);
  t.registers[i.to] = passed;
  return passed;
}

}  // namespace ptx_runner
