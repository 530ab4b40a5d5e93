// svd.cpp - the largest singular values of a matrix by subspace iteration from a random start (arXiv:0909.4061, algorithm 4.4):
//
//   Q {k, cols} = orthonormal rows, random;   repeat  Y {k, rows} = orthonormal(Q W^T),  Q = orthonormal(Y W)
//   then W ~ (Q W^T)^T Q, whose own singular values follow by Jacobi rotations of the rows of Q W^T, each done to the rows of Q as well.
//
// k exceeds the wanted rank, so that what lies just below it disturbs little. A round shrinks the error in direction i by (s[k+1] / s[i])^2;
// rounds end when the squares captured by the wanted directions grow no more. The products with W run in f32, everything else in f64.
// With k = min(rows, cols) one round makes the subspace the whole row space, and the result is exact to rounding.
#include "src/model/svd.h"

#include "src/base/rng.h"
#include "src/cpu/gemm.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace qlora::inline v0_1 {
namespace svd_room {

constexpr int64_t extra = 16;                          // directions beyond the rank
constexpr int most_rounds = 24;                        // spectra of noise are flat: directions never settle, the captured squares do long before
constexpr double settled = 1e-7;                       // relative growth of the captured squares that ends the rounds
constexpr int most_sweeps = 40;                        // Jacobi converges quadratically: about eight are enough

struct Rows {                                          // k vectors of n, one a row
    int64_t k, n;
    std::vector<double> at;
    Rows(int64_t k, int64_t n) : k(k), n(n), at(size_t(k * n)) {}
    double* row(int64_t i) { return at.data() + i * n; }
};

double dot(const double* a, const double* b, int64_t n) {
    double lanes[4] = {};                              // four sums: the compiler may keep them in one register
    int64_t i = 0;
    for (; i + 4 <= n; i += 4)
        for (int l = 0; l < 4; ++l) lanes[l] += a[i + l] * b[i + l];
    for (; i < n; ++i) lanes[0] += a[i] * b[i];
    return (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
}

// Gram-Schmidt, each vector twice against all before it ("twice is enough"). What is nothing but rounding becomes zero and stays out.
void orthonormalize(Rows& q) {
    for (int64_t i = 0; i < q.k; ++i) {
        double* v = q.row(i);
        const double before = std::sqrt(dot(v, v, q.n));
        for (int pass = 0; pass < 2; ++pass)
            for (int64_t j = 0; j < i; ++j) {
                const double* u = q.row(j);
                const double d = dot(u, v, q.n);
                for (int64_t e = 0; e < q.n; ++e) v[e] -= d * u[e];
            }
        const double norm = std::sqrt(dot(v, v, q.n));
        const double inverse = norm > 1e-9 * before && norm > 0 ? 1 / norm : 0;
        for (int64_t e = 0; e < q.n; ++e) v[e] *= inverse;
    }
}

// to = from W^T (towards rows) or from W (towards columns), in f32.
void multiply(Cpu& cpu, const Rows& from, const WeightRef& w, bool transposed, Rows& to) {
    const std::vector<float> x(from.at.begin(), from.at.end());
    std::vector<float> y(to.at.size());
    if (transposed) gemm_nt(cpu, from.k, x.data(), from.n, w, y.data(), to.n);
    else gemm_nn(cpu, from.k, x.data(), from.n, w, y.data(), to.n);
    std::copy(y.begin(), y.end(), to.at.begin());
}

// Rotates pairs of rows of y until all are orthogonal; q turns along, so that y^T q stays what it is.
void jacobi(Rows& y, Rows& q) {
    const auto rotate = [](double* a, double* b, int64_t n, double c, double s) {
        for (int64_t e = 0; e < n; ++e) {
            const double x = a[e];
            a[e] = c * x - s * b[e];
            b[e] = s * x + c * b[e];
        }
    };
    for (int sweep = 0; sweep < most_sweeps; ++sweep) {
        bool turned = false;
        for (int64_t i = 0; i < y.k; ++i)
            for (int64_t j = i + 1; j < y.k; ++j) {
                const double a = dot(y.row(i), y.row(i), y.n), b = dot(y.row(j), y.row(j), y.n), mixed = dot(y.row(i), y.row(j), y.n);
                if (std::fabs(mixed) <= 1e-12 * std::sqrt(a * b) || mixed == 0) continue;
                turned = true;
                const double zeta = (b - a) / (2 * mixed), t = (zeta < 0 ? -1 : 1) / (std::fabs(zeta) + std::sqrt(1 + zeta * zeta));
                const double c = 1 / std::sqrt(1 + t * t), s = c * t;
                rotate(y.row(i), y.row(j), y.n, c, s);
                rotate(q.row(i), q.row(j), q.n, c, s);
            }
        if (!turned) return;
    }
}

}  // namespace svd_room

LowRank truncated_svd(Cpu& cpu, const float* w, int64_t rows, int64_t cols, int64_t rank) {
    using svd_room::Rows;
    const int64_t least = std::min(rows, cols);
    if (rank < 1 || rank > least) fail(Errc::argument, "svd: rank ", rank, " of a matrix of shape {", rows, ", ", cols, "}, expected 1 to ", least);
    for (int64_t e = 0; e < rows * cols; ++e)
        if (!std::isfinite(w[e])) fail(Errc::numeric, "svd: element ", e, " is ", w[e]);
    const int64_t k = std::min(rank + svd_room::extra, least);
    const WeightRef matrix = dense_ref(w, rows, cols);
    Rows q(k, cols), y(k, rows);
    Rng rng{0, 0, 0};
    for (double& e : q.at) e = rng.normal();
    svd_room::orthonormalize(q);
    double captured = 0;
    for (int round = 0; round < svd_room::most_rounds; ++round) {
        svd_room::multiply(cpu, q, matrix, true, y);
        const double now = svd_room::dot(y.at.data(), y.at.data(), int64_t(y.at.size()));
        if ((k == least && round > 0) || now <= captured * (1 + svd_room::settled)) break;
        captured = now;
        svd_room::orthonormalize(y);
        svd_room::multiply(cpu, y, matrix, false, q);
        svd_room::orthonormalize(q);
    }
    svd_room::multiply(cpu, q, matrix, true, y);
    svd_room::jacobi(y, q);

    std::vector<double> norms;
    for (int64_t i = 0; i < k; ++i) norms.push_back(std::sqrt(svd_room::dot(y.row(i), y.row(i), rows)));
    std::vector<int64_t> order(static_cast<size_t>(k));
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return norms[size_t(a)] > norms[size_t(b)]; });
    LowRank out;
    out.rank = rank;
    for (int64_t i = 0; i < rank; ++i) {
        const int64_t from = order[size_t(i)];
        const double s = norms[size_t(from)];
        out.s.push_back(s);
        for (int64_t e = 0; e < rows; ++e) out.u.push_back(s > 0 ? y.row(from)[e] / s : 0);
        out.v.insert(out.v.end(), q.row(from), q.row(from) + cols);
    }
    return out;
}

}  // namespace qlora
