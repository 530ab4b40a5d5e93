// qlora-cuda.cu - the table of contents of the CUDA wing. Compile it with nvcc beside qlora.cpp; `make CUDA=1` does.
#include "qlora.h"

#include "src/cuda/device.cuh"                      // errors, streams, memory, launches
#include "src/cuda/mma.cuh"                         // instructions of tensor cores and asynchronous copies
#include "src/cuda/values.cuh"                      // floats where they are stored, in 16 or 32 bits
#include "src/cuda/room.cuh"                        // what the rooms share
#include "src/cuda/nf4.cuh"                         // 4-bit weights: to bf16, and times a vector
#include "src/cuda/decode.cuh"                      // elements of every stored type, rows of a weight
#include "src/cuda/hopper.cuh"                      // instructions of sm_90a alone
#include "src/cuda/gemm_hopper.cuh"                 // matrix products by warpgroups of sm_90a
#include "src/cuda/gemm.cuh"                        // matrix products, on tensor cores or in f32
#include "src/cuda/gemv.cuh"                        // stored weights times a few vectors
#include "src/cuda/panels.cuh"                      // stored weights times many
#include "src/cuda/qmatmul.cuh"                     // y = x W^T with a stored W
#include "src/cuda/matmul.cuh"                      // y = x W^T with floats of the graph
#include "src/cuda/map.cuh"                         // y = f(x, ...), element by element
#include "src/cuda/rows.cuh"                        // the same where f depends on row and column
#include "src/cuda/columns.cuh"                     // sums over rows, a column each
#include "src/cuda/factor.cuh"                      // vectors of factors, stored in any type
#include "src/cuda/fill.cuh"                        // y = value
#include "src/cuda/add.cuh"                         // y = a + b
#include "src/cuda/bias.cuh"                        // y = x + a row, and its gradient
#include "src/cuda/mul.cuh"                         // y = a * b
#include "src/cuda/scale.cuh"                       // y = factor * x, and a factor a row
#include "src/cuda/sum.cuh"                         // y = sum of x
#include "src/cuda/silu.cuh"                        // y = x / (1 + exp(-x))
#include "src/cuda/geglu.cuh"                       // y = gelu(gate) * up
#include "src/cuda/softcap.cuh"                     // y = cap * tanh(x / cap)
#include "src/cuda/dropout.cuh"                     // a mask that is never stored
#include "src/cuda/lora.cuh"                        // y = base + s drop(x) A^T B^T
#include "src/cuda/rms_norm.cuh"                    // rows divided by their root mean square
#include "src/cuda/rope.cuh"                        // rotary position embedding
#include "src/cuda/accumulate.cuh"                  // state += x
#include "src/cuda/copy.cuh"                        // state = x
#include "src/cuda/swiglu.cuh"                      // y = silu(gate) * up
#include "src/cuda/embedding.cuh"                   // rows of a stored table, and their gradient
#include "src/cuda/store_rows.cuh"                  // keys and values into a cache of any type
#include "src/cuda/cross_entropy.cuh"               // the loss of whole logits
#include "src/cuda/dora.cuh"                        // magnitude and direction
#include "src/cuda/clip.cuh"                        // the norm of all gradients
#include "src/cuda/adamw.cuh"                       // one step of the optimizer
#include "src/cuda/adamw8.cuh"                      // the same with moments in 8 bits
#include "src/cuda/attention.cuh"                   // softmax(scale q k^T) v over a range of keys for each row
#include "src/cuda/attention_back.cuh"              // its gradients
#include "src/cuda/linear_cross_entropy.cuh"        // nll under the logits x W^T, which never exist as a whole
#include "src/cuda/memory.cuh"                      // buffers, staging, weights on the device
#include "src/cuda/backend.cuh"                     // the backend: memory, weights, running a plan
