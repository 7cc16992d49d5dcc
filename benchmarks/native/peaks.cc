// What this machine can do at best: bytes read a second and multiply-adds a second.
//
// Every benchmark quotes its time against these two, measured in the same run on the same array
// with the same number of threads. The reading is a straight line: loads folded with xor (which no
// value of the data slows down), and no other work. Several ways of walking memory are offered,
// because which is fastest depends on the machine; the benchmark takes the best. Built on demand
// with -march=native.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>
#include <vector>

namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif
constexpr std::int64_t kLine = 64;
constexpr std::int64_t kStep = 8 * kLine;               // bytes that one stream advances at a time
constexpr std::int64_t kChunk = std::int64_t{1} << 20;  // what a thread claims when it claims

typedef std::uint64_t Lanes __attribute__((vector_size(kVectorBytes), may_alias, aligned(8)));
template <typename T>
using Vector __attribute__((vector_size(kVectorBytes))) = T;

std::atomic<std::uint64_t> sink;  // keeps the compiler from dropping the work

void SpinUntil(const std::atomic<int>& counter, int value) {
  while (counter.load(std::memory_order_acquire) < value) {
  }
}

// Seconds for every thread to run body(thread, wait), where wait() is a barrier of them all.
// Starting a thread costs as much as reading a megabyte and is no part of the machine's bandwidth:
// the clock starts when all are there, and before any may go (or a late first thread would find
// work done).
template <typename Body>
double Seconds(int threads, Body body) {
  using Clock = std::chrono::steady_clock;
  std::atomic<int> ready{0}, go{0}, arrivals{0}, done{0};
  const auto run = [&](int thread) {
    int next = 0;
    body(thread, [&] {
      ++arrivals;
      SpinUntil(arrivals, next += threads);
    });
    ++done;
  };
  std::vector<std::thread> others;
  for (int t = 1; t < threads; ++t) {
    others.emplace_back([&, t] {
      ++ready;
      SpinUntil(go, 1);
      run(t);
    });
  }
  SpinUntil(ready, threads - 1);
  const auto start = Clock::now();
  go = 1;
  run(0);
  SpinUntil(done, threads);
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  for (std::thread& other : others) other.join();
  return seconds;
}

// `streams` places of the range advance together; `ahead` bytes are prefetched before their turn.
template <int streams, int ahead>
void Read(const char* data, std::int64_t bytes) {
  constexpr int kPerStep = kStep / kVectorBytes;
  const std::int64_t length = bytes / streams / kStep * kStep;
  Lanes sum[8] = {};
  for (std::int64_t at = 0; at < length; at += kStep) {
    for (int s = 0; s < streams; ++s) {
      const char* p = data + s * length + at;
      for (int line = 0; ahead > 0 && line < kStep / kLine; ++line) {
        __builtin_prefetch(p + ahead + line * kLine);
      }
      for (int i = 0; i < kPerStep; ++i) {
        sum[i % 8] ^= *reinterpret_cast<const Lanes*>(p + i * kVectorBytes);
      }
    }
  }
  for (std::int64_t at = streams * length; at + kVectorBytes <= bytes; at += kVectorBytes) {
    sum[0] ^= *reinterpret_cast<const Lanes*>(data + at);
  }
  for (int i = 1; i < 8; ++i) sum[0] ^= sum[i];
  sink ^= sum[0][0] ^ sum[0][1];
}

struct Variant {
  const char* name;
  void (*read)(const char*, std::int64_t);
  bool claims;  // threads claim chunks from a counter, rather than owning equal parts
};
constexpr Variant kVariants[] = {
    {"1 stream", Read<1, 0>, false},
    {"2 streams", Read<2, 0>, false},
    {"4 streams", Read<4, 0>, false},
    {"1 stream, prefetch 1 KiB", Read<1, 1024>, false},
    {"1 stream, prefetch 4 KiB", Read<1, 4096>, false},
    {"2 streams, prefetch 2 KiB", Read<2, 2048>, false},
    {"4 streams, prefetch 1 KiB", Read<4, 1024>, false},
    {"1 stream, claimed chunks", Read<1, 0>, true},
    {"1 stream, prefetch 4 KiB, claimed chunks", Read<1, 4096>, true},
    {"2 streams, prefetch 2 KiB, claimed chunks", Read<2, 2048>, true},
    {"4 streams, claimed chunks", Read<4, 0>, true},
};

// Twelve chains hide a latency of 4 on 2 units, and some, and fit 16 registers. The sums stay in
// registers: an empty asm on each to keep the loop would put them in memory and halve the figure.
template <typename T>
void MultiplyAdd(std::int64_t rounds) {
  constexpr int kChains = 12;
  Vector<T> sum[kChains];
  Vector<T> a = Vector<T>{} + static_cast<T>(0.5), b = Vector<T>{} + static_cast<T>(1.0);
  asm volatile("" : "+v"(a), "+v"(b));  // not known at compile time
  for (int i = 0; i < kChains; ++i) sum[i] = b * static_cast<T>(i);
  for (std::int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) sum[i] = sum[i] * a + b;
  }
  T total = 0;
  for (int i = 0; i < kChains; ++i) total += sum[i][0];
  sink ^= static_cast<std::uint64_t>(total);
}

}  // namespace

extern "C" {

int vector_bytes() { return kVectorBytes; }

int read_variants() { return std::size(kVariants); }

const char* read_variant_name(int variant) { return kVariants[variant].name; }

// Seconds to read `bytes` bytes `passes` times over.
double read_seconds(const void* data, std::int64_t bytes, int passes, int threads, int variant) {
  const auto [name, read, claims] = kVariants[variant];
  const char* base = static_cast<const char*>(data);
  std::vector<std::atomic<std::int64_t>> next(claims ? passes : 0);
  return Seconds(threads, [&, read = read, claims = claims](int t, auto wait) {
    for (int pass = 0; pass < passes; ++pass) {
      if (claims) {
        for (std::int64_t at; (at = next[pass].fetch_add(kChunk)) < bytes;) {
          read(base + at, std::min(kChunk, bytes - at));
        }
      } else {
        const std::int64_t part = (bytes / threads + kLine - 1) / kLine * kLine;
        const std::int64_t from = std::min(bytes, t * part);
        read(base + from, std::min(bytes - from, part));
      }
      if (pass + 1 < passes) wait();
    }
  });
}

// Seconds for threads · rounds · multiply_adds_per_round() multiply-adds.
double multiply_add_seconds(int is_double, std::int64_t rounds, int threads) {
  return Seconds(threads, [&](int, auto) {
    is_double ? MultiplyAdd<double>(rounds) : MultiplyAdd<float>(rounds);
  });
}

int multiply_adds_per_round(int is_double) { return 12 * kVectorBytes / (is_double ? 8 : 4); }
}
