// tile_test.cpp - the tile products of every instruction set against double sums.
#include "src/base/rng.h"

#include "tests/support/every_set.h"

#include <gtest/gtest.h>

#include <cmath>

namespace tile_test {

std::vector<float> random_values(int64_t count, uint64_t seed) {
    qlora::Rng rng{seed};
    std::vector<float> values(static_cast<size_t>(count));
    for (float& v : values) v = rng.normal();
    return values;
}

TEST(Tile, ProductMatchesDoubleSums) {
    const int64_t m = 16, n = 64, k = 37, ldb = 70, ldc = 66;
    const std::vector<float> a = random_values(m * k, 1), b = random_values(k * ldb, 2), c = random_values(m * ldc, 3);
    for (const qlora::Kernels& set : every_set_support::every_set()) {
        for (bool transposed : {false, true}) {
            for (bool add : {false, true}) {
                std::vector<float> got = c;
                const int64_t a_row = transposed ? 1 : k, a_step = transposed ? m : 1;
                set.tile.product(m, n, k, a.data(), a_row, a_step, b.data(), ldb, got.data(), ldc, add);
                for (int64_t i = 0; i < m; ++i)
                    for (int64_t j = 0; j < ldc; ++j) {
                        double want = j >= n || add ? double(c[size_t(i * ldc + j)]) : 0, size = std::abs(want);
                        for (int64_t p = 0; j < n && p < k; ++p) {
                            const double term = double(a[size_t(i * a_row + p * a_step)]) * b[size_t(p * ldb + j)];
                            want += term;
                            size += std::abs(term);
                        }
                        // k ulps
                        ASSERT_NEAR(got[size_t(i * ldc + j)], want, size * 3e-6)
                            << set.name << ' ' << transposed << add << " at " << i << ", " << j;
                    }
            }
        }
    }
}

TEST(Tile, DotsAndMixTakeAnyLength) {
    const int64_t rows = 5, ld = 150;
    const std::vector<float> x = random_values(ld, 4), b = random_values(rows * ld, 5), s = random_values(rows, 6);
    for (const qlora::Kernels& set : every_set_support::every_set()) {
        for (int64_t n : {1, 7, 16, 31, 48, 64, 80, 129}) {
            std::vector<float> y(size_t(rows), 99), mixed(size_t(n + 1), 0.5f);
            set.tile.dots(x.data(), b.data(), ld, rows, n, y.data());
            set.tile.mix(s.data(), b.data(), ld, rows, n, mixed.data());
            for (int64_t j = 0; j < rows; ++j) {
                double want = 0, size = 0;
                for (int64_t i = 0; i < n; ++i) {
                    want += double(x[size_t(i)]) * b[size_t(j * ld + i)];
                    size += std::abs(double(x[size_t(i)]) * b[size_t(j * ld + i)]);
                }
                ASSERT_NEAR(y[size_t(j)], want, size * 3e-6) << set.name << " n " << n;
            }
            for (int64_t i = 0; i < n; ++i) {
                double want = 0.5;
                for (int64_t j = 0; j < rows; ++j) want += double(s[size_t(j)]) * b[size_t(j * ld + i)];
                ASSERT_NEAR(mixed[size_t(i)], want, 1e-5) << set.name << " n " << n;
            }
            ASSERT_EQ(mixed[size_t(n)], 0.5f) << "wrote past the end";
        }
    }
}

TEST(Tile, Transpose) {
    const std::vector<float> from = random_values(11 * 9, 7);
    for (int64_t rows : {1, 4, 7, 11})
        for (int64_t cols : {1, 4, 6, 9}) {
            std::vector<float> to(size_t(9 * 12), -1);
            qlora::transpose(from.data(), 9, rows, cols, to.data(), 12);
            for (int64_t i = 0; i < 9; ++i)
                for (int64_t j = 0; j < 12; ++j) {
                    const bool inside = i < cols && j < rows;
                    ASSERT_EQ(to[size_t(i * 12 + j)], inside ? from[size_t(j * 9 + i)] : -1.0f)
                        << rows << " x " << cols << " at " << i << ", " << j;
                }
        }
}

}  // namespace tile_test
