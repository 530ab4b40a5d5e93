// qlora.cpp - the table of contents: the library in reading order, and the release build in one translation unit.
// Every room also compiles alone; `make lint` checks that none is missing here.
#include "qlora.h"

// base: errors, files, threads, json, random numbers
#include "src/base/file.cpp"                        // POSIX files
#include "src/base/json.cpp"                        // RFC 8259 to the letter
#include "src/base/threads.cpp"                     // the worker pool

// cpu: kernels per instruction set, matrix products over any stored type
#include "src/cpu/blocks_avx2.cpp"                  // the most used block types of GGUF files to floats with AVX2
#include "src/cpu/drop.cpp"                         // the dropout mask, many counters at a time
#include "src/cpu/gemm.cpp"                         // the three matrix products on one driver
#include "src/cpu/gemm_avx2.cpp"                    // packing and the register tile with AVX2 and FMA: 6 x 16, twelve sums in sixteen registers
#include "src/cpu/gemm_avx512.cpp"                  // packing and the register tiles with AVX-512
#include "src/cpu/gemm_portable.cpp"                // packing and the register tile without special instructions
#include "src/cpu/gemv.cpp"                         // y = x W^T for the few rows of x of token generation
#include "src/cpu/isa.cpp"                          // which instruction set the CPU kernels use
#include "src/cpu/kernels.cpp"                      // the choice among the tables of kernels by instruction set
#include "src/cpu/tile.cpp"                         // the tile products, once per instruction set
#include "src/cpu/unpack.cpp"                       // parts of a stored matrix as floats, and the scales of its 4-bit runs
#include "src/cpu/unpack_avx2.cpp"                  // 4-bit codes to floats with AVX2
#include "src/cpu/unpack_avx512.cpp"                // 4-bit codes with AVX-512
#include "src/cpu/vec.cpp"                          // the vector loops without special instructions
#include "src/cpu/vec_avx2.cpp"                     // the vector loops with AVX2 and FMA
#include "src/cpu/vec_avx512.cpp"                   // the vector loops with AVX-512: sixteen lanes, and a mask for the last few

// graph: nodes, autograd, the memory plan, the backend interface
#include "src/graph/autograd.cpp"                   // the backward pass as nodes
#include "src/graph/graph.cpp"                      // nodes and their memory
#include "src/graph/plan.cpp"                       // the memory plan

// ops: one room per operation
#include "src/ops/accumulate.cpp"                   // state += x, in place
#include "src/ops/adamw.cpp"                        // one step of AdamW in place
#include "src/ops/add.cpp"                          // y = a + b of one shape
#include "src/ops/attention.cpp"                    // softmax(scale q k^T) v over a range of keys for each query row, without ever holding rows
#include "src/ops/bias.cpp"                         // y = x + b, a row of b for every row of x
#include "src/ops/clip.cpp"                         // the global norm of gradients
#include "src/ops/cpu_backend.cpp"                  // the CPU as a backend
#include "src/ops/cross_entropy.cpp"                // mean of lse(logits) - logit of the target
#include "src/ops/dropout.cpp"                      // a mask that is a function and never stored
#include "src/ops/embedding.cpp"                    // y[row] = table[ids[row]]
#include "src/ops/fill.cpp"                         // a tensor of one value
#include "src/ops/graph_api.cpp"                    // the public Graph and Tensor
#include "src/ops/leaf.cpp"                         // what a graph starts from
#include "src/ops/linear_cross_entropy.cpp"         // nll {rows} of targets under the logits x {rows, n} W^T, W {vocabulary, n}, with the
#include "src/ops/lora.cpp"                         // y {rows, out} = base + s drop(x) A^T B^T, the low-rank path of a layer in one operation
#include "src/ops/matmul.cpp"                       // y {rows, out} = x {rows, in} W^T with a float W {out, in} of the graph, and both gradients
#include "src/ops/mul.cpp"                          // y = a * b, element by element, of one shape
#include "src/ops/qmatmul.cpp"                      // y {rows, out} = x {rows, in} W^T with a stored weight W {out, in}, decoded a panel at a
#include "src/ops/rms_norm.cpp"                     // y = x * r * w, r = 1 / sqrt(mean(x^2) + eps)
#include "src/ops/rope.cpp"                         // rotary position embedding
#include "src/ops/scale.cpp"                        // y = factor * x, and y = s[row] * x
#include "src/ops/silu.cpp"                         // y = x / (1 + exp(-x)): the room to copy for a new one
#include "src/ops/store_rows.cpp"                   // state[rows[i]] = x[i] in place: the KV cache
#include "src/ops/sum.cpp"                          // y {1} = sum of all x
#include "src/ops/swiglu.cpp"                       // y = silu(gate) * up
#include "src/ops/table.cpp"                        // the operation table
#include "src/ops/view.cpp"                         // the same memory under another shape

// format: GGUF and safetensors
#include "src/format/gguf.cpp"                      // the GGUF reader
#include "src/format/gguf_writer.cpp"               // writes GGUF version 3 under the rules that llama.cpp's reader enforces
#include "src/format/safetensors.cpp"               // reads and writes safetensors

// text: tokenizers and chat templates
#include "src/text/chat_template.cpp"               // a parsed template as the rest of the library sees it, and the layouts for models that
#include "src/text/jinja_builtins.cpp"              // the filters, tests and methods that chat templates call
#include "src/text/jinja_lexer.cpp"                 // cuts a template into texts and tags, and tags into names, numbers, strings and operators
#include "src/text/jinja_parser.cpp"                // lexemes to syntax tree
#include "src/text/jinja_run.cpp"                   // the interpreter
#include "src/text/jinja_value.cpp"                 // truth, equality, printing and JSON of template values, as Python does them

// run: data, training, generation, measuring
#include "src/run/batches.cpp"                      // which rows form which micro-batch of which step
#include "src/run/checkpoint.cpp"                   // saving and continuing a training run
#include "src/run/dataset.cpp"                      // examples to rows of tokens and loss masks
#include "src/run/decoders.cpp"                     // decoders of a few row counts that share one arena
#include "src/run/evaluate.cpp"                     // loss, perplexity, the choice among answers
#include "src/run/optimizer.cpp"                    // AdamW over an adapter, with 32-bit or 8-bit states
#include "src/run/records.cpp"                      // the record formats of training data
#include "src/run/sampler.cpp"                      // the next token from its scores
#include "src/run/schedule.cpp"                     // the learning rate of every step
#include "src/run/session.cpp"                      // one conversation
#include "src/run/trainer.cpp"                      // one optimizer step after another

// the public classes
#include "src/api.cpp"                              // arguments in, one call down, results out
