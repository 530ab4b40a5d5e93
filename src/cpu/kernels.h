// kernels.h - what an instruction set supplies: one struct Kernels each, in one list.
//
// A set names in its table what it takes from where: a set that adds little to another points at the other's parts, and
// null means that there is nothing faster than the way that all share.
// A product is cut into register tiles: c[rows, cols] += left strip x right panel. Both factors are packed, mostly the
// same way, as packed[depth][width] with width = rows or cols of the tile, so that a tile reads two streams from start
// to end. With bf16 two neighbours in depth sit side by side: packed[depth / 2][width][2], as the instruction wants
// them.
#pragma once
#include "src/cpu/dots16.h"
#include "src/cpu/drop.h"
#include "src/cpu/gemm.h"
#include "src/cpu/rows_bf16.h"
#include "src/cpu/scratch.h"
#include "src/cpu/tile.h"
#include "src/cpu/vec.h"
#include "src/tensor/blocks.h"

#include <span>

namespace qlora { inline namespace QLORA_ABI {

struct GemmKernels {
    int64_t rows, cols;                                // of the register tile
    int64_t granule;                                   // depth is packed in multiples of it, a divisor of 64
    int64_t bytes;                                     // of a packed element
    int64_t stretch;                                   // of depth that a panel has, a divisor of 2048
    // packed[d][l] = source[l * ld + d] where lines lie `across` depth, source[d * ld + l] where `along` it; lines
    // beyond `lines`, and depth up to a whole granule, become 0.
    using Pack = void (*)(const float* source, int64_t ld, int64_t lines, int64_t depth, int64_t width, void* packed);
    Pack left_across, left_along, right_across, right_along;
    // c = alpha * left^T panel + beta * c for the first rows x cols of the tile; beta 0 does not read c.
    void (*tile)(const void* left, const void* panel, int64_t depth, float* c, int64_t ldc, int64_t rows, int64_t cols,
                 float alpha, float beta);
    // What a thread does before and after its tiles of one stretch; null: nothing.
    void (*begin)() = nullptr;
    void (*end)() = nullptr;

    int64_t padded(int64_t depth) const { return (depth + granule - 1) / granule * granule; }
    int64_t bytes_of_strip(int64_t depth) const { return rows * padded(depth) * bytes; }
    int64_t bytes_of_panel(int64_t depth) const { return cols * padded(depth) * bytes; }
};

// 4-bit codes. A run of 64 elements shares a scale; codes are packed high nibble first.
struct FourBitKernels {
    // Rows of `count` codes, a multiple of 32, `stride` bytes apart: out[r * count + i] = codebook[code] * scale. Each
    // row has its own scales, one for every run that it touches; the first run has only 32 elements left when `half` is
    // 1.
    void (*unpack)(const uint8_t* codes, int64_t stride, const float* scales, int64_t half, const float* codebook,
                   int64_t rows, int64_t count, float* out);
    // out[r * m + t] = row r of the matrix . x[t], for m <= gemv_rows; null where there is no faster way than
    // unpacking. x holds m vectors, ldx floats apart; of a set that `spreads`, in the order of spread_for_codes and
    // spread_size(cols) long.
    void (*dots)(const uint8_t* codes, const float* scales, const float* codebook, int64_t rows, int64_t cols,
                 const float* x, int64_t ldx, int64_t m, float* out);
    bool spreads;
};

// The scales of blocks [first, first + count) that were quantized again: the bits of FourBit::scale().
using DoubleScales = void (*)(const FourBit&, int64_t first, int64_t count, float* scales);

// Whole blocks to floats like TypeInfo::decode, with the same bits.
using BlockDecoder = void (*)(const void* blocks, float* out, int64_t count);

// Rows of stored weights, row_bytes apart, times m <= gemv_rows vectors: out[r * m + t] = row r . x[t]. cols is a
// multiple of the type's block.
#define QLORA_LATE_DOT_TYPES(X) \
    X(q4_0) X(q4_1) X(q8_0) X(q4_k) X(q6_k)    // scales are put off until some products are summed
#define QLORA_BLOCK_DOT_TYPES(X) QLORA_LATE_DOT_TYPES(X) X(f16) X(bf16)
// Types whose weights are made in registers, 32 at a time: the bits and the sums of decoding a row and Vec::dot.
#define QLORA_BLOCK_ROW_TYPES(X) X(q5_0) X(q5_1) X(q2_k) X(q3_k) X(q5_k) X(iq4_nl) X(iq4_xs) X(mxfp4)
using BlockDots = void (*)(DType, const void* weights, int64_t row_bytes, int64_t rows, int64_t cols, const float* x,
                           int64_t ldx, int64_t m, float* out);

struct Kernels {
    std::string_view name;                             // as QLORA_ISA and Backend::cpu() take it
    bool (*supported)();                               // by this machine
    int64_t worth_waking;                              // multiply-adds for which other threads are woken
    const Vec& vec;
    const Tile& tile;
    const GemmKernels& gemm;
    const GemmKernels* gemm_bf16 = nullptr;            // null: where bf16 is asked for, products are of floats
    // Floats as sums of two numbers of bf16: what Compute::mixed makes gemm_nt of; null: as floats.
    const GemmKernels* gemm_split = nullptr;
    bool (*bf16_pays)(std::string_view vendor) = nullptr;   // asked by bf16_pays(); null: on all processors
    const FourBitKernels* four_bit = nullptr;          // null: decode()
    DoubleScales double_scales = nullptr;              // null: a plain loop
    BlockDecoder (*decoder)(DType) = nullptr;          // null, or for a type null: decode()
    BlockDots (*dots)(DType) = nullptr;                // null, or for a type null: decoding a row
    const Dots16* dots16 = nullptr;                    // null: floats are as fast
    const RowsBf16* rows_bf16 = nullptr;               // null: with Compute::bf16 what there is for Compute::mixed
    const DropRuns* drop = nullptr;                    // null: one element after the other

    const GemmKernels& gemm_for(Compute compute) const {
        const GemmKernels* rounding = compute == Compute::bf16    ? gemm_bf16
                                      : compute == Compute::mixed ? gemm_split
                                                                  : nullptr;
        return rounding ? *rounding : gemm;
    }
    BlockDecoder decoder_of(DType type) const { return decoder ? decoder(type) : nullptr; }
    BlockDots dots_of(DType type) const { return dots ? dots(type) : nullptr; }
};

std::span<const Kernels* const> all_kernels();         // best first; the last one runs on every machine
// Whether products of bf16 are faster than those of floats on processors of this vendor, as CPUID spells it.
bool bf16_pays(const Kernels&, std::string_view vendor);

extern const Vec vec_portable;
extern const Tile tile_portable;
extern const GemmKernels gemm_portable;

// What stands in the list for a set that is made for other processors: a name to answer for.
constexpr Kernels kernels_of_others(std::string_view name) {
    return {.name = name,
            .supported = [] { return false; },
            .worth_waking = 0,
            .vec = vec_portable,
            .tile = tile_portable,
            .gemm = gemm_portable};
}

inline int64_t spread_size(int64_t cols) { return (cols + 127) / 128 * 128; }
void spread_for_codes(const float* x, int64_t cols, float* spread);

// Part of a stored matrix as floats: in place when it is dense, else decoded into scratch of float_rows_size floats.
struct FloatRows {
    const float* data;
    int64_t ld;
};
// the floats and their scales
inline int64_t float_rows_size(int64_t rows, int64_t cols) { return rows * (cols + cols / 64 + 2); }
FloatRows float_rows(const Kernels&, const WeightRef&, int64_t ld, int64_t row, int64_t rows, int64_t col, int64_t cols,
                     float* scratch);

bool has_runs_of_64(const WeightRef&);                 // 4-bit, and no run of 64 elements straddles rows or blocks
// scales[r * count + i] = the scale of run first + r * stride + i.
void run_scales(const Kernels&, const FourBit&, int64_t first, int64_t stride, int64_t rows, int64_t count,
                float* scales);

}}  // namespace qlora
