// PTX as data: what nvcc made of the kernels, one list of instructions for each.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace ptx_runner {

// Every register, whatever its type: the low bytes hold the value.
using Register = std::uint64_t;

struct Instruction;
// What does nothing but compute: from registers to registers of one thread.
using Arithmetic = void (*)(Register* registers, const Instruction& instruction);

// What the machine does itself.
enum class Kind : std::uint8_t {
  kArithmetic,
  kLoadParameter,
  kLoadGlobal,
  kLoadShared,
  kStoreGlobal,
  kStoreShared,
  kBranch,
  kReturn,
  kTrap,
  kBarrier,     // bar.sync: all threads of the block, or the named ones
  kShuffle,     // shfl.sync.bfly, shfl.sync.idx
  kVote,        // vote.sync.any
  kSyncWarp,    // bar.warp.sync
  kLoadMatrix,  // ldmatrix
  kMultiply,    // mma.sync, of bfloat16 factors and float32 sums
  kAtomicAdd,   // of u32 in global memory
  kFence,       // orders memory that this machine keeps ordered anyway
  kSleep,       // lets other blocks go on
  kCopyAsync,   // cp.async: 16 bytes, unseen until its group is awaited
  kCommitCopies,
  kAwaitCopies,
  kCopyBulk,     // cp.async.bulk: an mbarrier counts its bytes
  kInitBarrier,  // mbarrier.*
  kExpectBytes,
  kTryWait,
  kProxyFence,  // fence.proxy.async: generic accesses before later bulk copies
};

struct Instruction {
  Kind kind = Kind::kArithmetic;
  Arithmetic compute = nullptr;
  std::uint32_t to = 0;               // register of the result
  std::uint32_t from[5] = {};         // registers of the operands
  std::vector<std::uint32_t> vector;  // registers of a load's, store's or pack's elements
  std::int64_t offset = 0;            // of the address; an immediate
  std::uint32_t target = 0;           // of a branch
  std::uint8_t bytes = 0;             // of an element in memory
  std::uint8_t operands = 0;
  bool guarded = false, guard_negated = false;
  bool is_volatile = false, past_l1 = false;
  bool transposed = false;  // of ldmatrix
  bool by_index = false;    // of a shuffle: among the lanes that its mask of segments says
  std::uint32_t guard = 0;
  int line = 0;
  std::string text;
};

struct Parameter {
  int bytes = 0, offset = 0;
  std::uint32_t address = 0;  // register that holds its address
};

struct Kernel {
  std::string name;
  std::vector<Instruction> code;
  std::uint32_t registers = 0;
  std::vector<std::pair<std::uint32_t, Register>> constants;
  std::map<std::string, std::uint32_t> special;  // "%tid.x", ...: their registers
  std::vector<Parameter> parameters;
  int parameter_bytes = 0;
  int max_threads = 0;
};

// Where shared memory starts: not at 0, which would hide a null pointer.
constexpr std::uint32_t kSharedBase = 1024;

// The kernels of a .ptx file, by their mangled names; ends the process at an instruction that the
// runner does not know, with its text.
std::map<std::string, std::unique_ptr<Kernel>> ReadPtx(const std::string& path);

// Null if there is none of this name, as in "add.f32".
Arithmetic FindArithmetic(const std::string& opcode);

}  // namespace ptx_runner
