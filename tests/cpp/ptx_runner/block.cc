#include "block.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "report.h"

namespace ptx_runner {
namespace {

Register SpecialValue(const std::string& name, const Launch& launch, unsigned index, int thread) {
  const dim3& grid = launch.grid;
  if (name == "%tid.x") return static_cast<Register>(thread);
  if (name == "%ntid.x") return launch.block.x;
  if (name == "%ctaid.x") return index % grid.x;
  if (name == "%ctaid.y") return index / grid.x % grid.y;
  if (name == "%ctaid.z") return index / grid.x / grid.y;
  if (name == "%nctaid.x") return grid.x;
  if (name == "%nctaid.y") return grid.y;
  if (name == "%nctaid.z") return grid.z;
  Fail("%s: no special register %s", launch.kernel->name.c_str(), name.c_str());
}

// Kept from threads that have ended: a kernel has thousands of registers, and to make them takes
// longer than to run a small problem.
std::vector<std::vector<Register>>& SpareRegisters() {
  static auto* instance = new std::vector<std::vector<Register>>;
  return *instance;
}

}  // namespace

Block::~Block() {
  for (Thread& t : threads_) SpareRegisters().push_back(std::move(t.registers));
}

Block::Block(Launch& launch, unsigned index, bool counted)
    : launch_(launch),
      kernel_(*launch.kernel),
      index_(index),
      threads_(launch.block.x),
      shared_(launch.shared_bytes),
      alive_(static_cast<int>(launch.block.x)),
      executed_(counted ? kernel_.code.size() * launch.block.x : 0) {
  for (int number = 0; number < alive_; ++number) {
    std::vector<Register>& registers = threads_[number].registers;
    if (!SpareRegisters().empty()) {
      registers = std::move(SpareRegisters().back());
      SpareRegisters().pop_back();
    }
    registers.resize(kernel_.registers);
    for (const auto& [to, value] : kernel_.constants) registers[to] = value;
    for (const Parameter& p : kernel_.parameters) {
      registers[p.address] = reinterpret_cast<Register>(launch.parameters.data() + p.offset);
    }
    for (const auto& [name, to] : kernel_.special) {
      registers[to] = SpecialValue(name, launch, index, number);
    }
  }
}

void Block::Fault(const Thread& t, const char* what) {
  const Instruction& i = kernel_.code[t.at];
  faults().Add("%s: block %u, thread %d: %s [line %d: %s]", kernel_.name.c_str(), index_, Number(t),
               what, i.line, i.text.c_str());
}

bool Block::Advance(std::mt19937_64& rng) {
  std::vector<int> order(threads_.size());
  std::iota(order.begin(), order.end(), 0);
  if (machine().seed != 0) std::shuffle(order.begin(), order.end(), rng);
  bool any = false;
  for (const int number : order) {
    Thread& t = threads_[number];
    if (t.state != State::kReady) continue;
    Run(t);
    any = true;
    if (t.state == State::kAtWarpExchange) ExchangeInWarp(number / 32);
  }
  any |= PassBarriers();
  any |= DoSomeCopies(rng);
  return any;
}

void Block::Run(Thread& t) {
  while (t.state == State::kReady) {
    const Instruction& i = kernel_.code[t.at];
    if (!executed_.empty()) ++executed_[t.at * threads_.size() + Number(t)];
    if (i.guarded && (t.registers[i.guard] & 1) == i.guard_negated) {
      ++t.at;
    } else if (i.kind == Kind::kArithmetic) {
      i.compute(t.registers.data(), i);
      ++t.at;
    } else if (!Execute(t, i)) {
      return;
    }
  }
}

bool Block::Execute(Thread& t, const Instruction& i) {
  switch (i.kind) {
    case Kind::kArithmetic:
    case Kind::kFence:
      break;
    case Kind::kLoadParameter:
      LoadParameter(t, i);
      break;
    case Kind::kLoadGlobal:
      LoadGlobal(t, i);
      break;
    case Kind::kLoadShared:
      LoadShared(t, i);
      break;
    case Kind::kStoreGlobal:
      StoreGlobal(t, i);
      break;
    case Kind::kStoreShared:
      StoreShared(t, i);
      break;
    case Kind::kBranch:
      t.at = i.target;
      return true;
    case Kind::kReturn:
      Return(t);
      return false;
    case Kind::kTrap:
      Fault(t, "trap");
      Return(t);
      return false;
    case Kind::kBarrier:
      t.state = State::kAtBarrier;
      return false;
    case Kind::kShuffle:
    case Kind::kVote:
    case Kind::kSyncWarp:
    case Kind::kLoadMatrix:
    case Kind::kMultiply:
      t.state = State::kAtWarpExchange;
      return false;
    case Kind::kAtomicAdd:
      AtomicAdd(t, i);
      break;
    case Kind::kSleep:
      ++t.at;
      return false;
    case Kind::kCopyAsync:
      StartCopyAsync(t, i);
      break;
    case Kind::kCommitCopies:
      t.groups.push_back(std::move(t.open_group));
      t.open_group.clear();
      break;
    case Kind::kAwaitCopies:
      AwaitCopies(t, i);
      break;
    case Kind::kCopyBulk:
      StartCopyBulk(t, i);
      break;
    case Kind::kInitBarrier:
      InitBarrier(t, i);
      break;
    case Kind::kExpectBytes:
      ExpectBytes(t, i);
      break;
    case Kind::kTryWait: {
      const bool passed = TryWait(t, i);
      ++t.at;
      return passed;
    }
    case Kind::kProxyFence:
      ++t.clock.fences;
      break;
  }
  ++t.at;
  return true;
}

void Block::Return(Thread& t) {
  t.state = State::kDone;
  --alive_;
  const auto unfinished = [](const auto& group) { return !group.empty(); };
  if (std::any_of(t.groups.begin(), t.groups.end(), unfinished)) {
    Fault(t, "ends before its cp.async groups");
  }
}

void Block::LoadParameter(Thread& t, const Instruction& i) {
  const std::uintptr_t address = t.registers[i.from[0]] + static_cast<std::uintptr_t>(i.offset);
  const auto begin = reinterpret_cast<std::uintptr_t>(launch_.parameters.data());
  const std::size_t bytes = i.bytes * i.vector.size();
  if (address < begin || address + bytes > begin + launch_.parameters.size()) {
    Fail("%s: parameter out of bounds: %s", kernel_.name.c_str(), i.text.c_str());
  }
  for (std::size_t v = 0; v < i.vector.size(); ++v) {
    t.registers[i.vector[v]] = 0;
    std::memcpy(&t.registers[i.vector[v]], reinterpret_cast<void*>(address + v * i.bytes), i.bytes);
  }
}

void Block::CheckGlobal(const Thread& t, std::uintptr_t address, std::size_t bytes) {
  if (address % bytes != 0) Fault(t, "misaligned access to global memory");
  if (global_memory().Holds(address, bytes)) return;
  Fault(t, "global memory out of bounds");
  Fail("%s", faults().first.back().c_str());
}

void Block::LoadGlobal(Thread& t, const Instruction& i) {
  const std::uintptr_t address = t.registers[i.from[0]] + static_cast<std::uintptr_t>(i.offset);
  const std::size_t bytes = i.bytes * i.vector.size();
  CheckGlobal(t, address, bytes);
  if (!executed_.empty()) loaded_bytes_ += static_cast<std::int64_t>(bytes);
  if (!launch_.writers.empty() && !(launch_.cooperative && (i.past_l1 || i.is_volatile))) {
    for (std::uintptr_t word = address / 4; word <= (address + bytes - 1) / 4; ++word) {
      const auto writer = launch_.writers.find(word);
      if (writer == launch_.writers.end() || writer->second == index_) continue;
      Fault(t, launch_.cooperative ? "loads through L1 what another block wrote in this launch"
                                   : "race: loads what another block wrote in this launch");
    }
  }
  for (std::size_t v = 0; v < i.vector.size(); ++v) {
    t.registers[i.vector[v]] = 0;
    std::memcpy(&t.registers[i.vector[v]], reinterpret_cast<void*>(address + v * i.bytes), i.bytes);
  }
}

void Block::StoreGlobal(Thread& t, const Instruction& i) {
  const std::uintptr_t address = t.registers[i.from[0]] + static_cast<std::uintptr_t>(i.offset);
  const std::size_t bytes = i.bytes * i.vector.size();
  CheckGlobal(t, address, bytes);
  for (std::size_t v = 0; v < i.vector.size(); ++v) {
    std::memcpy(reinterpret_cast<void*>(address + v * i.bytes), &t.registers[i.vector[v]], i.bytes);
  }
  if (i.bytes < 4) return;  // neighbours in a word may be different blocks'
  for (std::uintptr_t word = address / 4; word <= (address + bytes - 1) / 4; ++word) {
    const auto [writer, is_new] = launch_.writers.emplace(word, index_);
    if (!is_new && writer->second != index_ && !launch_.cooperative) {
      Fault(t, "race: writes what another block wrote in this launch");
    }
    writer->second = index_;
  }
}

unsigned char* Block::Shared(const Thread& t, std::uint32_t address, std::size_t bytes) {
  if (address % bytes != 0) Fault(t, "misaligned access to shared memory");
  if (address < kSharedBase || address + bytes > kSharedBase + shared_.size()) {
    Fault(t, "shared memory out of bounds");
    Fail("%s", faults().first.back().c_str());
  }
  return shared_.at(address - kSharedBase);
}

void Block::LoadShared(Thread& t, const Instruction& i) {
  const auto address =
      static_cast<std::uint32_t>(t.registers[i.from[0]] + static_cast<Register>(i.offset));
  const std::size_t bytes = i.bytes * i.vector.size();
  const unsigned char* from = Shared(t, address, bytes);
  Check(t, shared_.Read(address - kSharedBase, bytes, Number(t), t.clock));
  for (std::size_t v = 0; v < i.vector.size(); ++v) {
    t.registers[i.vector[v]] = 0;
    std::memcpy(&t.registers[i.vector[v]], from + v * i.bytes, i.bytes);
  }
}

void Block::StoreShared(Thread& t, const Instruction& i) {
  const auto address =
      static_cast<std::uint32_t>(t.registers[i.from[0]] + static_cast<Register>(i.offset));
  const std::size_t bytes = i.bytes * i.vector.size();
  unsigned char* to = Shared(t, address, bytes);
  Check(t, shared_.Write(address - kSharedBase, bytes, Number(t), t.clock));
  for (std::size_t v = 0; v < i.vector.size(); ++v) {
    std::memcpy(to + v * i.bytes, &t.registers[i.vector[v]], i.bytes);
  }
}

void Block::AtomicAdd(Thread& t, const Instruction& i) {
  const std::uintptr_t address = t.registers[i.from[0]] + static_cast<std::uintptr_t>(i.offset);
  CheckGlobal(t, address, 4);
  auto* number = reinterpret_cast<std::uint32_t*>(address);
  t.registers[i.to] = *number;
  *number += static_cast<std::uint32_t>(t.registers[i.from[1]]);
}

// When all lanes have come: at one instruction, since the kernels exchange among whole warps only.
void Block::ExchangeInWarp(int warp) {
  const int first = warp * 32, last = std::min<int>(first + 32, static_cast<int>(threads_.size()));
  for (int n = first; n < last; ++n) {
    if (threads_[n].state != State::kAtWarpExchange) return;
  }
  Register values[32] = {};
  const Instruction& i = kernel_.code[threads_[first].at];
  const bool aligned = i.kind == Kind::kLoadMatrix || i.kind == Kind::kMultiply;
  if (aligned && last - first < 32) Fail("%s: a warp without all its lanes", kernel_.name.c_str());
  Register any = 0;
  for (int n = first; n < last; ++n) {
    Thread& t = threads_[n];
    if (t.at != threads_[first].at) Fault(t, "a warp's lanes meet at different exchanges");
    if (!aligned && static_cast<std::uint32_t>(t.registers[i.from[3]]) != 0xffffffff) {
      Fault(t, "an exchange among some lanes only");
    }
    values[n - first] = t.registers[i.from[0]];
    any |= t.registers[i.from[0]] & 1;
  }
  if (i.kind == Kind::kSyncWarp) SyncWarp(first, last);
  if (i.kind == Kind::kLoadMatrix) LoadMatrices(first, i);
  if (i.kind == Kind::kMultiply) MultiplyInWarp(first, i);
  for (int n = first; n < last; ++n) {
    Thread& t = threads_[n];
    if (i.kind == Kind::kVote) {
      t.registers[i.vector[0]] = any;
    } else if (i.kind == Kind::kShuffle) {
      const auto lane = static_cast<Register>(n - first), other = t.registers[i.from[1]];
      const Register segment = t.registers[i.from[2]] >> 8;
      const Register from = i.by_index ? (lane & segment) | (other & ~segment & 31) : lane ^ other;
      if (from >= static_cast<Register>(last - first)) Fault(t, "shuffle beyond the warp");
      t.registers[i.vector[0]] = static_cast<std::uint32_t>(values[from & 31]);
      if (i.vector.size() > 1) t.registers[i.vector[1]] = 1;
    }
    ++t.at;
    t.state = State::kReady;
  }
}

// At each barrier where as many threads wait as it takes: they know what all of them knew.
bool Block::PassBarriers() {
  std::map<Register, std::vector<Thread*>> waiting;
  for (Thread& t : threads_) {
    if (t.state != State::kAtBarrier) continue;
    waiting[t.registers[kernel_.code[t.at].from[0]]].push_back(&t);
  }
  bool any = false;
  for (const auto& [id, group] : waiting) {
    const Instruction& i = kernel_.code[group[0]->at];
    // Without a count the whole block takes part; who has ended does no longer.
    const Register needed =
        i.operands > 1 ? group[0]->registers[i.from[1]] : static_cast<Register>(alive_);
    if (id > 15) Fault(*group[0], "there are 16 barriers");
    if (group.size() < needed) continue;
    // One time for all, so that it can be said of a word when it was last read, by whomever.
    Times known = {};
    std::uint32_t now = 0;
    for (const Thread* t : group) {
      now = std::max(now, t->clock.now + 1);
      for (int w = 0; w < kMostWarps; ++w) known[w] = std::max(known[w], t->clock.known[w]);
    }
    std::array<std::uint32_t, 64> phases = {};
    for (Thread* t : group) {
      known[Number(*t) / 32] = now;
      for (std::size_t b = 0; b < phases.size(); ++b) {
        phases[b] = std::max(phases[b], t->clock.phases[b]);
      }
    }
    for (Thread* t : group) {
      t->clock.known = known;
      t->clock.phases = phases;
      t->clock.now = now;
      ++t->at;
      t->state = State::kReady;
    }
    any = true;
  }
  return any;
}

void Block::Finish() {
  if (!copies_.empty()) faults().Add("%s: ends with bulk copies under way", kernel_.name.c_str());
  if (executed_.empty()) return;
  machine().blocks[kernel_.name] = launch_.grid.x * launch_.grid.y * launch_.grid.z;
  auto& counts = machine().instructions[kernel_.name];
  const std::size_t threads = threads_.size();
  for (std::size_t at = 0; at < kernel_.code.size(); ++at) {
    std::int64_t warps = 0;
    for (std::size_t first = 0; first < threads; first += 32) {
      const auto* lane = &executed_[at * threads + first];
      warps += *std::max_element(lane, lane + std::min<std::size_t>(32, threads - first));
    }
    if (warps == 0) continue;
    const std::string& text = kernel_.code[at].text;
    const std::size_t opcode = text[0] == '@' ? text.find_first_of(" \t") + 1 : 0;
    counts[text.substr(opcode, text.find_first_of(" \t", opcode) - opcode)] += warps;
  }
  machine().global_bytes[kernel_.name] += loaded_bytes_;
}

void Block::FailAsStuck() {
  for (const Thread& t : threads_) {
    if (t.state == State::kDone) continue;
    Fail("%s: block %u is stuck: thread %d waits at line %d: %s", kernel_.name.c_str(), index_,
         Number(t), kernel_.code[t.at].line, kernel_.code[t.at].text.c_str());
  }
  Fail("%s: block %u is stuck", kernel_.name.c_str(), index_);
}

}  // namespace ptx_runner
