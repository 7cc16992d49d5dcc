// The scheduler of the emulation: see README.md.
#include "cuda_runtime.h"

namespace linreg_ops {
namespace cuda {
alignas(128) unsigned char shared[kEmulatedSharedBytes];
}
}  // namespace linreg_ops

namespace cuda_emulation {
namespace {

constexpr std::size_t kStackBytes = 128 << 10;

std::vector<std::unique_ptr<char[]>>& FreeStacks() {
  static std::vector<std::unique_ptr<char[]>> stacks;
  return stacks;
}

void Entry() {
  machine().body();
  Fiber* fiber = machine().fiber;
  Block* block = machine().block;
  fiber->done = true;
  --block->alive;
  for (Barrier* barrier : {&block->barrier, &block->warps[fiber->warp].barrier}) {
    --barrier->members;
    if (barrier->arrived > 0 && barrier->arrived >= barrier->members) barrier->Release();
  }
  _longjmp(machine().scheduler, 1);
}

void Resume(Fiber* fiber) {
  machine().fiber = fiber;
  threadIdx = fiber->thread;
  if (_setjmp(machine().scheduler) == 0) {
    if (fiber->started) _longjmp(fiber->jump, 1);
    fiber->started = true;
    getcontext(&fiber->context);
    fiber->context.uc_stack.ss_sp = fiber->stack.get();
    fiber->context.uc_stack.ss_size = kStackBytes;
    fiber->context.uc_link = nullptr;
    makecontext(&fiber->context, Entry, 0);
    setcontext(&fiber->context);
  }
}

void Start(Block* block, dim3 index) {
  block->index = index;
  const int threads = static_cast<int>(blockDim.x);
  block->fibers = std::vector<Fiber>(threads);
  block->warps = std::vector<Warp>((threads + 31) / 32);
  for (int t = 0; t < threads; ++t) {
    Fiber& fiber = block->fibers[t];
    fiber.thread = dim3(t, 0, 0);
    fiber.warp = t / 32;
    fiber.lane = t % 32;
    if (FreeStacks().empty()) FreeStacks().emplace_back(new char[kStackBytes]);
    fiber.stack = std::move(FreeStacks().back());
    FreeStacks().pop_back();
    ++block->warps[fiber.warp].barrier.members;
  }
  block->alive = block->barrier.members = threads;
}

// Until every thread is done or sleeps; false if nothing could run.
bool RunSlice(Block* block) {
  machine().block = block;
  blockIdx = block->index;
  const int count = static_cast<int>(block->fibers.size());
  bool any = false;
  for (bool progress = true; progress && block->alive > 0;) {
    progress = false;
    for (int i = 0; i < count; ++i) {
      Fiber* fiber = &block->fibers[static_cast<long>(i) * machine().order % count];
      if (fiber->done || (fiber->awaited && *fiber->awaited == fiber->seen)) continue;
      fiber->awaited = nullptr;
      fiber->slept = false;
      Resume(fiber);
      any = true;
      if (!fiber->slept) progress = true;
    }
  }
  return any;
}

void Finish(Block* block) {
  for (Fiber& fiber : block->fibers) {
    if (!fiber.open_group.empty() || !fiber.groups.empty()) {
      // Allowed by CUDA only for groups that copy nothing.
      for (auto& group : fiber.groups) {
        if (!group.empty()) Fail("a thread ended before its copies");
      }
    }
    FreeStacks().push_back(std::move(fiber.stack));
  }
}

}  // namespace

Machine& machine() {
  static Machine* instance = [] {
    auto* m = new Machine;
    const char* order = std::getenv("CUDA_EMULATION_ORDER");
    if (order) m->order = std::atoi(order) | 1;
    return m;
  }();
  return *instance;
}

void RunGrid(bool cooperative) {
  using linreg_ops::cuda::kEmulatedSharedBytes;
  using linreg_ops::cuda::shared;
  Machine& m = machine();
  if (m.shared_bytes > kEmulatedSharedBytes) Fail("too much shared memory");
  const std::size_t grid = std::size_t{gridDim.x} * gridDim.y * gridDim.z;
  std::vector<dim3> indices;
  for (unsigned z = 0; z < gridDim.z; ++z) {
    for (unsigned y = 0; y < gridDim.y; ++y) {
      for (unsigned x = 0; x < gridDim.x; ++x) indices.emplace_back(x, y, z);
    }
  }
  if (!cooperative) {
    // Last block first: nobody may rely on an order.
    for (std::size_t i = grid; i-- > 0;) {
      Block block;
      std::memset(shared, 0xff, kEmulatedSharedBytes);
      Start(&block, indices[i]);
      for (int idle = 0; block.alive > 0;) {
        if (!RunSlice(&block)) Fail("deadlock");
        ++idle;
        if (idle > 1000000) Fail("a block waits for ever");
      }
      Finish(&block);
    }
    return;
  }
  std::vector<Block> blocks(grid);
  for (std::size_t i = 0; i < grid; ++i) {
    Start(&blocks[i], indices[i]);
    blocks[i].shared.assign(m.shared_bytes, 0xff);
  }
  std::size_t alive = grid;
  for (long rounds = 0; alive > 0; ++rounds) {
    if (rounds > 10000000) Fail("the blocks wait for ever");
    alive = 0;
    for (std::size_t i = grid; i-- > 0;) {
      if (blocks[i].alive == 0) continue;
      std::memcpy(shared, blocks[i].shared.data(), m.shared_bytes);
      if (!RunSlice(&blocks[i])) Fail("deadlock");
      std::memcpy(blocks[i].shared.data(), shared, m.shared_bytes);
      alive += blocks[i].alive > 0;
    }
  }
  for (Block& block : blocks) Finish(&block);
}

}  // namespace cuda_emulation
