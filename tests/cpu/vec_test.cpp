// vec_test.cpp - the vector loops of every instruction set against the standard library in double, at every length of
// tail.
#include "src/base/rng.h"

#include "tests/support/every_set.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

namespace vec_test {

using namespace qlora;
using every_set_support::every_set;

std::vector<float> normals(int64_t n, uint64_t stream, float by = 1) {
    Rng rng{7, stream};
    std::vector<float> v(size_t(n), 0.0f);
    for (float& x : v) x = by * rng.normal();
    return v;
}

constexpr float untouched = 123.0f;
constexpr float infinity = std::numeric_limits<float>::infinity();

double ulp_of(double x) {                              // the distance of floats near x
    const float f = float(std::abs(x));
    return f < 0x1p-126f ? 0x1p-149 : std::ldexp(1.0, std::ilogb(f) - 23);
}

TEST(Vec, ExpWithinTwoUlp) {
    std::vector<float> x;
    for (float v = -110; v < 90; v += 0.00173f) x.push_back(v);
    for (float v : {0.0f, -0.0f, 1e-30f, -1e-30f, 88.72283f, -87.33655f, -103.97f, -103.9f, -1e30f}) x.push_back(v);
    for (const Kernels& set : every_set()) {
        std::vector<float> y(x.size());
        set.vec.exp_sum(x.data(), 0, y.data(), int64_t(x.size()));
        double worst = 0;
        for (size_t i = 0; i < x.size(); ++i) {
            const double want = std::exp(double(x[i]));
            if (want > std::numeric_limits<float>::max()) {
                ASSERT_EQ(y[i], infinity) << set.name << " exp(" << x[i] << ")";
                continue;
            }
            worst = std::max(worst, std::abs(y[i] - want) / ulp_of(want));
        }
        EXPECT_LE(worst, 2.0) << set.name;
        RecordProperty("worst_ulp_" + std::string(set.name), std::to_string(worst));
    }
}

TEST(Vec, ExpOfSpecialValues) {
    for (const Kernels& set : every_set()) {
        const float x[5] = {-infinity, infinity, std::numeric_limits<float>::quiet_NaN(), -200, 200};
        float y[5];
        set.vec.exp_sum(x, 0, y, 5);
        EXPECT_EQ(y[0], 0.0f) << set.name;
        EXPECT_EQ(y[1], infinity) << set.name;
        EXPECT_TRUE(std::isnan(y[2])) << set.name;
        EXPECT_EQ(y[3], 0.0f) << set.name;
        EXPECT_EQ(y[4], infinity) << set.name;
        float masked[20];                              // a row of attention scores with all but one entry masked
        std::fill_n(masked, 20, -infinity);
        masked[18] = 3;
        EXPECT_EQ(set.vec.exp_sum(masked, 3, masked, 20), 1.0f) << set.name;
        EXPECT_EQ(masked[18], 1.0f);
    }
}

TEST(Vec, SumsAtEveryLength) {
    for (const Kernels& set : every_set()) {
        const Vec& v = set.vec;
        for (int64_t n = 0; n < 200; ++n) {
            const std::vector<float> a = normals(n, 1), b = normals(n, 2);
            double dot = 0, sum = 0, size = 0;
            float most = -infinity;
            for (int64_t i = 0; i < n; ++i) {
                const size_t at = size_t(i);
                dot += double(a[at]) * b[at];
                sum += a[at];
                size += std::abs(double(a[at]) * b[at]) + std::abs(a[at]);
                most = std::max(most, a[at]);
            }
            ASSERT_NEAR(v.dot(a.data(), b.data(), n), dot, 1e-6 * size) << set.name << " n " << n;
            constexpr int64_t rows = 2 * 16 + 3;       // more than share their last additions
            const std::vector<float> many = normals(rows * (n + 2), 3);
            float dots[rows];
            v.dots(a.data(), many.data(), n + 2, rows, n, dots);
            for (int64_t j = 0; j < rows; ++j)
                ASSERT_EQ(dots[j], v.dot(a.data(), many.data() + j * (n + 2), n)) << set.name << " n " << n;
            ASSERT_NEAR(v.sum(a.data(), n), sum, 1e-6 * size) << set.name << " n " << n;
            ASSERT_EQ(v.max(a.data(), n), most) << set.name << " n " << n;
        }
    }
}

TEST(Vec, LongSumsOfEqualNumbersStayAccurate) {
    for (const Kernels& set : every_set()) {
        for (const int64_t n : {1000, 1024, 12345, 1 << 20}) {
            const std::vector<float> a(size_t(n), 0.1f);   // a plain running sum would drift by 1e-2
            EXPECT_NEAR(set.vec.sum(a.data(), n), double(0.1f) * double(n), 3e-7 * 0.1 * double(n))
                << set.name << " n " << n;
        }
    }
}

TEST(Vec, MaxOfNegativeNumbersAndInfinities) {
    for (const Kernels& set : every_set()) {
        for (int64_t n = 1; n < 40; ++n) {
            const std::vector<float> low(size_t(n), -5.0f), none(size_t(n), -infinity);
            EXPECT_EQ(set.vec.max(low.data(), n), -5.0f);
            EXPECT_EQ(set.vec.max(none.data(), n), -infinity);
        }
    }
}

const double root = std::sqrt(2 / std::acos(-1.0));    // of 2 / pi

double gelu(double x) { return 0.5 * x * (1 + std::tanh(root * (x + 0.044715 * x * x * x))); }
double gelu_slope(double x) {
    const double t = std::tanh(root * (x + 0.044715 * x * x * x));
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * root * (1 + 3 * 0.044715 * x * x);
}
double gelu_erf(double x) { return 0.5 * x * std::erfc(-x / std::sqrt(2.0)); }
double gelu_erf_slope(double x) {
    return 0.5 * std::erfc(-x / std::sqrt(2.0)) + x * std::exp(-x * x / 2) / std::sqrt(2 * std::acos(-1.0));
}

TEST(Vec, ElementwiseAtEveryLengthWithoutTouchingTheNext) {
    for (const Kernels& set : every_set()) {
        const Vec& v = set.vec;
        for (int64_t n = 0; n < 70; ++n) {
            const std::vector<float> a = normals(n, 1, 2), b = normals(n, 2, 2), d = normals(n, 3, 2);
            std::vector<float> axpy = b, scale(size_t(n + 1), untouched), add = scale, mul = scale, exps = scale,
                               silu = scale, swiglu = scale, dgate = scale, geglu = scale, gelu_dgate = scale,
                               erf = scale, erf_dgate = scale, alone = scale, alone_dx = scale, shift = scale,
                               capped = scale, dcapped = scale;
            axpy.push_back(untouched);
            v.axpy(0.7f, a.data(), axpy.data(), n);
            v.scale(0.7f, a.data(), scale.data(), n);
            v.add(a.data(), b.data(), add.data(), n);
            v.mul(a.data(), b.data(), mul.data(), n);
            const float sum = v.exp_sum(a.data(), 1.5f, exps.data(), n);
            v.silu(a.data(), silu.data(), n);
            v.swiglu(a.data(), b.data(), swiglu.data(), n);
            v.swiglu_back(a.data(), b.data(), d.data(), dgate.data(), n);
            v.geglu(a.data(), b.data(), geglu.data(), n);
            v.geglu_back(a.data(), b.data(), d.data(), gelu_dgate.data(), n);
            v.geglu_erf(a.data(), b.data(), erf.data(), n);
            v.geglu_erf_back(a.data(), b.data(), d.data(), erf_dgate.data(), n);
            v.geglu_erf(a.data(), nullptr, alone.data(), n);
            v.geglu_erf_back(a.data(), nullptr, d.data(), alone_dx.data(), n);
            v.shift(0.7f, a.data(), shift.data(), n);
            v.softcap(1.5f, a.data(), capped.data(), n);
            v.softcap_back(1.5f, capped.data(), d.data(), dcapped.data(), n);
            double total = 0;
            for (int64_t i = 0; i < n; ++i) {
                const size_t at = size_t(i);
                const double x = a[at], y = b[at], g = d[at], s = 1 / (1 + std::exp(-x)),
                             e = std::exp(double(a[at] - 1.5f));
                total += e;
                const auto near = [&](float got, double want, const char* what) {
                    ASSERT_NEAR(got, want, 6e-7 * std::abs(want) + 1e-7)
                        << what << " " << set.name << " n " << n << " i " << i;
                };
                near(axpy[at], y + double(0.7f) * x, "axpy");
                near(scale[at], double(0.7f) * x, "scale");
                near(add[at], x + y, "add");
                near(mul[at], x * y, "mul");
                near(exps[at], e, "exp_sum");
                near(silu[at], x * s, "silu");
                near(swiglu[at], x * s * y, "swiglu");
                near(dgate[at], g * y * s * (1 + x * (1 - s)), "dgate");
                near(geglu[at], gelu(x) * y, "geglu");
                // where the slope passes 0 terms of order 1 cancel
                ASSERT_NEAR(gelu_dgate[at], g * y * gelu_slope(x), 5e-7 * std::abs(g * y))
                    << set.name << " x " << x;
                near(erf[at], gelu_erf(x) * y, "geglu of erf");
                ASSERT_NEAR(erf_dgate[at], g * y * gelu_erf_slope(x), 5e-7 * std::abs(g * y))
                    << set.name << " x " << x;
                near(alone[at], gelu_erf(x), "gelu");
                ASSERT_NEAR(alone_dx[at], g * gelu_erf_slope(x), 5e-7 * std::abs(g)) << set.name << " x " << x;
                near(shift[at], x + double(0.7f), "shift");
                near(capped[at], 1.5 * std::tanh(x / 1.5), "softcap");
                near(dcapped[at], g * (1 - std::pow(capped[at] / 1.5, 2)), "softcap_back");
            }
            EXPECT_NEAR(sum, total, 1e-6 * total);
            for (const auto* out : {&axpy, &scale, &add, &mul, &exps, &silu, &swiglu, &dgate, &geglu, &gelu_dgate, &erf,
                                    &erf_dgate, &alone, &alone_dx, &shift, &capped, &dcapped})
                ASSERT_EQ((*out)[size_t(n)], untouched) << set.name << " n " << n;
        }
    }
}

TEST(Vec, SwigluOfLargeGates) {
    for (const Kernels& set : every_set()) {
        const float gate[4] = {-300, 300, -90, 90}, up[4] = {2, 2, 2, 2}, dy[4] = {1, 1, 1, 1};
        float y[4], dgate[4];
        set.vec.swiglu(gate, up, y, 4);
        set.vec.swiglu_back(gate, up, dy, dgate, 4);
        for (int i = 0; i < 4; ++i) {
            EXPECT_NEAR(y[i], gate[i] > 0 ? 2 * gate[i] : 0, 1e-30) << set.name;
            EXPECT_NEAR(dgate[i], gate[i] > 0 ? 2 : 0, 1e-30) << set.name;
        }
    }
}

// The error of gelu is measured in x: far on the left, where gelu goes to 0, the relative error of the form of tanh
// grows with the argument of exp, like x^3.
TEST(Vec, GegluFromTailToTail) {
    std::vector<float> x;
    for (float v = -14; v < 14; v += 0.00137f) x.push_back(v);
    for (float v : {0.0f, -0.0f, 1e-30f, -1e-30f, 1e10f, -1e10f, 1e30f, -1e30f, 3e38f, -3e38f}) x.push_back(v);
    const std::vector<float> ones(x.size(), 1.0f);
    for (const Kernels& set : every_set()) {
        for (const bool erf : {false, true}) {
            const std::string title = std::string(set.name) + (erf ? ", erf" : ", tanh");
            std::vector<float> y(x.size()), dgate = y, alone = y, dx = y;
            const auto forward = erf ? set.vec.geglu_erf : set.vec.geglu;
            const auto back = erf ? set.vec.geglu_erf_back : set.vec.geglu_back;
            forward(x.data(), ones.data(), y.data(), int64_t(x.size()));
            back(x.data(), ones.data(), ones.data(), dgate.data(), int64_t(x.size()));
            forward(x.data(), nullptr, alone.data(), int64_t(x.size()));
            back(x.data(), nullptr, ones.data(), dx.data(), int64_t(x.size()));
            double worst = 0, worst_slope = 0;
            for (size_t i = 0; i < x.size(); ++i) {
                const double far = std::abs(x[i]);
                const double value = far >= 100 ? std::max(x[i], 0.0f) : erf ? gelu_erf(x[i]) : gelu(x[i]),
                             slope = far >= 100 ? x[i] > 0 : erf ? gelu_erf_slope(x[i]) : gelu_slope(x[i]);
                for (const float v : {y[i], alone[i]})
                    worst = std::max(worst, std::abs(v - value) / std::max(far, 1e-30));
                for (const float v : {dgate[i], dx[i]}) worst_slope = std::max(worst_slope, std::abs(v - slope));
                if (erf && x[i] > -5 && x[i] < 0) {    // the left tail keeps its digits, but for those of x^2
                    ASSERT_NEAR(y[i], value, 2e-6 * std::abs(value)) << title << " x " << x[i];
                }
                for (const float v : {y[i], alone[i], dgate[i], dx[i]})
                    ASSERT_TRUE(std::isfinite(v)) << title << " x " << x[i];
            }
            EXPECT_LE(worst, 3e-7) << title;
            EXPECT_LE(worst_slope, 5e-7) << title;
            const std::string key = std::string(set.name) + (erf ? "_erf" : "");
            RecordProperty("worst_of_x_" + key, std::to_string(1e7 * worst) + "e-7");
            RecordProperty("worst_slope_" + key, std::to_string(1e7 * worst_slope) + "e-7");
        }
    }
}

TEST(Vec, GeluByErfOfSpecialValues) {
    for (const Kernels& set : every_set()) {
        const float x[3] = {-infinity, infinity, std::numeric_limits<float>::quiet_NaN()}, ones[3] = {1, 1, 1};
        float y[3], dx[3];
        set.vec.geglu_erf(x, nullptr, y, 3);
        set.vec.geglu_erf_back(x, nullptr, ones, dx, 3);
        EXPECT_EQ(y[0], 0.0f) << set.name;
        EXPECT_EQ(y[1], infinity) << set.name;
        EXPECT_EQ(dx[0], 0.0f) << set.name;
        EXPECT_EQ(dx[1], 1.0f) << set.name;
        EXPECT_TRUE(std::isnan(y[2]) && std::isnan(dx[2])) << set.name;
    }
}

TEST(Vec, SoftcapWithinFiveUlp) {
    std::vector<float> x;
    for (float v = 1e-30f; v < 1e6f; v *= 1.00037f) x.push_back(v), x.push_back(-v);
    for (const Kernels& set : every_set()) {
        double worst = 0;
        for (const float cap : {1.0f, 30.0f, 50.0f, 0.37f}) {
            std::vector<float> y(x.size());
            set.vec.softcap(cap, x.data(), y.data(), int64_t(x.size()));
            for (size_t i = 0; i < x.size(); ++i) {
                const double want = double(cap) * std::tanh(double(x[i]) / double(cap));
                worst = std::max(worst, std::abs(y[i] - want) / ulp_of(want));
                ASSERT_LE(std::abs(y[i]), cap) << set.name << " x " << x[i];
            }
        }
        EXPECT_LE(worst, 5.0) << set.name;
        RecordProperty("worst_ulp_" + std::string(set.name), std::to_string(worst));
    }
}

TEST(Vec, SoftcapOfSpecialValues) {
    for (const Kernels& set : every_set()) {
        const float x[6] = {-infinity, infinity, std::numeric_limits<float>::quiet_NaN(), 0.0f, -0.0f, -1e30f};
        float y[6];
        set.vec.softcap(30, x, y, 6);
        EXPECT_EQ(y[0], -30.0f) << set.name;
        EXPECT_EQ(y[1], 30.0f) << set.name;
        EXPECT_TRUE(std::isnan(y[2])) << set.name;
        EXPECT_EQ(std::bit_cast<uint32_t>(y[3]), 0u) << set.name;
        EXPECT_EQ(std::bit_cast<uint32_t>(y[4]), 0x80000000u) << set.name;
        EXPECT_EQ(y[5], -30.0f) << set.name;
        const float dy[2] = {3, 3};
        float dx[2];
        set.vec.softcap_back(30, y, dy, dx, 2);       // past the cap nothing moves
        EXPECT_NEAR(dx[0], 0, 1e-6) << set.name;
        EXPECT_NEAR(dx[1], 0, 1e-6) << set.name;
    }
}

TEST(Vec, InPlace) {
    for (const Kernels& set : every_set()) {
        std::vector<float> a = normals(37, 4), b = a, c(37);
        const float first = set.vec.exp_sum(a.data(), 0.5f, c.data(), 37),
                    second = set.vec.exp_sum(b.data(), 0.5f, b.data(), 37);
        EXPECT_EQ(first, second);
        EXPECT_EQ(b, c);
        std::vector<float> x = normals(37, 5), y(37), dy = normals(37, 6), dx(37);
        set.vec.softcap(0.8f, x.data(), y.data(), 37);
        set.vec.softcap(0.8f, x.data(), x.data(), 37);
        EXPECT_EQ(x, y);
        set.vec.softcap_back(0.8f, y.data(), dy.data(), dx.data(), 37);
        set.vec.softcap_back(0.8f, y.data(), dy.data(), y.data(), 37);
        set.vec.softcap_back(0.8f, x.data(), dy.data(), dy.data(), 37);
        EXPECT_EQ(y, dx);
        EXPECT_EQ(dy, dx);
    }
}

}  // namespace vec_test
