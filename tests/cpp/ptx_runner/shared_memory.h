// A block's shared memory, and who wrote and read each word of it when: an access that no barrier
// orders behind another thread's conflicting one is a race, whatever order the threads happened to
// run in.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace ptx_runner {

constexpr int kMostWarps = 32;

// A warp's time goes on at each barrier that it passes, to one later than all its participants'. A
// thread knows up to which time of every warp what that warp did has happened before: a barrier
// tells each of its participants what all of them know.
using Times = std::array<std::uint32_t, kMostWarps>;

// A thread's knowledge: of barriers, and of the bulk copies that it has awaited.
struct Clock {
  Times known = {};                           // below: happened before
  std::uint32_t now = 1;                      // of its own warp
  std::uint32_t fences = 0;                   // that order generic accesses before bulk copies
  std::array<std::uint32_t, 64> phases = {};  // of each mbarrier: those below are awaited
};

enum class Conflict : std::uint8_t {
  kNone,
  kReadOfUnorderedWrite,
  kWriteOverUnorderedWrite,
  kWriteOverUnorderedRead,
  kUninitialized,
  kReadOfUnawaitedCopy,
  kWriteOverUnawaitedCopy,
  kCopyOverUnfencedWrite,
};
const char* Describe(Conflict conflict);

class SharedMemory {
 public:
  explicit SharedMemory(std::size_t bytes)
      : bytes_(bytes, 0xff), words_((bytes + kWord - 1) / kWord) {}

  std::size_t size() const { return bytes_.size(); }
  unsigned char* at(std::size_t offset) { return bytes_.data() + offset; }

  Conflict Read(std::size_t offset, std::size_t bytes, int thread, const Clock& clock);
  Conflict Write(std::size_t offset, std::size_t bytes, int thread, const Clock& clock);

  // A bulk copy that is under way until its mbarrier completes this phase. `writers`: by thread,
  // the fences it has passed.
  template <typename FencesOf>
  Conflict StartCopy(std::size_t offset, std::size_t bytes, int thread, const Clock& clock,
                     int barrier, std::uint32_t phase, const FencesOf& fences_of) {
    Conflict worst = Conflict::kNone;
    ForEachWord(offset, bytes, [&](Word& w) {
      Conflict c = CheckWrite(w, thread, clock);
      if (c == Conflict::kNone && w.writer >= 0 && fences_of(w.writer) <= w.fences) {
        c = Conflict::kCopyOverUnfencedWrite;
      }
      if (c != Conflict::kNone) worst = c;
      w = Word();
      w.initialized = true;
      w.copy_barrier = static_cast<std::int16_t>(barrier);
      w.copy_phase = phase;
    });
    return worst;
  }

 private:
  static constexpr std::size_t kWord = 4;

  struct Word {
    std::int16_t writer = -1, reader = -1;  // the reader of a thread; kMany for several of a warp
    std::uint32_t written = 0, fences = 0;
    std::int16_t copy_barrier = -1;
    std::uint32_t copy_phase = 0;
    bool initialized = false;
    std::uint32_t readers = 0;  // warps that have read since the last write
    std::uint32_t read = 0;     // the latest of their times
  };
  static constexpr std::int16_t kMany = -2;

  template <typename Use>
  void ForEachWord(std::size_t offset, std::size_t bytes, const Use& use) {
    for (std::size_t w = offset / kWord; w * kWord < offset + bytes; ++w) use(words_[w]);
  }
  static bool HappenedBefore(int thread, std::uint32_t time, int self, const Clock& clock) {
    return thread == self || time < clock.known[thread / 32];
  }
  static bool AllReadsHappenedBefore(const Word& w, const Clock& clock);
  static Conflict CheckWrite(const Word& w, int thread, const Clock& clock);

  std::vector<unsigned char> bytes_;
  std::vector<Word> words_;
};

}  // namespace ptx_runner
