// gemm.cpp - the three matrix products on one driver: c[m, n] = alpha * left[m, depth] right[depth, n] + beta * c.
//
// The left factor is packed once a call, in strips as tall as the register tile. Then each task owns a tile of c: for every stretch
// of depth it decodes and packs its columns of the right factor once, and runs all its strips over them. Tasks are cut by the shape
// alone, and an element is summed in order of depth within a stretch, stretch after stretch, whatever the tile it falls in: neither
// the threads nor the other rows of x change a bit of the result.
#include "src/cpu/kernels.h"

#include <algorithm>

namespace qlora::inline v0_1 {
namespace gemm_room {

constexpr int64_t stretch = 512;                       // of depth: 32 columns are 64 KiB of f32 or 32 KiB of bf16, within reach of L1 and L2
constexpr int64_t most_rows = 768;                     // packed at once, a multiple of every tile; bounds the memory of the left factor
constexpr int64_t piece = 256;                         // of depth, decoded at a time: 32 rows are 32 KiB and stay in L1
constexpr int64_t enough_tasks = 16;                   // below this many column tiles, rows are cut too

struct Left {
    const float* data;
    int64_t ld;
    bool deep_rows;                                    // data[depth][m] instead of data[m][depth]
};

struct Right {
    WeightRef w;
    int64_t ld;
    bool deep_rows;                                    // w[depth][n] instead of w[n][depth]
};

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

int64_t even(int64_t depth) { return (depth + 1) / 2 * 2; }

struct Product {
    Cpu& cpu;
    const GemmKernels& kernels;
    Left left;
    Right right;
    int64_t n, depth;
    float* c;
    int64_t ldc;
    float alpha, beta;

    int64_t strip_bytes() const { return kernels.rows * even(depth) * kernels.bytes; }
    int64_t panel_bytes() const { return kernels.cols * std::min(stretch, even(depth)) * kernels.bytes; }

    void pack_strip(int64_t row, int64_t lines, void* strip) const {
        if (left.deep_rows) kernels.along(left.data + row, left.ld, lines, depth, kernels.rows, strip);
        else kernels.across(left.data + row * left.ld, left.ld, lines, depth, kernels.rows, strip);
    }

    // Columns [col, col + cols) of the stretch from d: panels of kernels.cols columns, one after the other.
    void pack_panels(int64_t col, int64_t cols, int64_t d, int64_t count, float* floats, char* panels) const {
        const int64_t lines = right.deep_rows ? 64 : piece;   // of depth at a time
        for (int64_t from = 0; from < count; from += lines) {
            const int64_t some = std::min(lines, count - from);
            if (right.deep_rows) {
                const FloatRows rows = float_rows(cpu.isa, right.w, right.ld, d + from, some, col, cols, floats);
                for (int64_t p = 0; p * kernels.cols < cols; ++p)
                    kernels.along(rows.data + p * kernels.cols, rows.ld, std::min(kernels.cols, cols - p * kernels.cols), some, kernels.cols, at(panels, p, from));
            } else {
                for (int64_t p = 0; p * kernels.cols < cols; ++p) {
                    const int64_t wide = std::min(kernels.cols, cols - p * kernels.cols);
                    const FloatRows rows = float_rows(cpu.isa, right.w, right.ld, col + p * kernels.cols, wide, d + from, some, floats);
                    kernels.across(rows.data, rows.ld, wide, some, kernels.cols, at(panels, p, from));
                }
            }
        }
    }

    char* at(char* panels, int64_t panel, int64_t depth_in_panel) const {
        return panels + panel * panel_bytes() + depth_in_panel * kernels.cols * kernels.bytes;
    }

    // One task: rows [row, row + rows) of the packed ones, columns [col, col + cols).
    void run_tile(const char* strips, float* out, int64_t row, int64_t rows, int64_t col, int64_t cols) const {
        thread_local Scratch panel_memory, float_memory;
        const int64_t columns = ceil_div(cols, kernels.cols);
        char* panels = static_cast<char*>(panel_memory.bytes(columns * panel_bytes()));
        float* floats = float_memory.floats(std::max(kernels.cols * piece, cols * 64));
        for (int64_t d = 0; d < depth; d += stretch) {
            const int64_t count = std::min(stretch, depth - d);
            pack_panels(col, cols, d, count, floats, panels);
            for (int64_t r = 0; r < rows; r += kernels.rows) {
                const char* strip = strips + (row + r) / kernels.rows * strip_bytes() + d * kernels.rows * kernels.bytes;
                for (int64_t p = 0; p < columns; ++p) {
                    kernels.tile(strip, at(panels, p, 0), count, out + (row + r) * ldc + col + p * kernels.cols, ldc, std::min(kernels.rows, rows - r),
                                 std::min(kernels.cols, cols - p * kernels.cols), alpha, d ? 1.0f : beta);
                }
            }
        }
    }

    int64_t columns_of_a_task() const {
        // Types with large blocks decode badly in narrow pieces; a wide product can afford wide tasks; else 32, so that there are many.
        if (right.deep_rows && type_info(right.w.dtype).block > 64) return 256;
        return n >= 4096 ? 64 : 32;
    }

    // Rows [first, first + rows) of the product.
    void run_rows(int64_t first, int64_t rows) const {
        thread_local Scratch strip_memory;
        const int64_t strips = ceil_div(rows, kernels.rows);
        char* packed = static_cast<char*>(strip_memory.bytes(strips * strip_bytes()));
        cpu.pool.run(strips, [&](int64_t s, int) {
            const int64_t row = s * kernels.rows;
            pack_strip(first + row, std::min(kernels.rows, rows - row), packed + s * strip_bytes());
        });
        const int64_t wide = columns_of_a_task(), column_tiles = ceil_div(n, wide);
        const int64_t cuts = std::clamp<int64_t>(ceil_div(enough_tasks, column_tiles), 1, ceil_div(rows, 48));
        const int64_t tall = ceil_div(ceil_div(rows, cuts), kernels.rows) * kernels.rows, row_tiles = ceil_div(rows, tall);
        float* out = c + first * ldc;
        cpu.pool.run(column_tiles * row_tiles, [&](int64_t task, int) {
            const int64_t col = task / row_tiles * wide, row = task % row_tiles * tall;
            run_tile(packed, out, row, std::min(tall, rows - row), col, std::min(wide, n - col));
        });
    }
};

void multiply(Cpu& cpu, const Left& left, const Right& right, int64_t m, int64_t n, int64_t depth, float* c, int64_t ldc, float alpha, float beta) {
    if (m <= 0 || n <= 0) return;
    if (depth <= 0) {                                  // an empty sum is 0
        for (int64_t i = 0; i < m; ++i)
            for (int64_t j = 0; j < n; ++j) c[i * ldc + j] = beta == 0 ? 0.0f : beta * c[i * ldc + j];
        return;
    }
    const Product product{cpu, gemm_kernels(cpu.isa, cpu.compute), left, right, n, depth, c, ldc, alpha, beta};
    for (int64_t first = 0; first < m; first += most_rows) product.run_rows(first, std::min(most_rows, m - first));
}

}  // namespace gemm_room

void gemm_nt(Cpu& cpu, int64_t m, const float* x, int64_t ldx, const WeightRef& w, float* y, int64_t ldy, float alpha, float beta) {
    if (m > 0 && m <= gemv_rows && w.cols > 0) return gemv(cpu, m, x, ldx, w, y, ldy, alpha, beta);
    gemm_room::multiply(cpu, {x, ldx, false}, {w, w.cols, false}, m, w.rows, w.cols, y, ldy, alpha, beta);
}

void gemm_nn(Cpu& cpu, int64_t m, const float* dy, int64_t lddy, const WeightRef& w, float* dx, int64_t lddx, float alpha, float beta) {
    gemm_room::multiply(cpu, {dy, lddy, false}, {w, w.cols, true}, m, w.cols, w.rows, dx, lddx, alpha, beta);
}

void gemm_tn(Cpu& cpu, int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b, int64_t ldb, float* c, int64_t ldc, float alpha, float beta) {
    gemm_room::multiply(cpu, {a, lda, true}, {dense_ref(b, m, k), ldb, true}, n, k, m, c, ldc, alpha, beta);
}

}  // namespace qlora
