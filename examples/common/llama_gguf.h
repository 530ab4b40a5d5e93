// llama_gguf.h - the metadata of a Llama in a GGUF file, for the two programs that write one: bench (random weights) and graph (trained from nothing).
// Reading and writing GGUF is the library's business, so its own writer is included (it is not part of the public header) instead of a second one.
#pragma once
#include "src/base/file.h"
#include "src/format/gguf.h"

namespace program {

struct LlamaShape {
    std::string name;
    int64_t layers = 0, hidden = 0, heads = 0, kv_heads = 0, feed_forward = 0, vocabulary = 0, context = 0;
    double rope_base = 10000;
};

void set_llama(qlora::GgufWriter& writer, const LlamaShape& shape);
void add_f32(qlora::GgufWriter& writer, const std::string& name, qlora::Shape shape, std::vector<float> values);
void add_f16(qlora::GgufWriter& writer, const std::string& name, qlora::Shape shape, const std::vector<float>& values);

// A vocabulary of the 256 bytes (token i is byte i) and the given control tokens after them, as a byte-level BPE without merges.
void set_byte_vocabulary(qlora::GgufWriter& writer, const std::vector<std::string>& control, int64_t bos, int64_t eos, const std::string& chat_template);

}  // namespace program
