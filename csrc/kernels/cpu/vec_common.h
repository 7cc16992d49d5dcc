// What every vec_*.h builds on. Included inside the unit's own namespace.

constexpr int Lanes(const float*) { return 16; }
constexpr int Lanes(const double*) { return 8; }

// Copies a constant number of bytes: the compiler turns it into plain loads and stores.
template <std::size_t kBytes>
inline void CopyBytes(const void* from, void* to) {
  __builtin_memcpy(to, from, kBytes);
}

// Where each lane of LoadRows comes from: 64-bit indices for 8 lanes, 32-bit ones for 16.
template <class Index, int kLanes, int D, int P>
struct RowTable {
  Index index[kLanes] = {};
  unsigned mask = 0;
  constexpr RowTable() {
    for (int i = 0; i < kLanes; ++i) {
      if (i % P < D) {
        index[i] = i / P * D + i % P;
        mask |= 1u << i;
      }
    }
  }
};
