// gemm.cpp - matrix products: panels of W are decoded into per-thread scratch and used for every row of x.
#include "src/cpu/gemm.h"
#include "src/cpu/vec.h"

#include <algorithm>

namespace qlora::inline v0_1 {
namespace gemm_room {

thread_local std::vector<float> scratch;               // grows to the largest panel and stays

float* panel(int64_t floats) {
    if (int64_t(scratch.size()) < floats) scratch.resize(size_t(floats));
    return scratch.data();
}

// y = alpha value + beta y, where beta 0 does not look at y.
void put(float& y, float value, float alpha, float beta) { y = beta == 0 ? alpha * value : alpha * value + beta * y; }

}  // namespace gemm_room

void gemm_nt(Cpu& cpu, int64_t m, const float* x, int64_t ldx, const WeightRef& w, float* y, int64_t ldy, float alpha, float beta) {
    constexpr int64_t tile = 16;                       // rows of W a task: 16 rows of a few thousand floats stay in L2
    const Vec& v = vec(cpu.isa);
    cpu.pool.run((w.rows + tile - 1) / tile, [&](int64_t task, int) {
        const int64_t first = task * tile, count = std::min(tile, w.rows - first);
        float* rows = gemm_room::panel(tile * w.cols);
        decode(w, first * w.cols, count * w.cols, rows);
        for (int64_t t = 0; t < m; ++t)
            for (int64_t r = 0; r < count; ++r)
                gemm_room::put(y[t * ldy + first + r], v.dot(x + t * ldx, rows + r * w.cols, w.cols), alpha, beta);
    });
}

void gemm_nn(Cpu& cpu, int64_t m, const float* dy, int64_t lddy, const WeightRef& w, float* dx, int64_t lddx, float alpha, float beta) {
    constexpr int64_t tile = 128;                      // columns a task: multiples of the 4-bit block
    const Vec& v = vec(cpu.isa);
    cpu.pool.run((w.cols + tile - 1) / tile, [&](int64_t task, int) {
        const int64_t first = task * tile, count = std::min(tile, w.cols - first);
        float* sums = gemm_room::panel((m + 1) * tile);
        float* row = sums + m * tile;
        std::fill_n(sums, m * tile, 0.0f);
        for (int64_t r = 0; r < w.rows; ++r) {
            decode(w, r * w.cols + first, count, row);
            for (int64_t t = 0; t < m; ++t) v.axpy(dy[t * lddy + r], row, sums + t * tile, count);
        }
        for (int64_t t = 0; t < m; ++t)
            for (int64_t c = 0; c < count; ++c) gemm_room::put(dx[t * lddx + first + c], sums[t * tile + c], alpha, beta);
    });
}

void gemm_tn(Cpu& cpu, int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b, int64_t ldb, float* c, int64_t ldc, float alpha, float beta) {
    const Vec& v = vec(cpu.isa);
    cpu.pool.run(n, [&](int64_t row, int) {
        float* sums = gemm_room::panel(k);
        std::fill_n(sums, k, 0.0f);
        for (int64_t t = 0; t < m; ++t) v.axpy(a[t * lda + row], b + t * ldb, sums, k);
        for (int64_t j = 0; j < k; ++j) gemm_room::put(c[row * ldc + j], sums[j], alpha, beta);
    });
}

}  // namespace qlora
