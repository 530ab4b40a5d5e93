// facts.h - what of a CUDA device memory plans depend on, and what its backend chooses by it: types of results, rows of
// batches.
//
// The headers of this folder are for any compiler. They say which way an operation goes and how much memory it asks
// for; its room (src/cuda/<room>.cuh) includes them and adds kernels, planned.cpp makes plans of them without a device.
#pragma once
#include "src/graph/graph.h"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {

struct Facts {
    int capability = 0;                                // 75, 80, 86, 89, 90, ...
    bool exact = false;                                // Compute::f32: results and products in f32
    bool warpgroups = false;                           // on sm_90: there is code for sm_90a, and a driver for it
};

// Results that products and attention read next, of many rows: half the traffic, and what tensor cores take.
inline bool is_stored_in_16_bits(Op op) {
    switch (op) {
        case Op::qmatmul: case Op::lora: case Op::silu: case Op::silu_back: case Op::swiglu:
        case Op::swiglu_back: case Op::geglu: case Op::geglu_back: case Op::gelu: case Op::gelu_back: case Op::clamp:
        case Op::clamp_back: case Op::dropout: case Op::rms_norm: case Op::layer_norm: case Op::rope:
        case Op::attention: case Op::attention_back:
            return true;
        default: return false;
    }
}

// The gradient of one layer towards its x is of the same kind, of its adapter and of the stored weight, which adds to
// that in its type; the sum over several layers is f32.
inline bool is_stored_in_16_bits(const GraphImpl& g, const Node& n) {
    const bool joins = n.src[2] >= 0;
    if (n.op == Op::lora_dx) return !joins;
    if (n.op != Op::qmatmul_dx) return is_stored_in_16_bits(n.op);
    return !joins || (g.source(n, 2).op == Op::lora_dx && g.source(n, 2).storage == DType::bf16);
}

// A backend of the wing, on a device or without one.
struct Planning : BackendImpl, Facts {
    Compute compute() const override { return exact ? Compute::f32 : Compute::bf16; }
    bool has_host_memory() const override { return false; }
    DType storage(const GraphImpl& g, const Node& n) const override {
        return !exact && is_stored_in_16_bits(g, n) ? DType::bf16 : DType::f32;
    }
    DType cache_type(DType half) const override { return exact ? DType::f32 : half; }
    int64_t row_step() const override { return 32; }
};
inline const Facts& facts_of(const GraphImpl& g) { return static_cast<const Planning&>(*g.backend); }

}  // namespace cuda
}}  // namespace qlora
