// vocabulary.h - the text side of a model in the other format: tokenizer.json as the keys tokenizer.ggml.*, and back.
#pragma once
#include "src/format/gguf.h"
#include "src/model/model.h"

namespace qlora { inline namespace QLORA_ABI {

// The files of a Hugging Face folder, as text; "" = none.
struct TextFiles {
    std::string tokenizer, config, chat_template;      // tokenizer.json, tokenizer_config.json, chat_template.jinja
    std::string model = {}, form = {};    // tokenizer.model, where there is no tokenizer.json; of tiktoken_form()
};

// As the model came with them (from the folder, or kept in a GGUF file by our writer); nothing when it has a GGUF
// vocabulary only.
std::optional<TextFiles> original_text(const ModelImpl&);

// A tokenizer.model in a GGUF file of ours, and back; nothing when it has none.
void write_tokenizer_model(GgufWriter&, const TextFiles&);
std::optional<TextFiles> gguf_tokenizer_model(const GgufPairs&);

// Those of a model whose file has a GGUF vocabulary.
TextFiles hf_vocabulary(const ModelImpl&);

// tokenizer.ggml.* as llama.cpp reads it. False, and nothing is written, when llama.cpp has no counterpart for the
// tokenizer.
bool write_gguf_vocabulary(GgufWriter&, const TextFiles&, const ModelImpl&);

}}  // namespace qlora
