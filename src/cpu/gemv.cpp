// gemv.cpp - y = x W^T for the few rows of x of token generation: W is read once, row by row, as it is stored.
//
// The cost is the traffic of W, so nothing is packed and, where a kernel knows the type, nothing decoded into memory. Tasks are runs of
// rows of about 64 Ki weights, 512 rows at most, whatever the thread count. Sums are f32 whatever the precision of products, and row t of y does not depend
// on how many rows x has.
#include "src/cpu/kernels.h"

#include <algorithm>

namespace qlora::inline v0_1 {
namespace gemv_room {

struct Output {
    int64_t m;
    float* y;
    int64_t ldy;
    float alpha, beta;
    void put(int64_t t, int64_t row, float sum) const {
        float& at = y[t * ldy + row];
        at = beta == 0 ? alpha * sum : alpha * sum + beta * at;
    }
};

int64_t rows_of_a_task(const WeightRef& w) { return std::clamp<int64_t>(65536 / std::max<int64_t>(w.cols, 1), 1, 512); }

void codes_task(Isa isa, const FourBitKernels& kernels, const WeightRef& w, int64_t first, int64_t count, const float* x, int64_t ldx, const Output& to) {
    thread_local Scratch memory;
    const int64_t runs = w.cols / 64;                  // of a row
    float *sums = memory.floats(count * (to.m + runs)), *scales = sums + count * to.m;
    run_scales(isa, w.quant, first * runs, 0, 1, count * runs, scales);
    kernels.dots(static_cast<const uint8_t*>(w.data) + first * w.cols / 2, scales, w.quant.codebook, count, w.cols, x, ldx, to.m, sums);
    for (int64_t r = 0; r < count; ++r)
        for (int64_t t = 0; t < to.m; ++t) to.put(t, first + r, sums[r * to.m + t]);
}

void blocks_task(BlockDots dots, const WeightRef& w, int64_t first, int64_t count, const float* x, int64_t ldx, const Output& to) {
    thread_local Scratch memory;
    float* sums = memory.floats(count * to.m);
    const int64_t row_bytes = bytes_of(w.dtype, w.cols);
    dots(w.dtype, static_cast<const uint8_t*>(w.data) + first * row_bytes, row_bytes, count, w.cols, x, ldx, to.m, sums);
    for (int64_t r = 0; r < count; ++r)
        for (int64_t t = 0; t < to.m; ++t) to.put(t, first + r, sums[r * to.m + t]);
}

void floats_task(Isa isa, const WeightRef& w, int64_t first, int64_t count, const float* x, int64_t ldx, const Output& to) {
    thread_local Scratch memory;
    const Vec& v = vec(isa);
    if (w.dtype == DType::f32 && to.m == 1) {          // short rows, as those of an adapter, would cost more in calls than in products
        float* sums = memory.floats(count);
        v.dots(x, static_cast<const float*>(w.data) + first * w.cols, w.cols, count, w.cols, sums);
        for (int64_t r = 0; r < count; ++r) to.put(0, first + r, sums[r]);
        return;
    }
    float* scratch = memory.floats(float_rows_size(1, w.cols));
    for (int64_t r = first; r < first + count; ++r) {
        const FloatRows row = float_rows(isa, w, w.cols, r, 1, 0, w.cols, scratch);
        for (int64_t t = 0; t < to.m; ++t) to.put(t, r, v.dot(x + t * ldx, row.data, w.cols));
    }
}

}  // namespace gemv_room

void gemv(Cpu& cpu, int64_t m, const float* x, int64_t ldx, const WeightRef& w, float* y, int64_t ldy, float alpha, float beta) {
    thread_local Scratch memory;
    const gemv_room::Output to{m, y, ldy, alpha, beta};
    const FourBitKernels* kernels = has_runs_of_64(w) ? four_bit_kernels(cpu.isa) : nullptr;
    const bool codes = kernels && kernels->dots;
    if (codes && kernels->spreads) {
        const int64_t size = spread_size(w.cols);
        float* spread = memory.floats(m * size);
        for (int64_t t = 0; t < m; ++t) spread_for_codes(x + t * ldx, w.cols, spread + t * size);
        x = spread;
        ldx = size;
    }
    const BlockDots dots = w.cols % type_info(w.dtype).block == 0 ? block_dots(cpu.isa, w.dtype) : nullptr;
    const int64_t rows = gemv_room::rows_of_a_task(w);
    cpu.pool.run((w.rows + rows - 1) / rows, [&](int64_t task, int) {
        const int64_t first = task * rows, count = std::min(rows, w.rows - first);
        if (codes) gemv_room::codes_task(cpu.isa, *kernels, w, first, count, x, ldx, to);
        else if (dots) gemv_room::blocks_task(dots, w, first, count, x, ldx, to);
        else gemv_room::floats_task(cpu.isa, w, first, count, x, ldx, to);
    });
}

}  // namespace qlora
