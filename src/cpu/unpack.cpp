// unpack.cpp - parts of a stored matrix as floats, and the scales of its 4-bit runs.
#include "src/cpu/kernels.h"

#include <algorithm>
#include <bit>

namespace qlora { inline namespace QLORA_ABI {

// Runs of 64 suit every kernel: rows then start at a run, and a block of 64, 128, ... holds whole runs.
bool has_runs_of_64(const WeightRef& w) { return is_4bit(w.dtype) && w.cols % 64 == 0 && w.quant.block % 64 == 0; }

namespace unpack_room {

// Scales that were quantized again, for runs that are blocks, [first, first + count). Looking up and scaling are loops
// of their own: the first moves words, which costs vector units nothing, and the second is vectors.
void double_scales(const FourBit& quant, int64_t first, int64_t count, float* scales) {
    while (count > 0) {
        const int64_t group = first / quant.block2, some = std::min(count, (group + 1) * quant.block2 - first);
        const float by = quant.absmax2[group];
        for (int64_t i = 0; i < some; ++i) scales[i] = quant.absmax_map[quant.absmax_code[first + i]];
        for (int64_t i = 0; i < some; ++i) scales[i] = scales[i] * by + quant.offset;
        first += some;
        count -= some;
        scales += some;
    }
}

}  // namespace unpack_room

// scale(run * 64 / block) for rows of runs; runs are blocks in all files that bitsandbytes writes by default.
void run_scales(const Kernels& kernels, const FourBit& quant, int64_t first, int64_t stride, int64_t rows,
                int64_t count, float* scales) {
    // A division a run would cost as much as the run: short rows shift instead, for the sizes that occur.
    const bool shifts = count < 16 && std::has_single_bit(uint64_t(quant.block2));
    const int shift = std::countr_zero(uint64_t(quant.block2));
    for (int64_t r = 0; r < rows; ++r, first += stride, scales += count) {
        if (quant.block != 64) {
            for (int64_t i = 0; i < count; ++i) scales[i] = quant.scale((first + i) * 64 / quant.block);
        } else if (quant.absmax) {
            for (int64_t i = 0; i < count; ++i) scales[i] = quant.absmax[first + i];
        } else if (shifts) {
            for (int64_t i = first; i < first + count; ++i)
                scales[i - first] = quant.absmax_map[quant.absmax_code[i]] * quant.absmax2[i >> shift] + quant.offset;
        } else if (kernels.double_scales && count >= 64) {
            kernels.double_scales(quant, first, count, scales);
        } else {
            unpack_room::double_scales(quant, first, count, scales);
        }
    }
}

FloatRows float_rows(const Kernels& kernels, const WeightRef& w, int64_t ld, int64_t row, int64_t rows, int64_t col,
                     int64_t cols, float* scratch) {
    if (w.dtype == DType::f32) return {static_cast<const float*>(w.data) + row * ld + col, ld};
    const int64_t first = row * w.cols + col;
    const bool whole_halves = has_runs_of_64(w) && col % 32 == 0 && cols % 32 == 0;
    if (const FourBitKernels* codes = whole_halves ? kernels.four_bit : nullptr) {
        const int64_t half = first % 64 / 32, runs = (cols + half * 32 + 63) / 64;
        float* scales = scratch + rows * cols;
        run_scales(kernels, w.quant, first / 64, w.cols / 64, rows, runs, scales);
        codes->unpack(static_cast<const uint8_t*>(w.data) + first / 2, w.cols / 2, scales, half, w.quant.codebook,
                      rows, cols, scratch);
        return {scratch, cols};
    }
    const TypeInfo& info = type_info(w.dtype);
    const bool whole = w.cols % info.block == 0 && col % info.block == 0 && cols % info.block == 0;
    if (const BlockDecoder decoder = whole ? kernels.decoder_of(w.dtype) : nullptr) {
        const uint8_t* data = static_cast<const uint8_t*>(w.data);
        if (cols == w.cols) decoder(data + first / info.block * info.bytes, scratch, rows * cols);
        else
            for (int64_t r = 0; r < rows; ++r)
                decoder(data + (first + r * w.cols) / info.block * info.bytes, scratch + r * cols, cols);
    } else {
        for (int64_t r = 0; r < rows; ++r) decode(w, first + r * w.cols, cols, scratch + r * cols);
    }
    return {scratch, cols};
}

// Sixteen words of eight codes side by side: lane i of vector p holds nibble p of word i, which is element p ^ 1 of
// that word (high nibble first). So shifting all words by 4 p brings the codes of vector p into place, with no further
// shuffling.
void spread_for_codes(const float* x, int64_t cols, float* spread) {
    float last[128] = {};                              // the columns after the last whole group, and zeros
    for (int64_t g = 0; g < cols; g += 128) {
        const float* group = x + g;
        if (cols - g < 128) {
            std::copy_n(group, cols - g, last);
            group = last;
        }
        for (int64_t p = 0; p < 8; ++p)
            for (int64_t i = 0; i < 16; ++i) spread[g + p * 16 + i] = group[i * 8 + (p ^ 1)];
    }
}

}}  // namespace qlora
