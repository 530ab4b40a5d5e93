// kernels.h - the tables that each instruction set fills in: packing, register tiles, and the reading of 4-bit codes.
//
// A product is cut into register tiles: c[rows, cols] += left strip x right panel. Both factors are packed the same
// way, as packed[depth][width] with width = rows or cols of the tile, so that a tile reads two streams from start to
// end. With bf16 two neighbours in depth sit side by side: packed[depth / 2][width][2], as the instruction wants them.
#pragma once
#include "src/cpu/dots16.h"
#include "src/cpu/gemm.h"
#include "src/cpu/vec.h"
#include "src/tensor/blocks.h"

// One loop unrolled completely, so that an array of accumulators becomes registers.
#if defined(__clang__)
#define QLORA_UNROLL _Pragma("unroll")
#else
#define QLORA_UNROLL _Pragma("GCC unroll 16")
#endif
#define QLORA_INLINE inline __attribute__((always_inline))

namespace qlora { inline namespace QLORA_ABI {

struct GemmKernels {
    int64_t rows, cols;                                // of the register tile
    int64_t pair;                                      // neighbours in depth that sit side by side: 1, or 2 with bf16
    int64_t bytes;                                     // of a packed element
    // packed[d][l] = source[l * ld + d], or source[d * ld + l]; lines beyond `lines` (and depth beyond an odd one)
    // become 0.
    void (*across)(const float* source, int64_t ld, int64_t lines, int64_t depth, int64_t width, void* packed);
    void (*along)(const float* source, int64_t ld, int64_t lines, int64_t depth, int64_t width, void* packed);
    // c = alpha * left^T panel + beta * c for the first rows x cols of the tile; beta 0 does not read c.
    void (*tile)(const void* left, const void* panel, int64_t depth, float* c, int64_t ldc, int64_t rows, int64_t cols,
                 float alpha, float beta);
};
const GemmKernels& gemm_kernels(Isa, Compute);

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
    // scales = map[code] * by + offset, rounded twice like FourBit::scale(); null where a plain loop is as good.
    void (*look_up)(const uint8_t* codes, const float* map, float by, float offset, int64_t count, float* scales);
};
const FourBitKernels* four_bit_kernels(Isa);           // null: use decode()

// Whole blocks to floats like TypeInfo::decode, with the same bits, where an instruction set does it faster; else null.
using BlockDecoder = void (*)(const void* blocks, float* out, int64_t count);
BlockDecoder block_decoder(Isa, DType);

// Rows of stored weights, row_bytes apart, times m <= gemv_rows vectors: out[r * m + t] = row r . x[t]. cols is a
// multiple of the type's block; null where there is no faster way than decoding a row.
#define QLORA_LATE_DOT_TYPES(X) \
    X(q4_0) X(q4_1) X(q8_0) X(q4_k) X(q6_k)    // scales are put off until some products are summed
#define QLORA_BLOCK_DOT_TYPES(X) QLORA_LATE_DOT_TYPES(X) X(f16) X(bf16)
// Types whose weights are made in registers, 32 at a time: the bits and the sums of decoding a row and Vec::dot.
#define QLORA_BLOCK_ROW_TYPES(X) X(q5_0) X(q5_1) X(q2_k) X(q3_k) X(q5_k) X(iq4_nl) X(iq4_xs) X(mxfp4)
using BlockDots = void (*)(DType, const void* weights, int64_t row_bytes, int64_t rows, int64_t cols, const float* x,
                           int64_t ldx, int64_t m, float* out);
BlockDots block_dots(Isa, DType);

inline int64_t spread_size(int64_t cols) { return (cols + 127) / 128 * 128; }
void spread_for_codes(const float* x, int64_t cols, float* spread);

// Part of a stored matrix as floats: in place when it is dense, else decoded into scratch of float_rows_size floats.
struct FloatRows {
    const float* data;
    int64_t ld;
};
// the floats and their scales
inline int64_t float_rows_size(int64_t rows, int64_t cols) { return rows * (cols + cols / 64 + 2); }
FloatRows float_rows(Isa, const WeightRef&, int64_t ld, int64_t row, int64_t rows, int64_t col, int64_t cols,
                     float* scratch);

bool has_runs_of_64(const WeightRef&);                 // 4-bit, and no run of 64 elements straddles rows or blocks
// scales[r * count + i] = the scale of run first + r * stride + i.
void run_scales(Isa, const FourBit&, int64_t first, int64_t stride, int64_t rows, int64_t count, float* scales);

// m <= gemv_rows
void gemv(Cpu&, int64_t m, const float* x, int64_t ldx, const WeightRef& w, float* y, int64_t ldy, float alpha,
          float beta);

// Memory of one thread that only grows and is used again by the next call.
class Scratch {
public:
    void* bytes(int64_t count);                        // aligned to a cache line; contents undefined
    float* floats(int64_t count) { return static_cast<float*>(bytes(count * int64_t(sizeof(float)))); }
    ~Scratch();
    Scratch() = default;
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
private:
    void* memory_ = nullptr;
    int64_t size_ = 0;
};

#if defined(__x86_64__)
extern const Vec vec_avx2, vec_avx512;
extern const GemmKernels gemm_avx2, gemm_avx512, gemm_bf16;
extern const FourBitKernels four_bit_avx2, four_bit_avx512;
BlockDecoder block_decoder_avx2(DType);
extern const BlockDecoder f16_decoder_avx2, bf16_decoder_avx2;
extern const BlockDots block_dots_avx2, half_dots_avx2, block_dots_avx512;
extern const Dots16 dots16_avx2;
#endif
extern const Vec vec_portable;
extern const GemmKernels gemm_portable;

}}  // namespace qlora
