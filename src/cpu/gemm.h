// gemm.h - matrix products. W is any stored type: a panel of it is decoded once into cache and reused for many rows of
// x, so a quantized matrix costs about as much as a float one and is never materialised whole.
//
// All matrices are row-major; ld is the distance between rows in floats. Every output element sums over its reduction
// index in an order that depends on the shapes only: the same bytes for any number of threads.
// With Compute::bf16 (and the instructions) both factors are rounded to bf16 and the products summed in f32; with
// Compute::mixed in gemm_nn and gemm_tn, of which gradients are made, where that is faster. gemm_nt is of floats then,
// or where the set has such products of two numbers of bf16 for each float: at most 3.1 * 2^-16 of a product is lost,
// less than a hundredth of what bf16 may lose. What bf16 cannot hold is infinite there, and an infinity may become NaN.
// Row t of y is the same bytes in every batch of at most rows_alike(w) rows, and in every batch of more; gemm_nt
// computes the small ones another way: in f32, whose sums may differ in the last bits, or (unless Compute::f32 was
// asked for) with x in 16-bit integers, as dots16.h says, or with Compute::bf16 in bf16, as rows_bf16.h says.
#pragma once
#include "src/cpu/cpu.h"

#include <span>

namespace qlora { inline namespace QLORA_ABI {

// All columns of a stored matrix, decoded and packed as products of one pass read them: for many products, of which the
// first one packs them. No bit of any result depends on it. Products of few rows, which decode nothing, pass them over.
enum class Pass : uint8_t { forward, backward };       // gemm_nt, gemm_nn
struct KeptPanels {
    char* memory = nullptr;                            // panel_bytes(), aligned to a cache line
    bool packed = false;
};
int64_t panel_bytes(const Cpu&, const WeightRef&, Pass);

constexpr int64_t gemv_rows = 4;                       // of any weight
constexpr int64_t most_gemv_rows = 16;                 // of those that the set has kernels for
int64_t rows_alike(const Cpu&, const WeightRef&);

// y[m, w.rows] = alpha * x[m, w.cols] W^T + beta * y.
// beta 0 ignores what y held (NaN included). Small m takes the GEMV path.
void gemm_nt(Cpu&, int64_t m, const float* x, int64_t ldx, const WeightRef& w, float* y, int64_t ldy, float alpha = 1,
             float beta = 0, KeptPanels* kept = nullptr);

// Several such products at a time for at most rows_alike(w) rows of each: no bit of any y depends on the others. Stored
// matrices that are not dense f32 have one x.
constexpr int64_t most_gemvs = 8;
struct Gemv { WeightRef w; const float* x; int64_t ldx; float* y; int64_t ldy; float alpha = 1, beta = 0; };
void gemv(Cpu&, int64_t m, std::span<const Gemv>);

// dx[m, w.cols] = alpha * dy[m, w.rows] W + beta * dx.   The gradient with respect to x of the above.
void gemm_nn(Cpu&, int64_t m, const float* dy, int64_t lddy, const WeightRef& w, float* dx, int64_t lddx,
             float alpha = 1, float beta = 0, KeptPanels* kept = nullptr);

// c[n, k] = alpha * a[m, n]^T b[m, k] + beta * c.        The gradient with respect to a dense W.
void gemm_tn(Cpu&, int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b, int64_t ldb, float* c,
             int64_t ldc, float alpha = 1, float beta = 0);

// Bytes that products of up to so many rows and such a depth keep for themselves, all threads together.
int64_t gemm_memory(const Cpu&, int64_t rows, int64_t depth);

inline WeightRef dense_ref(const float* data, int64_t rows, int64_t cols) { return {DType::f32, data, {}, rows, cols}; }

}}  // namespace qlora
