// tile_portable.cpp - the tile products without special instructions.
#include "src/cpu/kernels.h"

namespace qlora { inline namespace QLORA_ABI {
namespace tile_portable_room {

void product(int64_t m, int64_t n, int64_t k, const float* a, int64_t a_row, int64_t a_step, const float* b,
                    int64_t ldb, float* c, int64_t ldc, bool add) {
    for (int64_t i = 0; i < m; ++i) {
        for (int64_t j = 0; j < n; j += tile_cols) {
            float sums[tile_cols] = {};
            for (int64_t p = 0; p < k; ++p) {
                const float s = a[i * a_row + p * a_step];
                const float* row = b + p * ldb + j;
                for (int64_t x = 0; x < tile_cols; ++x) sums[x] += s * row[x];
            }
            float* out = c + i * ldc + j;
            for (int64_t x = 0; x < tile_cols; ++x) out[x] = add ? out[x] + sums[x] : sums[x];
        }
    }
}

void dots(const float* x, const float* b, int64_t ldb, int64_t rows, int64_t n, float* y) {
    for (int64_t j = 0; j < rows; ++j) {
        float sums[4] = {};                            // four chains, so that the adds overlap
        int64_t i = 0;
        for (; i + 4 <= n; i += 4)
            for (int64_t l = 0; l < 4; ++l) sums[l] += x[i + l] * b[j * ldb + i + l];
        for (; i < n; ++i) sums[0] += x[i] * b[j * ldb + i];
        y[j] = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    }
}

void mix(const float* s, const float* b, int64_t ldb, int64_t rows, int64_t n, float* y) {
    for (int64_t j = 0; j < rows; ++j)
        for (int64_t i = 0; i < n; ++i) y[i] += s[j] * b[j * ldb + i];
}

}  // namespace tile_portable_room

constinit const Tile tile_portable{tile_portable_room::product, tile_portable_room::dots, tile_portable_room::mix};

}}  // namespace qlora
