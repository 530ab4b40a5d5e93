// layer_norm.cuh - y = z * w + b by rows of n, z = r * (x - mean), and its gradients, g = w * dy:
//   dx = r * (g - mean(g)) - r^3 / n * c * sum(g * c),   dw = sum over rows of dy * z      (src/ops/layer_norm.cpp)
//
// A team of threads has a row (teams.cuh), and reads it once where it holds it; other rows are read at every sum,
// element by element. The mean is taken twice, as on the CPU. Sums are in f32: of a thread, then of the team.
#pragma once
#include "src/cuda/columns.cuh"
#include "src/cuda/factor.cuh"
#include "src/cuda/teams.cuh"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace layer_norm_room {

struct Rows {
    int64_t rows, n;
    float eps;
    Values x, w, b, dy;                                // w and b may be absent; dy: of the gradient
    Places y;
    __device__ float inverse(float squares) const { return 1 / sqrtf(squares / float(n) + eps); }
    __device__ float gradient(int64_t first, int64_t c) const { return w.data ? w[c] * dy[first + c] : dy[first + c]; }
};

// The pieces of a row that a thread holds: piece k begins at column c(k).
struct Mine {
    int64_t n, row;
    int lane, team;
    bool active;                                       // the others only take part in the sums
    __device__ Mine(const Rows& a, int64_t top, int threads)
        : n(a.n), row(top + int(threadIdx.x) / threads), lane(int(threadIdx.x) % threads), team(threads),
          active(row < a.rows) {}
    __device__ int64_t c(int k) const { return (int64_t(k) * team + lane) * piece_of; }
    __device__ bool has(int k) const { return active && c(k) < n; }
};

template <int held> __device__ inline float mean_of(const Piece (&x)[held], const Mine& m) {
    float sum = 0;
    QLORA_UNROLL
    for (int k = 0; k < held; ++k)
        if (m.has(k)) for (int j = 0; j < piece_of; ++j) sum += x[k].v[j];
    return team_sum(sum, m.team) / float(m.n);
}
template <int held> __device__ inline void subtract(Piece (&x)[held], float mean) {
    QLORA_UNROLL
    for (int k = 0; k < held; ++k)
        for (int j = 0; j < piece_of; ++j) x[k].v[j] -= mean;
}
// x becomes x - mean(x); r.
template <int held> __device__ inline float center(Piece (&x)[held], const Rows& a, const Mine& m) {
    subtract(x, mean_of(x, m));
    subtract(x, mean_of(x, m));
    float squares = 0;
    QLORA_UNROLL
    for (int k = 0; k < held; ++k)
        if (m.has(k)) for (int j = 0; j < piece_of; ++j) squares += x[k].v[j] * x[k].v[j];
    return a.inverse(team_sum(squares, m.team));
}

template <int held> __global__ void __launch_bounds__(most_threads) forward_held(Rows a, int team) {
    const int down = int(blockDim.x) / team;
    for (int64_t top = int64_t(blockIdx.x) * down; top < a.rows; top += int64_t(gridDim.x) * down) {
        const Mine m(a, top, team);
        RawPiece raw[held] = {};
        QLORA_UNROLL
        for (int k = 0; k < held; ++k)
            if (m.has(k)) raw[k] = load_raw(a.x, m.row * a.n + m.c(k));
        Piece x[held];
        QLORA_UNROLL
        for (int k = 0; k < held; ++k) x[k] = converted(raw[k], a.x.type);
        const float r = center(x, a, m);
        QLORA_UNROLL
        for (int k = 0; k < held; ++k) {
            if (!m.has(k)) continue;
            for (int j = 0; j < piece_of; ++j) x[k].v[j] *= r;
            if (a.w.data) {
                const Piece w = load_piece(a.w, m.c(k));
                for (int j = 0; j < piece_of; ++j) x[k].v[j] *= w.v[j];
            }
            if (a.b.data) {
                const Piece b = load_piece(a.b, m.c(k));
                for (int j = 0; j < piece_of; ++j) x[k].v[j] += b.v[j];
            }
            store_piece(a.y, m.row * a.n + m.c(k), x[k]);
        }
    }
}

template <int held> __global__ void __launch_bounds__(most_threads) back_held(Rows a, int team) {
    const int down = int(blockDim.x) / team;
    for (int64_t top = int64_t(blockIdx.x) * down; top < a.rows; top += int64_t(gridDim.x) * down) {
        const Mine m(a, top, team);
        Piece c[held] = {}, g[held] = {};
        QLORA_UNROLL
        for (int k = 0; k < held; ++k) {
            if (!m.has(k)) continue;
            const int64_t i = m.row * a.n + m.c(k);
            const RawPiece raw_x = load_raw(a.x, i), raw_dy = load_raw(a.dy, i);
            c[k] = converted(raw_x, a.x.type);
            g[k] = converted(raw_dy, a.dy.type);
            if (!a.w.data) continue;
            const Piece w = load_piece(a.w, m.c(k));
            for (int j = 0; j < piece_of; ++j) g[k].v[j] *= w.v[j];
        }
        const float r = center(c, a, m), mean = mean_of(g, m);
        float along = 0;
        QLORA_UNROLL
        for (int k = 0; k < held; ++k)
            if (m.has(k)) for (int j = 0; j < piece_of; ++j) along += g[k].v[j] * c[k].v[j];
        const float pull = -r * r * r / float(a.n) * team_sum(along, team);
        QLORA_UNROLL
        for (int k = 0; k < held; ++k) {
            if (!m.has(k)) continue;
            for (int j = 0; j < piece_of; ++j) c[k].v[j] = r * (g[k].v[j] - mean) + pull * c[k].v[j];
            store_piece(a.y, m.row * a.n + m.c(k), c[k]);
        }
    }
}

// A row whose pieces nobody holds.
struct Numbers { float mean, rest, r; };               // mean + rest: the mean, in more digits than a float has
struct Loose {
    int64_t row, first, n;                             // n: 0 where there is no such row
    int lane, team;
    __device__ Loose(const Rows& a, int64_t top, int threads)
        : row(top + int(threadIdx.x) / threads), first(row * a.n), n(row < a.rows ? a.n : 0),
          lane(int(threadIdx.x) % threads), team(threads) {}
    __device__ Numbers numbers(const Rows& a) const {
        Numbers k;
        float sum = 0, rest = 0, squares = 0;
        for (int64_t c = lane; c < n; c += team) sum += a.x[first + c];
        k.mean = team_sum(sum, team) / float(a.n);
        for (int64_t c = lane; c < n; c += team) rest += a.x[first + c] - k.mean;
        k.rest = team_sum(rest, team) / float(a.n);
        for (int64_t c = lane; c < n; c += team) {
            const float x = a.x[first + c] - k.mean - k.rest;
            squares += x * x;
        }
        k.r = a.inverse(team_sum(squares, team));
        return k;
    }
};

static __global__ void forward_any(Rows a, int team) {
    const int down = int(blockDim.x) / team;
    for (int64_t top = int64_t(blockIdx.x) * down; top < a.rows; top += int64_t(gridDim.x) * down) {
        const Loose m(a, top, team);
        const Numbers k = m.numbers(a);
        for (int64_t c = m.lane; c < m.n; c += team) {
            float y = (a.x[m.first + c] - k.mean - k.rest) * k.r;
            if (a.w.data) y *= a.w[c];
            a.y.set(m.first + c, a.b.data ? y + a.b[c] : y);
        }
    }
}

static __global__ void back_any(Rows a, int team) {
    const int down = int(blockDim.x) / team;
    for (int64_t top = int64_t(blockIdx.x) * down; top < a.rows; top += int64_t(gridDim.x) * down) {
        const Loose m(a, top, team);
        const Numbers k = m.numbers(a);
        float sum = 0, along = 0;
        for (int64_t c = m.lane; c < m.n; c += team) {
            const float g = a.gradient(m.first, c);
            sum += g;
            along += g * (a.x[m.first + c] - k.mean - k.rest);
        }
        const float mean = team_sum(sum, team) / float(a.n);
        const float pull = -k.r * k.r * k.r / float(a.n) * team_sum(along, team);
        for (int64_t c = m.lane; c < m.n; c += team)
            a.y.set(m.first + c, k.r * (a.gradient(m.first, c) - mean) + pull * (a.x[m.first + c] - k.mean - k.rest));
    }
}

// The numbers of every row, for the gradient of w: {rows, 3}.
static __global__ void numbers_any(Rows a, int team, float* out) {
    const int down = int(blockDim.x) / team;
    for (int64_t top = int64_t(blockIdx.x) * down; top < a.rows; top += int64_t(gridDim.x) * down) {
        const Loose m(a, top, team);
        const Numbers k = m.numbers(a);
        if (m.lane != 0 || m.n == 0) continue;
        out[3 * m.row] = k.mean;
        out[3 * m.row + 1] = k.rest;
        out[3 * m.row + 2] = k.r;
    }
}

struct Dw {
    Values x, dy;
    const float* numbers;
    int64_t n;
    __device__ float operator()(int64_t row, int64_t column) const {
        const int64_t i = row * n + column;
        const float* const k = numbers + 3 * row;
        return dy[i] * ((x[i] - k[0] - k[1]) * k[2]);
    }
};

inline Rows rows_of(const Call& call) {
    const Node& x = call.source(0);
    Rows a{leading(x), last_dim(x), call.node.attr.get<LayerNormAttr>().eps, values(call, 0), {}, {}, {}, places(call)};
    return a;
}
inline void start(const Call& call, const Rows& a, const TeamKernel<Rows> (&by_held)[4]) {
    const bool aligned = pieces_at(a.x) && pieces_at(a.w) && pieces_at(a.b) && pieces_at(a.dy) && pieces_at(a.y);
    start_teams(call, a, aligned, by_held);            // what is absent is aligned
}
inline void run(const Call& call) {
    Rows a = rows_of(call);
    if (call.has(1)) a.w = factors(call, 1);
    if (call.has(2)) a.b = factors(call, 2, present_bytes(call.graph, call.node, 1));
    start(call, a, {forward_any, forward_held<1>, forward_held<2>, forward_held<4>});
}
inline void back(const Call& call) {
    Rows a = rows_of(call);
    if (call.has(1)) a.w = factors(call, 1);
    a.dy = values(call, 2);
    start(call, a, {back_any, back_held<1>, back_held<2>, back_held<4>});
}

inline void dw(const Call& call) {
    const Rows a = rows_of(call);
    float* const numbers = static_cast<float*>(call.scratch);                    // {rows, 3}, then the strips
    start_rows(call, numbers_any, a, numbers);
    add_columns(call, a.rows, a.n, Dw{a.x, values(call, 1), numbers, a.n}, numbers + 3 * a.rows);
}

}  // namespace layer_norm_room
}  // namespace cuda

inline const Kernel layer_norm_cuda{cuda::layer_norm_room::run, cuda::scratch_of(Op::layer_norm)};
inline const Kernel layer_norm_back_cuda{cuda::layer_norm_room::back, cuda::scratch_of(Op::layer_norm_back)};
inline const Kernel layer_norm_dw_cuda{cuda::layer_norm_room::dw, cuda::scratch_of(Op::layer_norm_dw)};

}}  // namespace qlora
