// vec_loops.inl - the vector loops that differ by the width of a vector only. Included by each set inside of its room
// and its target region, after the names of lanes_avx2.h; what comes last in a loop is masked.
static QLORA_INLINE Vector exp_of(Vector x) {
    using namespace exp_constants;
    x = smaller(set(most), larger(set(least), x));     // NaN stays
    const Vector n = nearest(times(x, set(log2e)));
    const Vector r = minus_times(n, set(ln2_low), minus_times(n, set(ln2_high), x));
    Vector p = times_plus(set(p4), r, set(p3));
    p = times_plus(p, r, set(p2));
    p = times_plus(p, r, set(p1));
    p = times_plus(p, r, set(p0));
    p = plus(times_plus(times(r, r), p, r), set(1));
    return times_power_of_2(p, n);
}

static QLORA_INLINE Vector sigmoid(Vector x) { return over(set(1), plus(set(1), exp_of(minus(zero(), x)))); }

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

static void swiglu_back(const float* gate, const float* up, const float* dy, float* dgate, float* dup, int64_t n) {
    for (int64_t i = 0; i < n; i += width) {
        const Lanes lanes = first_lanes(n - i);
        const Vector g = load(gate + i, lanes), u = load(up + i, lanes), d = load(dy + i, lanes), s = sigmoid(g),
                     ds = times(d, s);
        const Vector slope = times_plus(g, minus(set(1), s), set(1));
        store(dgate + i, lanes, times(times(ds, u), slope));
        store(dup + i, lanes, times(ds, g));
    }
}
