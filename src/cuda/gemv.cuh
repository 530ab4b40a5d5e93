// gemv.cuh - Y {m, rows} = alpha * X {m, cols} W^T + beta * D for the few rows of X of token generation: a stored W is
// read once, as it is, and never decoded into memory.
//
// nf4 and fp4 have kernels of their own (gemv_nf4.cuh, and nf4.cuh where f32 was asked for). For all other types a warp
// owns a row of W: a lane decodes 8 elements at a time and multiplies them with all rows of X; block = 8 rows of W.
#pragma once
#include "src/cuda/gemv_nf4.cuh"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace gemv_room {

// Readers as those of decode.cuh.
struct NibbleReader {
    const uint8_t* codes;
    nf4_room::Scales s;
    __device__ void eight(int64_t e, float (&v)[8]) const {
        const uint32_t word = *reinterpret_cast<const uint32_t*>(codes + e / 2);
        const float scale = nf4_room::scale_at(s, e >> s.shift);
        QLORA_UNROLL
        for (int k = 0; k < 8; ++k) v[k] = s.codebook[word >> (8 * (k / 2) + (k & 1 ? 0 : 4)) & 15] * scale;
    }
};
// Floats, in f32 or 16 bits, at multiples of 16 bytes.
struct FloatReader {
    Values data;
    __device__ void eight(int64_t e, float (&v)[8]) const {
        if (data.type == DType::f32) {
            const float4* four = reinterpret_cast<const float4*>(static_cast<const float*>(data.data) + e);
            const float4 p = four[0], q = four[1];
            v[0] = p.x, v[1] = p.y, v[2] = p.z, v[3] = p.w, v[4] = q.x, v[5] = q.y, v[6] = q.z, v[7] = q.w;
            return;
        }
        const uint4 words = *reinterpret_cast<const uint4*>(static_cast<const uint16_t*>(data.data) + e);
        const uint32_t word[4] = {words.x, words.y, words.z, words.w};
        QLORA_UNROLL
        for (int k = 0; k < 8; ++k) {
            const uint32_t bits = word[k / 2] >> (16 * (k & 1)) & 0xffffu;
            v[k] = data.type == DType::bf16 ? f32_of_bf16(bits) : f32_of_f16(bits);
        }
    }
};

struct Vectors {                                       // X
    Values x;
    int64_t ld;
    int count;
    bool eights;                                       // FloatReader may read it
};

// y[t, row] for all rows t of X, one warp; the sums of the lanes are added pairwise.
__device__ inline void put_sums(float (&sum)[most_vectors], int64_t row, int count, const gemm_room::Finish& put) {
    QLORA_UNROLL
    for (int t = 0; t < most_vectors; ++t) {
        if (t >= count) break;                         // the same for all lanes
        const float total = warp_sum(sum[t]);
        if (threadIdx.x % 32 == 0) put.one(t, row, total);
    }
}

template <class Reader>
__global__ void __launch_bounds__(warps * 32) in_eights(Reader w, int64_t rows, int64_t cols, Vectors x,
                                                        gemm_room::Finish put) {
    const int64_t row = int64_t(blockIdx.x) * warps + int(threadIdx.x) / 32;
    if (row >= rows) return;                           // a whole warp
    float sum[most_vectors] = {};
    for (int64_t col = threadIdx.x % 32 * 8; col < cols; col += 32 * 8) {
        float v[8];
        w.eight(row * cols + col, v);
        QLORA_UNROLL
        for (int t = 0; t < most_vectors; ++t) {
            if (t >= x.count) break;
            const int64_t at = t * x.ld + col;
            float u[8];
            if (x.eights) {
                FloatReader{x.x}.eight(at, u);
            } else {
                QLORA_UNROLL
                for (int k = 0; k < 8; ++k) u[k] = x.x[at + k];
            }
            QLORA_UNROLL
            for (int k = 0; k < 8; ++k) sum[t] += v[k] * u[k];
        }
    }
    put_sums(sum, row, x.count, put);
}

static __global__ void __launch_bounds__(warps * 32) one_by_one(WeightRef w, Vectors x, gemm_room::Finish put) {
    const int64_t row = int64_t(blockIdx.x) * warps + int(threadIdx.x) / 32;
    if (row >= w.rows) return;
    float sum[most_vectors] = {};
    for (int64_t col = threadIdx.x % 32; col < w.cols; col += 32) {
        const float v = element(w, row * w.cols + col);
        QLORA_UNROLL
        for (int t = 0; t < most_vectors; ++t) {
            if (t >= x.count) break;
            sum[t] += v * x.x[t * x.ld + col];
        }
    }
    put_sums(sum, row, x.count, put);
}

inline bool is_in_eights(const Values& v, int64_t ld) {
    return aligned_to(v.data, 16) && ld % 8 == 0;
}

inline void run_general(const Engine& engine, const WeightRef& w, const Vectors& x, const gemm_room::Finish& put) {
    const Launch blocks{grid_of((w.rows + warps - 1) / warps), warps * 32};
    const auto start = [&](const auto& reader) {
        launch("product with vectors", in_eights<std::decay_t<decltype(reader)>>, blocks, engine.stream, reader, w.rows,
               w.cols, x, put);
    };
    const uint8_t* data = static_cast<const uint8_t*>(w.data);
    const bool is_float = w.dtype == DType::f32 || w.dtype == DType::bf16 || w.dtype == DType::f16;
    if (is_float && w.cols % 8 == 0 && aligned_to(data, 16)) return start(FloatReader{{data, w.dtype}});
    if (w.cols % 8 == 0 && decode_room::takes_eights(w, 0, w.cols, {})) {
        if (is_4bit(w.dtype)) return start(NibbleReader{data, nf4_room::scales_of(w, "product with vectors")});
        if (decode_room::with_reader(w, start)) return;
    }
    launch("product with vectors", one_by_one, blocks, engine.stream, w, x, put);
}

}  // namespace gemv_room

// Starts it; p.m is at most gemv_room::most_vectors.
inline void gemv(const Engine& engine, const Product& p, const WeightRef& w, void* scratch) {
    using namespace gemv_room;
    const gemm_room::Finish put = gemm_room::finish_of(p);
    if (takes_pairs(engine, w) && (scratch || reads_pairs(p.a, p.lda)))
        return run_pairs(engine, std::span(&w, 1), std::span(&p, 1), scratch);
    const bool plain = p.a.type == DType::f32 && p.lda == p.k && p.c.type == DType::f32 && p.ldc == p.n &&
                       p.alpha == 1 && p.beta == 0;
    if (is_4bit(w.dtype) && plain && is_power_of_two(w.quant.block) &&
        is_power_of_two(w.quant.block2))
        return nf4_gemv(engine.stream, w, static_cast<const float*>(p.a.data), static_cast<float*>(p.c.data), p.m);
    run_general(engine, w, {p.a, p.lda, int(p.m), is_in_eights(p.a, p.lda)}, put);
}

}  // namespace cuda
}}  // namespace qlora
