// svd.cpp - the largest singular values of a matrix: Chebyshev-filtered subspace iteration with deflation.
//
// Q {k, cols} holds guesses of right singular vectors, k a little more than what is still wanted. A round takes
//   Y = Q W^T, turned by Jacobi rotations until its rows are orthogonal (Q turns along): their lengths s are the
//   singular values so far; Z = Y W, so that z[i] - s[i]^2 q[i] is the residual of guess i. Guesses at the top that
//   have settled are taken out of W; the others go through p(W^T W), p the Chebyshev polynomial that is at most 1 where
//   s^2 is below that of the last guess and grows fastest above: spectra of weights are flat, and this needs a sixth of
//   the products of the power method (arXiv:0909.4061).
//
// The degree is bounded by what the largest value may grow to, since the products with W are in f32; what is found
// leaves W for that reason. Everything else is in f64. With k = min(rows, cols) the first round is exact to rounding.
#include "src/model/svd.h"

#include "src/base/rng.h"
#include "src/cpu/gemm.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace qlora { inline namespace QLORA_ABI {
namespace svd_room {

constexpr int64_t extra = 16;                          // directions beyond the rank
constexpr int most_rounds = 60;                        // far more than any spectrum has needed
constexpr double settled = 2e-5;                       // angle between a guess and its direction
// residual over the largest square: what rounding leaves, measured up to 4096 x 4096
constexpr double floor_of_f32 = 2e-6;
// of one direction beside another in a filter: leaves three digits of f32 to the smaller
constexpr double most_growth = 1e4;
constexpr int most_degree = 24;
constexpr int most_sweeps = 40;                        // Jacobi converges quadratically: about eight are enough

struct Rows {                                          // k vectors of n, one a row
    int64_t k, n;
    std::vector<double> at;
    Rows(int64_t vectors, int64_t length) : k(vectors), n(length), at(size_t(vectors * length)) {}
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

// Gram-Schmidt, each vector twice against all before it ("twice is enough"). What is nothing but rounding becomes zero
// and stays out.
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
                const double a = dot(y.row(i), y.row(i), y.n), b = dot(y.row(j), y.row(j), y.n),
                             mixed = dot(y.row(i), y.row(j), y.n);
                if (std::fabs(mixed) <= 1e-12 * std::sqrt(a * b) || mixed == 0) continue;
                turned = true;
                const double zeta = (b - a) / (2 * mixed),
                             t = (zeta < 0 ? -1 : 1) / (std::fabs(zeta) + std::sqrt(1 + zeta * zeta));
                const double c = 1 / std::sqrt(1 + t * t), s = c * t;
                rotate(y.row(i), y.row(j), y.n, c, s);
                rotate(q.row(i), q.row(j), q.n, c, s);
            }
        if (!turned) return;
    }
}

// Both, rows in the order of falling lengths of y's.
std::vector<double> sort(Rows& y, Rows& q) {
    std::vector<double> norms, sorted;
    for (int64_t i = 0; i < y.k; ++i) norms.push_back(std::sqrt(dot(y.row(i), y.row(i), y.n)));
    std::vector<int64_t> order(norms.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int64_t a, int64_t b) { return norms[size_t(a)] > norms[size_t(b)]; });
    Rows to_y(y.k, y.n), to_q(q.k, q.n);
    for (int64_t i = 0; i < y.k; ++i) {
        const int64_t from = order[size_t(i)];
        std::copy_n(y.row(from), y.n, to_y.row(i));
        std::copy_n(q.row(from), q.n, to_q.row(i));
        sorted.push_back(norms[size_t(from)]);
    }
    y = std::move(to_y);
    q = std::move(to_q);
    return sorted;
}

// How many guesses from the top have settled: their angles are their residuals over the distance to what the block does
// not hold.
int64_t settled_rows(const std::vector<double>& s, Rows& q, Rows& z, int64_t wanted) {
    const double below = s.back() * s.back(), rounding = floor_of_f32 * s[0] * s[0];
    int64_t count = 0;
    for (; count < wanted; ++count) {
        const double square = s[size_t(count)] * s[size_t(count)];
        double residual = 0;
        for (int64_t e = 0; e < q.n; ++e) {
            const double d = z.row(count)[e] - square * q.row(count)[e];
            residual += d * d;
        }
        if (std::sqrt(residual) > std::max(settled * (square - below), rounding)) break;
    }
    return count;
}

// rest -= y[i]^T q[i] for the first `count` guesses, which leave the block.
void take_out(Cpu& cpu, int64_t count, Rows& y, Rows& q, Rows& z, float* rest) {
    if (count == 0) return;
    const std::vector<float> u(y.at.begin(), y.at.begin() + count * y.n), v(q.at.begin(), q.at.begin() + count * q.n);
    gemm_tn(cpu, count, y.n, q.n, u.data(), y.n, v.data(), q.n, rest, q.n, -1, 1);
    for (Rows* r : {&y, &q, &z}) {
        r->at.erase(r->at.begin(), r->at.begin() + count * r->n);
        r->k -= count;
    }
}

// q = p(W^T W) q, given z = W^T W q, for values of W^T W up to `top`. T[d + 1] = 2 t(W^T W) T[d] - T[d - 1], t taking
// [0, b] to [-1, 1].
void filter(Cpu& cpu, const WeightRef& w, double top, double b, Rows& q, Rows& z) {
    if (!(b > 0)) { q = std::move(z); return; }        // the block spans the row space: nothing to damp
    const double growth = std::acosh(std::max(2 * top / b - 1, 1.0));
    const int degree = growth * most_degree > std::acosh(most_growth)
                           ? std::max(1, int(std::acosh(most_growth) / growth))
                           : most_degree;
    Rows y(q.k, w.rows), before = q, now = q;
    for (size_t e = 0; e < now.at.size(); ++e) now.at[e] = 2 / b * z.at[e] - q.at[e];
    for (int d = 1; d < degree; ++d) {
        multiply(cpu, now, w, true, y);
        multiply(cpu, y, w, false, z);
        for (size_t e = 0; e < z.at.size(); ++e) before.at[e] = 2 * (2 / b * z.at[e] - now.at[e]) - before.at[e];
        std::swap(before, now);
    }
    q = std::move(now);
}

}  // namespace svd_room

LowRank truncated_svd(Cpu& cpu, const float* w, int64_t rows, int64_t cols, int64_t rank) {
    using svd_room::Rows;
    const int64_t least = std::min(rows, cols);
    if (rank < 1 || rank > least)
        fail(Errc::argument, "svd: rank ", rank, " of a matrix of shape {", rows, ", ", cols, "}, expected 1 to ",
             least);
    for (int64_t e = 0; e < rows * cols; ++e)
        if (!std::isfinite(w[e])) fail(Errc::numeric, "svd: element ", e, " is ", w[e]);
    std::vector<float> rest(w, w + rows * cols);       // w without what has been found
    const WeightRef matrix = dense_ref(rest.data(), rows, cols);
    LowRank out;
    out.rank = rank;
    Rows q(std::min(rank + svd_room::extra, least), cols);
    const bool whole = q.k == least;                   // the block spans all there is
    Rng rng{0, 0, 0};
    for (double& e : q.at) e = rng.normal();
    if (whole) {    // of few rows the row space is smaller than the columns: a product goes there
        Rows y(q.k, rows);
        svd_room::multiply(cpu, q, matrix, true, y);
        svd_room::orthonormalize(y);
        svd_room::multiply(cpu, y, matrix, false, q);
    }
    for (int round = 1;; ++round) {
        svd_room::orthonormalize(q);
        Rows y(q.k, rows), z(q.k, cols);
        svd_room::multiply(cpu, q, matrix, true, y);
        svd_room::jacobi(y, q);
        const std::vector<double> s = svd_room::sort(y, q);
        svd_room::multiply(cpu, y, matrix, false, z);
        const int64_t wanted = rank - int64_t(out.s.size());
        const int64_t found = whole || round == svd_room::most_rounds ? wanted
                                                                      : svd_room::settled_rows(s, q, z, wanted);
        for (int64_t i = 0; i < found; ++i) {
            const double length = s[size_t(i)];
            out.s.push_back(length);
            for (int64_t e = 0; e < rows; ++e) out.u.push_back(length > 0 ? y.row(i)[e] / length : 0);
            out.v.insert(out.v.end(), q.row(i), q.row(i) + cols);
        }
        if (found == wanted) return out;
        svd_room::take_out(cpu, found, y, q, z, rest.data());
        svd_room::filter(cpu, matrix, s[size_t(found)] * s[size_t(found)], s.back() * s.back(), q, z);
    }
}

}}  // namespace qlora
