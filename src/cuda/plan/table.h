// table.h - the scratch of every operation: what the kernels of this wing ask for, and plans without kernels.
#pragma once
#include "src/cuda/plan/attention.h"
#include "src/cuda/plan/linear_cross_entropy.h"
#include "src/cuda/plan/lora.h"
#include "src/cuda/plan/rows.h"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {

using Scratch = int64_t (*)(const GraphImpl&, const Node&);            // Kernel::scratch; null: none
constexpr Scratch scratch_of(Op op) {
    switch (op) {
        case Op::bias: case Op::rms_norm: case Op::rms_norm_back: return factor_scratch<1>;
        case Op::bias_back: return bias_room::back_scratch;
        case Op::sum: return sum_room::scratch;
        case Op::embedding_back: return embedding_room::back_scratch;
        case Op::matmul: case Op::qmatmul: return qmatmul_room::scratch<false>;
        case Op::matmul_dx: case Op::qmatmul_dx: return qmatmul_room::scratch<true>;
        case Op::matmul_dw: return matmul_room::dw_scratch;
        case Op::lora: return lora_room::scratch<false>;
        case Op::lora_back: return lora_room::scratch<true>;
        case Op::lora_dx: return lora_room::dx_scratch;
        case Op::rms_norm_dw: return rms_norm_room::dw_scratch;
        case Op::layer_norm: return layer_norm_room::scratch;
        case Op::layer_norm_back: return layer_norm_room::back_scratch;
        case Op::layer_norm_dw: return layer_norm_room::dw_scratch;
        case Op::attention: return attention_room::scratch;
        case Op::attention_back: return attention_room::back_scratch;
        case Op::linear_cross_entropy: return linear_cross_entropy_room::scratch;
        case Op::top_k: return top_k_room::scratch;
        case Op::global_norm: return clip_room::scratch;
        default: return nullptr;
    }
}

}  // namespace cuda
}}  // namespace qlora
