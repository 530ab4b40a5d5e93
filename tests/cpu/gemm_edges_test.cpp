// gemm_edges_test.cpp - the edges of register tiles: every count of rows and columns up to a tile's, depths that fill
// no granule, values that are no numbers, what is packed, and that a thread is left without tiles of AMX.
#include "src/base/half.h"
#include "tests/support/every_set.h"
#include "tests/support/normals.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

namespace gemm_edges_test {

using namespace qlora;
using every_set_support::every_set;
using normals_support::normals;

constexpr float infinity = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();

std::vector<float> transposed(const std::vector<float>& v, int64_t rows, int64_t cols) {
    std::vector<float> t(v.size());
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = 0; c < cols; ++c) t[size_t(c * rows + r)] = v[size_t(r * cols + c)];
    return t;
}

// c[m, n] = a[m, depth] b[depth, n], three ways: by the first one few rows are not products of tiles.
struct Product {
    int64_t m, n, depth;
    std::vector<float> a, b;

    Product(int64_t rows, int64_t cols, int64_t deep)
        : m(rows), n(cols), depth(deep), a(normals(rows * deep, 1)), b(normals(deep * cols, 2)) {}

    std::vector<float> run(Cpu& cpu, int way) const {
        std::vector<float> c(size_t(m * n), nan);
        if (way == 0) {
            const std::vector<float> w = transposed(b, depth, n);
            gemm_nt(cpu, m, a.data(), depth, dense_ref(w.data(), n, depth), c.data(), n);
        } else if (way == 1) {
            gemm_nn(cpu, m, a.data(), depth, dense_ref(b.data(), depth, n), c.data(), n);
        } else {
            const std::vector<float> left = transposed(a, m, depth);
            gemm_tn(cpu, depth, m, n, left.data(), m, b.data(), n, c.data(), n);
        }
        return c;
    }

    // A sum is as far off as its magnitudes allow, more where each float is two numbers of bf16 (gemm.h has the bound);
    // of what is no number only the kind is compared.
    void check(Cpu& cpu, int way) const {
        const std::vector<float> c = run(cpu, way);
        const GemmKernels* products = &cpu.kernels->gemm_for(way ? cpu.gradients() : cpu.compute);
        const bool bf16 = products == cpu.kernels->gemm_bf16, split = products == cpu.kernels->gemm_split;
        const double lost = 1e-6 + (split ? 3.1 / 65536 : 0);
        const auto rounded = [&](float v) {
            const float held = f32_from_bf16(bf16_from_f32(v));
            return bf16 || (split && std::isinf(held)) ? held : v;
        };
        for (int64_t i = 0; i < m; ++i)
            for (int64_t j = 0; j < n; ++j) {
                double sum = 0, size = 0;
                for (int64_t d = 0; d < depth; ++d) {
                    const double term = double(rounded(a[size_t(i * depth + d)])) * rounded(b[size_t(d * n + j)]);
                    sum += term;
                    size += std::abs(term);
                }
                const double want = std::abs(sum) > std::numeric_limits<float>::max() ? sum * infinity : sum;
                const float got = c[size_t(i * n + j)];
                const bool same = std::isnan(want)   ? std::isnan(got)
                                  : std::isinf(want) ? double(got) == want || (split && std::isnan(got))
                                                     : std::abs(got - want) <= lost * size + 1e-30;
                ASSERT_TRUE(same) << cpu.kernels->name << ' ' << name_of(cpu.compute) << " way " << way << " m " << m
                                  << " n " << n << " depth " << depth << " at " << i << ", " << j << ": " << got
                                  << " for " << want;
            }
    }
};

constexpr int ways = 3;

void check_all(const Product& product) {
    for (const Kernels& set : every_set())
        for (const Compute compute : {Compute::f32, Compute::bf16, Compute::mixed}) {
            Cpu cpu(2, compute, set);
            const bool few = product.m <= rows_alike(cpu, dense_ref(product.b.data(), product.n, product.depth));
            for (int way = few ? 1 : 0; way < ways; ++way) {
                product.check(cpu, way);
                if (::testing::Test::HasFatalFailure()) return;
            }
        }
}

TEST(GemmEdges, EveryCountOfRowsColumnsAndDepths) {
    for (int64_t count = 1; count <= 33; ++count) {
        check_all({count, 33, 95});
        check_all({33, count, 65});
        if (HasFatalFailure()) return;
    }
    for (int64_t depth = 1; depth <= 70; ++depth) {
        check_all({18, 37, depth});
        if (HasFatalFailure()) return;
    }
}

// Zeros that fill a granule must meet zeros: an infinity beside them would make a NaN of them.
TEST(GemmEdges, WhatIsNoNumberComesOut) {
    const float most = std::numeric_limits<float>::max();              // an infinity in bf16
    for (const int64_t depth : {1, 33, 64, 519}) {
        Product product(20, 35, depth);
        const auto a = [&](int64_t row, int64_t at) -> float& { return product.a[size_t(row * depth + at)]; };
        a(0, depth - 1) = infinity;
        a(3, 0) = -infinity;
        a(7, depth / 2) = nan;
        a(11, depth - 1) = most;
        a(17, 0) = infinity;
        a(17, depth - 1) = -infinity;
        product.b[size_t((depth - 1) * 35 + 34)] = infinity;
        product.b[size_t((depth - 1) * 35 + 16)] = nan;
        product.b[2] = 0;                              // times an infinity
        check_all(product);
        if (HasFatalFailure()) return;
    }
}

// Both instructions for bf16 take what is subnormal for zero.
TEST(GemmEdges, SubnormalsOfBf16AreZero) {
    for (const Kernels& set : every_set()) {
        if (!set.gemm_bf16) continue;
        Cpu cpu(1, Compute::bf16, set);
        Product product(20, 35, 40);
        std::fill(product.a.begin(), product.a.end(), 1e-39f);
        for (int way = 0; way < ways; ++way)
            EXPECT_EQ(product.run(cpu, way), std::vector<float>(size_t(20 * 35), 0.0f)) << set.name << " way " << way;
    }
}

// What lies in memory that is not all written, or read beyond the end, differs from call to call.
std::string packed(GemmKernels::Pack pack, const std::vector<float>& source, int64_t ld, int64_t lines, int64_t depth,
                   int64_t width, int64_t bytes, char before) {
    Scratch memory;
    char* to = static_cast<char*>(memory.bytes(bytes));
    std::memset(to, before, size_t(bytes));
    pack(source.data(), ld, lines, depth, width, to);
    return {to, size_t(bytes)};
}

TEST(GemmEdges, FactorsArePackedTheSameFromEitherSide) {
    for (const Kernels& set : every_set())
        for (const Compute compute : {Compute::f32, Compute::bf16, Compute::mixed})
            for (const int64_t depth : {1, 2, 31, 33, 64, 100}) {
                const GemmKernels* k = &set.gemm_for(compute);
                for (int64_t lines = 1; lines <= std::max(k->rows, k->cols); ++lines) {
                    const std::vector<float> across = normals(lines * depth, 5),
                                             along = transposed(across, lines, depth);
                    const int64_t padded = k->padded(depth);
                    std::vector<float> filled(size_t(lines * padded));
                    for (int64_t l = 0; l < lines; ++l)
                        std::copy_n(&across[size_t(l * depth)], depth, &filled[size_t(l * padded)]);
                    const auto check = [&](GemmKernels::Pack one, GemmKernels::Pack other, int64_t width,
                                           int64_t bytes) {
                        const std::string want = packed(one, filled, padded, lines, padded, width, bytes, 0);
                        EXPECT_EQ(packed(one, across, depth, lines, depth, width, bytes, -1), want);
                        EXPECT_EQ(packed(other, along, lines, lines, depth, width, bytes, -1), want);
                    };
                    if (lines <= k->rows) check(k->left_across, k->left_along, k->rows, k->bytes_of_strip(depth));
                    if (lines <= k->cols) check(k->right_across, k->right_along, k->cols, k->bytes_of_panel(depth));
                    ASSERT_FALSE(HasFailure()) << set.name << " lines " << lines << " depth " << depth;
                }
            }
}

#if defined(__x86_64__)
// Which states of this thread are not as they were at its start: bit 18 is that of tiles.
uint64_t states_in_use() {
    uint32_t low = 0, high = 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(1));
    return uint64_t(high) << 32 | low;
}

TEST(GemmEdges, NoTilesAreLeftInAThread) {
    for (const Kernels& set : every_set()) {
        if (set.name != "amx") continue;
        Cpu cpu(1, Compute::bf16, set);
        for (int way = 0; way < ways; ++way) {
            Product(40, 40, 600).run(cpu, way);
            EXPECT_EQ(states_in_use() & (uint64_t(3) << 17), 0u) << "way " << way;
        }
        return;
    }
    GTEST_SKIP() << "no AMX here, or another set was asked for";
}
#endif

}  // namespace gemm_edges_test
