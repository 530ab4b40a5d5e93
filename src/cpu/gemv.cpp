// gemv.cpp - y = x W^T for the few rows of x of token generation: W is read once, row by row, as it is stored.
//
// The cost is the traffic of W, so nothing is packed and, where a kernel knows the type, nothing decoded into memory.
// Tasks are runs of rows. How many depends on the threads, but no bit of y does: an element is one row times one x, and
// does not depend on how many rows x has either.
#include "src/cpu/kernels.h"

#include <algorithm>

namespace qlora { inline namespace QLORA_ABI {
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

// Long runs, for each begins with a wait for memory; eight for every thread, for one may be slower than the other.
int64_t rows_of_a_task(const WeightRef& w, int64_t threads) {
    const TypeInfo& info = type_info(w.dtype);
    const int64_t row_bytes = std::max<int64_t>(w.cols * info.bytes / info.block, 1);
    const int64_t share = std::clamp<int64_t>(w.rows * row_bytes / (8 * threads), 18 << 10, 512 << 10);
    return std::clamp<int64_t>(share / row_bytes, 1, 512);
}

void put_all(const Output& to, int64_t first, int64_t count, const float* sums) {
    for (int64_t r = 0; r < count; ++r)
        for (int64_t t = 0; t < to.m; ++t) to.put(t, first + r, sums[r * to.m + t]);
}

// What the rows of a stored weight are multiplied with: m vectors, ld apart.
struct Vectors {
    const float* floats;
    int64_t ld;
    const Run16* rounded = nullptr;                    // instead of the floats
    int64_t ld16 = 0;
};

void codes_task(const Kernels& kernels, const WeightRef& w, int64_t first, int64_t count, const Vectors& x,
                const Output& to) {
    thread_local Scratch memory;
    const int64_t runs = w.cols / 64;                  // of a row
    float *sums = memory.floats(count * (to.m + runs)), *scales = sums + count * to.m;
    run_scales(kernels, w.quant, first * runs, 0, 1, count * runs, scales);
    const uint8_t* codes = static_cast<const uint8_t*>(w.data) + first * w.cols / 2;
    if (x.rounded) kernels.dots16->codes(codes, scales, w.quant.codebook, count, w.cols, x.rounded, x.ld16, to.m, sums);
    else kernels.four_bit->dots(codes, scales, w.quant.codebook, count, w.cols, x.floats, x.ld, to.m, sums);
    put_all(to, first, count, sums);
}

void blocks_task(const Kernels& kernels, const WeightRef& w, int64_t first, int64_t count, const Vectors& x,
                 const Output& to) {
    thread_local Scratch memory;
    float* sums = memory.floats(count * to.m);
    const int64_t row_bytes = bytes_of(w.dtype, w.cols);
    const uint8_t* rows = static_cast<const uint8_t*>(w.data) + first * row_bytes;
    if (x.rounded) kernels.dots16->blocks(w.dtype, rows, row_bytes, count, w.cols, x.rounded, x.ld16, to.m, sums);
    else kernels.dots_of(w.dtype)(w.dtype, rows, row_bytes, count, w.cols, x.floats, x.ld, to.m, sums);
    put_all(to, first, count, sums);
}

void floats_task(const Kernels& kernels, const WeightRef& w, int64_t first, int64_t count, const float* x, int64_t ldx,
                 const Output& to) {
    thread_local Scratch memory;
    const Vec& v = kernels.vec;
    // short rows, as those of an adapter, would cost more in calls than in products
    if (w.dtype == DType::f32 && to.m == 1) {
        float* sums = memory.floats(count);
        v.dots(x, static_cast<const float*>(w.data) + first * w.cols, w.cols, count, w.cols, sums);
        for (int64_t r = 0; r < count; ++r) to.put(0, first + r, sums[r]);
        return;
    }
    float* scratch = memory.floats(float_rows_size(1, w.cols));
    for (int64_t r = first; r < first + count; ++r) {
        const FloatRows row = float_rows(kernels, w, w.cols, r, 1, 0, w.cols, scratch);
        for (int64_t t = 0; t < to.m; ++t) to.put(t, r, v.dot(x + t * ldx, row.data, w.cols));
    }
}

enum class Way : uint8_t { codes, blocks, floats };

// x in 16-bit integers: unless exactness was asked for, wherever weights have codes that are small integers.
bool rounds(const Cpu& cpu, const WeightRef& w) {
    const int64_t block = type_info(w.dtype).block;
    return cpu.compute != Compute::f32 && cpu.kernels->dots16 &&
           (is_4bit(w.dtype) ? has_runs_of_64(w) : block > 1 && w.cols % block == 0);
}

Way way(const Cpu& cpu, const WeightRef& w) {
    const bool rounded = rounds(cpu, w);
    if (has_runs_of_64(w)) {
        const FourBitKernels* codes = cpu.kernels->four_bit;
        return rounded || (codes && codes->dots) ? Way::codes : Way::floats;
    }
    return rounded || (w.cols % type_info(w.dtype).block == 0 && cpu.kernels->dots_of(w.dtype)) ? Way::blocks
                                                                                               : Way::floats;
}

// As the products take them: floats as they are or spread, or 16-bit integers. The memory is used again by the thread's
// next call.
Vectors prepared(const Cpu& cpu, Way way, const WeightRef& w, int64_t m, const float* x, int64_t ldx) {
    thread_local Scratch memory;
    if (rounds(cpu, w)) {
        const int64_t runs = runs16(w.cols);
        Run16* to = static_cast<Run16*>(memory.bytes(m * runs * int64_t(sizeof(Run16))));
        for (int64_t t = 0; t < m; ++t)
            cpu.kernels->dots16->round(x + t * ldx, w.cols, way == Way::codes ? Order16::pairs : Order16::blocks,
                                   to + t * runs);
        return {nullptr, 0, to, runs};
    }
    if (way != Way::codes || !cpu.kernels->four_bit->spreads) return {x, ldx};
    const int64_t size = spread_size(w.cols);
    float* spread = memory.floats(m * size);
    for (int64_t t = 0; t < m; ++t) spread_for_codes(x + t * ldx, w.cols, spread + t * size);
    return {spread, size};
}

}  // namespace gemv_room

void gemv(Cpu& cpu, int64_t m, const float* x, int64_t ldx, const WeightRef& w, float* y, int64_t ldy, float alpha,
          float beta) {
    using namespace gemv_room;
    const Output to{m, y, ldy, alpha, beta};
    const Way way = gemv_room::way(cpu, w);
    const Vectors vectors = prepared(cpu, way, w, m, x, ldx);
    const int64_t rows = rows_of_a_task(w, cpu.pool.size());
    cpu.pool.run((w.rows + rows - 1) / rows, [&](int64_t task, int) {
        const int64_t first = task * rows, count = std::min(rows, w.rows - first);
        switch (way) {
            case Way::codes: return codes_task(*cpu.kernels, w, first, count, vectors, to);
            case Way::blocks: return blocks_task(*cpu.kernels, w, first, count, vectors, to);
            case Way::floats: return floats_task(*cpu.kernels, w, first, count, x, ldx, to);
        }
    });
}

}}  // namespace qlora
