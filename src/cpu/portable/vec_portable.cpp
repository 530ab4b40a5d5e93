// vec_portable.cpp - the vector loops without special instructions; sixteen independent sums let any compiler use the
// vectors it has.
#include "src/cpu/exp_constants.h"
#include "src/cpu/kernels.h"

#include <bit>
#include <limits>

namespace qlora { inline namespace QLORA_ABI {
namespace vec_portable_room {

constexpr int lanes = 16;

float tree(const float* lane) {
    float part[lanes];
    for (int i = 0; i < lanes; ++i) part[i] = lane[i];
    for (int width = lanes / 2; width > 0; width /= 2)
        for (int i = 0; i < width; ++i) part[i] += part[i + width];
    return part[0];
}

// 2^n as a product of two powers, so that results below the normal range round once.
inline float exp1(float x) {
    using namespace exp_constants;
    const float within = x < least ? least : x > most ? most : x;            // NaN stays
    const float shifted = within * log2e + 0x1.8p23f, n = shifted - 0x1.8p23f;   // the adder rounds to a whole number
    const int32_t whole = std::bit_cast<int32_t>(shifted) - 0x4b400000, first = whole >> 1, second = whole - first;
    const float r = within - n * ln2_high - n * ln2_low;
    const float p = (((p4 * r + p3) * r + p2) * r + p1) * r + p0;
    return (r * r * p + r + 1) * std::bit_cast<float>((first + 127) << 23) * std::bit_cast<float>((second + 127) << 23);
}

inline float sigmoid(float x) { return 1 / (1 + exp1(-x)); }

float dot(const float* a, const float* b, int64_t n) {
    float s[lanes] = {};
    int64_t i = 0;
    for (; i + lanes <= n; i += lanes)
        for (int l = 0; l < lanes; ++l) s[l] += a[i + l] * b[i + l];
    for (int l = 0; i < n; ++i, ++l) s[l] += a[i] * b[i];
    return tree(s);
}

void dots(const float* a, const float* b, int64_t ldb, int64_t rows, int64_t n, float* y) {
    for (int64_t j = 0; j < rows; ++j) y[j] = dot(a, b + j * ldb, n);
}

// Long sums are halved until each lane adds sixteen numbers at most: the error grows with the logarithm of n, also for
// equal numbers.
float sum(const float* a, int64_t n) {
    if (n > 16 * 16) {
        const int64_t half = n / 2 / 16 * 16;
        return sum(a, half) + sum(a + half, n - half);
    }
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
    int64_t i = 0;
    for (; i + lanes <= n; i += lanes)
        for (int l = 0; l < lanes; ++l) s[l] += y[i + l] = exp1(x[i + l] - shift);
    for (int l = 0; i < n; ++i, ++l) s[l] += y[i] = exp1(x[i] - shift);
    return tree(s);
}

void silu(const float* x, float* y, int64_t n) {
    for (int64_t i = 0; i < n; ++i) y[i] = x[i] * sigmoid(x[i]);
}

void swiglu(const float* gate, const float* up, float* y, int64_t n) {
    for (int64_t i = 0; i < n; ++i) y[i] = gate[i] * sigmoid(gate[i]) * up[i];
}

void swiglu_back(const float* gate, const float* up, const float* dy, float* dgate, float* dup, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
        const float g = gate[i], u = up[i], d = dy[i], s = sigmoid(g);
        dgate[i] = d * u * s * (1 + g * (1 - s));
        dup[i] = d * g * s;
    }
}

}  // namespace vec_portable_room

constinit const Vec vec_portable QLORA_VEC_OF(vec_portable_room);

}}  // namespace qlora
