// kernels_amx.h - what AMX adds to AVX-512 with bf16.
#pragma once
#include "src/cpu/kernels.h"

#if defined(__x86_64__) && defined(__linux__)          // elsewhere nobody is asked for permission in a way known here
#define QLORA_AMX
#endif

namespace qlora { inline namespace QLORA_ABI {

extern const Kernels kernels_amx;
extern const GemmKernels gemm_amx, gemm_split_amx;

}}  // namespace qlora
