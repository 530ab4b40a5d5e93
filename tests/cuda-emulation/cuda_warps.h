// cuda_warps.h - __syncthreads() and the operations of a warp.
#pragma once
#include "tests/cuda-emulation/cuda_launch.h"

namespace cuda_emulation {

inline int lane() { return int(block->running->number % 32); }

template <class T>
T exchange(uint32_t mask, T value, int source, int line) {
    struct Wish { T value; int source; };
    static const char operation = 0;
    return collective<T>(mask, Wish{value, source}, &operation, line, [](const GroupView<Wish, T>& warp) {
        for (int lane = 0; lane < 32; ++lane) {
            if (!warp.has(lane)) continue;
            const int from = warp.in(lane).source;
            if (!warp.has(from)) refuse(warp.request.line, "a shuffle reads a lane outside the mask");
            warp.out(lane) = warp.in(from).value;
        }
    });
}

// f(a, b) over the values of all lanes, in order, for each of them.
template <class T, class F>
T reduce(uint32_t mask, T value, int line, const F& f) {
    static const char operation = 0;
    return collective<T>(mask, value, &operation, line, [&](const GroupView<T, T>& warp) {
        T all{};
        bool first = true;
        for (int lane = 0; lane < 32; ++lane)
            if (warp.has(lane)) all = std::exchange(first, false) ? warp.in(lane) : f(all, warp.in(lane));
        for (int lane = 0; lane < 32; ++lane)
            if (warp.has(lane)) warp.out(lane) = all;
    });
}
inline uint32_t ballot(uint32_t mask, bool value, int line) {
    return reduce(mask, value ? 1u << lane() : 0u, line, [](uint32_t a, uint32_t b) { return a | b; });
}
inline void meet(uint32_t mask, int line) {
    static const char operation = 0;
    collective<char>(mask, char(0), &operation, line, [](const GroupView<char, char>&) {});
}

}  // namespace cuda_emulation

inline void __syncthreads(int line = __builtin_LINE()) { cuda_emulation::barrier(line); }
inline void __syncwarp(uint32_t mask = ~0u, int line = __builtin_LINE()) { cuda_emulation::meet(mask, line); }
[[noreturn]] inline void __trap() { throw cuda_emulation::Failure("__trap(), " + cuda_emulation::place()); }

template <class T>
T __shfl_sync(uint32_t mask, T value, int source, int line = __builtin_LINE()) {
    return cuda_emulation::exchange(mask, value, source & 31, line);
}
template <class T> T __shfl_xor_sync(uint32_t mask, T value, int bits, int line = __builtin_LINE()) {
    return cuda_emulation::exchange(mask, value, cuda_emulation::lane() ^ bits, line);
}
template <class T> T __shfl_down_sync(uint32_t mask, T value, unsigned by, int line = __builtin_LINE()) {
    const int from = cuda_emulation::lane() + int(by);
    return cuda_emulation::exchange(mask, value, from < 32 ? from : cuda_emulation::lane(), line);
}
template <class T> T __shfl_up_sync(uint32_t mask, T value, unsigned by, int line = __builtin_LINE()) {
    const int from = cuda_emulation::lane() - int(by);
    return cuda_emulation::exchange(mask, value, from >= 0 ? from : cuda_emulation::lane(), line);
}

inline uint32_t __ballot_sync(uint32_t mask, int value, int line = __builtin_LINE()) {
    return cuda_emulation::ballot(mask, value != 0, line);
}
inline int __any_sync(uint32_t mask, int value, int line = __builtin_LINE()) {
    return cuda_emulation::ballot(mask, value != 0, line) != 0;
}
inline int __all_sync(uint32_t mask, int value, int line = __builtin_LINE()) {
    return cuda_emulation::ballot(mask, value == 0, line) == 0;
}
#define QLORA_REDUCTION(name, result)                                                         \
    template <cuda_emulation::Counts T>                                                       \
    T name(uint32_t mask, T value, int line = __builtin_LINE()) {                             \
        return cuda_emulation::reduce(mask, value, line, [](T a, T b) { return T(result); }); \
    }
QLORA_REDUCTION(__reduce_add_sync, a + b)
QLORA_REDUCTION(__reduce_min_sync, b < a ? b : a)
QLORA_REDUCTION(__reduce_max_sync, a < b ? b : a)
QLORA_REDUCTION(__reduce_or_sync, a | b)
#undef QLORA_REDUCTION
