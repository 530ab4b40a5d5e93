// family.h - what distinguishes the families of models that this library runs: one table, read by every loader and
// saver.
#pragma once
#include "src/model/model.h"

namespace qlora { inline namespace QLORA_ABI {

struct Family {
    std::string_view name;                             // Config::family and Hugging Face's model_type
    std::string_view gguf;                             // general.architecture
    std::string_view hf_class;                         // architectures[0]
    bool qkv_bias, qk_norm;                            // always there, and never there
    bool adjacent_pairs;    // in GGUF: rotary pairs (2i, 2i+1), so q and k rows are stored permuted
    // What Hugging Face leaves out of config.json when it has these values.
    // 0: kv_heads = heads, head_dim = hidden / heads
    int64_t vocabulary, hidden, layers, heads, kv_heads, head_dim, feed_forward, context, window;
    double eps;
};

const Family* family_named(std::string_view model_type);               // null = not supported
const Family* family_of_gguf(std::string_view architecture);
std::string family_names();                            // for error messages

std::string gguf_name(int64_t layer, Module, std::string_view suffix);  // blk.3.attn_q.weight
std::string hf_name(int64_t layer, Module);            // model.layers.3.self_attn.q_proj
Shape linear_shape(const Config&, Module);             // {out, in}

void check_config(const Config&, const std::string& where);            // every bound that later code relies on

// Rows of a matrix {heads * head_dim, ...} of Hugging Face order -> GGUF's order for adjacent pairs, and back:
// row 2i + j of a head is row j * head_dim / 2 + i there. to_gguf(r) is the row of the other order that belongs at r.
int64_t hf_row_of_gguf(int64_t row, int64_t head_dim);
int64_t gguf_row_of_hf(int64_t row, int64_t head_dim);

// Rotary frequencies with their scaling already applied.
void set_frequencies(Config&, double theta, const RopeScaling&, const std::string& where);
// those that a file lists: normal numbers, none above 1000
void check_frequencies(std::span<const float>, const std::string& where);
// those that the model has, to the last bits: its theta with this scaling
bool gives_frequencies(const Config&, const RopeScaling&);

}}  // namespace qlora
