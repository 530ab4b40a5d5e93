// map.cuh - y = f(x, ...), element by element, as fast as memory: a thread takes pieces of 8 elements, 16 or 32 bytes
// of every source, and has all of them on their way before it computes. Where a pointer is not aligned, and at the end,
// it goes one by one.
//
// f is a struct of values with `__device__ void operator()(int64_t i, const float* x, float* y) const`: x[s] is element
// i of source s, y[r] of result r.
#pragma once
#include "src/cuda/room.cuh"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {

constexpr int piece_of = 8;                            // elements
struct Piece { float v[piece_of]; };
struct RawPiece { uint4 low, high; };                  // as stored; high: of f32 only

inline bool pieces_at(const void* p) { return reinterpret_cast<size_t>(p) % 16 == 0; }
inline bool pieces_at(const Values& x) { return pieces_at(x.data); }
inline bool pieces_at(const Places& y) { return pieces_at(y.data); }

// Elements [i, i + 8), i a multiple of 8. Loading and converting are two steps, so that loads do not wait for another's
// conversion.
__device__ inline RawPiece load_raw(const Values& x, int64_t i) {
    RawPiece raw;
    if (x.type == DType::f32) {
        const uint4* at = reinterpret_cast<const uint4*>(static_cast<const float*>(x.data) + i);
        raw.low = at[0];
        raw.high = at[1];
    } else {
        raw.low = *reinterpret_cast<const uint4*>(static_cast<const uint16_t*>(x.data) + i);
        raw.high = raw.low;
    }
    return raw;
}
__device__ inline Piece converted(const RawPiece& raw, DType type) {
    const uint32_t words[8] = {raw.low.x,  raw.low.y,  raw.low.z,  raw.low.w,
                               raw.high.x, raw.high.y, raw.high.z, raw.high.w};
    Piece p;
    if (type == DType::f32) {
        for (int j = 0; j < 8; ++j) p.v[j] = __uint_as_float(words[j]);
    } else if (type == DType::bf16) {
        for (int j = 0; j < 4; ++j) {
            p.v[2 * j] = __uint_as_float(words[j] << 16);
            p.v[2 * j + 1] = __uint_as_float(words[j] & 0xffff0000u);
        }
    } else {
        for (int j = 0; j < 8; ++j) p.v[j] = f32_of_f16(words[j / 2] >> (16 * (j & 1)) & 0xffffu);
    }
    return p;
}
__device__ inline Piece load_piece(const Values& x, int64_t i) { return converted(load_raw(x, i), x.type); }

__device__ inline void store_piece(const Places& y, int64_t i, const Piece& p) {
    uint32_t words[8];
    if (y.type == DType::f32) {
        uint4* at = reinterpret_cast<uint4*>(static_cast<float*>(y.data) + i);
        for (int j = 0; j < 8; ++j) words[j] = __float_as_uint(p.v[j]);
        at[0] = make_uint4(words[0], words[1], words[2], words[3]);
        at[1] = make_uint4(words[4], words[5], words[6], words[7]);
        return;
    }
    const bool bf16 = y.type == DType::bf16;
    for (int j = 0; j < 4; ++j) {
        const float a = p.v[2 * j], b = p.v[2 * j + 1];
        words[j] = bf16 ? bf16_bits(a) | bf16_bits(b) << 16 : f16_bits(a) | f16_bits(b) << 16;
    }
    *reinterpret_cast<uint4*>(static_cast<uint16_t*>(y.data) + i) = make_uint4(words[0], words[1], words[2], words[3]);
}

template <int sources, int results> struct Operands {
    Values x[sources > 0 ? sources : 1];
    Places y[results];
};

// `whole` pieces, then what is left of `count` elements.
template <int sources, int results, class F>
__global__ void map_kernel(int64_t whole, int64_t count, Operands<sources, results> o, F f) {
    const int64_t thread = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, step = int64_t(gridDim.x) * blockDim.x;
    for (int64_t p = thread; p < whole; p += step) {
        const int64_t i = p * piece_of;
        RawPiece raw[sources > 0 ? sources : 1];
        Piece in[sources > 0 ? sources : 1], out[results];
        for (int s = 0; s < sources; ++s) raw[s] = load_raw(o.x[s], i);
        for (int s = 0; s < sources; ++s) in[s] = converted(raw[s], o.x[s].type);
        for (int j = 0; j < piece_of; ++j) {
            float x[sources > 0 ? sources : 1], y[results];
            for (int s = 0; s < sources; ++s) x[s] = in[s].v[j];
            f(i + j, x, y);
            for (int r = 0; r < results; ++r) out[r].v[j] = y[r];
        }
        for (int r = 0; r < results; ++r) store_piece(o.y[r], i, out[r]);
    }
    for (int64_t i = whole * piece_of + thread; i < count; i += step) {
        float x[sources > 0 ? sources : 1], y[results];
        for (int s = 0; s < sources; ++s) x[s] = o.x[s][i];
        f(i, x, y);
        for (int r = 0; r < results; ++r) o.y[r].set(i, y[r]);
    }
}

template <int sources, int results, class F>
void map(const Call& call, int64_t count, const Operands<sources, results>& o, const F& f) {
    constexpr int threads = 256;
    if (count <= 0) return;
    bool aligned = true;
    for (int s = 0; s < sources; ++s) aligned = aligned && pieces_at(o.x[s]);
    for (int r = 0; r < results; ++r) aligned = aligned && pieces_at(o.y[r]);
    const int64_t whole = aligned ? count / piece_of : 0;
    launch(op_def(call.node.op).name, map_kernel<sources, results, F>,
           {grid_for(call, whole ? whole : count, threads), threads}, stream_of(call), whole, count, o, f);
}

// The usual: result 0 of the node from its first `sources` sources.
template <int sources, class F> void map(const Call& call, const F& f) {
    Operands<sources, 1> o;
    for (int s = 0; s < sources; ++s) o.x[s] = values(call, s);
    o.y[0] = places(call);
    map(call, call.node.elements(), o, f);
}

}  // namespace cuda
}}  // namespace qlora
