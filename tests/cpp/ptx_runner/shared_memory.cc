#include "shared_memory.h"

#include <algorithm>

namespace ptx_runner {

const char* Describe(Conflict conflict) {
  switch (conflict) {
    case Conflict::kNone:
      return "no conflict";
    case Conflict::kReadOfUnorderedWrite:
      return "race: reads what another thread wrote, without a barrier between";
    case Conflict::kWriteOverUnorderedWrite:
      return "race: writes over what another thread wrote, without a barrier between";
    case Conflict::kWriteOverUnorderedRead:
      return "race: writes over what another thread read, without a barrier between";
    case Conflict::kUninitialized:
      return "reads shared memory that nobody wrote";
    case Conflict::kReadOfUnawaitedCopy:
      return "race: reads a bulk copy's bytes whose mbarrier this thread did not await";
    case Conflict::kWriteOverUnawaitedCopy:
      return "race: writes over a bulk copy that this thread did not await";
    case Conflict::kCopyOverUnfencedWrite:
      return "bulk copy over a generic write whose thread passed no fence.proxy.async since";
  }
  return "";
}

Conflict SharedMemory::Read(std::size_t offset, std::size_t bytes, int thread, const Clock& clock) {
  Conflict worst = Conflict::kNone;
  ForEachWord(offset, bytes, [&](Word& w) {
    if (!w.initialized) worst = Conflict::kUninitialized;
    if (w.writer >= 0 && !HappenedBefore(w.writer, w.written, thread, clock)) {
      worst = Conflict::kReadOfUnorderedWrite;
    }
    if (w.copy_barrier >= 0 && clock.phases[w.copy_barrier] <= w.copy_phase) {
      worst = Conflict::kReadOfUnawaitedCopy;
    }
    // What is ordered behind this read is ordered behind the reads that happened before it.
    if (AllReadsHappenedBefore(w, clock)) w.readers = 0;
    w.reader = w.readers == 0 || w.reader == thread ? static_cast<std::int16_t>(thread) : kMany;
    w.read = w.readers == 0 ? clock.now : std::max(w.read, clock.now);
    w.readers |= 1u << (thread / 32);
  });
  return worst;
}

Conflict SharedMemory::CheckWrite(const Word& w, int thread, const Clock& clock) {
  if (w.writer >= 0 && !HappenedBefore(w.writer, w.written, thread, clock)) {
    return Conflict::kWriteOverUnorderedWrite;
  }
  if (w.copy_barrier >= 0 && clock.phases[w.copy_barrier] <= w.copy_phase) {
    return Conflict::kWriteOverUnawaitedCopy;
  }
  if (w.reader == thread || AllReadsHappenedBefore(w, clock)) return Conflict::kNone;
  return Conflict::kWriteOverUnorderedRead;
}

bool SharedMemory::AllReadsHappenedBefore(const Word& w, const Clock& clock) {
  for (int warp = 0; warp < kMostWarps; ++warp) {
    if ((w.readers >> warp & 1) && clock.known[warp] <= w.read) return false;
  }
  return true;
}

Conflict SharedMemory::Write(std::size_t offset, std::size_t bytes, int thread,
                             const Clock& clock) {
  Conflict worst = Conflict::kNone;
  ForEachWord(offset, bytes, [&](Word& w) {
    const Conflict c = CheckWrite(w, thread, clock);
    if (c != Conflict::kNone) worst = c;
    w = Word();
    w.initialized = true;
    w.writer = static_cast<std::int16_t>(thread);
    w.written = clock.now;
    w.fences = clock.fences;
  });
  return worst;
}

}  // namespace ptx_runner
