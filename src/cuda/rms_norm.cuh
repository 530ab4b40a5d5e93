// rms_norm.cuh - y = x * r * w by rows of n, r = 1 / sqrt(mean(x^2) + eps), and its gradients:
//   dx = r * (w * dy) - r^3 / n * x * sum(x * w * dy),   dw = sum over rows of dy * x * r      (src/ops/rms_norm.cpp)
//
// A team of threads has a row (teams.cuh), and reads it once where it holds it; other rows are read twice, element by
// element. Sums are in f32, as on the CPU: of a thread, then of the team.
#pragma once
#include "src/cuda/columns.cuh"
#include "src/cuda/factor.cuh"
#include "src/cuda/teams.cuh"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace rms_norm_room {

struct Rows {
    int64_t rows, n;
    float eps;
    Values x, w, dy;                                   // dy: of the gradient
    Places y;
    __device__ float inverse(float squares) const { return 1 / sqrtf(squares / float(n) + eps); }
};

template <int held> __global__ void __launch_bounds__(most_threads) forward_held(Rows a, int team) {
    const int down = int(blockDim.x) / team, lane = int(threadIdx.x) % team;
    for (int64_t top = int64_t(blockIdx.x) * down; top < a.rows; top += int64_t(gridDim.x) * down) {
        const int64_t row = top + int(threadIdx.x) / team;
        const bool active = row < a.rows;              // the others only take part in the sum
        RawPiece raw[held];
        QLORA_UNROLL
        for (int k = 0; k < held; ++k) {
            const int64_t c = (int64_t(k) * team + lane) * piece_of;
            if (active && c < a.n) raw[k] = load_raw(a.x, row * a.n + c);
        }
        float squares = 0;
        Piece x[held];
        QLORA_UNROLL
        for (int k = 0; k < held; ++k) {
            const int64_t c = (int64_t(k) * team + lane) * piece_of;
            if (!active || c >= a.n) continue;
            x[k] = converted(raw[k], a.x.type);
            for (int j = 0; j < piece_of; ++j) squares += x[k].v[j] * x[k].v[j];
        }
        const float r = a.inverse(team_sum(squares, team));
        QLORA_UNROLL
        for (int k = 0; k < held; ++k) {
            const int64_t c = (int64_t(k) * team + lane) * piece_of;
            if (!active || c >= a.n) continue;
            const Piece w = load_piece(a.w, c);
            for (int j = 0; j < piece_of; ++j) x[k].v[j] = x[k].v[j] * r * w.v[j];
            store_piece(a.y, row * a.n + c, x[k]);
        }
    }
}

static __global__ void forward_any(Rows a, int team) {
    const int down = int(blockDim.x) / team, lane = int(threadIdx.x) % team;
    for (int64_t top = int64_t(blockIdx.x) * down; top < a.rows; top += int64_t(gridDim.x) * down) {
        const int64_t row = top + int(threadIdx.x) / team, first = row * a.n, n = row < a.rows ? a.n : 0;
        float squares = 0;
        for (int64_t c = lane; c < n; c += team) squares += a.x[first + c] * a.x[first + c];
        const float r = a.inverse(team_sum(squares, team));
        for (int64_t c = lane; c < n; c += team) a.y.set(first + c, a.x[first + c] * r * a.w[c]);
    }
}

template <int held> __global__ void __launch_bounds__(most_threads) back_held(Rows a, int team) {
    const int down = int(blockDim.x) / team, lane = int(threadIdx.x) % team;
    for (int64_t top = int64_t(blockIdx.x) * down; top < a.rows; top += int64_t(gridDim.x) * down) {
        const int64_t row = top + int(threadIdx.x) / team;
        const bool active = row < a.rows;
        float squares = 0, along = 0;
        Piece x[held], wdy[held];
        QLORA_UNROLL
        for (int k = 0; k < held; ++k) {
            const int64_t c = (int64_t(k) * team + lane) * piece_of, i = row * a.n + c;
            if (!active || c >= a.n) continue;
            const RawPiece raw_x = load_raw(a.x, i), raw_dy = load_raw(a.dy, i), raw_w = load_raw(a.w, c);
            x[k] = converted(raw_x, a.x.type);
            wdy[k] = converted(raw_dy, a.dy.type);
            const Piece w = converted(raw_w, a.w.type);
            for (int j = 0; j < piece_of; ++j) {
                wdy[k].v[j] *= w.v[j];
                squares += x[k].v[j] * x[k].v[j];
                along += x[k].v[j] * wdy[k].v[j];
            }
        }
        const float r = a.inverse(team_sum(squares, team));
        const float pull = -r * r * r / float(a.n) * team_sum(along, team);
        QLORA_UNROLL
        for (int k = 0; k < held; ++k) {
            const int64_t c = (int64_t(k) * team + lane) * piece_of;
            if (!active || c >= a.n) continue;
            for (int j = 0; j < piece_of; ++j) x[k].v[j] = r * wdy[k].v[j] + pull * x[k].v[j];
            store_piece(a.y, row * a.n + c, x[k]);
        }
    }
}

static __global__ void back_any(Rows a, int team) {
    const int down = int(blockDim.x) / team, lane = int(threadIdx.x) % team;
    for (int64_t top = int64_t(blockIdx.x) * down; top < a.rows; top += int64_t(gridDim.x) * down) {
        const int64_t row = top + int(threadIdx.x) / team, first = row * a.n, n = row < a.rows ? a.n : 0;
        float squares = 0, along = 0;
        for (int64_t c = lane; c < n; c += team) {
            const float x = a.x[first + c];
            squares += x * x;
            along += x * (a.w[c] * a.dy[first + c]);
        }
        const float r = a.inverse(team_sum(squares, team));
        const float pull = -r * r * r / float(a.n) * team_sum(along, team);
        for (int64_t c = lane; c < n; c += team)
            a.y.set(first + c, r * (a.w[c] * a.dy[first + c]) + pull * a.x[first + c]);
    }
}

// r of every row, for the gradient of w.
static __global__ void inverse_any(Rows a, int team, float* r) {
    const int down = int(blockDim.x) / team, lane = int(threadIdx.x) % team;
    for (int64_t top = int64_t(blockIdx.x) * down; top < a.rows; top += int64_t(gridDim.x) * down) {
        const int64_t row = top + int(threadIdx.x) / team, first = row * a.n, n = row < a.rows ? a.n : 0;
        float squares = 0;
        for (int64_t c = lane; c < n; c += team) squares += a.x[first + c] * a.x[first + c];
        squares = team_sum(squares, team);
        if (lane == 0 && row < a.rows) r[row] = a.inverse(squares);
    }
}

struct Dw {
    Values x, dy;
    const float* r;
    int64_t n;
    __device__ float operator()(int64_t row, int64_t column) const {
        const int64_t i = row * n + column;
        return dy[i] * x[i] * r[row];
    }
};

inline Rows rows_of(const Call& call) {
    const Node& x = call.source(0);
    return {leading(x), last_dim(x), call.node.attr.get<RmsNormAttr>().eps, values(call, 0), {}, {}, places(call)};
}
inline bool aligned(const Rows& a) {
    return pieces_at(a.x) && pieces_at(a.w) && pieces_at(a.y) && (!a.dy.data || pieces_at(a.dy));
}
inline void run(const Call& call) {
    Rows a = rows_of(call);
    a.w = factors(call, 1);
    start_teams(call, a, aligned(a), {forward_any, forward_held<1>, forward_held<2>, forward_held<4>});
}
inline void back(const Call& call) {
    Rows a = rows_of(call);
    a.w = factors(call, 1);
    a.dy = values(call, 2);
    start_teams(call, a, aligned(a), {back_any, back_held<1>, back_held<2>, back_held<4>});
}

inline void dw(const Call& call) {
    const Rows a = rows_of(call);
    float* const r = static_cast<float*>(call.scratch);                          // {rows}, then the strips
    start_rows(call, inverse_any, a, r);
    add_columns(call, a.rows, a.n, Dw{a.x, values(call, 1), r, a.n}, r + a.rows);
}

}  // namespace rms_norm_room
}  // namespace cuda

inline const Kernel rms_norm_cuda{cuda::rms_norm_room::run, cuda::scratch_of(Op::rms_norm)};
inline const Kernel rms_norm_back_cuda{cuda::rms_norm_room::back, cuda::scratch_of(Op::rms_norm_back)};
inline const Kernel rms_norm_dw_cuda{cuda::rms_norm_room::dw, cuda::scratch_of(Op::rms_norm_dw)};

}}  // namespace qlora
