// tensors.cpp - the table of tensors, and names and shapes by it.
#include "src/model/model.h"

#include <algorithm>
#include <charconv>

namespace qlora { inline namespace QLORA_ABI {
namespace tensors_room {

bool always(const Config&, int64_t) { return true; }
bool untied(const Config& c, int64_t) { return !c.tied; }
bool gated(const Config& c, int64_t) { return c.gated; }
bool learned_positions(const Config& c, int64_t) { return c.learned_positions; }
bool weighted(const Config& c, int64_t) { return c.norm != Norm::layer_plain; }
bool norm_bias(const Config& c, int64_t) { return c.norm == Norm::layer && c.norm_biases; }
bool pre_norms(const Config& c, int64_t) { return c.pre_norms && weighted(c, 0); }
bool pre_norms_alone(const Config& c, int64_t) { return pre_norms(c, 0) && !c.post_norms; }
bool both_norms(const Config& c, int64_t) { return pre_norms(c, 0) && c.post_norms; }
bool post_norms(const Config& c, int64_t) { return c.post_norms && weighted(c, 0); }
bool norms_of_heads(const Config& c, int64_t) { return c.q_k_norms == QkNorms::heads; }
bool norms_of_rows(const Config& c, int64_t) { return c.q_k_norms == QkNorms::rows; }
template <Slot linear>
bool has_bias(const Config& c, int64_t) { return c.biases[size_t(linear)]; }

// A linear layer {out, in} and its bias {out}.
#define QLORA_LINEAR(name, gguf, hf, out, in, exists, turned)                                               \
    {Slot::name##_proj, Kind::linear, gguf, hf, out, in, exists, turned},                                   \
    {Slot::name##_bias, Kind::bias, gguf, hf, out, Dim::none, has_bias<Slot::name##_proj>, turned}

// clang-format off
constexpr Row table[] = {
    {Slot::embedding, Kind::embedding, "token_embd", "model.embed_tokens", Dim::vocabulary, Dim::hidden, always},
    {Slot::positions, Kind::embedding, "position_embd", "model.embed_positions", Dim::context, Dim::hidden,
     learned_positions},
    {Slot::attention_norm, Kind::norm, "attn_norm", "input_layernorm", Dim::hidden, Dim::none, pre_norms},
    {Slot::attention_norm_bias, Kind::bias, "attn_norm", "input_layernorm", Dim::hidden, Dim::none, norm_bias},
    {Slot::feed_forward_norm, Kind::norm, "ffn_norm", "post_attention_layernorm", Dim::hidden, Dim::none,
     pre_norms_alone},
    {Slot::feed_forward_norm_bias, Kind::bias, "ffn_norm", "post_attention_layernorm", Dim::hidden, Dim::none,
     norm_bias},
    {Slot::attention_post_norm, Kind::norm, "post_attention_norm", "post_attention_layernorm", Dim::hidden, Dim::none,
     post_norms},
    {Slot::feed_forward_norm, Kind::norm, "ffn_norm", "pre_feedforward_layernorm", Dim::hidden, Dim::none, both_norms},
    {Slot::feed_forward_post_norm, Kind::norm, "post_ffw_norm", "post_feedforward_layernorm", Dim::hidden, Dim::none,
     post_norms},
    {Slot::q_norm, Kind::norm, "attn_q_norm", "self_attn.q_norm", Dim::head, Dim::none, norms_of_heads},
    {Slot::k_norm, Kind::norm, "attn_k_norm", "self_attn.k_norm", Dim::head, Dim::none, norms_of_heads},
    {Slot::q_norm, Kind::norm, "attn_q_norm", "self_attn.q_norm", Dim::query, Dim::none, norms_of_rows},
    {Slot::k_norm, Kind::norm, "attn_k_norm", "self_attn.k_norm", Dim::key, Dim::none, norms_of_rows},
    QLORA_LINEAR(q, "attn_q", "self_attn.q_proj", Dim::query, Dim::hidden, always, true),
    QLORA_LINEAR(k, "attn_k", "self_attn.k_proj", Dim::key, Dim::hidden, always, true),
    QLORA_LINEAR(v, "attn_v", "self_attn.v_proj", Dim::key, Dim::hidden, always, false),
    QLORA_LINEAR(o, "attn_output", "self_attn.o_proj", Dim::hidden, Dim::query, always, false),
    QLORA_LINEAR(gate, "ffn_gate", "mlp.gate_proj", Dim::feed_forward, Dim::hidden, gated, false),
    QLORA_LINEAR(up, "ffn_up", "mlp.up_proj", Dim::feed_forward, Dim::hidden, always, false),
    QLORA_LINEAR(down, "ffn_down", "mlp.down_proj", Dim::hidden, Dim::feed_forward, always, false),
    {Slot::final_norm, Kind::norm, "output_norm", "model.norm", Dim::hidden, Dim::none, weighted},
    {Slot::final_norm_bias, Kind::bias, "output_norm", "model.norm", Dim::hidden, Dim::none, norm_bias},
    {Slot::head, Kind::embedding, "output", "lm_head", Dim::vocabulary, Dim::hidden, untied},
};
// clang-format on
#undef QLORA_LINEAR

int64_t size_of(const Config& c, Dim d, int64_t layer) {
    switch (d) {
        case Dim::hidden: return c.hidden;
        case Dim::feed_forward: return c.feed_forward;
        case Dim::query: return c.heads * c.head_dim;
        case Dim::key: return c.kv_heads_at(layer) * c.head_dim;
        case Dim::head: return c.head_dim;
        case Dim::vocabulary: return c.vocabulary;
        case Dim::context: return c.context;
        case Dim::none: break;
    }
    return 1;
}

std::string_view layer_prefix(World world, const Config& c) { return world == World::gguf ? "blk." : c.names.layers; }
std::string_view stem(World world, const Config&, const Fused& f) { return world == World::gguf ? f.gguf : f.hf; }
std::string_view stem(World world, const Config& c, const Row& row) {
    if (world == World::gguf) return row.gguf;
    for (const Renamed& r : c.names.tensors)
        if (r.slot == row.slot || (row.kind == Kind::bias && bias_of(r.slot) == row.slot)) return r.hf;
    return row.hf;
}
// The fused layer to which a linear one belongs, or null.
const Fused* one_with(const Config& c, Slot linear) {
    for (const Fused& f : c.names.fused)
        if (f.one && std::find(f.linears.begin(), f.linears.end(), linear) != f.linears.end()) return &f;
    return nullptr;
}
std::string_view hf_stem(const Config& c, Module m) {
    const Fused* f = one_with(c, m);
    return f && !f->hf.empty() ? f->hf : stem(World::hf, c, row_of(c, m));
}
// The rows of a part in the fused tensor.
std::vector<RowRange> rows_in(const Config& c, const Fused& f, Slot linear, int64_t layer, Fused::Order order) {
    int64_t first = 0, all = 0;
    for (const Slot part : f.linears) {
        if (part == linear) first = all;
        all += shape_of(c, part, layer)[0];
    }
    const int64_t count = shape_of(c, linear, layer)[0], heads = c.kv_heads_at(layer);
    if (order == Fused::Order::blocks) return {{first, count}};
    if (order == Fused::Order::reversed) return {{all - first - count, count}};
    std::vector<RowRange> out;
    for (int64_t head = 0; head < heads; ++head)
        out.push_back({(head * all + first) / heads, count / heads});
    return out;
}
std::string_view suffix(const Row& row) { return row.kind == Kind::bias ? ".bias" : ".weight"; }

// What follows the tensor's own name, if `name` begins with it and a new word begins there.
std::optional<std::string_view> part_of(std::string_view first, std::string_view second, std::string_view name) {
    if (!name.starts_with(first) || !name.substr(first.size()).starts_with(second)) return {};
    const std::string_view rest = name.substr(first.size() + second.size());
    if (!rest.empty() && rest[0] != '.') return {};
    return rest;
}

// A file with more layers than its configuration says would silently compute with the first of them.
int64_t layer_number(std::string_view number, int64_t layers, const std::string& where, std::string_view tensor) {
    int64_t layer = -1;
    const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), layer);
    if (error != std::errc() || end != number.data() + number.size() || layer < 0 || layer >= layers)
        fail(Errc::format, where, ": there is a tensor ", tensor, ", the configuration has layers 0 to ", layers - 1);
    return layer;
}

}  // namespace tensors_room

std::span<const Row> tensor_rows() { return tensors_room::table; }

const Row& row_of(const Config& c, Slot slot) {
    const Row* found = nullptr;
    for (const Row& row : tensors_room::table)
        if (row.slot == slot && (!found || row.exists(c, 0))) found = &row;
    return *found;
}

Shape shape_of(const Config& c, const Row& row, int64_t layer) {
    const int64_t out = tensors_room::size_of(c, row.out, layer);
    return row.in == Dim::none ? Shape{out} : Shape{out, tensors_room::size_of(c, row.in, layer)};
}

int64_t layers_of(const Config& c) { return c.layers; }

int64_t count_tensors(const Config& c) {
    int64_t count = 0;
    for_each_tensor(c, [&](const Row&, int64_t) { ++count; });
    return count;
}

bool has(const Config& c, Slot linear) { return row_of(c, linear).exists(c, 0); }
bool is_module(const Config& c, Slot linear) { return has(c, linear) && module_of(c, linear) == linear; }

std::span<const Slot> parts_of(const Config& c, Slot linear) {
    static constexpr Slot alone[module_count] = {Slot::q_proj,    Slot::k_proj,  Slot::v_proj,   Slot::o_proj,
                                                 Slot::gate_proj, Slot::up_proj, Slot::down_proj};
    const Fused* f = tensors_room::one_with(c, linear);
    return f ? f->linears : std::span(alone + int(linear), 1);
}

Shape module_shape(const Config& c, Module m, int64_t layer) {
    Shape shape{0, shape_of(c, m, layer)[1]};
    for (const Slot part : parts_of(c, m)) shape[0] += shape_of(c, part, layer)[0];
    return shape;
}

int64_t first_row(const Config& c, Slot linear, int64_t layer) {
    int64_t row = 0;
    for (const Slot part : parts_of(c, linear)) {
        if (part == linear) break;
        row += shape_of(c, part, layer)[0];
    }
    return row;
}

std::string module_name(const Config& c, Module m) {
    const auto last = [](std::string_view path) { return path.substr(path.rfind('.') + 1); };
    const std::string_view own = tensors_room::hf_stem(c, m);
    for (int i = 0; i < module_count; ++i) {
        const Module other = Module(i);
        if (other != m && is_module(c, other) && last(tensors_room::hf_stem(c, other)) == last(own))
            return std::string(own);
    }
    return std::string(last(own));
}

bool is_one(World world, const Config& c, Slot linear) {
    const Fused* f = tensors_room::one_with(c, linear);
    return f && !tensors_room::stem(world, c, *f).empty();
}

std::vector<RowRange> rows_in_module(World world, const Config& c, Slot linear, int64_t layer) {
    const Fused* f = tensors_room::one_with(c, linear);
    if (!f) return {{0, shape_of(c, linear, layer)[0]}};
    return tensors_room::rows_in(c, *f, linear, layer, world == World::hf ? f->order : Fused::Order::blocks);
}

std::string fused_name(World world, const Config& c, int64_t layer, const Row& row) {
    const Slot linear = row.kind == Kind::bias ? Slot(int(row.slot) - module_count) : row.slot;
    const Fused& f = *tensors_room::one_with(c, linear);
    return str(tensors_room::layer_prefix(world, c), layer, ".", tensors_room::stem(world, c, f),
               tensors_room::suffix(row));
}

std::vector<int64_t> model_rows(World world, const Config& c, Module m, int64_t layer, bool adjacent_in_file) {
    std::vector<int64_t> out(size_t(module_shape(c, m, layer)[0]));
    for (const Slot part : parts_of(c, m)) {
        const bool moved = row_of(c, part).turned && c.adjacent_pairs != adjacent_in_file;
        int64_t row = 0;                               // of the part, in the file's order
        for (const RowRange& r : rows_in_module(world, c, part, layer))
            for (int64_t i = r.first; i < r.first + r.count; ++i, ++row)
                out[size_t(i)] = first_row(c, part, layer) + (!moved             ? row
                                                       : c.adjacent_pairs ? gguf_row_of_hf(row, c.head_dim)
                                                                          : hf_row_of_gguf(row, c.head_dim));
    }
    for (size_t i = 0; i < out.size(); ++i)
        if (out[i] != int64_t(i)) return out;
    return {};
}

std::string_view name_of(Module m) {
    const std::string_view path = row_of({}, m).hf;
    return path.substr(path.rfind('.') + 1);
}

std::string tensor_name(World world, const Config& c, const Row& row, int64_t layer) {
    namespace room = tensors_room;
    if (!row.in_layer()) return str(room::stem(world, c, row), room::suffix(row));
    return str(room::layer_prefix(world, c), layer, ".", room::stem(world, c, row), room::suffix(row));
}

RowsInFile rows_in_file(World world, const Config& c, const Row& row, int64_t layer,
                        const std::function<bool(const std::string&)>& has) {
    namespace room = tensors_room;
    const bool bias = row.kind == Kind::bias;
    RowsInFile own{tensor_name(world, c, row, layer), shape_of(c, row, layer), {}};
    if (row.kind != Kind::linear && !bias) return own;
    const Slot linear = bias ? Slot(int(row.slot) - module_count) : row.slot;
    for (const Fused& f : c.names.fused) {
        if (std::find(f.linears.begin(), f.linears.end(), linear) == f.linears.end()) continue;
        if (room::stem(world, c, f).empty()) continue;
        RowsInFile whole = own;
        whole.name = str(room::layer_prefix(world, c), layer, ".", room::stem(world, c, f), room::suffix(row));
        whole.shape[0] = 0;
        for (const Slot part : f.linears) whole.shape[0] += shape_of(c, part, layer)[0];
        whole.rows = room::rows_in(c, f, linear, layer, world == World::hf ? f.order : Fused::Order::blocks);
        whole.fused = true;
        // what is missing is missed under the name that the class has
        const Row& first = row_of(c, bias ? bias_of(f.linears[0]) : f.linears[0]);
        if ((f.one || has(whole.name)) && !has(tensor_name(world, c, first, layer))) return whole;
    }
    return own;
}

std::string gguf_name(const Config& c, int64_t layer, Slot linear, std::string_view suffix) {
    const Fused* f = tensors_room::one_with(c, linear);
    return str("blk.", layer, ".", f && !f->gguf.empty() ? f->gguf : row_of(c, linear).gguf, ".", suffix);
}

std::string hf_name(const Config& c, int64_t layer, Module m) {
    const std::string_view layers = c.names.modules.empty() ? c.names.layers : c.names.modules;
    return str(layers, layer, ".", tensors_room::hf_stem(c, m));
}

TensorPlace place_of(World world, const Config& c, std::string_view name, const std::string& where) {
    namespace room = tensors_room;
    TensorPlace place;
    const std::string_view prefix = room::layer_prefix(world, c);
    const size_t dot = name.starts_with(prefix) ? name.find('.', prefix.size()) : name.npos;
    if (dot != name.npos) {
        place.layer = room::layer_number(name.substr(prefix.size(), dot - prefix.size()), c.layers, where, name);
        place.in_layer = name.substr(dot + 1);
    }
    const std::string_view local = dot == name.npos ? name : place.in_layer;
    for (const Row& row : room::table) {
        if (row.in_layer() != (dot != name.npos)) continue;
        const std::optional<std::string_view> part =
            room::part_of(room::stem(world, c, row), room::suffix(row), local);
        if (!part || (place.row && !row.exists(c, place.layer))) continue;
        place.row = &row;
        place.part = *part;
    }
    if (place.row || dot == name.npos) return place;
    for (const Fused& f : c.names.fused)
        for (const bool bias : {false, true}) {
            if (room::stem(world, c, f).empty()) continue;
            const Row& row = row_of(c, bias ? bias_of(f.linears[0]) : f.linears[0]);
            const std::optional<std::string_view> part =
                room::part_of(room::stem(world, c, f), room::suffix(row), local);
            if (!part) continue;
            place.row = &row;
            place.part = *part;
        }
    return place;
}

int64_t hf_row_of_gguf(int64_t row, int64_t head_dim) {
    const int64_t head = row / head_dim, r = row % head_dim;
    return head * head_dim + (r % 2) * (head_dim / 2) + r / 2;
}

int64_t gguf_row_of_hf(int64_t row, int64_t head_dim) {
    const int64_t head = row / head_dim, r = row % head_dim, half = head_dim / 2;
    return head * head_dim + (r % half) * 2 + r / half;
}

}}  // namespace qlora
