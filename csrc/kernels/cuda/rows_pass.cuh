// The fused pass over a block's rows: straight from global memory to registers, where a row stays
// from its dot products to its share of the gradient.
#pragma once

#include <cfloat>
#include <cstdint>
#include <type_traits>

#include "kernels/cuda/args.cuh"
#include "kernels/cuda/async_copy.cuh"
#include "kernels/cuda/element.cuh"
#include "kernels/cuda/plan.h"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/vector.cuh"

namespace linreg_ops {
namespace cuda {

// `lanes` lanes share a row; each has C vectors of E columns, `lanes` vectors apart, for K targets,
// and R rows in flight. Where d is not a multiple of E, a row starts within a vector: the lanes
// load the vectors that cover it, with weights of zero at the neighbours' elements.
//
// A row's dots are summed over its lanes target by target: where it has K lanes or more, each lane
// ends with one target's, makes that one's residual, and tells the others.
//
// A lane sees its own vectors only, hence no barriers between rows: what a multiprocessor has in
// flight are the registers of its 8 warps, 64 KB. Where a row takes more than one warp, these wait
// for each other, once for R rows.
// Those of a row of several warps are copied to shared memory meanwhile, iterations ahead, so that
// memory is busy while they wait. In a descent, a block's rows stay in shared memory from the first
// pass on, if they fit.
// `Team`: a row is several blocks' together, each with blockDim.x of its lanes.
template <typename T, int K, int E, int C, bool Team = false>
class RowsPass {
 public:
  using Number = T;
  using A = AccumulatorOf<T>;
  static constexpr int kBlocks = 1;  // of a multiprocessor
  static constexpr int R = RowsInFlight(Element<T>::kType, {K, E, C}, Team);

  __device__ RowsPass(const FusedArgs& args, unsigned char* shared)
      : args_(args),
        shared_(shared),
        lanes_(args.plan.lanes),
        team_(Team ? static_cast<int>(blockIdx.x) / args.plan.team : static_cast<int>(blockIdx.x)),
        member_(Team ? static_cast<int>(blockIdx.x) % args.plan.team : 0),
        block_lanes_(Team ? static_cast<int>(blockDim.x) : lanes_),
        span_(block_lanes_ * args.plan.target_groups),
        lane_(member_ * block_lanes_ + static_cast<int>(threadIdx.x) % block_lanes_),
        target_(static_cast<int>(threadIdx.x) / block_lanes_ % args.plan.target_groups * K),
        own_(target_ + (kDivides ? static_cast<int>(threadIdx.x) % K : 0)),
        group_(static_cast<int>(threadIdx.x) / span_),
        unit_(team_ * args.plan.groups + group_),
        shift_(ShiftOf(unit_)) {
#pragma unroll
    for (int u = 0; u < R; ++u) {
#pragma unroll
      for (int j = 0; j < C; ++j) x_[u][j].Clear();
    }
    ClearSums();
  }

  // weight(i) is element i of W as the caller knows it, [d + intercept, k].
  template <typename Weight>
  __device__ void LoadWeights(const Weight& weight) {
    if constexpr (S > 0) BeginRing();  // X's first rows are under way meanwhile
    // By way of shared memory: there is one place in the code that knows W's type.
    A* const staged = reinterpret_cast<A*>(shared_);
    const int k = args_.k, bias = args_.intercept ? k : 0, count = args_.d * k;
#pragma unroll 1
    for (int t = 0; t < H; ++t) {
      const A value = bias != 0 && own_ + t < k ? weight(own_ + t) : A(0);
#pragma unroll
      for (int same = 0; same < H; ++same) w_bias_[same] = same == t ? value : w_bias_[same];
    }
    if constexpr (!Team) {
      StageWeights(staged, count, [&](int i) { return weight(bias + i); });
      __syncthreads();
    }
    int column = NotHoisted(Column(0));
#pragma unroll
    for (int j = 0; j < C; ++j) {
      int first = 0;
      if constexpr (Team) {  // only this block's columns: all of W may be too much
        first = FirstColumn(j);
        __syncthreads();
        StageWeights(staged, (block_lanes_ * E + E - 1) * k, [&](int i) {
          const int at = first * k + i;
          return at >= 0 && at < count ? weight(bias + at) : A(0);
        });
        __syncthreads();
      }
#pragma unroll
      for (int i = 0; i < E; ++i) {
        const int c = column + i;
#pragma unroll
        for (int t = 0; t < K; ++t) {
          const bool mine = target_ + t < k && c >= 0 && c < args_.d;
          w_[t][j][i] = mine ? staged[(c - first) * k + target_ + t] : A(0);
        }
      }
      column = NotHoisted(column + lanes_ * E);
    }
    __syncthreads();
  }

  // All of the block's rows. flush(i, total, first) adds to the block's partial sum number i, or
  // writes it for the first time.
  template <typename Flush>
  __device__ void Run(bool want_grad, const Flush& flush) {
    const std::int64_t stride = std::int64_t{args_.plan.teams} * args_.plan.groups;
    const std::int64_t step = stride * R;
    int left = args_.plan.segment;
    std::int64_t row = unit_;
    bool first_flush = true;
    for (int i = 0; i < args_.plan.whole; ++i, row += step) {
      Rows<true>(i, row, stride, want_grad);
      if (--left == 0) {
        FlushSums(flush, first_flush);
        first_flush = false;
        left = args_.plan.segment;
      }
    }
    // As often in every group: the barriers are the block's.
    int number = args_.plan.whole;
    for (std::int64_t first = number * step; first < args_.n; first += step, row += step) {
      Rows<false>(number++, row, stride, want_grad);
    }
    FlushSums(flush, first_flush);
    has_x_ = args_.descent.kept_x_offset != 0;
  }

 private:
  // Whether the lanes of a row divide its targets: where every plan of the instance has K lanes.
  static constexpr bool kDivides = K > 1 && (Team || C > LeastVectors(Element<T>::kType, K, E));
  static constexpr int H = kDivides ? 1 : K;  // targets that a lane has residuals of
  // Y's and the sample weights' elements as they came from memory: to convert them would wait.
  using Raw = std::conditional_t<sizeof(T) == 8, double, std::uint32_t>;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
  static constexpr int S = 0;  // PlanFused gives such code none
#else
  static constexpr int S = RingStages(Element<T>::kType, {K, E, C}, Team);
#endif

  // Several at a time: one after the other, they would take as long to come from memory as 1 MB of
  // X.
  template <typename Weight>
  __device__ static void StageWeights(A* staged, int count, const Weight& weight) {
    constexpr int kAtOnce = 8;
    const int threads = static_cast<int>(blockDim.x);
    for (int i = threadIdx.x; i < count; i += kAtOnce * threads) {
      A value[kAtOnce];
#pragma unroll
      for (int u = 0; u < kAtOnce; ++u) {
        value[u] = i + u * threads < count ? weight(i + u * threads) : A(0);
      }
#pragma unroll
      for (int u = 0; u < kAtOnce; ++u) {
        if (i + u * threads < count) staged[i + u * threads] = value[u];
      }
    }
  }

  __device__ int ShiftOf(int unit) const {
    return args_.plan.period == 1 ? 0 : static_cast<int>(unit % E * (args_.d % E) % E);
  }
  // The first of the lane's columns in its vector number j; below 0 and from d on: none.
  __device__ int Column(int j) const { return (j * lanes_ + lane_) * E - shift_; }

  // The first column that a lane of this block may have in its vector number j.
  __device__ int FirstColumn(int j) const {
    return (j * lanes_ + member_ * block_lanes_) * E - (E - 1);
  }

  __device__ void ClearSums() {
#pragma unroll
    for (int t = 0; t < H; ++t) loss_[t] = bias_[t] = 0;
#pragma unroll
    for (int t = 0; t < K; ++t) {
#pragma unroll
      for (int j = 0; j < C; ++j) {
#pragma unroll
        for (int i = 0; i < E; ++i) grad_[t][j][i] = 0;
      }
    }
  }

  // Iteration `number`'s rows row, row + stride, ...: R of them, all there if `Whole`.
  template <bool Whole>
  __device__ void Rows(int number, std::int64_t row, std::int64_t stride, bool want_grad) {
    Raw y[R][H], weight[R];
    if constexpr (S > 0) LoadY<Whole>(row, stride, y, weight);  // X is there already
    TakeX<Whole>(number, row, stride);
    if constexpr (S == 0) LoadY<Whole>(row, stride, y, weight);
    A r[R][H];
    if constexpr (S == 0) Convert(y, r);
    A dot[R][H];
    // A neighbour's infinity or NaN times a weight of zero: once more without the neighbours. All
    // warps of a row have the same dots and agree.
    for (bool clear = args_.plan.period == 1;; clear = true) {
      Dots(dot);
      if (clear || !__any_sync(0xffffffffu, !AllFinite(dot))) break;
      ClearNeighbours();
    }
    if constexpr (S > 0) Convert(y, r);
#pragma unroll
    for (int t = 0; t < H; ++t) {
      A loss = 0, bias = 0;
#pragma unroll
      for (int u = 0; u < R; ++u) {
        const A residual = dot[u][t] + w_bias_[t] - r[u][t];
        r[u][t] = residual;
        if (!Whole && row + u * stride >= args_.n) r[u][t] = 0;
        if (args_.s != nullptr) {
          const A weighted = Converted(weight[u]) * r[u][t];
          loss += weighted * r[u][t];
          r[u][t] = weighted;
        } else {
          loss += r[u][t] * r[u][t];
        }
        bias += r[u][t];
      }
      // In float32 over R rows, at most 16; in float64 from there on.
      loss_[t] += static_cast<double>(loss);
      if (args_.intercept) bias_[t] += static_cast<double>(bias);
    }
    if (!want_grad) return;
#pragma unroll
    for (int u = 0; u < R; ++u) {
      A of[K];
      TellEachOther(r[u], of);
#pragma unroll
      for (int j = 0; j < C; ++j) {
#pragma unroll
        for (int i = 0; i < E; ++i) {
          const A x = x_[u][j][i];
#pragma unroll
          for (int t = 0; t < K; ++t) grad_[t][j][i] += of[t] * x;
        }
      }
    }
  }

  // From lanes that have their own target's number to all targets' in each.
  __device__ void TellEachOther(const A (&own)[H], A (&all)[K]) const {
    if constexpr (kDivides) {
#pragma unroll
      for (int t = 0; t < K; ++t) all[t] = __shfl_sync(0xffffffffu, own[0], t, K);
    } else {
#pragma unroll
      for (int t = 0; t < K; ++t) all[t] = own[t];
    }
  }

  // From global memory, or in a descent's later passes from where the first one left them.
  template <bool Whole>
  __device__ void TakeX(int number, std::int64_t row, std::int64_t stride) {
    if constexpr (Whole && S > 0) {
      if (ring_whole_ > 0) {
        TakeFromRing(number, row, stride);
        return;
      }
    }
    if (has_x_) {
      EachKept(number, [](Vector<T, E>& x, std::uint32_t at) { x.template LoadShared<0>(at); });
      return;
    }
    LoadX<Whole>(row, stride);
    if (args_.descent.kept_x_offset == 0) return;
    EachKept(number, [](const Vector<T, E>& x, std::uint32_t at) { x.StoreShared(at); });
  }
  template <typename Use>
  __device__ void EachKept(int number, const Use& use) {
    constexpr int kVectorBytes = E * static_cast<int>(sizeof(T));
    const int stride = static_cast<int>(blockDim.x) * kVectorBytes;
    std::uint32_t at = SharedAddress(shared_) +
                       static_cast<std::uint32_t>(args_.descent.kept_x_offset) +
                       threadIdx.x * kVectorBytes + number * (R * C) * stride;
#pragma unroll
    for (int u = 0; u < R; ++u) {
#pragma unroll
      for (int j = 0; j < C; ++j, at += stride) use(x_[u][j], at);
    }
  }

  // If rows go by way of the ring, the first copies, and zeros for vectors beyond the last column,
  // which get none. Whole iterations do, unless X stays in shared memory anyhow.
  __device__ void BeginRing() {
    const bool ring = args_.plan.ring && args_.wide_loads && args_.descent.kept_x_offset == 0;
    ring_whole_ = ring ? args_.plan.whole : 0;
    if (!ring) return;
    Vector<T, E> zeros;
    zeros.Clear();
#pragma unroll 1
    for (int i = 0; i < S * R * C; ++i) {
      if (Column(i % C) >= args_.d) zeros.StoreShared(Ring() + i * blockDim.x * 16);
    }
    const std::int64_t stride = std::int64_t{args_.plan.teams} * args_.plan.groups;
    slot_ = 0;
#pragma unroll 1
    for (int number = 0; number < S; ++number) {
      StartCopies(number, unit_ + number * R * stride, stride);
      slot_ = NextSlot();
    }
  }
  __device__ std::uint32_t Ring() const {
    return SharedAddress(shared_) + static_cast<std::uint32_t>(args_.plan.ring_offset) +
           threadIdx.x * 16;
  }
  __device__ int NextSlot() const { return slot_ == S - 1 ? 0 : slot_ + 1; }
  // Into this slot, iteration `number`'s rows; beyond the last one the group of copies is empty.
  __device__ void StartCopies(int number, std::int64_t row, std::int64_t stride) {
    const std::uint32_t block_bytes = static_cast<std::uint32_t>(blockDim.x) * 16;
    std::uint32_t to = Ring() + slot_ * (R * C) * block_bytes;
    if (number < ring_whole_) {
      const T* from = static_cast<const T*>(args_.x) + row * args_.d + Column(0);
#pragma unroll
      for (int u = 0; u < R; ++u) {
        const T* at = from;
        int columns = NotHoisted(args_.d - Column(0));
#pragma unroll
        for (int j = 0; j < C; ++j, to += block_bytes) {
          CopyAsync<16, 0, !Team>(to, at, columns > 0);
          at = NotHoisted(at + lanes_ * E);
          columns = NotHoisted(columns - lanes_ * E);
        }
        from = NotHoisted(from + stride * args_.d);
      }
    }
    CommitCopies();
  }
  // The slot's next copies start at once.
  __device__ void TakeFromRing(int number, std::int64_t row, std::int64_t stride) {
    AwaitCopiesBut<S - 1>();
    const std::uint32_t block_bytes = static_cast<std::uint32_t>(blockDim.x) * 16;
    std::uint32_t at = Ring() + slot_ * (R * C) * block_bytes;
#pragma unroll
    for (int u = 0; u < R; ++u) {
#pragma unroll
      for (int j = 0; j < C; ++j, at += block_bytes) x_[u][j].template LoadShared<0>(at);
    }
    StartCopies(number + S, row + S * R * stride, stride);
    slot_ = NextSlot();
  }

  template <bool Whole>
  __device__ void LoadX(std::int64_t row, std::int64_t stride) {
    const T* from = static_cast<const T*>(args_.x) + row * args_.d + Column(0);
    // The last row's last vector may reach beyond X.
    const bool edge = !Whole && args_.plan.period > 1 && row + R * stride >= args_.n;
    if (args_.wide_loads && !edge) {
#pragma unroll
      for (int u = 0; u < R; ++u) {
        const T* at = from;
        int columns = Whole || row < args_.n ? NotHoisted(args_.d - Column(0)) : 0;
#pragma unroll
        for (int j = 0; j < C; ++j) {
          x_[u][j].Load(at, columns > 0);
          if (!Whole && columns <= 0) x_[u][j].Clear();
          at = NotHoisted(at + lanes_ * E);
          columns = NotHoisted(columns - lanes_ * E);
        }
        from = NotHoisted(from + stride * args_.d);
        if (!Whole) row = NotHoisted(row + stride);
      }
      return;
    }
#pragma unroll
    for (int u = 0; u < R; ++u) {
      const T* at = from;
      int column = NotHoisted(Column(0));
#pragma unroll
      for (int j = 0; j < C; ++j) {
        x_[u][j].LoadEach(at, -column, Whole || row < args_.n ? args_.d - column : 0);
        at = NotHoisted(at + lanes_ * E);
        column = NotHoisted(column + lanes_ * E);
      }
      from = NotHoisted(from + stride * args_.d);
      row = NotHoisted(row + stride);
    }
  }

  // The compiler would compute each row's and vector's address ahead of all rows, and keep it.
  template <typename Pointer>
  __device__ static Pointer* NotHoisted(Pointer* p) {
    asm volatile("" : "+l"(p));
    return p;
  }
  __device__ static std::int64_t NotHoisted(std::int64_t i) {
    asm volatile("" : "+l"(i));
    return i;
  }
  __device__ static int NotHoisted(int i) {
    asm volatile("" : "+r"(i));
    return i;
  }

  // Y and the sample weights of the rows; zeros where there are none.
  template <bool Whole>
  __device__ void LoadY(std::int64_t row, std::int64_t stride, Raw (&y)[R][H], Raw (&s)[R]) const {
    if (sizeof(T) != 2 || args_.y_type == Element<T>::kType) {
      LoadYAs<Whole, T>(row, stride, y, s);
    } else {
      LoadYAs<Whole, float>(row, stride, y, s);
    }
  }
  template <bool Whole, typename Y>
  __device__ void LoadYAs(std::int64_t row, std::int64_t stride, Raw (&y)[R][H],
                          Raw (&s)[R]) const {
    const Y* from = static_cast<const Y*>(args_.y) + row * args_.k + own_;
    const Y* weight = static_cast<const Y*>(args_.s) + row;
#pragma unroll
    for (int u = 0; u < R; ++u) {
      const bool there = Whole || row < args_.n;
#pragma unroll
      for (int t = 0; t < H; ++t) {
        const bool wanted = there && args_.y != nullptr && (K == 1 || own_ + t < args_.k);
        y[u][t] = wanted ? LoadRaw(from + t) : Raw(0);
      }
      if (args_.s != nullptr) s[u] = there ? LoadRaw(weight) : Raw(0);
      from = NotHoisted(from + stride * args_.k);
      weight = NotHoisted(weight + stride);
      if (!Whole) row = NotHoisted(row + stride);
    }
  }
  template <typename Y>
  __device__ static Raw LoadRaw(const Y* from) {
    if constexpr (sizeof(Y) == 8) {
      return __ldg(from);
    } else if constexpr (sizeof(Y) == 4) {
      return __float_as_uint(__ldg(from));
    } else {
      return __ldg(reinterpret_cast<const unsigned short*>(from));
    }
  }
  __device__ void Convert(const Raw (&from)[R][H], A (&to)[R][H]) const {
#pragma unroll
    for (int u = 0; u < R; ++u) {
#pragma unroll
      for (int t = 0; t < H; ++t) to[u][t] = Converted(from[u][t]);
    }
  }
  __device__ A Converted(Raw raw) const {
    if constexpr (sizeof(T) == 8) {
      return raw;
    } else if (sizeof(T) == 2 && args_.y_type == Element<T>::kType) {
      return ElementOf<T>(raw, 0);
    } else {
      return __uint_as_float(raw);
    }
  }

  // X·W: in every lane of the row, of all targets or its own.
  __device__ void Dots(A (&dot)[R][H]) {
#pragma unroll
    for (int u = 0; u < R; ++u) {
      A of[K];
#pragma unroll
      for (int t = 0; t < K; ++t) of[t] = 0;
#pragma unroll
      for (int j = 0; j < C; ++j) {
#pragma unroll
        for (int i = 0; i < E; ++i) {
          const A x = x_[u][j][i];
#pragma unroll
          for (int t = 0; t < K; ++t) of[t] += x * w_[t][j][i];
        }
      }
      Divide(of, dot[u]);
    }
#pragma unroll 1
    for (int mask = (block_lanes_ < 32 ? block_lanes_ : 32) / 2; mask >= (kDivides ? K : 1);
         mask /= 2) {
#pragma unroll
      for (int u = 0; u < R; ++u) {
#pragma unroll
        for (int t = 0; t < H; ++t) {
          dot[u][t] += __shfl_xor_sync(0xffffffffu, dot[u][t], mask);
        }
      }
    }
    if (block_lanes_ > 32) ExchangeDots(dot);
    if constexpr (Team) ExchangeInTeam(dot);
  }

  // Neighbours give each other half of what they have, and keep the sum of the other half.
  __device__ void Divide(A (&of)[K], A (&own)[H]) const {
    if constexpr (kDivides) {
#pragma unroll
      for (int count = K / 2; count > 0; count /= 2) {
        const bool upper = threadIdx.x & count;
#pragma unroll
        for (int t = 0; t < count; ++t) {
          const A keep = upper ? of[t + count] : of[t];
          const A give = upper ? of[t] : of[t + count];
          of[t] = keep + __shfl_xor_sync(0xffffffffu, give, count);
        }
      }
      own[0] = of[0];
    } else {
#pragma unroll
      for (int t = 0; t < K; ++t) own[t] = of[t];
    }
  }

  // Between the warps of a row. Two buffers in turn: who is a barrier ahead writes the other one.
  __device__ void ExchangeDots(A (&dot)[R][H]) {
    const int warps = static_cast<int>(blockDim.x) / 32, warp = static_cast<int>(threadIdx.x) / 32;
    A* const buffer =
        reinterpret_cast<A*>(shared_ + args_.plan.exchange_offset) + (buffer_ ? R * K * warps : 0);
    buffer_ = !buffer_;
    const int target = own_ - target_;
    if (threadIdx.x % 32 < (kDivides ? K : 1)) {
#pragma unroll
      for (int u = 0; u < R; ++u) {
#pragma unroll
        for (int t = 0; t < H; ++t) {
          buffer[(u * K + target + t) * warps + warp] = dot[u][t];
        }
      }
    }
    const int barrier = 1 + static_cast<int>(threadIdx.x) / block_lanes_;  // 0 is the block's
    asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(block_lanes_) : "memory");
    const int first = static_cast<int>(threadIdx.x) / block_lanes_ * (block_lanes_ / 32);
#pragma unroll
    for (int u = 0; u < R; ++u) {
#pragma unroll
      for (int t = 0; t < H; ++t) dot[u][t] = 0;
    }
    for (int other = 0; other < block_lanes_ / 32; ++other) {
#pragma unroll
      for (int u = 0; u < R; ++u) {
#pragma unroll
        for (int t = 0; t < H; ++t) {
          dot[u][t] += buffer[(u * K + target + t) * warps + first + other];
        }
      }
    }
  }

  // Between the blocks of a row, through L2: each word brings the number of its exchange with it,
  // so that one trip tells both. Two buffers in turn as well.
  __device__ void ExchangeInTeam(A (&dot)[R][H]) {
    static_assert(H == 1, "a lane has one target's");
    constexpr int kHalves = sizeof(A) / 4, kWords = R * K * kHalves;
    const int team = args_.plan.team, words = team * kWords;
    const auto number = static_cast<unsigned long long>(++exchanges_);
    volatile unsigned long long* const box =
        args_.team_words + (team_ * 2 + (exchanges_ & 1)) * std::int64_t{words};
    std::uint32_t* const shared =
        reinterpret_cast<std::uint32_t*>(shared_) + (exchanges_ & 1) * words;
    if (threadIdx.x < K) {
      volatile unsigned long long* const mine = box + member_ * kWords;
#pragma unroll
      for (int u = 0; u < R; ++u) {
        const int i = u * K + own_;
        if constexpr (kHalves == 1) {
          mine[i] = number << 32 | __float_as_uint(static_cast<float>(dot[u][0]));
        } else {
          const double value = dot[u][0];
          mine[2 * i] = number << 32 | static_cast<std::uint32_t>(__double2loint(value));
          mine[2 * i + 1] = number << 32 | static_cast<std::uint32_t>(__double2hiint(value));
        }
      }
    }
    for (int i = threadIdx.x; i < words; i += blockDim.x) {
      unsigned long long word = box[i];
      while (word >> 32 != number) {
        __nanosleep(20);
        word = box[i];
      }
      shared[i] = static_cast<std::uint32_t>(word);
    }
    __syncthreads();
#pragma unroll
    for (int u = 0; u < R; ++u) {
      A sum = 0;
      for (int member = 0; member < team; ++member) {
        const std::uint32_t* const from = shared + member * kWords + (u * K + own_) * kHalves;
        if constexpr (kHalves == 1) {
          sum += __uint_as_float(from[0]);
        } else {
          sum += __hiloint2double(static_cast<int>(from[1]), static_cast<int>(from[0]));
        }
      }
      dot[u][0] = sum;
    }
  }

  __device__ static bool IsFinite(float a) { return fabsf(a) <= FLT_MAX; }
  __device__ static bool IsFinite(double a) { return fabs(a) <= DBL_MAX; }

  __device__ bool AllFinite(const A (&dot)[R][H]) const {
    bool finite = true;
#pragma unroll
    for (int u = 0; u < R; ++u) {
#pragma unroll
      for (int t = 0; t < H; ++t) finite = finite && IsFinite(dot[u][t]);
    }
    return finite;
  }

  __device__ void ClearNeighbours() {
    int column = NotHoisted(Column(0));
#pragma unroll
    for (int j = 0; j < C; ++j) {
#pragma unroll
      for (int i = 0; i < E; ++i) {
        if (column + i >= 0 && column + i < args_.d) continue;
#pragma unroll
        for (int u = 0; u < R; ++u) x_[u][j].Set(i, 0);
      }
      column = NotHoisted(column + lanes_ * E);
    }
  }

  // Adds the sums of all lanes to the block's partial sums, in an order that the shape fixes, and
  // starts afresh: sums of a warp's groups whose rows start at the same place in registers, then of
  // the block's in shared memory, column by column.
  template <typename Flush>
  __device__ void FlushSums(const Flush& flush, bool first) {
    SumWithinWarp();
    if constexpr (Team) __syncthreads();  // what the blocks told each other has been read
    A* const sums = reinterpret_cast<A*>(shared_);
    double* const scalars = reinterpret_cast<double*>(shared_ + args_.plan.scalars_offset);
    const int threads = static_cast<int>(blockDim.x), thread = static_cast<int>(threadIdx.x);
    int at = NotHoisted(thread);
#pragma unroll
    for (int t = 0; t < K; ++t) {
#pragma unroll
      for (int j = 0; j < C; ++j) {
#pragma unroll
        for (int i = 0; i < E; ++i) {
          sums[at] = grad_[t][j][i];
          at = NotHoisted(at + threads);
        }
      }
    }
    // Written by each warp, or by each row's first warp, its targets' loss and intercept.
    const int slot = thread / 32 * 2 * kMostTargets;
    if (lane_ < (kDivides ? K : 1) &&
        (thread % 32 < span_ || span_ >= 32)) {  // of a team's first block
#pragma unroll
      for (int t = 0; t < H; ++t) {
        scalars[slot + own_ + t] = bias_[t];
        scalars[slot + kMostTargets + own_ + t] = 0.5 * loss_[t];
      }
    }
    ClearSums();
    __syncthreads();
    if constexpr (Team) {
      FlushOwnColumns(flush, first);
    } else {
      const int k = K == 1 ? 1 : args_.k;  // if any
      for (int i = thread; i < args_.d * args_.k; i += threads) {
        const int column = i / k, target = i - column * k;
        flush((column + (args_.intercept ? 1 : 0)) * k + target, TotalOf(column, target), first);
      }
    }
    if (member_ != 0) {
      __syncthreads();
      return;
    }
    for (int i = thread; i < 2 * args_.k; i += threads) {
      const bool loss = i >= args_.k;
      const int target = loss ? i - args_.k : i;
      if (!loss && !args_.intercept) continue;
      const double total = ScalarTotalOf(target, loss);
      flush(loss ? static_cast<int>(args_.weights()) + target : target, total, first);
    }
    __syncthreads();
  }

  // From one group, whose lanes hold each column once.
  template <typename Flush>
  __device__ void FlushOwnColumns(const Flush& flush, bool first) {
    const A* const sums = reinterpret_cast<const A*>(shared_);
    const int k = K == 1 ? 1 : args_.k;
    const int threads = static_cast<int>(blockDim.x), bias = args_.intercept ? k : 0;
    for (int i = threadIdx.x; i < C * E * threads * args_.k; i += threads) {
      const int value = i / (threads * k), j = value / E;  // neighbours side by side
      const int rest = i - value * threads * k, lane = rest / k;
      const int target = rest - lane * k;
      const int column = (j * lanes_ + member_ * threads + lane) * E + value % E - shift_;
      if (column < 0 || column >= args_.d) continue;
      const A total = sums[((target * C + j) * E + value % E) * threads + lane];
      flush(bias + column * k + target, static_cast<double>(total), first);
    }
  }

  __device__ void SumWithinWarp() {
    for (int mask = 16; mask >= span_; mask >>= 1) {
#pragma unroll
      for (int t = 0; t < H; ++t) {
        bias_[t] += __shfl_xor_sync(0xffffffffu, bias_[t], mask);
        loss_[t] += __shfl_xor_sync(0xffffffffu, loss_[t], mask);
      }
      if (mask < span_ * args_.plan.period) continue;
#pragma unroll
      for (int t = 0; t < K; ++t) {
#pragma unroll
        for (int j = 0; j < C; ++j) {
#pragma unroll
          for (int i = 0; i < E; ++i) {
            grad_[t][j][i] += __shfl_xor_sync(0xffffffffu, grad_[t][j][i], mask);
          }
        }
      }
    }
  }

  __device__ double TotalOf(int column, int target) const {
    const A* const sums = reinterpret_cast<const A*>(shared_);
    const int threads = static_cast<int>(blockDim.x);
    const int period = args_.plan.period;
    const int in_warp = span_ < 32 ? 32 / span_ : 1;  // groups, of which those of a place are one
    const int step = in_warp > period ? in_warp : period;
    const int lanes_log2 = 31 - __clz(lanes_);
    double total = 0;
    for (int place = 0; place < period && place < args_.plan.groups; ++place) {
      const int at = column + ShiftOf(team_ * args_.plan.groups + place);
      const int vector = at / E, j = vector >> lanes_log2, lane = vector - (j << lanes_log2);
      const int value = (target % K * C + j) * E + at % E;
      for (int g = place; g < args_.plan.groups; g += step) {
        const int holder = g * span_ + target / K * lanes_ + lane;
        total += static_cast<double>(sums[value * threads + holder]);
      }
    }
    return total;
  }

  __device__ double ScalarTotalOf(int target, bool loss) const {
    const double* const scalars =
        reinterpret_cast<const double*>(shared_ + args_.plan.scalars_offset);
    const int warps_of_group = span_ > 32 ? span_ / 32 : 1;
    // The warp of a group that holds the target.
    const int first = span_ > 32 ? target / K * lanes_ / 32 : 0;
    double total = 0;
    for (int w = first; w < static_cast<int>(blockDim.x) / 32; w += warps_of_group) {
      total += scalars[w * 2 * kMostTargets + (loss ? kMostTargets : 0) + target];
    }
    return total;
  }

  const FusedArgs& args_;
  unsigned char* const shared_;
  // `lanes_` share a row, block_lanes_ in each of its blocks.
  // A lane's residuals are of H targets from own_ on.
  const int lanes_, team_, member_, block_lanes_, span_, lane_, target_, own_, group_, unit_,
      shift_;
  bool has_x_ = false;      // in shared memory
  int ring_whole_ = 0;      // iterations whose rows come by way of the ring
  int slot_ = 0;            // of the ring, whose row is the next
  unsigned exchanges_ = 0;  // in the team
  bool buffer_ = false;
  Vector<T, E> x_[R][C];
  A w_[K][C][E];
  A w_bias_[H];
  A grad_[K][C][E];
  double loss_[H], bias_[H];
};

}  // namespace cuda
}  // namespace linreg_ops
