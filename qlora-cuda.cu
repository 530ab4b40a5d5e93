// qlora-cuda.cu - the table of contents of the CUDA wing. Compile it with nvcc beside qlora.cpp; `make CUDA=1` does.
#include "qlora.h"

#include "src/cuda/device.cuh"                      // errors, streams, memory, launches
#include "src/cuda/values.cuh"                      // floats where they are stored, in 16 or 32 bits
#include "src/cuda/room.cuh"                        // what the rooms share
#include "src/cuda/nf4.cuh"                         // 4-bit weights: to bf16, and times a vector
#include "src/cuda/decode.cuh"                      // elements of every stored type, rows of a weight
#include "src/cuda/gemm.cuh"                        // matrix products, on tensor cores or in f32
#include "src/cuda/gemv.cuh"                        // stored weights times a few vectors
#include "src/cuda/panels.cuh"                      // stored weights times many
#include "src/cuda/qmatmul.cuh"                     // y = x W^T with a stored W
#include "src/cuda/matmul.cuh"                      // y = x W^T with floats of the graph
#include "src/cuda/add.cuh"                         // y = a + b
#include "src/cuda/mul.cuh"                         // y = a * b
#include "src/cuda/scale.cuh"                       // y = factor * x, and a factor a row
#include "src/cuda/sum.cuh"                         // y = sum of x
#include "src/cuda/swiglu.cuh"                      // y = silu(gate) * up
#include "src/cuda/memory.cuh"                      // buffers, staging, weights on the device
#include "src/cuda/backend.cuh"                     // the backend: memory, weights, running a plan
