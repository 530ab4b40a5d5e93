// panels.cuh - products with a matrix W {out, in} as it is stored, of any type:
//     y {m, out} = alpha * x W^T + beta * d          dx {m, in} = alpha * dy W
// Few rows of x read W as it is (gemv.cuh). Else W is decoded, to bf16 or to f32, a panel of at most 24 MB at a time
// that stays in the L2 cache of large devices, and multiplied: rows of W are columns of y, columns of W are columns of
// dx, so that every result is summed and rounded once. bf16, and in exact products f32 and f16, are read in place.
#pragma once
#include "src/cuda/gemv.cuh"
#include "src/cuda/plan/panels.h"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace panels_room {

// ---- Columns of W: `eights` 8s of elements of each row, from element `first` on.
template <class Reader> struct EightsOfWindow {
    Reader reader;
    int64_t first, cols, eights;
    Places out;
    __device__ void operator()(int64_t i) const {
        const int64_t row = decode_room::quotient(i, eights), e = first + row * cols + (i - row * eights) * 8;
        decode_room::Eights<Reader>{reader, e - 8 * i, out}(i);
    }
};
struct SingleOfWindow {
    WeightRef w;
    int64_t first, width;
    Places out;
    __device__ void operator()(int64_t i) const {
        const int64_t row = decode_room::quotient(i, width);
        out.set(i, element(w, first + row * w.cols + (i - row * width)));
    }
};
static __global__ void window_of_nibbles(const uint8_t* codes, nf4_room::Scales s, int64_t first, int64_t cols,
                                         int64_t eights, int64_t count, const int32_t* live, Places out) {
    QLORA_SHARED(float, book, 16);
    if (live && *live == 0) return;
    if (threadIdx.x < 16) book[threadIdx.x] = s.codebook[threadIdx.x];
    __syncthreads();
    const int64_t step_of_grid = int64_t(gridDim.x) * blockDim.x;
    for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step_of_grid) {
        const int64_t row = decode_room::quotient(i, eights), e = first + row * cols + (i - row * eights) * 8;
        const uint32_t word = *reinterpret_cast<const uint32_t*>(codes + e / 2);
        const float scale = nf4_room::scale_at(s, e >> s.shift);
        float v[8];
        QLORA_UNROLL
        for (int k = 0; k < 8; ++k)
            v[k] = __fmul_rn(book[word >> (8 * (k / 2) + (k & 1 ? 0 : 4)) & 15], scale);
        decode_room::store_eight(out, 8 * i, v);
    }
}

// Columns [col, col + width) of W into out {rows of W, width}.
inline void decode_columns(const Call& call, const WeightRef& w, int64_t col, int64_t width, Places out,
                           const int32_t* live) {
    if (col == 0 && width == w.cols) return decode_rows(call, w, 0, w.rows, out, live);
    const int64_t count = w.rows * width;
    if (w.cols % 8 || col % 8 || !decode_room::takes_eights(w, col, width, out))
        return each(call, count, SingleOfWindow{w, col, width, out}, live);
    const bool started = decode_room::with_reader(w, [&]<class Reader>(const Reader& reader) {
        each(call, count / 8, EightsOfWindow<Reader>{reader, col, w.cols, width / 8, out}, live);
    });
    if (started) return;
    launch("decode columns", window_of_nibbles, {grid_for(call, count / 8, 256), 256}, stream_of(call),
           static_cast<const uint8_t*>(w.data), nf4_room::scales_of(w, "decode columns"), col, w.cols, width / 8,
           count / 8, live, out);
}

}  // namespace panels_room

inline void product_with_stored(const Call& call, const Product& p, const WeightRef& w, bool to_x) {
    using namespace panels_room;
    const Engine engine = engine_of(call);
    device_of(call).counted.add(2 * p.m * w.rows * w.cols, w.bytes());
    if (p.m <= 0 || p.n <= 0) return;
    if (!to_x && p.m <= gemv_room::most_vectors) return gemv(engine, p, w, call.scratch);
    Product q = whole_product(p, to_x);
    if (is_read_in_place(engine, w.dtype)) {
        q.b = {w.data, w.dtype};
        return product(engine, q, call.scratch);
    }
    const Panels panels = panels_of(engine, p.n, p.k);
    char* memory = static_cast<char*>(call.scratch);
    const Places panel{memory, panels.type};
    memory += panels.bytes();
    if (const gemm_room::Side once = packed_once(engine, q); once.lines) {
        q.a = {gemm_room::factor_of(engine, once, memory).data, DType::bf16};
        q.lda = once.packed_ld();
    }
    q.b = {panel.data, panel.type};
    for (int64_t at = 0; at < panels.count; at += panels.size) {
        q.n = std::min(panels.size, panels.count - at);
        if (to_x) decode_columns(call, w, at, q.n, panel, p.live);
        else decode_rows(call, w, at, q.n, panel, p.live);
        q.ldb = to_x ? q.n : p.k;
        q.c = {static_cast<char*>(p.c.data) + bytes_of(p.c.type, at), p.c.type};
        if (p.d.data) q.d = {static_cast<const char*>(p.d.data) + bytes_of(p.d.type, at), p.d.type};
        product(engine, q, memory);
    }
}

}  // namespace cuda
}}  // namespace qlora
