// The AVX-512 unit in an emulation, under AVX2's name, for check_avx512.
#define LINREG_OPS_EMULATED_AVX512
#define kAvx512Kernels kAvx2Kernels
#include "kernels/cpu/avx512.cc"
