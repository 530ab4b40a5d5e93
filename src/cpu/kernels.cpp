// kernels.cpp - the choice among the tables of kernels by instruction set.
#include "src/cpu/kernels.h"

#include <new>

namespace qlora { inline namespace QLORA_ABI {

#if defined(__x86_64__)
const Vec& vec(Isa isa) { return isa >= Isa::avx512 ? vec_avx512 : isa == Isa::avx2 ? vec_avx2 : vec_portable; }

const GemmKernels& gemm_kernels(Isa isa, Compute compute) {
    if (isa == Isa::avx512_bf16 && compute == Compute::bf16) return gemm_bf16;
    return isa >= Isa::avx512 ? gemm_avx512 : isa == Isa::avx2 ? gemm_avx2 : gemm_portable;
}

const FourBitKernels* four_bit_kernels(Isa isa) {
    return isa >= Isa::avx512 ? &four_bit_avx512 : isa == Isa::avx2 ? &four_bit_avx2 : nullptr;
}

BlockDecoder block_decoder(Isa isa, DType type) {
    if (isa < Isa::avx2) return nullptr;
    return type == DType::f16 ? f16_decoder_avx2 : type == DType::bf16 ? bf16_decoder_avx2 : block_decoder_avx2(type);
}

BlockDots block_dots(Isa isa, DType type) {
#define QLORA_SAME(t) || type == DType::t
    const bool everywhere = false QLORA_BLOCK_DOT_TYPES(QLORA_SAME), on_avx2 = false QLORA_BLOCK_ROW_TYPES(QLORA_SAME);
#undef QLORA_SAME
    if (isa == Isa::avx2 && (type == DType::f16 || type == DType::bf16)) return half_dots_avx2;
    if (isa == Isa::avx2) return everywhere || on_avx2 ? block_dots_avx2 : nullptr;
    return everywhere && isa >= Isa::avx512 ? block_dots_avx512 : nullptr;
}

const Dots16* dots16(Isa isa) { return isa >= Isa::avx2 ? &dots16_avx2 : nullptr; }
#else
const Dots16* dots16(Isa) { return nullptr; }
const Vec& vec(Isa) { return vec_portable; }
const GemmKernels& gemm_kernels(Isa, Compute) { return gemm_portable; }
const FourBitKernels* four_bit_kernels(Isa) { return nullptr; }
BlockDecoder block_decoder(Isa, DType) { return nullptr; }
BlockDots block_dots(Isa, DType) { return nullptr; }
#endif

void* Scratch::bytes(int64_t count) {
    if (count > size_) {
        void* larger = ::operator new(size_t(count), std::align_val_t(64));
        if (memory_) ::operator delete(memory_, std::align_val_t(64));
        memory_ = larger;
        size_ = count;
    }
    return memory_;
}

Scratch::~Scratch() {
    if (memory_) ::operator delete(memory_, std::align_val_t(64));
}

}}  // namespace qlora
