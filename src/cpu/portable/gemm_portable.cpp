// gemm_portable.cpp - packing and the register tile without special instructions: 4 x 8, in vectors that any compiler
// knows.
#include "src/cpu/kernels.h"
#include "src/cpu/vectors.h"

#include <cstring>

namespace qlora { inline namespace QLORA_ABI {
namespace gemm_portable_room {

typedef float Four __attribute__((vector_size(16)));

void across(const float* source, int64_t ld, int64_t lines, int64_t depth, int64_t width, void* packed) {
    float* out = static_cast<float*>(packed);
    for (int64_t l = 0; l < width; ++l)
        for (int64_t d = 0; d < depth; ++d) out[d * width + l] = l < lines ? source[l * ld + d] : 0.0f;
}

void along(const float* source, int64_t ld, int64_t lines, int64_t depth, int64_t width, void* packed) {
    float* out = static_cast<float*>(packed);
    for (int64_t d = 0; d < depth; ++d)
        for (int64_t l = 0; l < width; ++l) out[d * width + l] = l < lines ? source[d * ld + l] : 0.0f;
}

void tile(const void* left, const void* panel, int64_t depth, float* c, int64_t ldc, int64_t rows, int64_t cols,
          float alpha, float beta) {
    const float *a = static_cast<const float*>(left), *b = static_cast<const float*>(panel);
    Four sums[4][2] = {};
    for (int64_t d = 0; d < depth; ++d, a += 4, b += 8) {
        Four b0, b1;
        std::memcpy(&b0, b, 16);
        std::memcpy(&b1, b + 4, 16);
        QLORA_UNROLL
        for (int r = 0; r < 4; ++r) {
            sums[r][0] += a[r] * b0;
            sums[r][1] += a[r] * b1;
        }
    }
    float flat[4][8];
    std::memcpy(flat, sums, sizeof flat);
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t j = 0; j < cols; ++j)
            c[r * ldc + j] = beta == 0 ? alpha * flat[r][j] : alpha * flat[r][j] + beta * c[r * ldc + j];
}

}  // namespace gemm_portable_room

constinit const GemmKernels gemm_portable{.rows = 4,
                                          .cols = 8,
                                          .granule = 1,
                                          .bytes = 4,
                                          .stretch = 512,
                                          .left_across = gemm_portable_room::across,
                                          .left_along = gemm_portable_room::along,
                                          .right_across = gemm_portable_room::across,
                                          .right_along = gemm_portable_room::along,
                                          .tile = gemm_portable_room::tile};

}}  // namespace qlora
