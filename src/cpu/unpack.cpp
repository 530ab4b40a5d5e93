// unpack.cpp - parts of a stored matrix as floats, and the scales of its 4-bit runs.
#include "src/cpu/kernels.h"

namespace qlora::inline v0_1 {

// Runs of 64 suit every kernel: rows then start at a run, and a block of 64, 128, ... holds whole runs.
bool has_runs_of_64(const WeightRef& w) { return is_4bit(w.dtype) && w.cols % 64 == 0 && w.quant.block % 64 == 0; }

// scale(run * 64 / block) for a range of runs. The common case is written out because a division a run would cost as much as the run.
void run_scales(const FourBit& quant, int64_t first_run, int64_t count, float* scales) {
    const int64_t runs = quant.block / 64;             // of a block
    if (runs != 1) {
        for (int64_t i = 0; i < count; ++i) scales[i] = quant.scale((first_run + i) / runs);
    } else if (quant.absmax) {
        for (int64_t i = 0; i < count; ++i) scales[i] = quant.absmax[first_run + i];
    } else {
        for (int64_t i = 0; i < count;) {
            const int64_t group = (first_run + i) / quant.block2, end = std::min(count, (group + 1) * quant.block2 - first_run);
            const float by = quant.absmax2[group];
            for (; i < end; ++i) scales[i] = quant.absmax_map[quant.absmax_code[first_run + i]] * by + quant.offset;
        }
    }
}

FloatRows float_rows(Isa isa, const WeightRef& w, int64_t ld, int64_t row, int64_t rows, int64_t col, int64_t cols, float* scratch) {
    if (w.dtype == DType::f32) return {static_cast<const float*>(w.data) + row * ld + col, ld};
    const FourBitKernels* kernels = has_runs_of_64(w) && col % 32 == 0 && cols % 32 == 0 ? four_bit_kernels(isa) : nullptr;
    constexpr int64_t most_runs = 64;                  // of the strip of scales: a piece of 4096 columns
    float scales[most_runs + 1];
    for (int64_t r = 0; r < rows; ++r) {
        const int64_t first = (row + r) * w.cols + col;
        float* out = scratch + r * cols;
        if (!kernels) {
            decode(w, first, cols, out);
            continue;
        }
        for (int64_t done = 0; done < cols; done += most_runs * 64) {
            const int64_t from = first + done, count = std::min(cols - done, most_runs * 64), half = from % 64 / 32;
            run_scales(w.quant, from / 64, (count + half * 32 + 63) / 64, scales);
            kernels->unpack(static_cast<const uint8_t*>(w.data) + from / 2, scales, half, w.quant.codebook, count, out + done);
        }
    }
    return {scratch, cols};
}

// Sixteen words of eight codes side by side: lane i of vector p holds nibble p of word i, which is element p ^ 1 of that word
// (high nibble first). So shifting all words by 4 p brings the codes of vector p into place, with no further shuffling.
void spread_for_codes(const float* x, int64_t cols, float* spread) {
    for (int64_t g = 0; g < cols; g += 128)
        for (int64_t p = 0; p < 8; ++p)
            for (int64_t i = 0; i < 16; ++i) {
                const int64_t e = g + i * 8 + (p ^ 1);
                spread[g + p * 16 + i] = e < cols ? x[e] : 0.0f;
            }
}

}  // namespace qlora
