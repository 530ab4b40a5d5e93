// gemm_tile_avx512.inl - the register tile of the height and the width that are needed. Included by each room of packed
// words of 32 bits, after its Packed and its tile_of(height, wide, ...).
static void tile(const void* left, const void* panel, int64_t depth, float* c, int64_t ldc, int64_t rows, int64_t cols,
                 float alpha, float beta) {
    const Packed *a = static_cast<const Packed*>(left), *b = static_cast<const Packed*>(panel);
    if (cols > 16) {
        if (rows > 8) tile_of(12, 2, a, b, depth, c, ldc, rows, cols, alpha, beta);
        else if (rows > 4) tile_of(8, 2, a, b, depth, c, ldc, rows, cols, alpha, beta);
        else tile_of(4, 2, a, b, depth, c, ldc, rows, cols, alpha, beta);
    } else {
        if (rows > 6) tile_of(12, 1, a, b, depth, c, ldc, rows, cols, alpha, beta);
        else tile_of(6, 1, a, b, depth, c, ldc, rows, cols, alpha, beta);
    }
}
