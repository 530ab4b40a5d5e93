// vec_portable.cpp - the vector loops without special instructions; sixteen independent sums let any compiler use the
// vectors it has.
#include "src/cpu/exp_constants.h"
#include "src/cpu/kernels.h"

#include <algorithm>
#include <bit>
#include <cmath>
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

struct Power {                                         // e^x = 2^n (1 + rest)
    int32_t n;
    float rest;
};

inline Power power_of(float x) {
    using namespace exp_constants;
    const float shifted = x * log2e + 0x1.8p23f, n = shifted - 0x1.8p23f;        // the adder rounds to a whole number
    const float r = x - n * ln2_high - n * ln2_low;
    const float p = (((p4 * r + p3) * r + p2) * r + p1) * r + p0;
    return {std::bit_cast<int32_t>(shifted) - 0x4b400000, r * r * p + r};
}

inline float power_of_2(int32_t n) { return std::bit_cast<float>((n + 127) << 23); }

// 2^n as a product of two powers, so that results below the normal range round once.
inline float exp1(float x) {
    using namespace exp_constants;
    const Power e = power_of(x < least ? least : x > most ? most : x);           // NaN stays
    const int32_t first = e.n >> 1;
    return (e.rest + 1) * power_of_2(first) * power_of_2(e.n - first);
}

inline float sigmoid(float x) { return 1 / (1 + exp1(-x)); }

inline float tanh_of_half(float d) {
    const float x = -std::abs(d);
    const Power e = power_of(x < tanh_constants::least ? tanh_constants::least : x);   // NaN stays
    const float power = power_of_2(e.n), t = e.rest * power + (power - 1);
    return std::copysign(t / (2 + t), d);
}

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

void shift(float s, const float* x, float* y, int64_t n) {
    for (int64_t i = 0; i < n; ++i) y[i] = x[i] + s;
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

void swiglu_back(const float* gate, const float* up, const float* dy, float* dgate, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
        const float g = gate[i], s = sigmoid(g);
        dgate[i] = dy[i] * up[i] * s * (1 + g * (1 - s));
    }
}

// gelu(x) and its derivative, in two forms: exp_constants.h.
struct ByTanh {
    static float value(float x, float& derivative) {
        using namespace gelu_constants;
        const float square = std::min(x * x, most), e = exp1(-x * (linear + cubic * square)), s = 1 / (1 + e),
                    gelu = x * s;
        derivative = s + gelu * (std::min(e, finite) * s) * (linear + 3 * cubic * square);
        return gelu;
    }
};

struct ByErf {
    static float value(float x, float& derivative) {
        using namespace normal_constants;
        const float size = std::abs(x), a = size > far ? far : size;             // NaN stays
        const float t = 1 / (1 + reach * a), e = exp1(-0.5f * a * a);
        const float q = ((((((q7 * t + q6) * t + q5) * t + q4) * t + q3) * t + q2) * t + q1) * t + q0;
        const float below = q * t * e;
        derivative = 0.5f + std::copysign(0.5f - below + density * e * a, x);
        return (x < 0 ? 0 : x) - a * below;
    }
};

template <class Form>
void gated_by(const float* gate, const float* up, float* y, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
        float unused;
        y[i] = Form::value(gate[i], unused) * (up ? up[i] : 1);
    }
}

template <class Form>
void gated_by_back(const float* gate, const float* up, const float* dy, float* dgate, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
        float derivative;
        Form::value(gate[i], derivative);
        dgate[i] = (up ? dy[i] * up[i] : dy[i]) * derivative;
    }
}

constexpr auto geglu = gated_by<ByTanh>, geglu_erf = gated_by<ByErf>;
constexpr auto geglu_back = gated_by_back<ByTanh>, geglu_erf_back = gated_by_back<ByErf>;

void softcap(float cap, const float* x, float* y, int64_t n) {
    const float by = 2 / cap;
    for (int64_t i = 0; i < n; ++i) y[i] = cap * tanh_of_half(x[i] * by);
}

void softcap_back(float cap, const float* y, const float* dy, float* dx, int64_t n) {
    const float by = 1 / cap;
    for (int64_t i = 0; i < n; ++i) {
        const float t = y[i] * by;
        dx[i] = dy[i] * (1 - t * t);
    }
}

}  // namespace vec_portable_room

constinit const Vec vec_portable QLORA_VEC_OF(vec_portable_room);

}}  // namespace qlora
