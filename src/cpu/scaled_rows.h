// scaled_rows.h - rows of 4-bit codes with their scales, for products that take these as floats.
#pragma once
#include "src/cpu/kernels.h"

#include <algorithm>

namespace qlora { inline namespace QLORA_ABI {

// of(row, rows, codes, scales) for a few of the rows [first, first + count) at a time, so that their scales stay in
// first-level cache. The codes of those that were quantized again lie apart from the weights, and nobody else asks for
// them.
template <class F>
void for_scaled_rows(const Kernels& kernels, const WeightRef& w, int64_t first, int64_t count, const F& of) {
    thread_local Scratch memory;
    const FourBit& quant = w.quant;
    const int64_t runs = w.cols / 64;                  // of a row
    const int64_t some = std::min(count, std::max<int64_t>(1024 / runs / 4, 1) * 4);
    const auto prefetch = [&](int64_t row, int64_t rows) {
        if (quant.block != 64 || quant.absmax) return;
        for (int64_t i = row * runs; i < (row + rows) * runs; i += 64) __builtin_prefetch(quant.absmax_code + i);
    };
    float* scales = memory.floats(some * runs);
    prefetch(first, some);
    for (int64_t row = first, rows; row < first + count; row += rows) {
        rows = std::min(some, first + count - row);
        run_scales(kernels, quant, row * runs, 0, 1, rows * runs, scales);
        prefetch(row + rows, std::min(some, w.rows - row - rows));
        of(row, rows, static_cast<const uint8_t*>(w.data) + row * w.cols / 2, scales);
    }
}

}}  // namespace qlora
