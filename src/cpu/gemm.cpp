// gemm.cpp - the three matrix products on one driver: c[m, n] = alpha * left[m, depth] right[depth, n] + beta * c.
//
// The left factor is packed once a call, in strips as tall as the register tile. Then each task owns a tile of c: for
// every stretch of depth it decodes and packs its columns of the right factor once, and runs all its strips over them.
// Tasks are cut by the shape alone, and an element is summed in order of depth within a stretch, stretch after stretch,
// whatever the tile it falls in: neither the threads nor the other rows of x change a bit of the result. Panels of a
// frozen weight may be kept (panels.h): then the first product packs all of them, and tasks read them where they are.
#include "src/cpu/kernels.h"

#include <algorithm>

namespace qlora { inline namespace QLORA_ABI {
namespace gemm_room {

constexpr int64_t most_rows = 768;    // of the left factor packed at once, a multiple of every tile height,
// and the depth of that: 6 MiB of f32, which stay in L3 while every task reads them
constexpr int64_t slab = 2048;
constexpr int64_t piece = 256;                         // of depth, decoded at a time: 32 rows are 32 KiB and stay in L1
constexpr int64_t most_columns = 256;                  // of a task
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

// Rows [row, row + rows) and depth [from, from + count) of the left factor: what is packed at a time.
struct Block {
    int64_t row, rows, from, count;
};

struct Product {
    Cpu& cpu;
    const GemmKernels& kernels;
    Left left;
    Right right;
    int64_t n, depth;
    float* c;
    int64_t ldc;
    float alpha, beta;
    const KeptPanels* kept = nullptr;

    void pack_strip(const Block& block, int64_t row, void* strip) const {
        const int64_t lines = std::min(kernels.rows, block.rows - row), first = block.row + row;
        if (left.deep_rows)
            kernels.left_along(left.data + block.from * left.ld + first, left.ld, lines, block.count, kernels.rows,
                               strip);
        else
            kernels.left_across(left.data + first * left.ld + block.from, left.ld, lines, block.count, kernels.rows,
                                strip);
    }

    // Columns [col, col + cols) of the stretch from d: panels of kernels.cols columns, one after the other.
    void pack_panels(int64_t col, int64_t cols, int64_t d, int64_t count, char* panels) const {
        thread_local Scratch float_memory;
        float* floats = float_memory.floats(std::max(float_rows_size(kernels.cols, piece), float_rows_size(64, cols)));
        const int64_t lines = right.deep_rows ? 64 : piece;   // of depth at a time
        for (int64_t from = 0; from < count; from += lines) {
            const int64_t some = std::min(lines, count - from);
            if (right.deep_rows) {
                const FloatRows rows = float_rows(*cpu.kernels, right.w, right.ld, d + from, some, col, cols, floats);
                for (int64_t p = 0; p * kernels.cols < cols; ++p)
                    kernels.right_along(rows.data + p * kernels.cols, rows.ld,
                                        std::min(kernels.cols, cols - p * kernels.cols), some, kernels.cols,
                                        at(panels, p, count, from));
            } else {
                for (int64_t p = 0; p * kernels.cols < cols; ++p) {
                    const int64_t wide = std::min(kernels.cols, cols - p * kernels.cols);
                    const FloatRows rows = float_rows(*cpu.kernels, right.w, right.ld, col + p * kernels.cols, wide,
                                                      d + from, some, floats);
                    kernels.right_across(rows.data, rows.ld, wide, some, kernels.cols, at(panels, p, count, from));
                }
            }
        }
    }

    char* at(char* panels, int64_t panel, int64_t count, int64_t depth_in_panel) const {
        return panels + panel * kernels.bytes_of_panel(count) + kernels.bytes_of_panel(depth_in_panel);
    }

    // Of kept panels, stretch after stretch lies panel after panel. Tasks begin at a panel.
    char* kept_at(int64_t col, int64_t d, int64_t count) const {
        return kept->memory + ceil_div(n, kernels.cols) * kernels.bytes_of_panel(d) +
               col / kernels.cols * kernels.bytes_of_panel(count);
    }

    void pack_all() const {
        const int64_t wide = columns_of_a_task(), column_tiles = ceil_div(n, wide);
        cpu.pool.run(column_tiles * ceil_div(depth, kernels.stretch), [&](int64_t task, int) {
            const int64_t col = task % column_tiles * wide, d = task / column_tiles * kernels.stretch,
                          count = std::min(kernels.stretch, depth - d);
            pack_panels(col, std::min(wide, n - col), d, count, kept_at(col, d, count));
        });
    }

    // One task: rows [row, row + rows) of the block, columns [col, col + cols).
    void run_tile(const Block& block, const char* strips, int64_t row, int64_t rows, int64_t col, int64_t cols) const {
        thread_local Scratch panel_memory;
        const int64_t columns = ceil_div(cols, kernels.cols),
                      most = columns * kernels.bytes_of_panel(std::min(kernels.stretch, depth));
        char* panels = kept ? nullptr : static_cast<char*>(panel_memory.bytes(most));
        for (int64_t d = 0; d < block.count; d += kernels.stretch) {
            const int64_t count = std::min(kernels.stretch, block.count - d);
            if (kept) panels = kept_at(col, block.from + d, count);
            else pack_panels(col, cols, block.from + d, count, panels);
            if (kernels.begin) kernels.begin();
            for (int64_t r = row; r < row + rows; r += kernels.rows) {
                const char* strip = strips + r / kernels.rows * kernels.bytes_of_strip(block.count) +
                                    kernels.bytes_of_strip(d);
                float* out = c + (block.row + r) * ldc + col;
                for (int64_t p = 0; p < columns; ++p) {
                    kernels.tile(strip, at(panels, p, count, 0), count, out + p * kernels.cols, ldc,
                                 std::min(kernels.rows, row + rows - r),
                                 std::min(kernels.cols, cols - p * kernels.cols), alpha, block.from + d ? 1.0f : beta);
                }
            }
            if (kernels.end) kernels.end();
        }
    }

    int64_t columns_of_a_task() const {
        // Types with large blocks decode badly in narrow pieces; a wide product can afford wide tasks; else 32, so that
        // there are many.
        const bool large_blocks = right.deep_rows && type_info(right.w.dtype).block > 64;
        const int64_t wide = large_blocks ? most_columns : n >= 4096 ? 64 : 32;
        return ceil_div(wide, kernels.cols) * kernels.cols;
    }

    void run_block(const Block& block) const {
        thread_local Scratch strip_memory;
        const int64_t strips = ceil_div(block.rows, kernels.rows), bytes = kernels.bytes_of_strip(block.count);
        char* packed = static_cast<char*>(strip_memory.bytes(strips * bytes));
        cpu.pool.run(strips, [&](int64_t s, int) { pack_strip(block, s * kernels.rows, packed + s * bytes); });
        const int64_t wide = columns_of_a_task(), column_tiles = ceil_div(n, wide);
        const int64_t cuts = std::clamp<int64_t>(ceil_div(enough_tasks, column_tiles), 1, ceil_div(block.rows, 48));
        const int64_t tall = ceil_div(ceil_div(block.rows, cuts), kernels.rows) * kernels.rows,
                      row_tiles = ceil_div(block.rows, tall);
        cpu.pool.run(column_tiles * row_tiles, [&](int64_t task, int) {
            const int64_t col = task / row_tiles * wide, row = task % row_tiles * tall;
            run_tile(block, packed, row, std::min(tall, block.rows - row), col, std::min(wide, n - col));
        });
    }
};

void multiply(Cpu& cpu, Compute compute, const Left& left, const Right& right, int64_t m, int64_t n, int64_t depth,
              float* c, int64_t ldc, float alpha, float beta, KeptPanels* kept = nullptr) {
    if (m <= 0 || n <= 0) return;
    if (depth <= 0) {                                  // an empty sum is 0
        for (int64_t i = 0; i < m; ++i)
            for (int64_t j = 0; j < n; ++j) c[i * ldc + j] = beta == 0 ? 0.0f : beta * c[i * ldc + j];
        return;
    }
    const Product product{cpu, cpu.kernels->gemm_for(compute), left, right, n, depth, c, ldc, alpha, beta,
                          kept};
    if (kept && !kept->packed) {
        product.pack_all();
        kept->packed = true;
    }
    for (int64_t row = 0; row < m; row += most_rows)
        for (int64_t from = 0; from < depth; from += slab)
            product.run_block({row, std::min(most_rows, m - row), from, std::min(slab, depth - from)});
}

}  // namespace gemm_room

int64_t gemm_memory(const Cpu& cpu, int64_t rows, int64_t depth) {
    namespace room = gemm_room;
    int64_t strips = 0, panels = 0;
    for (const Compute compute : {cpu.compute, cpu.gradients()}) {
        const GemmKernels& k = cpu.kernels->gemm_for(compute);
        strips = std::max(strips, room::ceil_div(std::min(rows, room::most_rows), k.rows) *
                                      k.bytes_of_strip(std::min(depth, room::slab)));
        panels = std::max(panels, room::ceil_div(room::most_columns, k.cols) * k.bytes_of_panel(k.stretch));
    }
    // the caller packs the strips, every thread its panels and decodes its pieces of them
    return strips + cpu.pool.size() * (panels + 4 * float_rows_size(64, room::most_columns));
}

int64_t panel_bytes(const Cpu& cpu, const WeightRef& w, Pass pass) {
    namespace room = gemm_room;
    const bool back = pass == Pass::backward;
    const GemmKernels& k = cpu.kernels->gemm_for(back ? cpu.gradients() : cpu.compute);
    const int64_t lines = back ? w.cols : w.rows, depth = back ? w.rows : w.cols;
    return room::ceil_div(room::ceil_div(lines, k.cols) * k.bytes_of_panel(depth), 64) * 64;
}

void gemm_nt(Cpu& cpu, int64_t m, const float* x, int64_t ldx, const WeightRef& w, float* y, int64_t ldy, float alpha,
             float beta, KeptPanels* kept) {
    if (m > 0 && w.cols > 0 && m <= rows_alike(cpu, w)) {
        const Gemv product{w, x, ldx, y, ldy, alpha, beta};
        return gemv(cpu, m, std::span(&product, 1));
    }
    cpu.work.add(2 * m * w.rows * w.cols, w.bytes());
    gemm_room::multiply(cpu, cpu.compute, {x, ldx, false}, {w, w.cols, false}, m, w.rows, w.cols, y, ldy,
                        alpha, beta, kept);
}

void gemm_nn(Cpu& cpu, int64_t m, const float* dy, int64_t lddy, const WeightRef& w, float* dx, int64_t lddx,
             float alpha, float beta, KeptPanels* kept) {
    cpu.work.add(2 * m * w.rows * w.cols, w.bytes());
    gemm_room::multiply(cpu, cpu.gradients(), {dy, lddy, false}, {w, w.cols, true}, m, w.cols, w.rows, dx, lddx, alpha,
                        beta, kept);
}

void gemm_tn(Cpu& cpu, int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b, int64_t ldb,
             float* c, int64_t ldc, float alpha, float beta) {
    const WeightRef right = dense_ref(b, m, k);
    cpu.work.add(2 * m * n * k, right.bytes());
    gemm_room::multiply(cpu, cpu.gradients(), {a, lda, true}, {right, ldb, true}, n, k, m, c, ldc, alpha, beta);
}

}}  // namespace qlora
