// qlora.cpp - the table of contents: the library in reading order, and the release build in one translation unit.
// Every room also compiles alone; `make lint` checks that none is missing here.
#include "qlora.h"

// g++ 12 warns inside its own intrinsics ("__Y is used uninitialized", by design) and its own std::string: not at code
// of ours.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wrestrict"
#endif

// base: errors, files, limits, threads, json, random numbers
#include "src/base/file.cpp"                // POSIX files
#include "src/base/folder.cpp"              // folders
#include "src/base/json.cpp"                // RFC 8259 to the letter
#include "src/base/limits.cpp"              // what the system lets this process use
#include "src/base/mapped_file.cpp"         // read-only maps, and the handler for those whose file is cut
#include "src/base/threads.cpp"             // the worker pool

// tensor: number types, weights, 4-bit quantization
#include "src/tensor/blocks.cpp"            // what the bytes of GGUF's block types mean
#include "src/tensor/dtype.cpp"             // the table of number types, in the order of the enum
#include "src/tensor/best_scale.cpp"        // the scale of a block by least squares
#include "src/tensor/encode.cpp"            // floats to stored numbers
#include "src/tensor/nf4.cpp"               // quantization to the 4-bit types of QLoRA, with their scales once or twice
#include "src/tensor/weight.cpp"            // decoding any part of any stored tensor

// cpu: kernels per instruction set, matrix products over any stored type
#include "src/cpu/kernels.cpp"              // the list of instruction sets, and which of them is used
#include "src/cpu/gemm.cpp"                 // the three matrix products on one driver
#include "src/cpu/gemv.cpp"                 // y = x W^T for the few rows of x of token generation
#include "src/cpu/unpack.cpp"               // parts of a stored matrix as floats, and the scales of its 4-bit runs
#include "src/cpu/drop.cpp"                 // the dropout mask, by the runs of a set and one by one
#include "src/cpu/tile.cpp"                 // the transpose that goes with tiles
// cpu/portable: what every machine runs
#include "src/cpu/portable/kernels_portable.cpp"            // the table
#include "src/cpu/portable/vec_portable.cpp"                // the vector loops
#include "src/cpu/portable/tile_portable.cpp"               // the tile products
#include "src/cpu/portable/gemm_portable.cpp"               // packing and the register tile
// cpu/avx2: AVX2 with FMA
#include "src/cpu/avx2/kernels_avx2.cpp"                    // the table
#include "src/cpu/avx2/vec_avx2.cpp"                        // the vector loops
#include "src/cpu/avx2/tile_avx2.cpp"                       // the tile products
#include "src/cpu/avx2/gemm_avx2.cpp"                       // packing and the register tile
#include "src/cpu/avx2/unpack_avx2.cpp"                     // 4-bit codes to floats, and products with them
#include "src/cpu/avx2/halves_avx2.cpp"                     // f16 and bf16
#include "src/cpu/avx2/blocks_avx2.cpp"                     // the block types of GGUF files
#include "src/cpu/avx2/dots16_avx2.cpp"                     // stored weights times vectors in 16-bit integers
#include "src/cpu/avx2/drop_avx2.cpp"                       // the dropout mask
// cpu/avx512: AVX-512, with blocks and integers as AVX2 has them
#include "src/cpu/avx512/kernels_avx512.cpp"                // the table
#include "src/cpu/avx512/vec_avx512.cpp"                    // the vector loops
#include "src/cpu/avx512/tile_avx512.cpp"                   // the tile products
#include "src/cpu/avx512/gemm_avx512.cpp"                   // packing and the register tiles
#include "src/cpu/avx512/unpack_avx512.cpp"                 // 4-bit codes to floats, and products with them
#include "src/cpu/avx512/block_dots_avx512.cpp"             // rows of stored weights times a few vectors
#include "src/cpu/avx512/drop_avx512.cpp"                   // the dropout mask
// cpu/avx512_bf16: AVX-512 with products of bf16
#include "src/cpu/avx512_bf16/kernels_avx512_bf16.cpp"      // the table
#include "src/cpu/avx512_bf16/gemm_avx512_bf16.cpp"         // packing and the register tiles

// graph: nodes, autograd, the memory plan, the backend interface
#include "src/graph/autograd.cpp"           // the backward pass as nodes
#include "src/graph/graph.cpp"              // nodes and their memory
#include "src/graph/plan.cpp"               // the memory plan

// ops: one room per operation
#include "src/ops/accumulate.cpp"           // state += x, in place
#include "src/ops/adamw.cpp"                // one step of AdamW (arXiv:1711.05101) in place, as PyTorch computes it
#include "src/ops/add.cpp"                  // y = a + b of one shape
// softmax(scale q k^T) v over a range of keys for each query row, without ever holding rows
#include "src/ops/attention.cpp"
#include "src/ops/attention_back.cpp"       // the gradients of attention
#include "src/ops/bias.cpp"                 // y = x + b, x {..., n}, b {n} added to every row
#include "src/ops/clip.cpp"                 // global_norm
#include "src/ops/cpu_backend.cpp"          // the CPU as a backend
#include "src/ops/cross_entropy.cpp"        // the mean loss of scores that were kept
#include "src/ops/dora.cpp"                 // weights as magnitude and direction (arXiv:2402.09353)
#include "src/ops/dropout.cpp"              // some elements become 0, the others grow
#include "src/ops/embedding.cpp"            // y[row] = table[ids[row]], table {vocabulary, n}, ids i32 {rows}
#include "src/ops/fill.cpp"                 // a tensor of one value
#include "src/ops/geglu.cpp"                // y = gelu(gate) * up, element by element, of one shape
#include "src/ops/graph_api.cpp"            // the public Graph and Tensor over GraphImpl
#include "src/ops/leaf.cpp"                 // what a graph starts from
// nll {rows} of targets under the logits x {rows, n} W^T, W {vocabulary, n}, with the
#include "src/ops/linear_cross_entropy.cpp"
// y {rows, out} = base + s drop(x) A^T B^T, the low-rank path of a layer in one operation
#include "src/ops/lora.cpp"
// y {rows, out} = x {rows, in} W^T with a float W {out, in} of the graph, and both gradients
#include "src/ops/matmul.cpp"
#include "src/ops/mul.cpp"                  // y = a * b, element by element, of one shape
// y {rows, out} = x {rows, in} W^T with a stored weight W {out, in}, decoded a panel at a
#include "src/ops/qmatmul.cpp"
#include "src/ops/rms_norm.cpp"             // y = x * r * w by rows of n, r = 1 / sqrt(mean(x^2) + eps)
#include "src/ops/rope.cpp"                 // rotary position embedding (arXiv:2104.09864)
#include "src/ops/scale.cpp"                // y = factor * x, and y = s[row] * x for x {..., n}
#include "src/ops/silu.cpp"                 // y = x * s(x) with s(x) = 1 / (1 + exp(-x)), element by element
#include "src/ops/softcap.cpp"              // y = cap * tanh(x / cap), element by element
#include "src/ops/store_rows.cpp"           // state[rows[i]] = x[i] in place
#include "src/ops/sum.cpp"                  // y {1} = sum of all x
#include "src/ops/swiglu.cpp"               // y = silu(gate) * up, element by element, of one shape
#include "src/ops/table.cpp"                // the operation table
#include "src/ops/view.cpp"                 // the same memory under another shape

// format: GGUF and safetensors
#include "src/format/gguf.cpp"              // the GGUF reader
#include "src/format/gguf_writer.cpp"       // writes GGUF version 3 under the rules that llama.cpp's reader enforces
#include "src/format/safetensors.cpp"       // reads and writes safetensors

// text: tokenizers and chat templates
#include "src/text/bpe.cpp"                 // see bpe.h
// a parsed template as the rest of the library sees it, and the layouts for models that
#include "src/text/chat_template.cpp"
// object.name, object[key], object[start:stop:step], item in container, and what i
#include "src/text/jinja_attributes.cpp"
// upper, lower, title and the tests of what a text consists of, as Python's str ha
#include "src/text/jinja_case.cpp"
#include "src/text/jinja_contract.cpp"      // binds arguments to parameters, and finds rows of the tables
// the expressions of a template, loosest first: a if b else c, or, and, not, compa
#include "src/text/jinja_expressions.cpp"
// filters that read or make lists. Those that the reference evaluates lazily retur
#include "src/text/jinja_filters_list.cpp"
#include "src/text/jinja_filters_text.cpp"  // filters that make a text
#include "src/text/jinja_filters_value.cpp" // filters on numbers and on values of any type
// Python's two ways to put values into a text. What a format asks for and is not w
#include "src/text/jinja_format.cpp"
#include "src/text/jinja_globals.cpp"       // the functions that every template can call
// cuts a template into texts and tags, and tags into names, numbers, strings and o
#include "src/text/jinja_lexer.cpp"
#include "src/text/jinja_loop.cpp"          // loop.index, loop.last, loop.nextitem and their kin, lazily
#include "src/text/jinja_methods.cpp"       // methods of lists, dicts, numbers and loops, and the tables of all types
// arithmetic of template values. Integers have 64 bits: a result that needs more i
#include "src/text/jinja_number.cpp"
#include "src/text/jinja_parser.cpp"        // the statements of a template: lexemes to syntax tree
#include "src/text/jinja_print.cpp"         // str(), repr() and json.dumps() of template values
#include "src/text/jinja_run.cpp"           // the interpreter: walks the syntax tree with scopes, steps and limits
#include "src/text/jinja_string_methods.cpp"// the methods of Python's str. Positions are counted in characters
#include "src/text/jinja_tests.cpp"         // what stands behind "is"
#include "src/text/jinja_text.cpp"          // strip, split, replace, join and their kin
// truth, equality, order and hash of template values, as Python does them, and the
#include "src/text/jinja_value.cpp"
#include "src/text/normalize.cpp"           // every normalizer rewrites the text piece by piece
#include "src/text/pattern.cpp"             // reading an expression into parts, and matching by sets of places
// the regular expressions of the model families, each written out as a scanner that reads a
#include "src/text/pretokenize.cpp"
#include "src/text/spm.cpp"                 // SentencePiece's BPE as GGUF stores it
#include "src/text/token_core.cpp"          // see token_core.h
#include "src/text/token_starts.cpp"        // which bytes of a text its tokens stand for
#include "src/text/tokenizer_json.cpp"      // Hugging Face's tokenizer.json
// unpacks the character tables once, and composes text to NFC (Unicode Standard Annex 15)
#include "src/text/unicode.cpp"
#include "src/text/unicode_case.cpp"        // upper, lower and title case of characters, as Python's str has it
#include "src/text/unicode_case_tables.cpp" // the case of characters as Python 3.11 sees it
#include "src/text/unicode_tables.cpp"      // the characters as tokenizers 0.23.3 sees them
#include "src/text/utf8.cpp"                // UTF-8 by the table of well-formed sequences (Unicode, table 3-7)

// model: configuration, weights, decoder, adapters
#include "src/model/adapter_config.cpp"     // adapter_config.json, PEFT's description of an adapter
#include "src/model/adapter_gguf.cpp"       // adapters as llama.cpp's --lora reads them
#include "src/model/adapter_names.cpp"      // the rules by which PEFT 0.21 chooses layers by name
#include "src/model/adapter_peft.cpp"       // adapters as PEFT writes them
// the fingerprints of a model, the record that carries them, and what follows from a record
#include "src/model/base_record.cpp"
#include "src/model/decoder.cpp"            // the decoder-only transformer, written once for every family
#include "src/model/dora.cpp"               // the norms || W + s B A || that magnitudes are measured against
#include "src/model/family.cpp"             // the bounds of a configuration, and its rotary frequencies
#include "src/model/gguf_four_bit.cpp"      // nf4 and fp4 tensors in a GGUF file, out of it and into it, bit for bit
// config.json of Hugging Face folders, as versions 4 and 5 of transformers write it, to a
#include "src/model/hf_config.cpp"
#include "src/model/hf_config_of.cpp"       // a configuration as config.json
#include "src/model/hf_tensors.cpp"         // where a Hugging Face folder's tensors lie, also in 4 bits
#include "src/model/load.cpp"               // the steps that both loaders share, and the summary of a loaded model
#include "src/model/load_gguf.cpp"          // a model out of a GGUF file
#include "src/model/load_hf.cpp"            // a model out of a Hugging Face folder
#include "src/model/lora.cpp"               // new adapters
#include "src/model/lora_init.cpp"          // adapters that start from the singular values of the weights, W ~ U S V^T
// prints a dialogue through the chat template, encodes it, and marks the tokens of the
#include "src/model/render_chat.cpp"
#include "src/model/save_gguf.cpp"          // a model into a GGUF file
#include "src/model/save_hf.cpp"            // a model into a Hugging Face folder
#include "src/model/svd.cpp"                // the largest singular values of a matrix
#include "src/model/tensors.cpp"            // the table of tensors, and names and shapes by it
#include "src/model/text.cpp"               // tokenizers out of any kind of file
// where each message of a printed dialogue stands, and which of the bytes the assistant speaks
#include "src/model/turns.cpp"
#include "src/model/vocabulary_gguf.cpp"    // a tokenizer.json as the keys that llama.cpp reads
#include "src/model/vocabulary_hf.cpp"      // a GGUF vocabulary as tokenizer.json and tokenizer_config.json

// families: one room per family of models
#include "src/families/gemma2.cpp"          // four norms a layer, soft caps, every second layer with a window
#include "src/families/llama.cpp"           // Llama 1 to 3 and the many models of their shape
#include "src/families/mistral.cpp"         // Llama with a sliding window
#include "src/families/qwen2.cpp"           // biases on queries, keys and values
#include "src/families/qwen3.cpp"           // queries and keys normed head by head
#include "src/families/table.cpp"           // the table of families

// run: data, training, sessions, measuring
#include "src/run/batches.cpp"              // packing, shuffling and cutting into micro-batches
#include "src/run/checkpoint.cpp"           // saving and continuing a training run
// the sections of a run's identity, their comparison, and what checkpoints of version 0.1.0
#include "src/run/checkpoint_identity.cpp"
#include "src/run/dataset.cpp"              // a file to rows, and their split
#include "src/run/decoders.cpp"             // one graph for each row count that occurs, made on first use
#include "src/run/evaluate.cpp"             // every measure is the loss of documents with some tokens marked
// texts that a chat template has printed before: where the assistant speaks in them
#include "src/run/marked_text.cpp"
#include "src/run/merge.cpp"                // a model in another type, perhaps with an adapter inside
#include "src/run/messages.cpp"             // the messages of a record
#include "src/run/optimizer.cpp"            // drives AdamW
#include "src/run/record_files.cpp"         // which file a data set is, and where its records begin and end
#include "src/run/records.cpp"              // the record formats of training data, detected and brought into one shape
#include "src/run/rows.cpp"                 // examples to rows of tokens and loss masks
#include "src/run/sampler.cpp"              // one token after another, reproducibly
#include "src/run/schedule.cpp"             // warm-up, then constant, linear or cosine decay
#include "src/run/session.cpp"              // prompt in chunks, then one token at a time
#include "src/run/tool_form.cpp"            // the form in which a chat template takes tools and tool calls
#include "src/run/trainer.cpp"              // one optimizer step after another

// the only file that knows both the public classes and the rooms
#include "src/api.cpp"

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif
