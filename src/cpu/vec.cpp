// vec.cpp - the portable vector loops and the choice of the table by instruction set.
#include "src/cpu/vec.h"

#include <bit>
#include <cmath>
#include <limits>

namespace qlora::inline v0_1 {
namespace vec_room {

constexpr int lanes = 16;                              // independent sums: the compiler turns them into vectors of any width

float tree(const float* lane) {
    float part[lanes];
    for (int i = 0; i < lanes; ++i) part[i] = lane[i];
    for (int width = lanes / 2; width > 0; width /= 2)
        for (int i = 0; i < width; ++i) part[i] += part[i + width];
    return part[0];
}

float exp1(float x) { return std::exp(x); }

float dot(const float* a, const float* b, int64_t n) {
    float s[lanes] = {};
    int64_t i = 0;
    for (; i + lanes <= n; i += lanes)
        for (int l = 0; l < lanes; ++l) s[l] += a[i + l] * b[i + l];
    for (int l = 0; i < n; ++i, ++l) s[l] += a[i] * b[i];
    return tree(s);
}

float sum(const float* a, int64_t n) {
    float s[lanes] = {};
    int64_t i = 0;
    for (; i + lanes <= n; i += lanes)
        for (int l = 0; l < lanes; ++l) s[l] += a[i + l];
    for (int l = 0; i < n; ++i, ++l) s[l] += a[i];
    return tree(s);
}

float max(const float* a, int64_t n) {
    float m = -std::numeric_limits<float>::infinity();
    for (int64_t i = 0; i < n; ++i) m = a[i] > m ? a[i] : m;
    return m;
}

void axpy(float s, const float* x, float* y, int64_t n) {
    for (int64_t i = 0; i < n; ++i) y[i] += s * x[i];
}

void scale(float s, const float* x, float* y, int64_t n) {
    for (int64_t i = 0; i < n; ++i) y[i] = s * x[i];
}

void add(const float* a, const float* b, float* y, int64_t n) {
    for (int64_t i = 0; i < n; ++i) y[i] = a[i] + b[i];
}

void mul(const float* a, const float* b, float* y, int64_t n) {
    for (int64_t i = 0; i < n; ++i) y[i] = a[i] * b[i];
}

float exp_sum(const float* x, float shift, float* y, int64_t n) {
    float s[lanes] = {};
    for (int64_t i = 0; i < n; ++i) s[i % lanes] += y[i] = exp1(x[i] - shift);
    return tree(s);
}

void silu(const float* x, float* y, int64_t n) {
    for (int64_t i = 0; i < n; ++i) y[i] = x[i] / (1 + exp1(-x[i]));
}

void swiglu(const float* gate, const float* up, float* y, int64_t n) {
    for (int64_t i = 0; i < n; ++i) y[i] = gate[i] / (1 + exp1(-gate[i])) * up[i];
}

void swiglu_back(const float* gate, const float* up, const float* dy, float* dgate, float* dup, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
        const float g = gate[i], u = up[i], d = dy[i], s = 1 / (1 + exp1(-g));
        dgate[i] = d * u * s * (1 + g * (1 - s));
        dup[i] = d * g * s;
    }
}

const Vec portable{dot, sum, max, axpy, scale, add, mul, exp_sum, silu, swiglu, swiglu_back};

}  // namespace vec_room

const Vec& vec(Isa) { return vec_room::portable; }

}  // namespace qlora
