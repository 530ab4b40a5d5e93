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
#include "src/base/file.cpp"                            // Reads and writes files; new content appears whole.
#include "src/base/folder.cpp"                          // Writes folders, whole or not at all.
#include "src/base/listing.cpp"                         // Lists and removes folders.
#include "src/base/mapped_file.cpp"                     // Maps files for reading, and survives files that are cut.
#include "src/base/unnamed_file.cpp"                    // Maps files without a name, for what need not be in memory.
#include "src/base/source.cpp"                          // Finds files by path, or in memory.
#include "src/base/stop.cpp"                            // Asks the caller whether long work goes on.
#include "src/base/base64.cpp"                          // Writes bytes as printable text, and reads them.
#include "src/base/number.cpp"                          // Reads doubles, in any locale.
#include "src/base/json.cpp"                            // Reads and writes JSON by the letter of RFC 8259.
#include "src/base/limits.cpp"                          // Finds what the system lets this process use.
#include "src/base/threads.cpp"                         // Runs tasks on a pool of workers.

// tensor: number types, weights, 4-bit quantization
#include "src/tensor/dtype.cpp"                         // Lists the number types in the order of the enum.
#include "src/tensor/float8.cpp"                        // Decodes 8-bit floats, and blocks whose scales they are.
#include "src/tensor/blocks.cpp"                        // Decodes the block types of GGUF.
#include "src/tensor/weight.cpp"                        // Decodes any part of any stored tensor.
#include "src/tensor/rows.cpp"                          // Cuts rows out of stored tensors, and joins them again.
#include "src/tensor/nf4.cpp"                           // Quantizes to NF4 and FP4, and the scales once more.
#include "src/tensor/best_scale.cpp"                    // Finds the best scale of a block by least squares.
#include "src/tensor/encode.cpp"                        // Encodes floats as halves and as blocks.

// cpu: kernels per instruction set, matrix products over any stored type
#include "src/cpu/kernels.cpp"                          // Lists the instruction sets, and chooses one.
#include "src/cpu/tile.cpp"                             // Transposes matrices for the products of tiles.
#include "src/cpu/unpack.cpp"                           // Decodes parts of a stored matrix, and its 4-bit scales.
#include "src/cpu/gemm.cpp"                             // Runs the three matrix products on one driver.
#include "src/cpu/panels.cpp"                           // Keeps decoded panels of frozen weights.
#include "src/cpu/gemv.cpp"                             // Multiplies a few rows, as generation needs it.
#include "src/cpu/drop.cpp"                             // Draws the dropout mask.

// cpu/portable: what every machine runs
#include "src/cpu/portable/kernels_portable.cpp"        // Lists the kernels of plain C++.
#include "src/cpu/portable/vec_portable.cpp"            // Loops over vectors.
#include "src/cpu/portable/tile_portable.cpp"           // Multiplies tiles.
#include "src/cpu/portable/gemm_portable.cpp"           // Packs factors, and multiplies a register tile.

// cpu/avx2: AVX2 with FMA
#include "src/cpu/avx2/kernels_avx2.cpp"                // Lists the kernels of AVX2 with FMA and halves.
#include "src/cpu/avx2/vec_avx2.cpp"                    // Loops over vectors.
#include "src/cpu/avx2/tile_avx2.cpp"                   // Multiplies tiles.
#include "src/cpu/avx2/gemm_avx2.cpp"                   // Packs factors, and multiplies a register tile.
#include "src/cpu/avx2/unpack_avx2.cpp"                 // Decodes 4-bit codes, and multiplies with them.
#include "src/cpu/avx2/halves_avx2.cpp"                 // Decodes f16 and bf16, and multiplies with them.
#include "src/cpu/avx2/blocks_avx2.cpp"                 // Decodes the blocks of GGUF, and multiplies with them.
#include "src/cpu/avx2/round16_avx2.cpp"                // Makes 16-bit integers of a vector.
#include "src/cpu/avx2/dots16_avx2.cpp"                 // Multiplies codes with 16-bit integers, as words.
#include "src/cpu/avx2/blocks16_avx2.cpp"               // Multiplies blocks with 16-bit integers, as bytes.
#include "src/cpu/avx2/integers16_avx2.cpp"             // The same where a block's scales are integers.
#include "src/cpu/avx2/drop_avx2.cpp"                   // Draws the dropout mask, 32 elements at a time.

// cpu/avx512: AVX-512, with blocks and integers as AVX2 has them
#include "src/cpu/avx512/kernels_avx512.cpp"            // Lists the kernels of AVX-512.
#include "src/cpu/avx512/vec_avx512.cpp"                // Loops over vectors.
#include "src/cpu/avx512/tile_avx512.cpp"               // Multiplies tiles.
#include "src/cpu/avx512/half_rows_avx512.cpp"          // Multiplies keys and values in 16 bits.
#include "src/cpu/avx512/gemm_avx512.cpp"               // Packs factors, and multiplies register tiles.
#include "src/cpu/avx512/unpack_avx512.cpp"             // Decodes 4-bit codes, and multiplies with them.
#include "src/cpu/avx512/block_dots_avx512.cpp"         // Multiplies stored rows with a few vectors.
#include "src/cpu/avx512/drop_avx512.cpp"               // Draws the dropout mask, 64 elements at a time.

// cpu/avx512_bf16: AVX-512 with products of bf16
#include "src/cpu/avx512_bf16/kernels_avx512_bf16.cpp"  // Lists the kernels of AVX-512 with bf16.
#include "src/cpu/avx512_bf16/gemm_avx512_bf16.cpp"     // Packs factors, and multiplies register tiles of bf16.
#include "src/cpu/avx512_bf16/round16_avx512_bf16.cpp"  // Makes 16-bit integers of a vector.
#include "src/cpu/avx512_bf16/dots16_avx512_bf16.cpp"   // Multiplies 4-bit codes with 16-bit integers.
#include "src/cpu/avx512_bf16/blocks16_avx512_bf16.cpp" // Multiplies blocks of codes with 16-bit integers.
#include "src/cpu/avx512_bf16/integers16_avx512_bf16.cpp"    // The same where a block's scales are integers.
#include "src/cpu/avx512_bf16/scales_avx512_bf16.cpp"   // Looks up scales that were quantized again.
#include "src/cpu/avx512_bf16/rows_avx512_bf16.cpp"     // Multiplies stored rows with up to sixteen vectors.

// cpu/amx: AVX-512 with products of bf16 in tiles
#include "src/cpu/amx/kernels_amx.cpp"                  // Lists the kernels of AMX.
#include "src/cpu/amx/gemm_amx.cpp"                     // Packs factors, and multiplies tiles of bf16.

// graph: nodes, autograd, the memory plan, the backend interface
#include "src/graph/graph.cpp"                          // Appends nodes, and gives access to their memory.
#include "src/graph/autograd.cpp"                       // Appends the backward pass as nodes.
#include "src/graph/plan.cpp"                           // Decides which nodes run, and where results lie.

// ops: the frame, then one room per operation
#include "src/ops/leaf.cpp"                             // Holds what a graph starts from.
#include "src/ops/view.cpp"                             // Shows the same memory under another shape.
#include "src/ops/fill.cpp"                             // Fills a tensor with one value.
#include "src/ops/table.cpp"                            // Lists the operations.
#include "src/ops/cpu_pager.cpp"                         // Keeps what is too large in a file without a name.
#include "src/ops/cpu_backend.cpp"                      // Runs a planned graph on the CPU.
#include "src/ops/graph_api.cpp"                        // Implements the public Graph and Tensor.
#include "src/ops/silu.cpp"                             // Applies SiLU: the room to copy for a new operation.
#include "src/ops/gelu.cpp"                             // Applies GELU (arXiv:1606.08415), exact or by tanh.
#include "src/ops/clamp.cpp"                            // Holds values between two bounds.
#include "src/ops/add.cpp"                              // Adds two tensors of one shape.
#include "src/ops/mul.cpp"                              // Multiplies two tensors element by element.
#include "src/ops/scale.cpp"                            // Multiplies by a number, or each row by its own.
#include "src/ops/bias.cpp"                             // Adds a vector to every row.
#include "src/ops/swiglu.cpp"                           // Multiplies silu(gate) with up.
#include "src/ops/geglu.cpp"                            // Multiplies gelu(gate) with up.
#include "src/ops/softcap.cpp"                          // Keeps values under a cap by tanh.
#include "src/ops/dropout.cpp"                          // Drops random elements, and scales up the others.
#include "src/ops/sum.cpp"                              // Sums all elements.
#include "src/ops/accumulate.cpp"                       // Adds to a state in place.
#include "src/ops/copy.cpp"                             // Replaces a state in place.
#include "src/ops/apart.cpp"                            // Puts away what is read much later.
#include "src/ops/embedding.cpp"                        // Looks up rows of a table.
#include "src/ops/matmul.cpp"                           // Multiplies with a float matrix of the graph.
#include "src/ops/qmatmul.cpp"                          // Multiplies with a stored weight, a panel at a time.
#include "src/ops/lora.cpp"                             // Adds the low-rank path of a layer (arXiv:2106.09685).
#include "src/ops/dora.cpp"                             // Splits weights into length and direction (arXiv:2402.09353).
#include "src/ops/rms_norm.cpp"                         // Normalizes rows by their root mean square.
#include "src/ops/layer_norm.cpp"                       // Normalizes rows by mean and spread (arXiv:1607.06450).
#include "src/ops/rope.cpp"                             // Rotates queries and keys by position (arXiv:2104.09864).
#include "src/ops/store_rows.cpp"                       // Writes keys and values into a cache.
#include "src/ops/attention.cpp"                        // Attends to a range of keys for each query.
#include "src/ops/attention_back.cpp"                   // Computes the gradients of attention.
#include "src/ops/cross_entropy.cpp"                    // Computes the mean loss of logits that are held whole.
#include "src/ops/linear_cross_entropy.cpp"             // Computes the losses without holding the logits.
#include "src/ops/panel_uses.cpp"                       // Lists the products of a run with stored weights.
#include "src/ops/top_k.cpp"                            // Finds the largest numbers of each row.
#include "src/ops/clip.cpp"                             // Computes the global norm, which clipping needs.
#include "src/ops/adamw.cpp"                            // Takes one step of AdamW in place (arXiv:1711.05101).
#include "src/ops/adamw8.cpp"                           // The same with 8-bit moments (arXiv:2110.02861).

// cuda: the side wing is qlora-cuda.cu; what its plans are made of is part of every program
#include "src/cuda/plan/planned.cpp"                    // Plans for a CUDA device without one.

// format: GGUF and safetensors
#include "src/format/gguf.cpp"                          // Reads GGUF files.
#include "src/format/gguf_pairs.cpp"                     // Answers what the metadata of a GGUF file says.
#include "src/format/gguf_parts.cpp"                    // Reads models that were cut into several GGUF files.
#include "src/format/gguf_writer.cpp"                   // Writes GGUF files.
#include "src/format/safetensors.cpp"                   // Reads and writes safetensors files.

// text: characters and tokenizers
#include "src/text/utf8.cpp"                            // Reads UTF-8, valid or not.
#include "src/text/unicode_tables.cpp"                  // Holds the characters as tokenizers 0.23.3 sees them.
#include "src/text/unicode_compatible_tables.cpp"       // Holds what compatible characters become.
#include "src/text/unicode.cpp"                         // Classifies characters, and brings text into normal forms.
#include "src/text/unicode_case_tables.cpp"             // Holds the case of characters as Python 3.11 sees it.
#include "src/text/unicode_case.cpp"                    // Finds the upper, lower and title case of characters.
#include "src/text/split.cpp"                           // Finds patterns in a text, and cuts it at them.
#include "src/text/normalize.cpp"                       // Rewrites a text, and remembers where its bytes came from.
#include "src/text/pretokenize.cpp"                     // Cuts text into words, as the model families do.
#include "src/text/pattern.cpp"                         // Matches regular expressions as Python's re reads them.
#include "src/text/charsmap.cpp"                        // Replaces characters as a SentencePiece model says.
#include "src/text/token_core.cpp"                      // Implements what every tokenizer shares.
#include "src/text/bpe.cpp"                             // Merges the neighbours of best rank.
#include "src/text/unigram.cpp"                         // Finds the cut of a text with the best sum of scores.
#include "src/text/spm.cpp"                             // Merges and cuts as SentencePiece does.
#include "src/text/tokenizer_config.cpp"                // Reads what tokenizer_config.json says of tokens.
#include "src/text/tokenizer_steps.cpp"                 // Reads the normalizers and pre-tokenizers of tokenizer.json.
#include "src/text/tokenizer_json.cpp"                  // Reads tokenizer.json of Hugging Face.
#include "src/text/sentencepiece.cpp"                   // Reads the models of SentencePiece.
#include "src/text/tiktoken.cpp"                        // Reads the lists of tiktoken.
#include "src/text/tokenizer_model.cpp"                 // Reads tokenizer.model, whichever of both it is.
#include "src/text/token_starts.cpp"                    // Finds the bytes that each token stands for.

// text: chat templates, in the Jinja that Hugging Face runs
#include "src/text/jinja_lexer.cpp"                     // Cuts a template into texts and tags, and tags into lexemes.
#include "src/text/jinja_parser.cpp"                    // Parses statements.
#include "src/text/jinja_expressions.cpp"               // Parses expressions.
#include "src/text/jinja_value.cpp"                     // Compares, orders and hashes values as Python does.
#include "src/text/jinja_number.cpp"                    // Computes with numbers; integers have 64 bits.
#include "src/text/jinja_text.cpp"                      // Strips, splits, replaces and joins texts.
#include "src/text/jinja_case.cpp"                      // Changes and tests the case of texts.
#include "src/text/jinja_loop.cpp"                      // Implements the variable "loop".
#include "src/text/jinja_print.cpp"                     // Prints values as str(), repr() and json.dumps() do.
#include "src/text/jinja_format.cpp"                    // Formats values as Python's % and str.format() do.
#include "src/text/jinja_contract.cpp"                  // Binds arguments to parameters, and finds built-ins.
#include "src/text/jinja_attributes.cpp"                // Looks up attributes, items and slices, and iterates.
#include "src/text/jinja_methods.cpp"                   // Implements methods of lists, dicts, numbers and loops.
#include "src/text/jinja_string_methods.cpp"            // Implements the methods of Python's str.
#include "src/text/jinja_filters_text.cpp"              // Implements the filters that make a text.
#include "src/text/jinja_filters_list.cpp"              // Implements the filters that read or make lists.
#include "src/text/jinja_filters_value.cpp"             // Implements the filters on numbers and on any value.
#include "src/text/jinja_tests.cpp"                     // Implements the tests that stand behind "is".
#include "src/text/jinja_globals.cpp"                   // Implements the functions that every template can call.
#include "src/text/jinja_run.cpp"                       // Runs a template with scopes and limits.
#include "src/text/chat_template.cpp"                   // Parses a template, and has layouts for models without one.

// model: configuration, weights, files, decoder, adapters, dialogues
#include "src/model/tensors.cpp"                        // Lists the tensors of a decoder, with names and shapes.
#include "src/model/family.cpp"                         // Checks a configuration, and sets its rotary frequencies.
#include "src/model/hf_text_config.cpp"                 // Finds the text part of a model that sees as well.
#include "src/model/hf_config.cpp"                      // Reads config.json of Hugging Face.
#include "src/model/hf_config_of.cpp"                   // Writes a configuration as config.json.
#include "src/model/hf_tensors.cpp"                     // Finds the tensors of a Hugging Face folder, also in 4 bits.
#include "src/model/hf_float8.cpp"                      // Reads FP8 and NVFP4 out of such folders.
#include "src/model/hf_quantization.cpp"                // Says which quantized folders are read, or what to do.
#include "src/model/gguf_four_bit.cpp"                  // Keeps nf4 and fp4 tensors in GGUF files, bit for bit.
#include "src/model/fused.cpp"                          // Joins the parts of fused layers for files and quantization.
#include "src/model/head.cpp"                           // Holds the head in fewer bits.
#include "src/model/load.cpp"                           // Implements what both loaders share.
#include "src/model/text.cpp"                           // Loads the tokenizer out of any kind of file.
#include "src/model/load_gguf.cpp"                      // Loads a model from a GGUF file.
#include "src/model/load_hf.cpp"                        // Loads a model from a Hugging Face folder.
#include "src/model/vocabulary_gguf.cpp"                // Turns tokenizer.json into the keys of GGUF.
#include "src/model/vocabulary_hf.cpp"                  // Turns a GGUF vocabulary into tokenizer.json.
#include "src/model/recommended.cpp"                    // Reads and writes how a model's makers want tokens drawn.
#include "src/model/save_gguf.cpp"                      // Saves a model as a GGUF file.
#include "src/model/save_hf.cpp"                        // Saves a model as a Hugging Face folder.
#include "src/model/decoder.cpp"                        // Builds the transformer, once for every family.
#include "src/model/decoder_rows.cpp"                   // Lays out documents and caches as rows of a run.
#include "src/model/lora.cpp"                           // Makes new adapters.
#include "src/model/lora_forms.cpp"                     // Copies adapters, and adds several to one.
#include "src/model/factor_halves.cpp"                  // Rounds the factors of adapters for generation.
#include "src/model/dora.cpp"                           // Computes the norms that DoRA divides by.
#include "src/model/svd.cpp"                            // Finds the largest singular values of a matrix.
#include "src/model/lora_init.cpp"                      // Starts adapters from singular values: LoftQ and PiSSA.
#include "src/model/base_record.cpp"                    // Records the model that an adapter was trained on.
#include "src/model/adapter_names.cpp"                  // Chooses layers by name, as PEFT 0.21 does.
#include "src/model/adapter_config.cpp"                 // Reads and writes adapter_config.json.
#include "src/model/adapter_peft.cpp"                   // Loads and saves adapters as PEFT has them.
#include "src/model/adapter_mlx.cpp"                    // Loads and saves adapters as mlx-lm has them.
#include "src/model/adapter_gguf.cpp"                   // Loads and saves adapters as llama.cpp has them.
#include "src/model/turns.cpp"                          // Finds the bytes of a dialogue that the assistant speaks.
#include "src/model/render_chat.cpp"                    // Prints and encodes a dialogue, and marks what is trained.

// families: one room per family of models
#include "src/families/table.cpp"                       // Lists the families.
#include "src/families/llama.cpp"                       // Describes Llama 1 to 3 and models of their shape.
#include "src/families/mistral.cpp"                     // Describes Mistral: Llama with a sliding window.
#include "src/families/qwen2.cpp"                       // Describes Qwen 1.5 to 2.5: biases on queries, keys, values.
#include "src/families/qwen3.cpp"                       // Describes Qwen 3: queries and keys normed by heads.
#include "src/families/ministral3.cpp"                  // Describes Ministral 3: queries that grow with the position.
#include "src/families/smollm3.cpp"                     // Describes SmolLM3: every fourth layer does not turn.
#include "src/families/granite.cpp"                     // Describes Granite: Llama with four factors.
#include "src/families/granitemoehybrid.cpp"            // Describes Granite 4, where it is dense.
#include "src/families/olmo2.cpp"                       // Describes OLMo 2: norms behind, norms of rows.
#include "src/families/olmo3.cpp"                       // Describes OLMo 3: OLMo 2 with windows.
#include "src/families/gemma.cpp"                       // Describes Gemma: gelu, norms by 1 + w, scaled embeddings.
#include "src/families/gemma2.cpp"                      // Describes Gemma 2: four norms a layer, caps, windows.
#include "src/families/gemma3.cpp"                      // Describes Gemma 3: norms of heads, two rotary bases.
#include "src/families/starcoder2.cpp"                  // Describes StarCoder 2: layer norms, no gate, biases.
#include "src/families/olmo.cpp"                        // Describes OLMo 1: layer norms without weights, clamped keys.
#include "src/families/hf_olmo.cpp"                     // Describes OLMo 1 as its own package lays it out.
#include "src/families/deci.cpp"                        // Describes DeciLM: key-value heads by layer.
#include "src/families/phi3.cpp"                        // Describes Phi 3 to 4: fused modules, longrope.
#include "src/families/gpt2.cpp"                        // Describes GPT-2: learned positions, layer norms.
#include "src/families/gpt_bigcode.cpp"                 // Describes StarCoder: GPT-2 with one key-value head.
#include "src/families/gpt_neox.cpp"                    // Describes GPT-NeoX and Pythia: branches side by side.

// run: data, training, sessions, measuring
#include "src/run/record_files.cpp"                     // Finds the file of a data set, and cuts it into records.
#include "src/run/record_text.cpp"                      // Makes UTF-8 of a data file's bytes.
#include "src/run/record_table.cpp"                     // Cuts comma-separated values into records.
#include "src/run/messages.cpp"                         // Brings the messages of a record into one form.
#include "src/run/records.cpp"                          // Detects the form of a record: the table of forms.
#include "src/run/form_dialogue.cpp"                    // Reads lists of messages.
#include "src/run/form_pair.cpp"                        // Reads a question and its answer.
#include "src/run/form_instruction.cpp"                 // Reads instructions, with one input or several.
#include "src/run/form_speakers.cpp"                    // Reads dialogues that are one text with speakers named in it.
#include "src/run/form_preference.cpp"                  // Reads pairs of answers: the preferred ones.
#include "src/run/form_tree.cpp"                        // Reads trees of messages.
#include "src/run/tool_form.cpp"                        // Finds the form in which a template takes tools.
#include "src/run/marked_text.cpp"                      // Finds the assistant in texts that are printed already.
#include "src/run/rows.cpp"                             // Turns examples into rows of tokens and loss masks.
#include "src/run/dataset.cpp"                          // Loads a file as rows, describes them and splits them.
#include "src/run/dataset_memory.cpp"                   // Makes data sets of what is in memory.
#include "src/run/batches.cpp"                          // Packs and shuffles rows, and cuts micro-batches.
#include "src/run/decoders.cpp"                         // Keeps one decoder for each row count.
#include "src/run/evaluate.cpp"                         // Measures the loss of documents, and chooses an answer.
#include "src/run/score.cpp"                            // Scores continuations, and makes vectors of texts.
#include "src/run/schedule.cpp"                         // Sets the learning rate of every step.
#include "src/run/optimizer.cpp"                        // Drives AdamW, with states in 32 or 8 bits.
#include "src/run/neftune.cpp"                          // Makes the noise that embeddings get in training.
#include "src/run/lora_plus.cpp"                        // Lets B learn faster than A.
#include "src/run/trainer.cpp"                          // Takes one training step after another.
#include "src/run/memory_plan.cpp"                      // Says what a run of training has in memory, item by item.
#include "src/run/checkpoint_identity.cpp"              // Tells whether two runs are the same.
#include "src/run/checkpoint.cpp"                       // Saves a run, and continues it.
#include "src/run/sampler.cpp"                          // Draws the next token, reproducibly.
#include "src/run/reply_stream.cpp"                     // Cuts a reply into whole characters, up to a stop text.
#include "src/run/generation.cpp"                       // Chooses the tokens of a reply until something ends it.
#include "src/run/session.cpp"                          // Holds a conversation, and generates replies.
#include "src/run/session_state.cpp"                    // Copies a conversation, and makes bytes of it.
#include "src/run/batch.cpp"                            // Generates several sequences together.
#include "src/run/merge.cpp"                            // Converts models, and merges adapters into them.

// api: the public classes over the rooms
#include "src/api/models.cpp"                           // Implements the public classes of what is loaded and held.
#include "src/api/runs.cpp"                             // Implements those that train, generate and measure.

// last, because the headers of Windows have macros for everything
#include "src/base/windows.cpp"                         // Makes the calls of POSIX by those of Windows.

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif
