// cuda_mma_emulation.h - what src/cuda/mma.cuh is on the emulation: asynchronous copies into shared memory, matrices
// from shared memory into registers, products of 16 x 8 x 16.
//
// cp.async copies at the last moment that its wait allows, what its source holds then; before, shared memory is as it
// was. Each lane of ldmatrix reads the row that it names itself, so that the sanitizers see who reads what.
#pragma once
#include "tests/cuda-emulation/cuda_warps.h"

namespace cuda_emulation {

inline int64_t tensor_products = 0;                    // multiplications and additions on tensor cores so far

inline bool is_aligned(const void* p, size_t bytes) { return reinterpret_cast<uintptr_t>(p) % bytes == 0; }

// 16 bytes; zeros where not `inside`: the source is not read then, and may be any aligned address.
inline void cp_async16(void* to, const void* from, bool inside, int line = __builtin_LINE()) {
    const Quiet quiet;
    if (!is_aligned(to, 16) || !is_aligned(from, 16))
        refuse(line, "cp.async at an address that is not a multiple of 16");
    Thread& me = *block->running;
    me.copies.push_back({to, inside ? from : nullptr, me.copy_groups, line});
}
inline void cp_async_commit() { ++block->running->copy_groups; }

// Until at most `left` of the groups that were committed last are under way.
template <int left>
void cp_async_wait() {
    Thread& me = *block->running;
    const auto landed = std::partition_point(me.copies.begin(), me.copies.end(), [&](const CopyUnderWay& c) {
        return c.group < me.copy_groups - left;
    });
    for (auto c = me.copies.begin(); c != landed; ++c) {
        uint32_t* const to = static_cast<uint32_t*>(c->to);
        for (int i = 0; i < 4; ++i) to[i] = c->from ? static_cast<const uint32_t*>(c->from)[i] : 0;
    }
    const Quiet quiet;
    me.copies.erase(me.copies.begin(), landed);
}

// Four 8 x 8 matrices of 16 bits; row r of matrix m is at the address that lane 8 m + r gives.
template <bool transposed>
void ldmatrix(uint32_t (&r)[4], const void* row, int line = __builtin_LINE()) {
    struct Row { uint16_t element[8]; };
    struct Fragment { uint32_t r[4]; };
    static const char operation = 0;
    if (!is_aligned(row, 16)) refuse(line, "ldmatrix of a row that is not a multiple of 16");
    Row mine;
    for (int i = 0; i < 8; ++i) mine.element[i] = static_cast<const uint16_t*>(row)[i];
    const auto spread = [](const GroupView<Row, Fragment>& warp) {
        for (int lane = 0; lane < 32; ++lane)
            for (int m = 0; m < 4; ++m) {
                const int i = lane / 4, j = lane % 4 * 2;
                const auto at = [&](int a, int b) {
                    return uint32_t(transposed ? warp.in(8 * m + b).element[a] : warp.in(8 * m + a).element[b]);
                };
                warp.out(lane).r[m] = at(i, j) | at(i, j + 1) << 16;
            }
    };
    const Fragment mine_now = collective<Fragment>(~0u, mine, &operation, line, spread);
    for (int m = 0; m < 4; ++m) r[m] = mine_now.r[m];
}

// d {16, 8} += a {16, 16} b {16, 8}: factors in bf16, sums in f32, here in the order of the inner dimension.
inline void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], int line = __builtin_LINE()) {
    struct Fragments { float d[4]; uint32_t a[4], b[2]; };
    struct Sums { float d[4]; };
    static const char operation = 0;
    const auto multiply = [](const GroupView<Fragments, Sums>& warp) {
        tensor_products += 16 * 8 * 16;
        float left[16][16], right[8][16];              // right: by column
        const auto unpack = [](float* to, uint32_t pair) {
            to[0] = __uint_as_float(pair << 16);
            to[1] = __uint_as_float(pair & 0xffff0000u);
        };
        for (int lane = 0; lane < 32; ++lane) {
            const int row = lane / 4, k = lane % 4 * 2;
            for (int i = 0; i < 4; ++i) unpack(&left[row + 8 * (i % 2)][k + 8 * (i / 2)], warp.in(lane).a[i]);
            for (int i = 0; i < 2; ++i) unpack(&right[row][k + 8 * i], warp.in(lane).b[i]);
        }
        for (int lane = 0; lane < 32; ++lane)
            for (int i = 0; i < 4; ++i) {
                const int row = lane / 4 + 8 * (i / 2), col = lane % 4 * 2 + i % 2;
                float sum = warp.in(lane).d[i];
                for (int k = 0; k < 16; ++k) sum += left[row][k] * right[col][k];
                warp.out(lane).d[i] = sum;
            }
    };
    const Fragments in{{d[0], d[1], d[2], d[3]}, {a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
    const Sums out = collective<Sums>(~0u, in, &operation, line, multiply);
    for (int i = 0; i < 4; ++i) d[i] = out.d[i];
}

}  // namespace cuda_emulation
