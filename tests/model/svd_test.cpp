// svd_test.cpp - truncated singular value decomposition against matrices whose decomposition is known.
#include "src/model/svd.h"

#include "src/base/rng.h"

#include <gtest/gtest.h>

#include <cmath>

namespace svd_test {

using namespace qlora;

std::vector<float> noise(int64_t count, uint64_t seed) {
    Rng rng{seed, 5, 0};
    std::vector<float> v(static_cast<size_t>(count));
    for (float& x : v) x = rng.normal();
    return v;
}

double dot(const double* a, const double* b, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
    return sum;
}

double rest(const std::vector<float>& w, const LowRank& d, int64_t rows, int64_t cols) {   // squares of w - sum s u v^T
    double sum = 0;
    for (int64_t i = 0; i < rows; ++i)
        for (int64_t j = 0; j < cols; ++j) {
            double x = w[size_t(i * cols + j)];
            for (int64_t r = 0; r < d.rank; ++r)
                x -= d.s[size_t(r)] * d.u[size_t(r * rows + i)] * d.v[size_t(r * cols + j)];
            sum += x * x;
        }
    return sum;
}

// Orthonormal vectors, falling values, and all of them together give back the matrix: it is the decomposition.
TEST(Svd, WholeMatrices) {
    Cpu cpu(1);
    for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{9, 23}, {23, 9}, {12, 12}, {1, 7}, {7, 1}}) {
        const int64_t rank = std::min(rows, cols);
        const std::vector<float> w = noise(rows * cols, uint64_t(rows));
        const LowRank d = truncated_svd(cpu, w.data(), rows, cols, rank);
        EXPECT_LT(rest(w, d, rows, cols), 1e-9) << rows;
        for (int64_t i = 0; i < rank; ++i)
            for (int64_t j = 0; j <= i; ++j) {
                EXPECT_NEAR(dot(&d.u[size_t(i * rows)], &d.u[size_t(j * rows)], rows), i == j, 1e-6);
                EXPECT_NEAR(dot(&d.v[size_t(i * cols)], &d.v[size_t(j * cols)], cols), i == j, 1e-6);
                EXPECT_LE(d.s[size_t(i)], d.s[size_t(j)]);
            }
    }
}

// Steep spectra and flat ones (noise) alike are found to rounding: both what is left over and the directions
// themselves.
TEST(Svd, TheBestOfItsRank) {
    Cpu cpu(2);
    const int64_t rows = 150, cols = 210, rank = 8;
    const std::vector<float> u = noise(rows * 40, 1), v = noise(40 * cols, 2), flat = noise(rows * cols, 3);
    std::vector<float> steep(static_cast<size_t>(rows * cols));
    for (int64_t i = 0; i < rows; ++i)
        for (int64_t r = 0; r < 40; ++r)
            for (int64_t j = 0; j < cols; ++j)
                steep[size_t(i * cols + j)] += float(std::pow(0.7, double(r))) * u[size_t(i * 40 + r)] *
                                               v[size_t(r * cols + j)];
    for (const std::vector<float>* w : std::initializer_list<const std::vector<float>*>{&steep, &flat}) {
        const LowRank all = truncated_svd(cpu, w->data(), rows, cols, rows),
                      d = truncated_svd(cpu, w->data(), rows, cols, rank);
        double best = 0;
        for (size_t i = size_t(rank); i < all.s.size(); ++i) best += all.s[i] * all.s[i];
        EXPECT_NEAR(rest(*w, d, rows, cols) / best, 1, 1e-6);
        for (int64_t i = 0; i < rank; ++i) {
            EXPECT_NEAR(d.s[size_t(i)] / all.s[size_t(i)], 1, 1e-6) << i;
            EXPECT_NEAR(std::fabs(dot(&d.v[size_t(i * cols)], &all.v[size_t(i * cols)], cols)), 1, 1e-6) << i;
        }
    }
    // The same with any number of threads, every time.
    Cpu one(1);
    EXPECT_EQ(truncated_svd(one, flat.data(), rows, cols, rank).u, truncated_svd(cpu, flat.data(), rows, cols, rank).u);
}

TEST(Svd, DegenerateMatrices) {
    Cpu cpu(1);
    const std::vector<float> zero(30 * 20, 0.0f), x = noise(30, 7), y = noise(20, 8);
    const LowRank none = truncated_svd(cpu, zero.data(), 30, 20, 3);
    EXPECT_EQ(none.s, std::vector<double>(3, 0.0));
    std::vector<float> one;                            // of rank 1
    for (float a : x) for (float b : y) one.push_back(a * b);
    const LowRank d = truncated_svd(cpu, one.data(), 30, 20, 3);
    EXPECT_LT(d.s[1], 1e-5 * d.s[0]);
    EXPECT_LT(rest(one, d, 30, 20), 1e-8);
    for (double e : d.u) EXPECT_TRUE(std::isfinite(e));
    EXPECT_THROW(truncated_svd(cpu, zero.data(), 30, 20, 21), Error);
    EXPECT_THROW(truncated_svd(cpu, zero.data(), 30, 20, 0), Error);
    one[5] = std::nanf("");
    EXPECT_THROW(truncated_svd(cpu, one.data(), 30, 20, 3), Error);
}

}  // namespace svd_test
