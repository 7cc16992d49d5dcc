// One thread block at work: each thread runs until it has to wait for others.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <map>
#include <random>
#include <unordered_map>
#include <utility>
#include <vector>

#include "machine.h"
#include "ptx.h"
#include "shared_memory.h"

namespace ptx_runner {

struct Launch {
  const Kernel* kernel = nullptr;
  dim3 grid, block;
  std::size_t shared_bytes = 0;
  bool cooperative = false;
  std::vector<unsigned char> parameters;
  // Words of global memory that blocks of this launch have written, each with its last writer.
  std::unordered_map<std::uintptr_t, unsigned> writers;
};

class Block {
 public:
  Block(Launch& launch, unsigned index, bool counted);
  Block(const Block&) = delete;
  ~Block();

  bool done() const { return alive_ == 0; }
  // Runs each thread as far as it gets; false if none got anywhere.
  bool Advance(std::mt19937_64& rng);
  // After the last of its threads: adds up what was counted.
  void Finish();
  [[noreturn]] void FailAsStuck();

 private:
  enum class State : std::uint8_t { kReady, kAtWarpExchange, kAtBarrier, kDone };
  struct CopyAsync {
    std::uint32_t to;
    std::uint32_t bytes;
    std::uintptr_t from;
  };
  struct Thread {
    std::vector<Register> registers;
    std::uint32_t at = 0;  // of the code
    State state = State::kReady;
    Clock clock;
    std::vector<std::vector<CopyAsync>> groups;
    std::vector<CopyAsync> open_group;
  };
  struct Barrier {
    std::uint32_t phase = 0, pending = 1;
    std::int64_t bytes = 0;
  };
  struct CopyBulk {
    std::uint32_t to;
    std::uintptr_t from;
    std::uint32_t bytes, barrier;
  };

  int Number(const Thread& t) const { return static_cast<int>(&t - threads_.data()); }
  void Fault(const Thread& t, const char* what);
  void Check(const Thread& t, Conflict conflict) {
    if (conflict != Conflict::kNone) Fault(t, Describe(conflict));
  }
  void Run(Thread& t);
  // False where the thread has to wait before it goes on to the next instruction.
  bool Execute(Thread& t, const Instruction& i);
  void Return(Thread& t);
  void LoadParameter(Thread& t, const Instruction& i);
  void LoadGlobal(Thread& t, const Instruction& i);
  void StoreGlobal(Thread& t, const Instruction& i);
  void LoadShared(Thread& t, const Instruction& i);
  void StoreShared(Thread& t, const Instruction& i);
  void AtomicAdd(Thread& t, const Instruction& i);
  void CheckGlobal(const Thread& t, std::uintptr_t address, std::size_t bytes);
  unsigned char* Shared(const Thread& t, std::uint32_t address, std::size_t bytes);
  void ExchangeInWarp(int warp);
  bool PassBarriers();

  // tensor_cores.cc: of the warp whose first thread is `first`
  void SyncWarp(int first, int last);
  void LoadMatrices(int first, const Instruction& i);
  void MultiplyInWarp(int first, const Instruction& i);

  // async_copies.cc
  void StartCopyAsync(Thread& t, const Instruction& i);
  void AwaitCopies(Thread& t, const Instruction& i);
  void StartCopyBulk(Thread& t, const Instruction& i);
  void InitBarrier(Thread& t, const Instruction& i);
  void ExpectBytes(Thread& t, const Instruction& i);
  bool TryWait(Thread& t, const Instruction& i);
  Barrier& BarrierAt(const Thread& t, std::uint32_t address);
  void Complete(Barrier& barrier);
  bool DoSomeCopies(std::mt19937_64& rng);

  Launch& launch_;
  const Kernel& kernel_;
  const unsigned index_;
  std::vector<Thread> threads_;
  SharedMemory shared_;
  int alive_;
  std::map<std::uint32_t, Barrier> barriers_;
  std::vector<CopyBulk> copies_;
  std::vector<std::uint32_t> executed_;  // [instruction][thread], where this block is counted
  std::int64_t loaded_bytes_ = 0;
};

}  // namespace ptx_runner
