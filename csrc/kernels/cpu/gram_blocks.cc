#include "kernels/cpu/gram_blocks.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "kernels/cpu/float_mode.h"
#include "kernels/cpu/gram_lanes.h"
#include "kernels/cpu/plan.h"
#include "kernels/cpu/stages.h"

namespace linreg_ops {
namespace cpu {
namespace {

constexpr std::int64_t kRuns = kGramBlockRows / kGramRunRows;
constexpr std::int64_t kDouble = sizeof(double);

std::int64_t TileTasks(const GramLayout& layout, std::int64_t rights_per_task) {
  std::int64_t tasks = 0;
  for (std::int64_t g = 0; g < layout.GroupsToMultiply(); ++g) {
    tasks += CeilDiv(layout.RightEnd() - layout.RightBegin(g), rights_per_task);
  }
  return tasks;
}

}  // namespace

GramBlocksPlan::GramBlocksPlan(const GramLayout& layout, std::int64_t max_blocks, int threads) {
  const std::int64_t sums_bytes = layout.size() * kDouble;
  shared = layout.Large();
  workers = std::max(threads, 1);

  // Enough for each thread to work for a tenth of a millisecond between two meetings.
  constexpr std::int64_t kSlotsBytes = 8 << 20;
  const std::int64_t most = workers == 1 ? 1 : 64 * workers;
  blocks = shared ? 1
                  : std::clamp<std::int64_t>(kSlotsBytes / sums_bytes,
                                             std::min<std::int64_t>(2 * workers, most), most);
  blocks = std::clamp<std::int64_t>(max_blocks, 1, blocks);

  // Tasks of a run's rows by some panels, which are wide enough to be read in one go.
  constexpr std::int64_t kPackAtLeast = 16;
  const std::int64_t parts =
      std::min(CeilDiv(layout.panels, kPackAtLeast), 2 * std::int64_t{workers});
  panels_per_pack = std::max<std::int64_t>(CeilDiv(layout.panels, parts), 1);
  rights_per_task = 16;
  while (rights_per_task > 2 && TileTasks(layout, rights_per_task) < 8 * workers) {
    rights_per_task /= 2;
  }
  while (TileTasks(layout, rights_per_task) >= Plan::kMaxTasks) rights_per_task *= 2;

  const std::int64_t runs = shared ? kRuns : 1;
  const std::int64_t packed_bytes = runs * layout.panels * kGramPanelSize * kDouble;
  Reserve of_worker;
  weights_offset = of_worker(kGramBlockRows * kDouble);
  margins_offset = of_worker(layout.margins() * kDouble);
  if (shared) {
    tiles_offset = of_worker(kGramGroup * rights_per_task * kGramTile * kDouble);
  } else {
    packed_offset = of_worker(packed_bytes);
    left_offset = of_worker(packed_bytes);
    lanes_offset = of_worker(GramLanes::ScratchBytes(layout));
  }
  scratch_bytes = of_worker.bytes();

  Reserve reserve;
  slots_offset = reserve(shared ? kRuns * layout.margins() * kDouble : blocks * sums_bytes);
  if (shared) {
    packed_offset = reserve(packed_bytes);
    left_offset = reserve(packed_bytes);
  }
  scratch_offset = reserve(workers * scratch_bytes);
  workspace_bytes = reserve.bytes();
}

namespace {

// Steps of two stages each: a number of blocks, or one that is shared.
class Runner {
 public:
  Runner(const GramLayout& layout, const GramKernels& kernels, const GramBlocksPlan& plan,
         const GramInput& input, const GramBlock* blocks, std::int64_t count, char* workspace)
      : layout_(layout),
        kernels_(kernels),
        plan_(plan),
        input_(input),
        lanes_(layout, kernels, input),
        blocks_(blocks),
        count_(count),
        workspace_(workspace) {}

  void Run(const Threads& threads) {
    const std::int64_t products = count_ * kGramBlockRows * layout_.tiles() * kGramTile;
    constexpr std::int64_t kWorthThreads = 1 << 20;  // some tens of microseconds
    int tasks = Begin();
    if (plan_.workers == 1 || threads.run == nullptr || products < kWorthThreads) {
      for (; tasks > 0; tasks = Next()) {
        for (int task = 0; task < tasks; ++task) RunTask(task, 0);
      }
      return;
    }
    Stages::Work work;
    work.self = this;
    work.run = [](void* self, int task, int worker) {
      const IeeeFloats ieee;
      static_cast<Runner*>(self)->RunTask(task, worker);
    };
    work.next = [](void* self) { return static_cast<Runner*>(self)->Next(); };
    Stages stages(work, tasks);
    threads.run(threads.pool, plan_.workers, Stages::Body, &stages);
  }

 private:
  // Stages.

  int Begin() {
    stage_ = 0;
    step_blocks_ = std::min(plan_.blocks, count_ - begin_);
    if (!plan_.shared) return static_cast<int>(step_blocks_);
    weighted_ = Weighted(Shared());
    return static_cast<int>(Runs(Shared()) * PackParts());
  }

  int Next() {
    if (stage_ == 1) {
      begin_ += step_blocks_;
      return begin_ == count_ ? 0 : Begin();
    }
    stage_ = 1;
    if (plan_.shared) return static_cast<int>(TileTasks(layout_, plan_.rights_per_task)) + 1;
    return static_cast<int>(AddTasks());
  }

  void RunTask(int task, int worker) {
    char* const scratch = workspace_ + plan_.scratch_offset + worker * plan_.scratch_bytes;
    if (!plan_.shared) {
      stage_ == 0 ? WholeBlock(task, scratch) : AddSlots(task);
    } else if (stage_ == 0) {
      PackPart(task, scratch);
    } else if (task == 0) {
      AddMargins();
    } else {
      AddTiles(task - 1, scratch);
    }
  }

  // Whole blocks.

  double* Slot(std::int64_t i) const {
    return reinterpret_cast<double*>(workspace_ + plan_.slots_offset) + i * layout_.size();
  }

  void WholeBlock(std::int64_t i, char* scratch) const {
    const GramBlock& block = blocks_[begin_ + i];
    double* const slot = Slot(i);
    const double* const weights = Weights(block, Weighted(block), scratch, slot + layout_.weight());
    if (lanes_.Take(block)) {
      double* const lanes = reinterpret_cast<double*>(scratch + plan_.lanes_offset);
      return lanes_.Sum(block, weights, lanes, slot);
    }
    double* const packed = reinterpret_cast<double*>(scratch + plan_.packed_offset);
    double* const left =
        weights == nullptr ? nullptr : reinterpret_cast<double*>(scratch + plan_.left_offset);
    double* const margins = slot + layout_.x_sum();
    double* const more = reinterpret_cast<double*>(scratch + plan_.margins_offset);
    std::fill(slot, margins, 0.0);
    for (std::int64_t run = 0; run < Runs(block); ++run) {
      double* const of_run = run == 0 ? margins : more;
      PackRun(block, run, 0, layout_.panels, weights, packed, left, of_run);
      for (std::int64_t i = 0; run > 0 && i < layout_.weight() - layout_.x_sum(); ++i) {
        margins[i] += more[i];
      }
      for (std::int64_t g = 0; g < layout_.GroupsToMultiply(); ++g) {
        const std::int64_t from = layout_.RightBegin(g), at = layout_.TilesBefore(g, from);
        MultiplyRun(block, run, g, from, layout_.RightEnd(), packed, left, slot + at * kGramTile);
      }
    }
    TransposeY(slot, 0, layout_.RightEnd());
    if (layout_.XOnTheLeft() && !layout_.SameOrder()) OrderY(slot, packed);
  }

  // Puts transposed tiles in the order of those with Y on the left.
  void OrderY(double* slot, double* copy) const {
    const std::int64_t lefts = layout_.x_panels;
    const double* const tiles = slot + layout_.x_tiles() * kGramTile;
    std::copy(tiles, tiles + lefts * layout_.y_panels() * kGramTile, copy);
    for (std::int64_t y = 0; y < layout_.y_panels(); ++y) {
      for (std::int64_t x = 0; x < lefts; ++x, copy += kGramTile) {
        const std::int64_t g = layout_.x_groups + y / kGramGroup;
        double* const tile = slot + (layout_.TilesBefore(g, x) + y % kGramGroup) * kGramTile;
        std::copy(copy, copy + kGramTile, tile);
      }
    }
  }

  std::int64_t AddTasks() const {
    constexpr std::int64_t kNumbers = 1 << 15;  // to add in one task, at least
    const std::int64_t tasks = step_blocks_ * layout_.size() / kNumbers;
    return std::clamp<std::int64_t>(tasks, 1, 4 * plan_.workers);
  }

  void AddSlots(std::int64_t task) const {
    const std::int64_t share = RoundUp(CeilDiv(layout_.size(), AddTasks()), kGramPanel);
    const std::int64_t from = task * share, to = std::min(from + share, layout_.size());
    if (from >= to) return;
    for (std::int64_t i = 0; i < step_blocks_; ++i) {
      const GramBlock& block = blocks_[begin_ + i];
      kernels_.accumulate(Slot(i) + from, block.sum + from, block.error + from, to - from);
    }
  }

  // A shared block.

  const GramBlock& Shared() const { return blocks_[begin_]; }
  double* Margins() const { return reinterpret_cast<double*>(workspace_ + plan_.slots_offset); }
  double* Packed(std::int64_t run) const {
    return reinterpret_cast<double*>(workspace_ + plan_.packed_offset) +
           run * layout_.panels * kGramPanelSize;
  }
  double* Left(std::int64_t run) const {
    return reinterpret_cast<double*>(workspace_ + plan_.left_offset) +
           run * layout_.panels * kGramPanelSize;
  }

  std::int64_t PackParts() const { return CeilDiv(layout_.panels, plan_.panels_per_pack); }

  void PackPart(std::int64_t task, char* scratch) const {
    const GramBlock& block = Shared();
    const std::int64_t run = task / PackParts();
    const std::int64_t from = task % PackParts() * plan_.panels_per_pack;
    const std::int64_t to = std::min(from + plan_.panels_per_pack, layout_.panels);
    double unused[kGramPanel];
    double* const total = task == 0 ? Margins() + layout_.weight() - layout_.x_sum() : unused;
    const double* const weights = Weights(block, weighted_, scratch, total);
    PackRun(block, run, from, to, weights, Packed(run), weights == nullptr ? nullptr : Left(run),
            Margins() + run * layout_.margins());
  }

  void AddMargins() const {
    const GramBlock& block = Shared();
    for (std::int64_t run = 1; run < Runs(block); ++run) {
      const double* const more = Margins() + run * layout_.margins();
      for (std::int64_t i = 0; i < layout_.weight() - layout_.x_sum(); ++i) Margins()[i] += more[i];
    }
    kernels_.accumulate(Margins(), block.sum + layout_.x_sum(), block.error + layout_.x_sum(),
                        layout_.margins());
  }

  void AddTiles(std::int64_t task, char* scratch) const {
    std::int64_t g = 0, of_group = task;
    for (;; ++g) {
      const std::int64_t rights = layout_.RightEnd() - layout_.RightBegin(g);
      const std::int64_t tasks = CeilDiv(rights, plan_.rights_per_task);
      if (of_group < tasks) break;
      of_group -= tasks;
    }
    const std::int64_t from = layout_.RightBegin(g) + of_group * plan_.rights_per_task;
    const std::int64_t to = std::min(from + plan_.rights_per_task, layout_.RightEnd());
    const GramBlock& block = Shared();
    const std::int64_t at = layout_.TilesBefore(g, from) * kGramTile;
    const std::int64_t end = layout_.TilesBefore(g, to) * kGramTile;
    double* const tiles = reinterpret_cast<double*>(scratch + plan_.tiles_offset);
    std::fill(tiles, tiles + (end - at), 0.0);
    for (std::int64_t run = 0; run < Runs(block); ++run) {
      MultiplyRun(block, run, g, from, to, Packed(run), weighted_ ? Left(run) : nullptr, tiles);
    }
    TransposeY(tiles, from, to);
    kernels_.accumulate(tiles, block.sum + at, block.error + at, end - at);
  }

  // Serves either.

  static std::int64_t Rows(const GramBlock& block) { return block.pending_rows + block.rows; }
  static std::int64_t Runs(const GramBlock& block) { return CeilDiv(Rows(block), kGramRunRows); }
  std::int64_t width() const { return layout_.d + layout_.k + 1; }

  bool Weighted(const GramBlock& block) const {
    bool weighted = input_.weights != nullptr && block.rows > 0;
    for (std::int64_t i = 0; i < block.pending_rows && !weighted; ++i) {
      weighted = block.pending[(i + 1) * width() - 1] != 1.0;
    }
    return weighted;
  }

  // The weights of a block's rows, null for ones; and their sum, as a panel.
  const double* Weights(const GramBlock& block, bool weighted, char* scratch, double* sum) const {
    std::fill(sum, sum + kGramPanel, 0.0);
    if (!weighted) {
      *sum = static_cast<double>(Rows(block));
      return nullptr;
    }
    double* const weights = reinterpret_cast<double*>(scratch + plan_.weights_offset);
    for (std::int64_t i = 0; i < block.pending_rows; ++i) {
      weights[i] = block.pending[(i + 1) * width() - 1];
    }
    for (std::int64_t i = 0; i < block.rows; ++i) {
      const std::int64_t row = block.index != nullptr ? block.index[i] : block.first + i;
      weights[block.pending_rows + i] = input_.weights == nullptr ? 1.0 : input_.weights[row];
    }
    for (std::int64_t begin = 0; begin < Rows(block); begin += kGramRunRows) {
      double of_run = 0;
      const std::int64_t end = std::min(begin + kGramRunRows, Rows(block));
      for (std::int64_t i = begin; i < end; ++i) of_run += weights[i];
      *sum += of_run;
    }
    return weights;
  }

  // Panels from ... to − 1 of a run, and the run's part of their margins.
  void PackRun(const GramBlock& block, std::int64_t run, std::int64_t from, std::int64_t to,
               const double* weights, double* packed, double* left, double* margins) const {
    const std::int64_t y_sum = layout_.y_sum() - layout_.x_sum();
    const std::int64_t squares = layout_.squares() - layout_.x_sum();
    const std::int64_t begin = run * kGramRunRows;
    const std::int64_t end = std::min(begin + kGramRunRows, Rows(block));
    const std::int64_t waiting = std::clamp(block.pending_rows, begin, end);

    const auto pack = [&](bool of_y, std::int64_t first, std::int64_t last) {
      const std::int64_t panels = last - first;
      if (panels <= 0) return;
      GramPack p = {};
      p.columns = of_y ? layout_.k : layout_.d;
      p.scale = of_y ? input_.y_scale : input_.x_scale;
      p.offset = of_y ? input_.y_offset : input_.x_offset;
      p.first_panel = first;
      p.panels = panels;
      p.sum = margins + (of_y ? y_sum : 0) + first * kGramPanel;
      p.squares = of_y ? margins + squares + first * kGramPanel : nullptr;
      std::fill(p.sum, p.sum + panels * kGramPanel, 0.0);
      if (of_y) std::fill(p.squares, p.squares + panels * kGramPanel, 0.0);
      const std::int64_t y_at = of_y ? layout_.x_panels * kGramPanelSize : 0;
      const auto segment = [&](std::int64_t from_row, std::int64_t to_row) {
        const std::int64_t at = (from_row - begin) * kGramPanel + first * kGramPanelSize;
        p.rows = to_row - from_row;
        p.weights = weights == nullptr ? nullptr : weights + from_row;
        p.right = packed + y_at + at;
        p.left = left == nullptr || of_y ? nullptr : left + at;
      };
      if (begin < waiting) {
        segment(begin, waiting);
        p.data = block.pending + begin * width() + (of_y ? layout_.d : 0);
        p.stride = width();
        p.end = block.pending + block.pending_rows * width();
        kernels_.pack[static_cast<int>(DType::kFloat64)](p);
      }
      if (waiting < end) {
        segment(waiting, end);
        const GramArray& array = of_y ? input_.y : input_.x;
        const std::int64_t row = waiting - block.pending_rows;
        p.index = block.index == nullptr ? nullptr : block.index + row;
        p.data = static_cast<const char*>(array.data) +
                 (block.index == nullptr ? (block.first + row) * array.stride : 0) *
                     static_cast<std::int64_t>(SizeOf(array.type));
        p.stride = array.stride;
        p.end = array.end;
        kernels_.pack[static_cast<int>(array.type)](p);
      }
    };
    pack(false, from, std::min(to, layout_.x_panels));
    pack(true, std::max(from, layout_.x_panels) - layout_.x_panels, to - layout_.x_panels);
  }

  void MultiplyRun(const GramBlock& block, std::int64_t run, std::int64_t g, std::int64_t from,
                   std::int64_t to, const double* packed, const double* left, double* tiles) const {
    // A weight is a factor of the column of X, whether that is on the left or on the right.
    const bool of_x = layout_.OfX(g), weighted = left != nullptr;
    GramTiles p;
    p.left = (weighted && of_x ? left : packed) + layout_.GroupBegin(g) * kGramPanelSize;
    p.left_panels = layout_.GroupPanels(g);
    p.last_columns = layout_.LastColumns(g);
    p.right = weighted && !of_x ? left : packed;
    p.right_begin = from;
    p.right_end = to;
    p.diagonal = of_x ? layout_.GroupBegin(g) : kNoDiagonal;
    p.rows = std::min(Rows(block) - run * kGramRunRows, kGramRunRows);
    p.tiles = tiles;
    kernels_.tiles(p);
  }

  // Transposes, of the tiles of right panels from ... to − 1, those of Y's: X is on their left.
  void TransposeY(double* tiles, std::int64_t from, std::int64_t to) const {
    if (to <= layout_.x_panels) return;
    const std::int64_t at = layout_.TilesBefore(0, from);
    const std::int64_t first = layout_.TilesBefore(0, std::max(from, layout_.x_panels)) - at;
    const std::int64_t end = layout_.TilesBefore(0, to) - at;
    for (double* tile = tiles + first * kGramTile; tile != tiles + end * kGramTile;
         tile += kGramTile) {
      for (std::int64_t r = 0; r < kGramPanel; ++r) {
        for (std::int64_t c = 0; c < r; ++c) {
          std::swap(tile[r * kGramPanel + c], tile[c * kGramPanel + r]);
        }
      }
    }
  }

  const GramLayout& layout_;
  const GramKernels& kernels_;
  const GramBlocksPlan& plan_;
  const GramInput& input_;
  const GramLanes lanes_;
  const GramBlock* const blocks_;
  const std::int64_t count_;
  char* const workspace_;

  std::int64_t begin_ = 0;  // the first block of this step
  std::int64_t step_blocks_ = 0;
  int stage_ = 0;
  bool weighted_ = false;  // the shared block
};

}  // namespace

void AddGramBlocks(const GramLayout& layout, const GramKernels& kernels, const GramBlocksPlan& plan,
                   const GramInput& input, const GramBlock* blocks, std::int64_t count,
                   const Threads& threads, char* workspace) {
  if (count == 0) return;
  const IeeeFloats ieee;
  Runner(layout, kernels, plan, input, blocks, count, workspace).Run(threads);
}

}  // namespace cpu
}  // namespace linreg_ops
