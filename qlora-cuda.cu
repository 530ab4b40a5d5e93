// qlora-cuda.cu - the table of contents of the CUDA wing. Compile it with nvcc beside qlora.cpp; `make CUDA=1` does.
#include "qlora.h"

#include "src/cuda/device.cuh"                      // errors, streams, memory, launches
#include "src/cuda/mma.cuh"                         // instructions of tensor cores and asynchronous copies
#include "src/cuda/values.cuh"                      // floats where they are stored, in 16 or 32 bits
#include "src/cuda/room.cuh"                        // what the rooms share
#include "src/cuda/nf4.cuh"                         // 4-bit weights: to bf16, and times a vector
#include "src/cuda/swiglu.cuh"                      // y = silu(gate) * up
#include "src/cuda/memory.cuh"                      // buffers, staging, weights on the device
#include "src/cuda/backend.cuh"                     // the backend: memory, weights, running a plan
