// tensors.h - the tensors of a decoder: one row for each. Loaders, savers, counts, fingerprints and conversions are
// loops over the rows; a tensor that another family needs is one row more.
#pragma once
#include "src/base/error.h"
#include "src/tensor/weight.h"

#include <functional>

namespace qlora { inline namespace QLORA_ABI {

struct Config;

// The places that hold one tensor each: first those of a layer, then those of the model. The linear layers come first
// and their biases follow in the same order.
enum class Slot : uint8_t {
    q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj,
    q_bias, k_bias, v_bias, o_bias, gate_bias, up_bias, down_bias,
    attention_norm, q_norm, k_norm, attention_post_norm, feed_forward_norm, feed_forward_post_norm,
    attention_norm_bias, feed_forward_norm_bias,
    embedding, positions, final_norm, final_norm_bias, head
};
constexpr int layer_slots = int(Slot::embedding), model_slots = int(Slot::head) + 1 - layer_slots;

// A linear layer of the blocks, which LoRA adapts: one of the first seven slots. Of several that are one layer in
// their family (Fused::one) the first stands for them all.
using Module = Slot;
constexpr int module_count = 7;
// Of a linear layer, or of a norm that can have one.
constexpr Slot bias_of(Slot s) {
    return s == Slot::attention_norm      ? Slot::attention_norm_bias
           : s == Slot::feed_forward_norm ? Slot::feed_forward_norm_bias
           : s == Slot::final_norm        ? Slot::final_norm_bias
                                          : Slot(module_count + int(s));
}
std::string_view name_of(Module);                      // "q_proj", as PEFT calls it in most families
bool has(const Config&, Slot linear);                  // whether such a model has this linear layer
bool is_module(const Config&, Slot linear);            // and has it by itself, or as the first part of a fused one
std::span<const Slot> parts_of(const Config&, Slot linear);    // of the module to which it belongs; often itself alone
inline Module module_of(const Config& c, Slot linear) { return parts_of(c, linear)[0]; }
Shape module_shape(const Config&, Module, int64_t layer);             // {rows of all parts, in}
int64_t first_row(const Config&, Slot linear, int64_t layer);          // of a part of a module
// The shortest name that PEFT takes for this module alone: "q_proj", "qkv_proj", "attn.c_proj".
std::string module_name(const Config&, Module);

enum class Kind : uint8_t { linear, bias, norm, embedding };
// A side of a shape: query = heads * head_dim, key = kv_heads * head_dim (of its layer).
enum class Dim : uint8_t { none, hidden, feed_forward, query, key, head, vocabulary, context };

struct Row {
    Slot slot;
    Kind kind;
    std::string_view gguf, hf;    // without "blk.3.", "model.layers.3.", ".weight", ".bias"
    Dim out, in;                                       // {out, in}, or {out} where in is none
    bool (*exists)(const Config&, int64_t layer);
    bool turned = false;    // rows of rotary pairs: GGUF's order differs in some families (Config::adjacent_pairs)

    bool in_layer() const { return int(slot) < layer_slots; }
};

// A tensor that some families' files have in the place of several: their rows, and so their biases.
struct Fused {
    std::string_view gguf, hf;    // as in Row: "attn_qkv", "self_attn.qkv_proj"; empty: that world has the parts
    std::span<const Slot> linears;
    // The class has one linear layer there, which is quantized as one and has one adapter, and savers write one tensor.
    // Else files may have it, and it is several layers.
    bool one = false;
    // In folders: the parts below each other, the last one first, or for each key-value head its queries, key, value.
    enum class Order : uint8_t { blocks, reversed, heads } order = Order::blocks;
};
// What a family's tensors are called in Hugging Face folders where that is not what the rows say; a bias is called as
// what it belongs to.
struct Renamed { Slot slot; std::string_view hf; };
struct Names {
    std::string_view layers = "model.layers.";         // before the number of a layer
    std::span<const Renamed> tensors = {};
    std::span<const Fused> fused = {};                 // which a file may have instead of the tensors of their slots
    bool transposed = false;                           // dense linear layers lie as {in, out}
    std::span<const std::string_view> ignored = {};    // of a layer, which hold nothing of the model: masks
    // Before the number of a layer as modules are called, where that differs: in the class that sees as well.
    std::string_view modules = {};
    bool tied_head = true;                             // a head that is the embedding is a layer of the class as well
};

std::span<const Row> tensor_rows();                    // in the order in which files hold them
const Row& row_of(const Config&, Slot);                // the one that exists, else any of that slot
Shape shape_of(const Config&, const Row&, int64_t layer);
inline Shape shape_of(const Config& c, Slot s, int64_t layer) { return shape_of(c, row_of(c, s), layer); }

int64_t layers_of(const Config&);
// f(row, layer) for every tensor that such a model has; layer is -1 outside of the layers.
template <class F>
void for_each_tensor(const Config& c, const F& f) {
    const std::span<const Row> rows = tensor_rows();
    for (size_t first = 0, last = 0; first < rows.size(); first = last) {
        while (last < rows.size() && rows[last].in_layer() == rows[first].in_layer()) ++last;
        const bool in_layer = rows[first].in_layer();
        for (int64_t layer = in_layer ? 0 : -1; layer < (in_layer ? layers_of(c) : 0); ++layer)
            for (const Row& row : rows.subspan(first, last - first))
                if (row.exists(c, layer)) f(row, layer);
    }
}
int64_t count_tensors(const Config&);

// The two worlds of files, which name tensors differently: blk.3.attn_q.weight, model.layers.3.self_attn.q_proj.weight.
enum class World : uint8_t { gguf, hf };
std::string tensor_name(World, const Config&, const Row&, int64_t layer);
// Of a module: model.layers.3.self_attn.q_proj, and of one that is a single tensor in a GGUF file: blk.3.attn_q.weight
std::string hf_name(const Config&, int64_t layer, Module);
std::string gguf_name(const Config&, int64_t layer, Slot linear, std::string_view suffix);
// Whether all parts of a linear layer's module are one tensor in files that this library writes.
bool is_one(World, const Config&, Slot linear);

// Where in a file the rows of a tensor lie: all of the tensor of its own name, or some of a fused one, which counts
// where the tensor of its first slot is not there under its own name.
struct RowsInFile { std::string name; Shape shape; std::vector<RowRange> rows; bool fused = false; };
RowsInFile rows_in_file(World, const Config&, const Row&, int64_t layer,
                        const std::function<bool(const std::string& name)>& has);

// What a name in a file means: the tensor itself (part "") or something beside it (".absmax"); row null = neither.
// A row that such a model does not have is found only where none that it has fits. Error{format} naming `where` for a
// layer that the configuration does not have.
struct TensorPlace {
    const Row* row = nullptr;
    int64_t layer = -1;
    std::string_view part;
    std::string_view in_layer;    // the name without its layer, "" outside of the layers
};
TensorPlace place_of(World, const Config&, std::string_view name, const std::string& where);

// The rows of a linear layer (or of its bias) in the fused matrix of its module.
std::vector<RowRange> rows_in_module(World, const Config&, Slot linear, int64_t layer);
// The name of a module's matrix (or of its bias) where that is one tensor.
std::string fused_name(World, const Config&, int64_t layer, const Row&);
// For each row of a module in such a file the row in the model, whose parts lie below each other; empty: in order.
std::vector<int64_t> model_rows(World, const Config&, Module, int64_t layer, bool adjacent_in_file);

// Rows of a matrix {heads * head_dim, ...} of Hugging Face order -> GGUF's order for adjacent pairs, and back:
// row 2i + j of a head is row j * head_dim / 2 + i there. to_gguf(r) is the row of the other order that belongs at r.
int64_t hf_row_of_gguf(int64_t row, int64_t head_dim);
int64_t gguf_row_of_hf(int64_t row, int64_t head_dim);

}}  // namespace qlora
