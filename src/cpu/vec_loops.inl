// vec_loops.inl - the vector loops that differ by the width of a vector only. Included by each set inside of its room
// and its target region, after the names of lanes_avx2.h; what comes last in a loop is masked.
struct Power { Vector n, rest; };                      // e^x = 2^n (1 + rest)

static QLORA_INLINE Power power_of(Vector x) {
    using namespace exp_constants;
    const Vector n = nearest(times(x, set(log2e)));
    const Vector r = minus_times(n, set(ln2_low), minus_times(n, set(ln2_high), x));
    Vector p = times_plus(set(p4), r, set(p3));
    p = times_plus(p, r, set(p2));
    p = times_plus(p, r, set(p1));
    p = times_plus(p, r, set(p0));
    return {n, times_plus(times(r, r), p, r)};
}

static QLORA_INLINE Vector exp_of(Vector x) {
    using namespace exp_constants;
    const Power e = power_of(smaller(set(most), larger(set(least), x)));   // NaN stays
    return times_power_of_2(plus(e.rest, set(1)), e.n);
}

static QLORA_INLINE Vector inverse_of_1_and(Vector e) { return over(set(1), plus(set(1), e)); }
static QLORA_INLINE Vector sigmoid(Vector x) { return inverse_of_1_and(exp_of(minus(zero(), x))); }

static QLORA_INLINE Vector tanh_of_half(Vector d) {
    const Power e = power_of(larger(set(tanh_constants::least), negative_size(d)));
    const Vector power = power_of_2(e.n), t = times_plus(e.rest, power, minus(power, set(1)));
    return with_sign_of(over(t, plus(set(2), t)), d);
}

// gelu(x) and its derivative, in two forms: exp_constants.h.
struct ByTanh {
    static QLORA_INLINE Vector held_square(Vector x) { return smaller(set(gelu_constants::most), times(x, x)); }
    static QLORA_INLINE Vector exp(Vector x, Vector square) {
        using namespace gelu_constants;
        return exp_of(times(x, minus_times(set(cubic), square, set(-linear))));
    }
    static QLORA_INLINE Vector value(Vector x) { return times(x, inverse_of_1_and(exp(x, held_square(x)))); }
    static QLORA_INLINE Vector value(Vector x, Vector& derivative) {
        using namespace gelu_constants;
        const Vector square = held_square(x), e = exp(x, square), s = inverse_of_1_and(e);
        const Vector gelu = times(x, s), rest = times(smaller(set(finite), e), s);
        derivative = times_plus(times(gelu, rest), times_plus(set(3 * cubic), square, set(linear)), s);
        return gelu;
    }
};

struct ByErf {
    static QLORA_INLINE Vector held(Vector x) { return larger(set(-normal_constants::far), negative_size(x)); }   // -a
    static QLORA_INLINE Vector bell(Vector a) { return exp_of(times(times(set(-0.5f), a), a)); }
    static QLORA_INLINE Vector below(Vector minus_a, Vector bell) {              // Phi(-a)
        using namespace normal_constants;
        const Vector t = over(set(1), minus_times(set(reach), minus_a, set(1)));
        Vector q = times_plus(set(q7), t, set(q6));
        q = times_plus(q, t, set(q5));
        q = times_plus(q, t, set(q4));
        q = times_plus(q, t, set(q3));
        q = times_plus(q, t, set(q2));
        q = times_plus(q, t, set(q1));
        q = times_plus(q, t, set(q0));
        return times(times(q, t), bell);
    }
    static QLORA_INLINE Vector value(Vector x) {
        const Vector a = held(x);
        return times_plus(a, below(a, bell(a)), larger(zero(), x));
    }
    // Phi(x) = 1/2 +- (1/2 - Phi(-a)), and x phi(x) = +- a phi(a)
    static QLORA_INLINE Vector value(Vector x, Vector& derivative) {
        const Vector a = held(x), e = bell(a), p = below(a, e), half = set(0.5f);
        const Vector size = minus_times(times(set(normal_constants::density), e), a, minus(half, p));
        derivative = plus(half, with_sign_of(size, x));
        return times_plus(a, p, larger(zero(), x));
    }
};

static QLORA_INLINE Vector together(Vector a, Vector b, Vector c, Vector d) { return plus(plus(a, b), plus(c, d)); }

// Long sums are halved until each lane adds sixteen numbers at most: the error grows with the logarithm of n, also for
// equal numbers.
static float sum(const float* a, int64_t n) {
    constexpr int64_t step = 4 * width;
    if (n > step * 16) {
        const int64_t half = n / 2 / step * step;
        return sum(a, half) + sum(a + half, n - half);
    }
    Vector s0 = zero(), s1 = s0, s2 = s0, s3 = s0;
    int64_t i = 0;
    for (; i + step <= n; i += step) {
        s0 = plus(s0, load(a + i));
        s1 = plus(s1, load(a + i + width));
        s2 = plus(s2, load(a + i + 2 * width));
        s3 = plus(s3, load(a + i + 3 * width));
    }
    for (; i < n; i += width) s0 = plus(s0, load(a + i, first_lanes(n - i)));
    return total(together(s0, s1, s2, s3));
}

static float max(const float* a, int64_t n) {
    const Vector lowest = set(-__builtin_inff());
    Vector m = lowest;
    for (int64_t i = 0; i < n; i += width) m = larger(load_or(lowest, a + i, first_lanes(n - i)), m);   // a NaN loses
    return largest(m);
}

static void axpy(float s, const float* x, float* y, int64_t n) {
    for (int64_t i = 0; i < n; i += width) {
        const Lanes lanes = first_lanes(n - i);
        store(y + i, lanes, times_plus(set(s), load(x + i, lanes), load(y + i, lanes)));
    }
}

static void scale(float s, const float* x, float* y, int64_t n) {
    for (int64_t i = 0; i < n; i += width) {
        const Lanes lanes = first_lanes(n - i);
        store(y + i, lanes, times(set(s), load(x + i, lanes)));
    }
}

static void shift(float s, const float* x, float* y, int64_t n) {
    for (int64_t i = 0; i < n; i += width) {
        const Lanes lanes = first_lanes(n - i);
        store(y + i, lanes, plus(load(x + i, lanes), set(s)));
    }
}

static void add(const float* a, const float* b, float* y, int64_t n) {
    for (int64_t i = 0; i < n; i += width) {
        const Lanes lanes = first_lanes(n - i);
        store(y + i, lanes, plus(load(a + i, lanes), load(b + i, lanes)));
    }
}

static void mul(const float* a, const float* b, float* y, int64_t n) {
    for (int64_t i = 0; i < n; i += width) {
        const Lanes lanes = first_lanes(n - i);
        store(y + i, lanes, times(load(a + i, lanes), load(b + i, lanes)));
    }
}

static float exp_sum(const float* x, float shift, float* y, int64_t n) {
    Vector s = zero();
    for (int64_t i = 0; i < n; i += width) {
        const Lanes lanes = first_lanes(n - i);
        const Vector e = exp_of(minus(load(x + i, lanes), set(shift)));
        store(y + i, lanes, e);
        s = plus_where(lanes, s, e);
    }
    return total(s);
}

static void silu(const float* x, float* y, int64_t n) {
    for (int64_t i = 0; i < n; i += width) {
        const Lanes lanes = first_lanes(n - i);
        const Vector v = load(x + i, lanes);
        store(y + i, lanes, times(v, sigmoid(v)));
    }
}

static void swiglu(const float* gate, const float* up, float* y, int64_t n) {
    for (int64_t i = 0; i < n; i += width) {
        const Lanes lanes = first_lanes(n - i);
        const Vector g = load(gate + i, lanes);
        store(y + i, lanes, times(times(g, sigmoid(g)), load(up + i, lanes)));
    }
}

static void swiglu_back(const float* gate, const float* up, const float* dy, float* dgate, int64_t n) {
    for (int64_t i = 0; i < n; i += width) {
        const Lanes lanes = first_lanes(n - i);
        const Vector g = load(gate + i, lanes), s = sigmoid(g), slope = times_plus(g, minus(set(1), s), set(1));
        store(dgate + i, lanes, times(times(times(load(dy + i, lanes), s), load(up + i, lanes)), slope));
    }
}

template <class Form, bool gated>
static void gelu_loop(const float* gate, const float* up, float* y, int64_t n) {
    for (int64_t i = 0; i < n; i += width) {
        const Lanes lanes = first_lanes(n - i);
        Vector gelu = Form::value(load(gate + i, lanes));
        if constexpr (gated) gelu = times(gelu, load(up + i, lanes));
        store(y + i, lanes, gelu);
    }
}

template <class Form, bool gated>
static void gelu_back_loop(const float* gate, const float* up, const float* dy, float* dgate, int64_t n) {
    for (int64_t i = 0; i < n; i += width) {
        const Lanes lanes = first_lanes(n - i);
        Vector derivative, d = load(dy + i, lanes);
        (void)Form::value(load(gate + i, lanes), derivative);
        if constexpr (gated) d = times(d, load(up + i, lanes));
        store(dgate + i, lanes, times(d, derivative));
    }
}

template <class Form>
static void gated_by(const float* gate, const float* up, float* y, int64_t n) {
    if (up) gelu_loop<Form, true>(gate, up, y, n);
    else gelu_loop<Form, false>(gate, up, y, n);
}

template <class Form>
static void gated_by_back(const float* gate, const float* up, const float* dy, float* dgate, int64_t n) {
    if (up) gelu_back_loop<Form, true>(gate, up, dy, dgate, n);
    else gelu_back_loop<Form, false>(gate, up, dy, dgate, n);
}

constexpr auto geglu = gated_by<ByTanh>, geglu_erf = gated_by<ByErf>;
constexpr auto geglu_back = gated_by_back<ByTanh>, geglu_erf_back = gated_by_back<ByErf>;

static void softcap(float cap, const float* x, float* y, int64_t n) {
    const float by = 2 / cap;
    for (int64_t i = 0; i < n; i += width) {
        const Lanes lanes = first_lanes(n - i);
        store(y + i, lanes, times(set(cap), tanh_of_half(times(load(x + i, lanes), set(by)))));
    }
}

static void softcap_back(float cap, const float* y, const float* dy, float* dx, int64_t n) {
    const float by = 1 / cap;
    for (int64_t i = 0; i < n; i += width) {
        const Lanes lanes = first_lanes(n - i);
        const Vector t = times(load(y + i, lanes), set(by));
        store(dx + i, lanes, times(load(dy + i, lanes), minus_times(t, t, set(1))));
    }
}
