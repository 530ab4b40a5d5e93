// gemv.cpp - y = x W^T for the few rows of x of token generation: W is read once, row by row, as it is stored. Several
// W may meet the same x at a time: it is then prepared once, and threads are woken once.
//
// The cost is the traffic of W, so nothing is packed and, where a kernel knows the type, nothing decoded into memory.
// Tasks are runs of rows. How many, and whose, depends on the threads, but no bit of y does: an element is one row
// times one x, and does not depend on how many rows x has either.
#include "src/cpu/kernels.h"
#include "src/cpu/scaled_rows.h"

#include <algorithm>

namespace qlora { inline namespace QLORA_ABI {
namespace gemv_room {

// One thread reads so much in the time, a microsecond or two, that another takes to begin: the factors of adapters have
// few products and many bytes.
constexpr int64_t worth_reading_together = 32 << 10;

struct Output {
    int64_t m = 0;
    float* y = nullptr;
    int64_t ldy = 0;
    float alpha = 1, beta = 0;
    void put(int64_t t, int64_t row, float sum) const {
        float& at = y[t * ldy + row];
        at = beta == 0 ? alpha * sum : alpha * sum + beta * at;
    }
};

// At least eight for every thread, for one may be slower than the other, and at most some ten microseconds of reading,
// for that is how long one may wait for another in the end.
int64_t rows_of_a_task(const WeightRef& w, int64_t threads) {
    const TypeInfo& info = type_info(w.dtype);
    const int64_t row_bytes = std::max<int64_t>(w.cols * info.bytes / info.block, 1);
    const int64_t share = std::clamp<int64_t>(w.rows * row_bytes / (8 * threads), 8 << 10, 128 << 10);
    return std::clamp<int64_t>(share / row_bytes, 1, 512);
}

void put_all(const Output& to, int64_t first, int64_t count, const float* sums) {
    for (int64_t t = 0; t < to.m; ++t)                 // rows of y are far apart: one after the other
        for (int64_t r = 0; r < count; ++r) to.put(t, first + r, sums[r * to.m + t]);
}

// What the rows of a stored weight are multiplied with: m vectors, ld apart.
struct Vectors {
    const float* floats = nullptr;
    int64_t ld = 0;
    const Run16* rounded = nullptr;                    // instead of the floats
    int64_t ld16 = 0;
    const uint16_t* halves = nullptr;                  // instead of either
};

void codes_task(const Kernels& kernels, const WeightRef& w, int64_t first, int64_t count, const Vectors& x,
                const Output& to) {
    thread_local Scratch memory;
    float* sums = memory.floats(count * to.m);
    const float* book = w.quant.codebook;
    if (x.rounded) kernels.dots16->codes(w, first, count, x.rounded, x.ld16, to.m, sums);
    else for_scaled_rows(kernels, w, first, count, [&](int64_t row, int64_t rows, const uint8_t* codes, float* scales) {
        float* some = sums + (row - first) * to.m;
        if (x.halves) kernels.rows_bf16->codes(codes, scales, book, rows, w.cols, x.halves, to.m, some);
        else kernels.four_bit->dots(codes, scales, book, rows, w.cols, x.floats, x.ld, to.m, some);
    });
    put_all(to, first, count, sums);
}

void blocks_task(const Kernels& kernels, const WeightRef& w, int64_t first, int64_t count, const Vectors& x,
                 const Output& to) {
    thread_local Scratch memory;
    float* sums = memory.floats(count * to.m);
    const int64_t row_bytes = bytes_of(w.dtype, w.cols);
    const uint8_t* rows = static_cast<const uint8_t*>(w.data) + first * row_bytes;
    if (x.halves) kernels.rows_bf16->blocks(w.dtype, rows, row_bytes, count, w.cols, x.halves, to.m, sums);
    else if (x.rounded)
        kernels.dots16->blocks(w.dtype, rows, row_bytes, count, w.cols, x.rounded, x.ld16, to.m, sums);
    else kernels.dots_of(w.dtype)(w.dtype, rows, row_bytes, count, w.cols, x.floats, x.ld, to.m, sums);
    put_all(to, first, count, sums);
}

void floats_task(const Kernels& kernels, const WeightRef& w, int64_t first, int64_t count, const float* x, int64_t ldx,
                 const Output& to) {
    thread_local Scratch memory;
    const Vec& v = kernels.vec;
    // short rows, as those of an adapter, would cost more in calls than in products
    if (w.dtype == DType::f32 && to.m == 1) {
        float* sums = memory.floats(count);
        v.dots(x, static_cast<const float*>(w.data) + first * w.cols, w.cols, count, w.cols, sums);
        for (int64_t r = 0; r < count; ++r) to.put(0, first + r, sums[r]);
        return;
    }
    float* scratch = memory.floats(float_rows_size(1, w.cols));
    for (int64_t r = first; r < first + count; ++r) {
        const FloatRows row = float_rows(kernels, w, w.cols, r, 1, 0, w.cols, scratch);
        for (int64_t t = 0; t < to.m; ++t) to.put(t, r, v.dot(x + t * ldx, row.data, w.cols));
    }
}

enum class Way : uint8_t { codes, blocks, floats };

bool is_regular(const WeightRef& w) {                  // every row begins with a block, and each is whole
    return is_4bit(w.dtype) ? has_runs_of_64(w) : w.cols % type_info(w.dtype).block == 0;
}

// x in 16-bit integers: unless exactness was asked for, wherever weights have codes that are small integers, and their
// scales in the same block or by rule.
bool rounds(const Cpu& cpu, const WeightRef& w) {
    const TypeInfo& info = type_info(w.dtype);
    return cpu.compute != Compute::f32 && cpu.kernels->dots16 && info.block > 1 && (is_4bit(w.dtype) || info.decode) &&
           is_regular(w);
}

// x and the weights in bf16, in which order of x; -1: no.
int halves_order(const Cpu& cpu, const WeightRef& w) {
    const RowsBf16* bf16 = cpu.compute == Compute::bf16 ? cpu.kernels->rows_bf16 : nullptr;
    return bf16 && is_regular(w) ? bf16->order(w.dtype) : -1;
}

Way way(const Cpu& cpu, const WeightRef& w) {
    const bool rounded = halves_order(cpu, w) >= 0 || rounds(cpu, w);
    if (has_runs_of_64(w)) {
        const FourBitKernels* codes = cpu.kernels->four_bit;
        return rounded || (codes && codes->dots) ? Way::codes : Way::floats;
    }
    return rounded || (w.cols % type_info(w.dtype).block == 0 && cpu.kernels->dots_of(w.dtype)) ? Way::blocks
                                                                                               : Way::floats;
}

// How the products want their vectors.
enum class Form : uint8_t { floats, spread, rounded, halves = rounded + orders16 };
constexpr size_t forms = size_t(Form::halves) + 3;     // these have three orders
Form form(const Cpu& cpu, Way way, const WeightRef& w) {
    if (const int order = halves_order(cpu, w); order >= 0) return Form(int(Form::halves) + order);
    if (rounds(cpu, w)) {
        const Order16 order = way == Way::codes ? Order16::pairs : cpu.kernels->dots16->order(w.dtype);
        return Form(int(Form::rounded) + int(order));
    }
    return way == Way::codes && cpu.kernels->four_bit->spreads ? Form::spread : Form::floats;
}

// As the products take them: floats as they are or spread, or 16-bit integers. The memory is used again by the thread's
// next call.
Vectors prepared(const Cpu& cpu, Form form, int64_t cols, int64_t m, const float* x, int64_t ldx) {
    if (form == Form::floats) return {.floats = x, .ld = ldx};
    thread_local Scratch memory_of[forms];
    Scratch& memory = memory_of[size_t(form)];
    if (form == Form::spread) {
        const int64_t size = spread_size(cols);
        float* spread = memory.floats(m * size);
        for (int64_t t = 0; t < m; ++t) spread_for_codes(x + t * ldx, cols, spread + t * size);
        return {.floats = spread, .ld = size};
    }
    if (form >= Form::halves) {
        uint16_t* halves = static_cast<uint16_t*>(memory.bytes(m * RowsBf16::size(cols) * 2));
        cpu.kernels->rows_bf16->round(int(form) - int(Form::halves), x, ldx, m, cols, halves);
        return {.halves = halves};
    }
    const int64_t runs = runs16(cols);
    Run16* to = static_cast<Run16*>(memory.bytes(m * runs * int64_t(sizeof(Run16))));
    for (int64_t t = 0; t < m; ++t)
        cpu.kernels->dots16->round(x + t * ldx, cols, Order16(int(form) - int(Form::rounded)), to + t * runs);
    return {.rounded = to, .ld16 = runs};
}

// One of the matrices that meet the same x.
struct Job {
    WeightRef w;
    Output to;
    Way way = Way::floats;
    Vectors x;
    int64_t rows = 0, tasks = 0;                               // rows of a task
};

void task(const Kernels& kernels, const Job& job, int64_t number) {
    const int64_t first = number * job.rows, count = std::min(job.rows, job.w.rows - first);
    switch (job.way) {
        case Way::codes: return codes_task(kernels, job.w, first, count, job.x, job.to);
        case Way::blocks: return blocks_task(kernels, job.w, first, count, job.x, job.to);
        case Way::floats: return floats_task(kernels, job.w, first, count, job.x.floats, job.x.ld, job.to);
    }
}

}  // namespace gemv_room

int64_t rows_alike(const Cpu& cpu, const WeightRef& w) {
    // the factors of adapters beside such weights
    const bool dense = w.dtype == DType::f32 && cpu.compute == Compute::bf16 && cpu.kernels->rows_bf16;
    return dense || gemv_room::halves_order(cpu, w) >= 0 ? most_gemv_rows : gemv_rows;
}

void gemv(Cpu& cpu, int64_t m, std::span<const Gemv> products) {
    using namespace gemv_room;
    if (products.size() > size_t(most_gemvs))
        fail(Errc::argument, "gemv: ", products.size(), " matrices at a time, at most ", most_gemvs);
    Job jobs[most_gemvs];
    const Gemv* prepared_of[forms] = {};               // by Form: x is prepared once for all who want it so
    Vectors vectors[forms];
    int64_t tasks = 0, count = 0, work = 0, bytes = 0;
    for (const Gemv& p : products) {
        cpu.work.add(2 * m * p.w.rows * p.w.cols, p.w.bytes());
        work += m * p.w.rows * p.w.cols;
        bytes += p.w.bytes();
        const Way way = gemv_room::way(cpu, p.w);
        const size_t form = size_t(gemv_room::form(cpu, way, p.w));
        if (Form(form) == Form::floats || !prepared_of[form])
            vectors[form] = prepared(cpu, Form(form), p.w.cols, m, p.x, p.ldx);
        else if (const Gemv& of = *prepared_of[form]; of.x != p.x || of.ldx != p.ldx || of.w.cols != p.w.cols)
            fail(Errc::argument, "gemv: stored matrices of ", of.w.cols, " and ", p.w.cols,
                 " columns at a time, expected one x for all");
        prepared_of[form] = &p;
        const int64_t rows = rows_of_a_task(p.w, cpu.pool.size());
        jobs[count] = {p.w, {m, p.y, p.ldy, p.alpha, p.beta}, way, vectors[form], rows, (p.w.rows + rows - 1) / rows};
        tasks += jobs[count++].tasks;
    }
    // as between the layers of a small model
    const bool small = work < cpu.kernels->worth_waking && bytes < worth_reading_together;
    const ThreadPool::Alone alone(small);
    cpu.pool.run(tasks, [&](int64_t number, int) {
        const Job* job = jobs;
        for (; number >= job->tasks; ++job) number -= job->tasks;
        task(*cpu.kernels, *job, number);
    });
}

}}  // namespace qlora
