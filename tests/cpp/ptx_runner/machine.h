// The machine that the runner plays: its numbers, which a test chooses, and what it has counted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <string>
#include <vector>

namespace ptx_runner {

struct Machine {
  // A GPU's figures. So few multiprocessors that small tests have several rounds of rows a block.
  int ordinal = 0;  // whose figures callers remember
  int multiprocessors = 3;
  int compute_capability = 90;
  int shared_per_block = 232448;
  int shared_per_multiprocessor = 233472;
  int shared_reserved = 1024;
  int l2_bytes = 1 << 20;
  std::string ptx_folder;  // of the code that it runs

  std::uint64_t seed = 0;  // 0: threads and blocks in their order; else a random one
  unsigned resident_blocks = std::numeric_limits<unsigned>::max();  // of a cooperative launch
  bool first_block_only = false;  // of launches that are not cooperative: to count, not to compute

  // The runtime's call number `calls_until_error` from now on fails with `error`; −1: none.
  int calls_until_error = -1;
  int error = 0;
  std::function<void()> after_asking_for_shared;  // once, between that call and the launch

  std::int64_t attribute_calls = 0;  // of the device's and of kernels'
  std::int64_t events = 0;           // made
  std::int64_t launches = 0;
  std::int64_t graph_launches = 0;
  // Warp instructions of block 0 since they were last cleared, by kernel and by opcode: of a warp's
  // lanes, the one that executed an instruction most often.
  bool counting = false;
  std::map<std::string, std::map<std::string, std::int64_t>> instructions;
  std::map<std::string, std::int64_t> global_bytes;  // likewise: by kernel, loaded by block 0
  std::map<std::string, std::int64_t> blocks;        // likewise: by kernel, of its last launch
};
inline Machine& machine() {
  static auto* instance = new Machine;
  return *instance;
}

// Global memory that may be read and written: what the runtime gave out, and arrays of the host
// that a test has lent. Around the former lie bytes that belong to nobody.
class GlobalMemory {
 public:
  void* Take(std::size_t bytes);
  void GiveBack(void* p);
  void Lend(const void* p, std::size_t bytes);
  void TakeBack(const void* p);
  bool Holds(std::uintptr_t address, std::size_t bytes);
  std::size_t given_out() const { return given_out_; }  // bytes, and not given back

 private:
  struct Range {
    std::size_t bytes;
    bool lent;
  };
  std::map<std::uintptr_t, Range> ranges_;
  std::vector<std::pair<void*, std::size_t>> free_;
  std::uintptr_t last_begin_ = 1, last_end_ = 0;  // of the last look
  std::size_t given_out_ = 0;
};
GlobalMemory& global_memory();

}  // namespace ptx_runner
