// tile_blocks.inl - the tile products as far as they differ by the width of a vector and the registers only. Included
// by each set inside of its room and its target region, after the names of lanes_avx2.h and
//     constexpr int tall      rows of the block of sums that stay in registers, which is two vectors wide
static void block(int64_t k, const float* a, int64_t a_row, int64_t a_step, const float* b, int64_t ldb, float* c,
                  int64_t ldc, bool add) {
    Vector sums[tall][2];
    QLORA_UNROLL
    for (int r = 0; r < tall; ++r) sums[r][0] = sums[r][1] = zero();
    for (int64_t p = 0; p < k; ++p) {                  // a step loads a row of b and broadcasts a column of a
        const Vector b0 = load(b + p * ldb), b1 = load(b + p * ldb + width);
        QLORA_UNROLL
        for (int r = 0; r < tall; ++r) {
            const Vector s = broadcast(a + r * a_row + p * a_step);
            sums[r][0] = times_plus(s, b0, sums[r][0]);
            sums[r][1] = times_plus(s, b1, sums[r][1]);
        }
    }
    QLORA_UNROLL
    for (int r = 0; r < tall; ++r) {
        float *out = c + r * ldc, *next = out + width;
        store(out, add ? plus(load(out), sums[r][0]) : sums[r][0]);
        store(next, add ? plus(load(next), sums[r][1]) : sums[r][1]);
    }
}

static void product(int64_t m, int64_t n, int64_t k, const float* a, int64_t a_row, int64_t a_step, const float* b,
                    int64_t ldb, float* c, int64_t ldc, bool add) {
    for (int64_t j = 0; j < n; j += 2 * width)
        for (int64_t i = 0; i < m; i += tall)
            block(k, a + i * a_row, a_row, a_step, b + j, ldb, c + i * ldc + j, ldc, add);
}

// The part of mix() that is whole blocks of four vectors; returns where it ends.
static QLORA_INLINE int64_t mix_blocks(const float* s, const float* b, int64_t ldb, int64_t rows, int64_t n, float* y) {
    int64_t i = 0;
    for (; i + 4 * width <= n; i += 4 * width) {
        Vector sums[4];
        QLORA_UNROLL
        for (int h = 0; h < 4; ++h) sums[h] = load(y + i + h * width);
        for (int64_t j = 0; j < rows; ++j) {
            const Vector weight = broadcast(s + j);
            QLORA_UNROLL
            for (int h = 0; h < 4; ++h) sums[h] = times_plus(weight, load(b + j * ldb + i + h * width), sums[h]);
        }
        QLORA_UNROLL
        for (int h = 0; h < 4; ++h) store(y + i + h * width, sums[h]);
    }
    return i;
}
