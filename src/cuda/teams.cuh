// teams.cuh - rows of n elements that need sums over a row before they are written: how they are dealt out.
//
// A team of threads has a row: 1 to 32 lanes for short ones, several to a warp, a block of up to 512 threads for long
// ones. A thread holds its pieces of 8 elements in registers, up to 4 of them, so that a row is read once; rows that
// are longer or not aligned are read element by element.
#pragma once
#include "src/cuda/map.cuh"
#include "src/cuda/mma.cuh"

#include <type_traits>

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {

// held: pieces of a thread in registers, 0 = none.
struct Teams { int threads = 0, block = 0, held = 0; };
constexpr int most_threads = 512;                      // of 128 registers: all that a multiprocessor has
inline Teams teams_of(int64_t n, bool aligned) {
    const int64_t units = aligned && n % piece_of == 0 ? n / piece_of : n, lane_units = units <= 128 ? 4 : 2;
    int team = 1;
    while (team < most_threads && team < units && (team < 32 || units > team * lane_units)) team *= 2;
    const int64_t held = (units + team - 1) / team;
    const bool holds = units != n && held <= 4;
    return {team, std::max(team, 128), !holds ? 0 : held > 2 ? 4 : int(held)};
}

// The sum over a team in each of its threads, 32 or fewer or all of the block. All threads of a block call it.
__device__ inline float team_sum(float v, int team) {
    if (team > 32) return block_sum(v);
    for (int step = team / 2; step > 0; step /= 2) v += __shfl_xor_sync(0xffffffffu, v, step);
    return v;
}

// A kernel takes what it computes, with `rows` and `n` in it, and the threads of a team.
template <class Rows> using TeamKernel = void (*)(std::type_identity_t<Rows>, int);
// by_held: for 0, 1, 2 and up to 4 pieces.
template <class Rows>
void start_teams(const Call& call, const Rows& a, bool aligned, const TeamKernel<Rows> (&by_held)[4]) {
    const Teams t = teams_of(a.n, aligned);
    launch(op_def(call.node.op).name, by_held[t.held == 4 ? 3 : t.held],
           {grid_for(call, a.rows, t.block / t.threads), t.block}, stream_of(call), a, t.threads);
}
// For what every row has, into `out`; none is held.
template <class Rows>
void start_rows(const Call& call, void (*kernel)(Rows, int, float*), const Rows& a, float* out) {
    const Teams t = teams_of(a.n, false);
    launch(op_def(call.node.op).name, kernel, {grid_for(call, a.rows, t.block / t.threads), t.block}, stream_of(call),
           a, t.threads, out);
}

}  // namespace cuda
}}  // namespace qlora
