// samples.h - for every operation of ops.def what the sweep feeds it. A new operation needs a sample here, or the sweep
// fails.
#pragma once
#include "src/base/rng.h"
#include "src/ops/ops.h"

#include <cmath>
#include <functional>
#include <map>
#include <set>

namespace samples {

using qlora::DType;
using qlora::Gelu;
using qlora::GraphImpl;
using qlora::Op;
using qlora::Shape;
using qlora::Tensor;

// param | input | state | i32 input | a weight in q8_0 blocks | u8 state
enum class Kind { trained, value, state, index, stored, codes };
struct Source {
    Kind kind = Kind::value;
    Shape shape;
    std::vector<int32_t> indices = {};                 // of an index source; of codes
    bool positive = false;                             // absolute values of what is drawn
};

struct Wrong {    // source `source` with this shape must be refused, naming it and the shape of source `other`
    size_t source = 0;
    Shape shape;
    int other = -1;
};

using Sources = std::vector<Tensor>;
struct Sample {
    Op op = Op::count;
    std::string note;
    std::vector<Source> sources;
    std::function<Tensor(GraphImpl&, const Sources&)> build;
    std::vector<Wrong> wrong;
};

inline std::vector<float> normal_values(int64_t count, uint64_t seed) {
    qlora::Rng rng{seed};
    std::vector<float> values(static_cast<size_t>(count));
    for (float& v : values) v = rng.normal();
    return values;
}

// A stored matrix of q8_0 blocks: 32 signed bytes under one f16 scale, here 2^-6, so that weights spread like +-1.
inline std::shared_ptr<const qlora::Weight> stored_weight(const Shape& shape, uint64_t seed) {
    const int64_t blocks = qlora::elements_of(shape) / 32;
    auto bytes = std::make_shared<std::vector<uint8_t>>(size_t(blocks * 34));
    qlora::Rng rng{seed};
    for (int64_t b = 0; b < blocks; ++b) {
        (*bytes)[size_t(b * 34)] = 0x00;
        (*bytes)[size_t(b * 34 + 1)] = 0x24;
        for (int64_t i = 2; i < 34; ++i) (*bytes)[size_t(b * 34 + i)] = uint8_t(rng.next());
    }
    qlora::Weight w;
    w.name = "sample.weight";
    w.dtype = DType::q8_0;
    w.shape = shape;
    w.data = bytes->data();
    w.owner = bytes;
    return std::make_shared<const qlora::Weight>(std::move(w));
}

inline std::vector<int32_t> counting(int64_t count, int32_t start = 0, int32_t step = 1) {
    std::vector<int32_t> values;
    for (int64_t i = 0; i < count; ++i) values.push_back(start + int32_t(i) * step);
    return values;
}

// Ids of rows modulo `limit`, every seventh -1 if wanted: both repeated and skipped ones.
inline std::vector<int32_t> ids(int64_t count, int32_t limit, bool gaps) {
    std::vector<int32_t> values;
    for (int64_t i = 0; i < count; ++i) values.push_back(gaps && i % 7 == 1 ? -1 : int32_t((i * 5 + i / 3) % limit));
    return values;
}

// Small samples are for finite differences, large ones are split into several tasks.
inline std::vector<Sample> all(bool large) {
    const int64_t rows = large ? 150 : 3, n = large ? 330 : 6;
    const Source x{Kind::trained, {rows, n}}, fixed{Kind::value, {rows, n}}, per_row{Kind::value, {rows}},
        per_column{Kind::trained, {n}};
    const Shape odd{rows, n + 1};
    std::vector<Sample> s;

    s.push_back({Op::view,
                 "all",
                 {x},
                 [=](GraphImpl&, const Sources& t) {
                     return scale(reshape(t[0], {n, rows}), 2);
                 },
                 {{0, odd}}});
    s.push_back({Op::view,
                 "a part",
                 {fixed},
                 [=](GraphImpl&, const Sources& t) { return scale(view(t[0], n + 1, {n}), 2); },
                 {{0, {2, 2}}}});
    s.push_back({Op::fill, "", {}, [=](GraphImpl& g, const Sources&) { return fill(g, {rows, n}, 2.5f); }, {}});
    s.push_back({Op::add,
                 "",
                 {x, x},
                 [](GraphImpl&, const Sources& t) { return add(t[0], t[1]); },
                 {{1, odd, 0}, {0, odd, 1}}});
    s.push_back({Op::bias,
                 "",
                 {x, per_column},
                 [](GraphImpl&, const Sources& t) { return bias(t[0], t[1]); },
                 {{1, {n + 1}, 0}}});
    s.push_back({Op::mul, "", {x, x}, [](GraphImpl&, const Sources& t) { return mul(t[0], t[1]); }, {{1, odd, 0}}});
    s.push_back({Op::scale, "", {x}, [](GraphImpl&, const Sources& t) { return scale(t[0], -1.5f); }, {}});
    s.push_back({Op::scale_rows,
                 "",
                 {x, per_row},
                 [](GraphImpl&, const Sources& t) { return scale_rows(t[0], t[1]); },
                 {{1, {rows + 1}, 0}}});
    s.push_back({Op::sum, "", {x}, [](GraphImpl&, const Sources& t) { return sum(t[0]); }, {}});
    s.push_back({Op::silu, "", {x}, [](GraphImpl&, const Sources& t) { return silu(t[0]); }, {}});
    s.push_back(
        {Op::swiglu, "", {x, x}, [](GraphImpl&, const Sources& t) { return swiglu(t[0], t[1]); }, {{1, odd, 0}}});
    for (const Gelu form : {Gelu::tanh, Gelu::erf}) {
        const char* note = form == Gelu::tanh ? "tanh" : "erf";
        s.push_back({Op::gelu, note, {x}, [=](GraphImpl&, const Sources& t) { return gelu(t[0], form); }, {}});
        s.push_back({Op::geglu,
                     note,
                     {x, x},
                     [=](GraphImpl&, const Sources& t) { return geglu(t[0], t[1], form); },
                     {{1, odd, 0}}});
    }
    // in the small sample no value is near a bound, where a difference would cross it
    s.push_back({Op::clamp, "", {x}, [](GraphImpl&, const Sources& t) { return clamp(t[0], -0.9f, 1.2f); }, {}});
    s.push_back({Op::softcap, "", {x}, [](GraphImpl&, const Sources& t) { return softcap(t[0], 1.5f); }, {}});
    s.push_back({Op::dropout,
                 "",
                 {x},
                 [](GraphImpl&, const Sources& t) { return dropout(t[0], {.p = 0.3f, .seed = 7, .stream = 2}); },
                 {}});
    s.push_back({Op::embedding,
                 "",
                 {{Kind::trained, {9, n}}, {Kind::index, {rows}, ids(rows, 9, false)}},
                 [](GraphImpl&, const Sources& t) { return embed(t[0], t[1]); },
                 {{0, {9 * n}}}});

    const int64_t in = large ? 96 : 32, out = large ? 130 : 5, rank = large ? 16 : 2;
    const Source input{Kind::trained, {rows, in}}, w{Kind::trained, {out, in}};
    s.push_back({Op::matmul,
                 "",
                 {input, w},
                 [](GraphImpl&, const Sources& t) { return matmul(t[0], t[1]); },
                 {{1, {out, in + 1}, 0}, {0, {rows, in + 1}, 1}, {1, {in}, 0}}});
    s.push_back({Op::qmatmul,
                 "",
                 {input, {Kind::stored, {out, in}}},
                 [](GraphImpl&, const Sources& t) { return matmul(t[0], t[1]); },
                 {{0, {rows, in + 1}, 1}, {1, {out, 2 * in}, 0}}});
    for (const float p : {0.0f, 0.25f}) {
        s.push_back(
            {Op::lora,
             p > 0 ? "dropout" : "",
             {{Kind::trained, {rows, out}}, input, {Kind::trained, {rank, in}}, {Kind::trained, {out, rank}}},
             [=](GraphImpl&, const Sources& t) {
                 return lora(t[0], t[1], t[2], t[3], {.scale = 0.5f, .p = p, .seed = 3, .stream = 9});
             },
             {{0, {rows, out + 1}, 3}, {1, {rows, in + 1}, 2}, {2, {rank + 1, in}, 3}, {3, {out, rank, 1}, 2}}});
    }
    // Two layers of one x: gradients that are added to what flows already, but for one under dropout.
    for (const float p : {0.0f, 0.25f}) {
        s.push_back({Op::lora,
                     p > 0 ? "two layers, one dropped" : "two layers",
                     {input,
                      {Kind::stored, {out, in}},
                      {Kind::trained, {rank, in}},
                      {Kind::trained, {out, rank}},
                      {Kind::stored, {out, in}}},
                     [=](GraphImpl&, const Sources& t) {
                         const qlora::LoraAttr attr{.scale = 0.5f, .p = p, .seed = 3, .stream = 9};
                         const Tensor y = lora(matmul(t[0], t[1]), t[0], t[2], t[3], {.scale = 2});
                         return lora(y * matmul(t[0], t[4]), t[0], t[2], t[3], attr);
                     },
                     {}});
    }
    const int64_t many = 2 * 256 + 9;                  // rows of several chunks of lora
    if (large) {
        s.push_back({Op::lora,
                     "several chunks",
                     {{Kind::trained, {many, 7}},
                      {Kind::trained, {many, 13}},
                      {Kind::trained, {3, 13}},
                      {Kind::trained, {7, 3}}},
                     [=](GraphImpl&, const Sources& t) {
                         return lora(t[0], t[1], t[2], t[3], {.scale = 2, .p = 0.1f, .seed = 1, .stream = 4});
                     },
                     {}});
    }
    for (const Kind kind : {Kind::value, Kind::stored}) {
        s.push_back({Op::dora_norm,
                     kind == Kind::value ? "float" : "stored",
                     {{kind, {out, in}}, {Kind::value, {rank, in}}, {Kind::value, {out, rank}}},
                     [](GraphImpl&, const Sources& t) { return dora_norm(t[0], t[1], t[2], 0.5f); },
                     {{0, {out, 2 * in}, 1}, {1, {rank, in + 1}, 0}, {2, {out, rank + 1}, 1}}});
    }
    s.push_back({Op::dora_scale,
                 "",
                 {x, per_column, {Kind::value, {n}, {}, true}},
                 [](GraphImpl&, const Sources& t) { return dora_scale(t[0], t[1], t[2]); },
                 {{1, {n + 1}, 0}, {2, {n + 1}, 0}}});
    s.push_back({Op::rms_norm,
                 "",
                 {x, per_column},
                 [](GraphImpl&, const Sources& t) { return rms_norm(t[0], t[1]); },
                 {{1, {n + 1}, 0}}});
    s.push_back({Op::layer_norm,
                 "",
                 {x, per_column, per_column},
                 [](GraphImpl&, const Sources& t) { return layer_norm(t[0], t[1], t[2]); },
                 {{1, {n + 1}, 0}, {2, {n + 1}, 0}}});
    s.push_back({Op::layer_norm,
                 "no bias",
                 {x, per_column},
                 [](GraphImpl&, const Sources& t) { return layer_norm(t[0], t[1], {}); },
                 {{1, {n + 1}, 0}}});
    s.push_back({Op::layer_norm,
                 "no weight",
                 {x, per_column},
                 [](GraphImpl&, const Sources& t) { return layer_norm(t[0], {}, t[1]); },
                 {{1, {n + 1}, 0}}});
    s.push_back({Op::layer_norm,
                 "bare",
                 {x},
                 [](GraphImpl&, const Sources& t) { return layer_norm(t[0], {}, {}); },
                 {}});

    const int64_t head_dim = large ? 24 : 6, heads = large ? 4 : 2;
    for (const bool adjacent : {false, true}) {
        s.push_back({Op::rope,
                     adjacent ? "adjacent" : "halves",
                     {{Kind::trained, {rows, heads * head_dim}},
                      {Kind::index, {rows}, counting(rows, 3)},
                      {Kind::value, {head_dim / 2 - 1}}},
                     [=](GraphImpl&, const Sources& t) {
                         return rope(
                             t[0], t[1], t[2],
                             {.head_dim = head_dim, .rotated = head_dim - 2, .adjacent = adjacent, .magnitude = 1.2f});
                     },
                     {{0, {rows, heads * head_dim + 1}}, {2, {head_dim / 2}}}});
    }
    s.push_back({Op::rope,
                 "growing",
                 {{Kind::trained, {rows, heads * head_dim}},
                  {Kind::index, {rows}, counting(rows, 3)},
                  {Kind::value, {head_dim / 2 - 1}}},
                 [=](GraphImpl&, const Sources& t) {
                     return rope(t[0], t[1], t[2],
                                 {.head_dim = head_dim, .rotated = head_dim - 2, .growth = 0.6f, .period = 2});
                 },
                 {}});
    const int64_t keys = rows + 2;
    qlora::AttentionAttr a;
    a.heads = heads;
    a.kv_heads = heads / 2;
    a.head_dim = head_dim;
    a.scale = 0.4f;
    const Source kv{Kind::trained, {keys, heads / 2 * head_dim}};
    s.push_back({Op::attention,
                 "",
                 {{Kind::trained, {rows, heads * head_dim}},
                  kv,
                  kv,
                  {Kind::index, {rows}, std::vector<int32_t>(size_t(rows), 1)},
                  {Kind::index, {rows}, counting(rows, 2)}},
                 [=](GraphImpl&, const Sources& t) { return attention(t[0], t[1], t[2], t[3], t[4], a); },
                 {{0, {rows, heads * head_dim + 1}, 1},
                  {1, {keys, heads * head_dim}, 0},
                  {2, {keys + 1, heads / 2 * head_dim}, 1},
                  {3, {rows + 1}, 0}}});
    a.cap = 1.2f;                                      // scores of these samples are of order 1
    s.push_back({Op::attention,
                 "capped",
                 {{Kind::trained, {rows, heads * head_dim}},
                  kv,
                  kv,
                  {Kind::index, {rows}, std::vector<int32_t>(size_t(rows), 1)},
                  {Kind::index, {rows}, counting(rows, 2)}},
                 [=](GraphImpl&, const Sources& t) { return attention(t[0], t[1], t[2], t[3], t[4], a); },
                 {}});
    s.push_back({Op::store_rows,
                 "",
                 {{Kind::state, {rows + 4, n}}, fixed, {Kind::index, {rows}, counting(rows, -1)}},
                 [](GraphImpl&, const Sources& t) { return store_rows(t[0], t[1], t[2]); },
                 {{1, odd, 0}, {2, {rows + 1}}}});

    const int64_t vocabulary = large ? 700 : 7;
    const Source targets{Kind::index, {rows}, ids(rows, int32_t(vocabulary), true)};
    s.push_back({Op::cross_entropy,
                 "",
                 {{Kind::trained, {rows, vocabulary}}, targets},
                 [](GraphImpl&, const Sources& t) { return cross_entropy(t[0], t[1]); },
                 {{1, {rows + 1}}}});
    for (const Kind kind : {Kind::value, Kind::stored}) {
        s.push_back({Op::linear_cross_entropy,
                     kind == Kind::value ? "float" : "stored",
                     {input, {kind, {vocabulary, in}}, targets},
                     [](GraphImpl&, const Sources& t) { return linear_cross_entropy(t[0], t[1], t[2], true); },
                     {{0, {rows, 2 * in}, 1}, {1, {vocabulary, 2 * in}, 0}, {2, {rows + 1}, 0}}});
    }
    s.push_back({Op::linear_cross_entropy,
                 "chunks of 2",
                 {input, {Kind::stored, {vocabulary, in}}, targets},
                 [](GraphImpl& g, const Sources& t) {
                     return g.add(Op::linear_cross_entropy, {t[0], t[1], t[2]},
                                  qlora::attr_of(qlora::CrossEntropyAttr{.chunk = 2, .with_grad = true}));
                 },
                 {}});
    s.push_back({Op::linear_cross_entropy,
                 "capped",
                 {input, {Kind::stored, {vocabulary, in}}, targets},
                 [](GraphImpl&, const Sources& t) { return linear_cross_entropy(t[0], t[1], t[2], true, 5); },
                 {}});
    s.push_back({Op::top_k, "", {fixed}, [](GraphImpl&, const Sources& t) { return top_k(t[0], 5); }, {{0, {3, 4}}}});
    if (large) {
        s.push_back({Op::top_k,
                     "many pieces",
                     {{Kind::value, {3, 5000}}},
                     [](GraphImpl&, const Sources& t) { return top_k(t[0], 150); },
                     {}});
    }
    const Source state{Kind::state, {rows, n}}, squares{Kind::state, {rows, n}, {}, true};
    s.push_back({Op::accumulate,
                 "",
                 {state, fixed},
                 [](GraphImpl&, const Sources& t) { return accumulate(t[0], t[1]); },
                 {{1, odd, 0}}});
    s.push_back({Op::copy,
                 "",
                 {state, fixed},
                 [](GraphImpl&, const Sources& t) { return copy(t[0], t[1]); },
                 {{1, odd, 0}}});
    s.push_back({Op::send,
                 "",
                 {state, fixed},
                 [](GraphImpl&, const Sources& t) { return arrive(send(t[0], t[1])); },
                 {{1, odd, 0}}});
    s.push_back({Op::fetch, "", {state}, [](GraphImpl&, const Sources& t) { return arrive(fetch(t[0])); }, {}});
    s.push_back({Op::arrive,
                 "keeping its source",
                 {state, fixed},
                 [](GraphImpl&, const Sources& t) {
                     const Tensor twice = scale(t[1], 2);
                     return scale(arrive(fetch(arrive(send(t[0], twice), twice))), 3);
                 },
                 {}});
    s.push_back({Op::global_norm, "", {fixed}, [](GraphImpl&, const Sources& t) { return global_norm(t[0]); }, {}});
    s.push_back({Op::adamw,
                 "",
                 {state, fixed, state, squares, {Kind::value, {1}, {}, true}, {Kind::value, {4}, {}, true}},
                 [](GraphImpl&, const Sources& t) {
                     return adamw(t[0], t[1], t[2], t[3], t[4], t[5], {.weight_decay = 0.1f, .max_norm = 0.5f});
                 },
                 {{1, odd, 0}, {3, odd, 0}, {5, {3}}}});
    const Source codes{Kind::codes, {300}, ids(300, 256, false)}, scales{Kind::state, {2}, {}, true};
    s.push_back({Op::adamw8,
                 "",
                 {{Kind::state, {300}}, {Kind::value, {300}}, codes, codes, scales, scales,
                  {Kind::value, {1}, {}, true}, {Kind::value, {4}, {}, true}},
                 [](GraphImpl&, const Sources& t) {
                     return adamw8(t[0], t[1], {t[2], t[3]}, {t[4], t[5]}, t[6], t[7], {.weight_decay = 0.1f});
                 },
                 {{1, {299}, 0}, {2, {299}, 0}, {4, {3}, 0}, {7, {3}}}});
    return s;
}

// Operations without a sample of their own: leaves, which compute nothing, and gradients, which the samples of their
// forward run.
inline const std::set<Op>& leaves() {
    static const std::set<Op> set{Op::input, Op::param, Op::weight, Op::state};
    return set;
}
inline const std::map<Op, Op>& gradient_of() {
    static const std::map<Op, Op> map{
        {Op::bias_back, Op::bias},             {Op::sum_back, Op::sum},           {Op::silu_back, Op::silu},
        {Op::gelu_back, Op::gelu},             {Op::clamp_back, Op::clamp},       {Op::swiglu_back, Op::swiglu},
        {Op::geglu_back, Op::geglu},           {Op::softcap_back, Op::softcap},   {Op::embedding_back, Op::embedding},
        {Op::matmul_dx, Op::matmul},           {Op::matmul_dw, Op::matmul},       {Op::qmatmul_dx, Op::qmatmul},
        {Op::lora_back, Op::lora},             {Op::lora_dx, Op::lora},           {Op::dora_scale_dm, Op::dora_scale},
        {Op::rms_norm_back, Op::rms_norm},     {Op::rms_norm_dw, Op::rms_norm},
        {Op::layer_norm_back, Op::layer_norm}, {Op::layer_norm_dw, Op::layer_norm},
        {Op::attention_back, Op::attention},   {Op::cross_entropy_back, Op::cross_entropy}};
    return map;
}

}  // namespace samples
