// qlora-cuda.cu - the table of contents of the CUDA wing. Compile it with nvcc beside qlora.cpp; `make cuda` does for
// sm_80 and sm_90.
#include "qlora.h"

#include "src/cuda/device.cuh"                      // errors, streams, memory, launches
#include "src/cuda/nf4.cuh"                         // 4-bit weights: to bf16, and times a vector
