#include "kernels/cpu/dispatch.h"

#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace linreg_ops {
namespace cpu {
namespace {

#if defined(__x86_64__)

// Register state that the operating system saves: bits of XCR0.
constexpr unsigned kSavesYmm = 0x6;
constexpr unsigned kSavesZmm = 0xe6;

unsigned SavedState() {
  unsigned eax, ebx, ecx, edx;
  if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0 || (ecx & bit_OSXSAVE) == 0) return 0;
  unsigned low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

bool HasAvx2() {
  unsigned eax, ebx, ecx, edx;
  if ((SavedState() & kSavesYmm) != kSavesYmm) return false;
  constexpr unsigned kNeeded = bit_FMA | bit_F16C | bit_AVX;
  if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0 || (ecx & kNeeded) != kNeeded) return false;
  return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 && (ebx & bit_AVX2) != 0;
}

[[maybe_unused]] bool HasAvx512() {
  unsigned eax, ebx, ecx, edx;
  if (!HasAvx2() || (SavedState() & kSavesZmm) != kSavesZmm) return false;
  constexpr unsigned kNeeded = bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL;
  return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 && (ebx & kNeeded) == kNeeded;
}

#endif

bool Always() { return true; }

struct Row {
  const char* name;
  bool (*supported)();
  const KernelTable& kernels;
};

// Best first. A new instruction set is a row here, a vec_*-inl.h and a unit that includes it.
const Row kRows[] = {
#if defined(__x86_64__)
#ifndef LINREG_OPS_WITHOUT_AVX512
    {"avx512", HasAvx512, kAvx512Kernels},
#endif
#ifndef LINREG_OPS_WITHOUT_AVX2
    {"avx2", HasAvx2, kAvx2Kernels},
#endif
#elif defined(__aarch64__)
    {"neon", Always, kNeonKernels},
#endif
    {"scalar", Always, kScalarKernels},
};

// Asked once: in a virtual machine each CPUID is a trap, which takes longer than a small call.
bool Supported(const Row& row) {
  static const std::vector<bool> supported = [] {
    std::vector<bool> all;
    for (const Row& each : kRows) all.push_back(each.supported());
    return all;
  }();
  return supported[static_cast<std::size_t>(&row - kRows)];
}

Status Find(const char* name, const std::string& asked_by, const Row** found) {
  std::string valid;
  bool known = false;
  for (const Row& row : kRows) {
    const bool supported = Supported(row);
    if (std::strcmp(row.name, name) == 0) {
      known = true;
      *found = &row;
      if (supported) return Status();
    }
    if (supported) valid += (valid.empty() ? "" : ", ") + std::string(row.name);
  }
  return Status::InvalidArgument(
      asked_by + " names the instruction set \"" + name + "\", which " +
      (known ? "this CPU or operating system does not support" : "this build does not know") +
      "; valid here: " + valid);
}

struct Active {
  Status status;
  const Row* row = nullptr;
};

const Active& TheActive() {
  static const Active active = [] {
    Active result;
    const char* forced = std::getenv("LINREG_OPS_ISA");
    if (forced != nullptr && *forced != '\0') {
      result.status = Find(forced, "LINREG_OPS_ISA", &result.row);
      return result;
    }
    result.row = kRows;
    while (!Supported(*result.row)) ++result.row;
    return result;
  }();
  return active;
}

}  // namespace

Status FindKernels(const char* isa, DType x_type, DType w_type, const char** name,
                   const Kernels** kernels) {
  const Row* row = nullptr;
  if (isa != nullptr) {
    if (Status status = Find(isa, "isa", &row); !status.ok()) return status;
  } else {
    if (!TheActive().status.ok()) return TheActive().status;
    row = TheActive().row;
  }
  *name = row->name;
  for (const Kernels& candidate : row->kernels) {
    if (candidate.types.x == x_type && candidate.types.w == w_type) {
      *kernels = &candidate;
      return Status();
    }
  }
  return {Status::Code::kUnsupported,
          std::string("no kernel for x of ") + NameOf(x_type) + " and w of " + NameOf(w_type)};
}

std::vector<Isa> Isas() {
  std::vector<Isa> isas;
  for (const Row& row : kRows) isas.push_back({row.name, Supported(row)});
  return isas;
}

std::vector<Variant> Variants() {
  std::vector<Variant> variants;
  for (const Row& row : kRows) {
    for (const Kernels& kernels : row.kernels) {
      variants.push_back({row.name, kernels.types.x, kernels.types.w, Supported(row)});
    }
  }
  return variants;
}

Status ActiveIsa(const char** name) {
  const Active& active = TheActive();
  if (!active.status.ok()) return active.status;
  *name = active.row->name;
  return Status();
}

}  // namespace cpu
}  // namespace linreg_ops
