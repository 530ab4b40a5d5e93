// ops.h - builders of the operations that the model and the trainer use and qlora.h does not show. Shapes are
// row-major.
#pragma once
#include "src/graph/graph.h"

namespace qlora { inline namespace QLORA_ABI {

Tensor view(Tensor x, int64_t offset, Shape shape);    // the same memory under another shape, from element `offset`
Tensor reshape(Tensor x, Shape shape);                                 // view of all of x
Tensor fill(GraphImpl&, Shape shape, float value);
Tensor add(Tensor a, Tensor b);
Tensor bias(Tensor x, Tensor b);                                       // x {rows, n} + b {n}; b a weight, param or node
Tensor mul(Tensor a, Tensor b);
Tensor scale(Tensor x, float factor);
Tensor scale_rows(Tensor x, Tensor s);                                 // x {rows, n} times s {rows}
Tensor swiglu(Tensor gate, Tensor up);                                 // silu(gate) * up
Tensor geglu(Tensor gate, Tensor up, Gelu form = Gelu::tanh);          // gelu(gate) * up
Tensor softcap(Tensor x, float cap);                                   // cap tanh(x / cap)
Tensor dropout(Tensor x, const DropoutAttr&);
// base {rows, out} + scale * dropout(x {rows, in}) A^T {in, r} B^T {r, out}; a {r, in}, b {out, r}
Tensor lora(Tensor base, Tensor x, Tensor a, Tensor b, const LoraAttr&);
// || w {out, in} + scale * b {out, r} a {r, in} || of every row -> {out}; no gradient
Tensor dora_norm(Tensor w, Tensor a, Tensor b, float scale);
Tensor dora_scale(Tensor z, Tensor m, Tensor n);    // z {rows, out} times m {out} / n {out}; gradients to z and m
// positions i32 {rows}, frequencies {rotated / 2}
Tensor rope(Tensor x, Tensor positions, Tensor inverse_frequencies, const RopeAttr&);
// Query row t sees the keys [first[t], last[t]) (i32 {rows} each): causal masks, documents, windows and a KV cache are
// all such ranges. A row with an empty range gives zeros.
Tensor attention(Tensor q, Tensor k, Tensor v, Tensor first, Tensor last, const AttentionAttr&);
// state[rows[i]] = x[i], in place; rows i32, negative = skip; returns the state
Tensor store_rows(Tensor state, Tensor x, Tensor rows);
// Vocabulary projection and cross entropy in one: nll {rows} of targets i32 {rows} (negative = ignored, 0) under x
// {rows, n} W^T, W {vocabulary, n}. With `with_grad` the gradient towards x is computed in the same pass and kept;
// never more than `chunk` rows of logits exist. With a cap logits become cap tanh(logit / cap).
Tensor linear_cross_entropy(Tensor x, Tensor w, Tensor targets, bool with_grad, float cap = 0, int64_t chunk = 0);
// The k largest numbers of each row of x {rows, n} and their columns, as floats: {rows, 2, k}. Of equal ones the first
// comes first, NaN counts as the largest. No gradient.
Tensor top_k(Tensor x, int64_t k);
Tensor accumulate(Tensor state, Tensor x);                             // state += x, in place; returns the state
Tensor copy(Tensor state, Tensor x);                                   // state = x, in place; returns the state
// state = x, which may go on beside what follows, until arrive(); returns the state
Tensor send(Tensor state, Tensor x);
Tensor fetch(Tensor state);                                            // what was sent; it is there after arrive()
Tensor arrive(Tensor x, Tensor kept = {});    // x, once all that was sent or fetched is there; `kept` lives until then
Tensor global_norm(Tensor x);    // sqrt(sum x^2) -> {1}, summed in double in a fixed order
// One AdamW step in place (decoupled decay first, as PyTorch): p, g, m, v of one size; hyper {4} = {learning rate, step
// (1-based), gradient factor, 0}. The gradient used is g * factor * min(1, max_norm / (norm * factor + 1e-6)); norm {1}
// is global_norm(g), absent = no clipping. Returns p.
Tensor adamw(Tensor p, Tensor g, Tensor m, Tensor v, Tensor norm, Tensor hyper, const AdamWAttr&);
// The same with moments in 8 bits: for each of the two u8 codes of p's size and a scale for every adamw8_block of them.
constexpr int64_t adamw8_block = 256;                  // what bitsandbytes uses since 0.44
inline int64_t adamw8_blocks(int64_t count) { return (count + adamw8_block - 1) / adamw8_block; }
Tensor adamw8(Tensor p, Tensor g, const std::array<Tensor, 2>& codes, const std::array<Tensor, 2>& scales, Tensor norm,
              Tensor hyper, const AdamWAttr&);

}}  // namespace qlora
