// qlora-cuda.cu - the table of contents of the CUDA wing. Compile it with nvcc beside qlora.cpp; `make CUDA=1` does.
#include "qlora.h"

#include "src/cuda/device.cuh"                          // errors, streams, memory, launches
#include "src/cuda/plan/table.h"                        // which way operations go, and what memory they ask for
#include "src/cuda/mma.cuh"                             // tensor cores and asynchronous copies, as functions
#include "src/cuda/hopper.cuh"                          // what only sm_90a has: bulk copies, products of warpgroups
#include "src/cuda/values.cuh"                          // floats where they are stored, in 16 or 32 bits
#include "src/cuda/room.cuh"                            // what the rooms share
#include "src/cuda/map.cuh"                             // y = f(x, ...), element by element
#include "src/cuda/rows.cuh"                            // the same where f depends on row and column
#include "src/cuda/columns.cuh"                         // sums over rows, a column each
#include "src/cuda/nf4.cuh"                             // 4-bit weights: to bf16, and times a vector in f32
#include "src/cuda/decode.cuh"                          // elements of every stored type, rows of a weight
#include "src/cuda/factor.cuh"                          // vectors of factors, stored in any type
#include "src/cuda/fill.cuh"                            // y = value
#include "src/cuda/add.cuh"                             // y = a + b
#include "src/cuda/bias.cuh"                            // y = x + a row, and its gradient
#include "src/cuda/mul.cuh"                             // y = a * b
#include "src/cuda/scale.cuh"                           // y = factor * x, and a factor a row
#include "src/cuda/sum.cuh"                             // y = sum of x
#include "src/cuda/silu.cuh"                            // y = x / (1 + exp(-x))
#include "src/cuda/gelu.cuh"                            // y = x times the normal distribution's share below x
#include "src/cuda/clamp.cuh"                           // y = x held between two bounds
#include "src/cuda/swiglu.cuh"                          // y = silu(gate) * up
#include "src/cuda/geglu.cuh"                           // y = gelu(gate) * up
#include "src/cuda/softcap.cuh"                         // y = cap * tanh(x / cap)
#include "src/cuda/dropout.cuh"                         // a mask that is never stored
#include "src/cuda/teams.cuh"                           // rows dealt out to teams of threads
#include "src/cuda/rms_norm.cuh"                        // rows divided by their root mean square
#include "src/cuda/layer_norm.cuh"                      // rows less their mean, divided by their spread
#include "src/cuda/rope.cuh"                            // rotary position embedding
#include "src/cuda/gemm_f32.cuh"                        // matrix products in f32
#include "src/cuda/gemm_mma.cuh"                        // on tensor cores, by warps
#include "src/cuda/gemm_hopper.cuh"                     // on tensor cores, by warpgroups
#include "src/cuda/gemm.cuh"                            // which of these, with which tiles
#include "src/cuda/gemv_nf4.cuh"                        // 4-bit weights times a few vectors, on tensor cores
#include "src/cuda/gemv.cuh"                            // weights of any type times a few vectors
#include "src/cuda/panels.cuh"                          // stored weights times many vectors
#include "src/cuda/matmul.cuh"                          // y = x W^T with floats of the graph
#include "src/cuda/qmatmul.cuh"                         // y = x W^T with a stored W
#include "src/cuda/lora.cuh"                            // the low-rank path
#include "src/cuda/attention_problem.cuh"               // which keys a row sees, and where they lie
#include "src/cuda/attention_rows.cuh"                  // softmax(scale q k^T) v, a row at a time
#include "src/cuda/attention_tiles.cuh"                 // what the kernels on tensor cores share
#include "src/cuda/attention_forward_tiles.cuh"         // many rows at a time
#include "src/cuda/attention.cuh"                       // which of these
#include "src/cuda/attention_back_rows.cuh"             // gradients, a row at a time
#include "src/cuda/attention_back_tiles.cuh"            // many rows at a time
#include "src/cuda/attention_back.cuh"                  // which of these
#include "src/cuda/embedding.cuh"                       // rows of a stored table, and their gradient
#include "src/cuda/store_rows.cuh"                      // keys and values into a cache of any type
#include "src/cuda/cross_entropy.cuh"                   // the loss of whole logits
#include "src/cuda/linear_cross_entropy.cuh"            // nll under the logits x W^T, which never exist as a whole
#include "src/cuda/top_k.cuh"                           // the largest numbers of each row
#include "src/cuda/dora.cuh"                            // magnitude and direction
#include "src/cuda/accumulate.cuh"                      // state += x
#include "src/cuda/copy.cuh"                            // state = x
#include "src/cuda/apart.cuh"                           // copies to the host and back, beside kernels
#include "src/cuda/clip.cuh"                            // the norm of all gradients
#include "src/cuda/adamw.cuh"                           // one step of the optimizer
#include "src/cuda/adamw8.cuh"                          // the same with moments in 8 bits
#include "src/cuda/memory.cuh"                          // staging, weights on the device
#include "src/cuda/pager.cuh"                          // optimizer states piece by piece, from and to the host
#include "src/cuda/backend.cuh"                         // the backend: buffers, weights, running a plan
