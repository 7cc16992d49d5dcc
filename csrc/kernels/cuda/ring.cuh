// The ring of tiles in shared memory through which a block streams its rows of X, y and
// sample_weight: while one tile is worked on, the next ones are on their way. Bytes in flight are
// the ring's size, whatever the registers and the occupancy, which is why X passes through shared
// memory.
#pragma once

#include <cstdint>

#include "kernels/cuda/async_copy.cuh"

namespace linreg_ops {
namespace cuda {

// One array of rows in global memory; null: absent.
struct RowArray {
  const unsigned char* begin = nullptr;
  std::int64_t row_bytes = 0;
};

struct RingArgs {
  RowArray x, y, s;
  std::int64_t n = 0;
  std::int64_t tiles = 0;
  std::int64_t stage_bytes = 0, y_offset = 0, s_offset = 0;
  int rows_per_tile = 1;
  int stages = 2;
  bool bulk = false;
};

// Rows of one array, and the 16-byte units [first, last) that hold them and lie wholly inside the
// array. Reading a neighbour tile's bytes is harmless; reading past the array is not, so the bytes
// outside the units, at the array's two ends only, are copied one by one.
struct Span {
  const unsigned char* from;
  const unsigned char* to;
  const unsigned char* first;
  const unsigned char* last;

  __device__ Span(const RowArray& array, std::int64_t n, std::int64_t row, int rows)
      : from(array.begin + row * array.row_bytes), to(from + rows * array.row_bytes) {
    const unsigned char* end = array.begin + n * array.row_bytes;
    first = Floor(from);
    if (first < array.begin) first += 16;
    last = Floor(to + 15);
    if (last > end) last -= 16;
    if (array.begin == nullptr || from == to || last <= first) first = last = to;
  }
  __device__ static const unsigned char* Floor(const unsigned char* p) {
    return p - (reinterpret_cast<std::uintptr_t>(p) & 15);
  }
  // Where an address of the span lies in the stage: at the same place modulo 16.
  __device__ unsigned char* InStage(unsigned char* stage, const unsigned char* p) const {
    return stage + (p - Floor(from));
  }
  __device__ std::uint32_t unit_bytes() const { return static_cast<std::uint32_t>(last - first); }
  __device__ bool has_edges() const { return first > from || last < to; }

  __device__ void CopyUnits(unsigned char* stage) const {
    for (const unsigned char* p = first + threadIdx.x * 16; p < last; p += blockDim.x * 16) {
      CopyAsync16(InStage(stage, p), p);
    }
  }
  __device__ void CopyUnitsInBulk(unsigned char* stage, std::uint64_t* barrier) const {
    if (first < last) CopyBulk(InStage(stage, first), first, unit_bytes(), barrier);
  }
  // At most 31 bytes when there is no unit, else at most 15 at either end.
  __device__ void CopyEdges(unsigned char* stage) const {
    const unsigned char* head = from + threadIdx.x;
    if (head < first && head < to) *InStage(stage, head) = *head;
    const unsigned char* tail = (last > from ? last : from) + threadIdx.x;
    if (first < last && tail < to) *InStage(stage, tail) = *tail;
  }
};

// A tile that has arrived.
struct TileView {
  const unsigned char* x;
  const unsigned char* y;
  const unsigned char* s;
  int rows;
};

class Ring {
 public:
  // `passes` over this block's tiles: blockIdx.x, blockIdx.x + gridDim.x, ...
  __device__ Ring(const RingArgs& args, std::int64_t passes, unsigned char* barriers,
                  unsigned char* stages)
      : args_(args),
        barriers_(reinterpret_cast<std::uint64_t*>(barriers)),
        stages_(stages),
        tiles_(blockIdx.x < args.tiles ? (args.tiles - blockIdx.x + gridDim.x - 1) / gridDim.x : 0),
        resident_(tiles_ <= args.stages),
        visits_(resident_ ? tiles_ : tiles_ * passes) {}

  __device__ std::int64_t tiles() const { return tiles_; }

  __device__ void Start() {
    if (args_.bulk && threadIdx.x == 0) {
      for (int i = 0; i < args_.stages; ++i) InitBarrier(barriers_ + i);
      PublishBarriers();
    }
    __syncthreads();
    for (int i = 0; i < args_.stages; ++i) Issue(i);
    __syncthreads();  // publishes the edges
  }

  // The block's tile number `index` on its pass number `pass`.
  __device__ TileView Await(std::int64_t pass, std::int64_t index) {
    const std::int64_t visit = pass * tiles_ + index;
    const int slot = static_cast<int>(resident_ ? index : visit % args_.stages);
    if (args_.bulk) {
      const std::int64_t round = resident_ ? 0 : visit / args_.stages;
      AwaitBarrier(barriers_ + slot, static_cast<std::uint32_t>(round & 1));
    } else {
      if (!resident_ || pass == 0) AwaitCopies(args_.stages - 1);
      __syncthreads();
    }
    unsigned char* stage = stages_ + slot * args_.stage_bytes;
    const std::int64_t row = RowOf(index);
    const int rows = RowsFrom(row);
    const Span x(args_.x, args_.n, row, rows);
    const Span y(args_.y, args_.n, row, rows);
    const Span s(args_.s, args_.n, row, rows);
    return {x.InStage(stage, x.from), y.InStage(stage + args_.y_offset, y.from),
            s.InStage(stage + args_.s_offset, s.from), rows};
  }

  // After the block's last use of that tile: __syncthreads() first.
  __device__ void Refill(std::int64_t pass, std::int64_t index) {
    Issue(pass * tiles_ + index + args_.stages);
  }

 private:
  __device__ std::int64_t RowOf(std::int64_t index) const {
    return (blockIdx.x + index * gridDim.x) * args_.rows_per_tile;
  }
  __device__ int RowsFrom(std::int64_t row) const {
    const std::int64_t left = args_.n - row;
    return left < args_.rows_per_tile ? static_cast<int>(left) : args_.rows_per_tile;
  }

  __device__ void Issue(std::int64_t visit) {
    if (visit < visits_) {
      const int slot = static_cast<int>(visit % args_.stages);
      const std::int64_t row = RowOf(visit % tiles_);
      const int rows = RowsFrom(row);
      unsigned char* stage = stages_ + slot * args_.stage_bytes;
      const Span x(args_.x, args_.n, row, rows);
      const Span y(args_.y, args_.n, row, rows);
      const Span s(args_.s, args_.n, row, rows);
      if (!args_.bulk) {
        x.CopyUnits(stage);
        y.CopyUnits(stage + args_.y_offset);
        s.CopyUnits(stage + args_.s_offset);
      } else if (threadIdx.x == 0) {
        FenceForBulkCopies();
        ArriveExpecting(barriers_ + slot, x.unit_bytes() + y.unit_bytes() + s.unit_bytes());
        x.CopyUnitsInBulk(stage, barriers_ + slot);
        y.CopyUnitsInBulk(stage + args_.y_offset, barriers_ + slot);
        s.CopyUnitsInBulk(stage + args_.s_offset, barriers_ + slot);
      }
      if (x.has_edges() || y.has_edges() || s.has_edges()) {
        x.CopyEdges(stage);
        y.CopyEdges(stage + args_.y_offset);
        s.CopyEdges(stage + args_.s_offset);
        FenceForBulkCopies();
      }
    }
    // An empty group too, so that the number of younger groups is always stages − 1.
    if (!args_.bulk) CommitCopies();
  }

  const RingArgs& args_;
  std::uint64_t* const barriers_;
  unsigned char* const stages_;
  const std::int64_t tiles_;
  const bool resident_;  // every tile has a stage of its own: copied once, whatever the passes
  const std::int64_t visits_;
};

}  // namespace cuda
}  // namespace linreg_ops
