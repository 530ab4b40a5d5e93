// speed.cpp - gpu_check: kernels at the shapes of an 8B model, each beside what bounds it: the copy's bandwidth and the
// fastest product measured in the same run. Prints a row as soon as it is known; fails only where a result is not
// finite. Sizes follow what is free, so that it also runs on a small card.
#include "src/base/half.h"
#include "src/tensor/nf4.h"
#include "tests/cuda/device_under_test.h"
#include "tests/support/graph_support.h"

#include <chrono>
#include <cstdio>

namespace gpu_speed {

using namespace qlora;
using graph_support::random_values;
using Clock = std::chrono::steady_clock;

struct Ceilings { double copy = 0; };                  // bytes a second, read and written
Ceilings ceilings;

// On the emulation only that everything here runs is of interest.
bool tiny() { return device_under_test::is_emulated(); }
int64_t sized(int64_t real) { return tiny() ? std::max<int64_t>(real / 64, 1) : real; }

void row(const std::string& name, double seconds, const std::string& rate) {
    std::printf("%-62s %10.1f us  %s\n", name.c_str(), seconds * 1e6, rate.c_str());
    std::fflush(stdout);
}
std::string bandwidth(double bytes, double seconds) {
    char text[80];
    const double rate = bytes / seconds;
    std::snprintf(text, sizeof text, "%7.0f GB/s, %3.0f %% of the copy", rate / 1e9,
                  ceilings.copy > 0 ? 100 * rate / ceilings.copy : 0);
    return text;
}
std::string operations(double count, double seconds) {
    char text[80];
    std::snprintf(text, sizeof text, "%7.1f TFLOP/s", count / seconds / 1e12);
    return text;
}

// The median of five times that many runs, in seconds a run.
double time_of(BackendImpl& backend, const std::function<void()>& run, int runs = 10) {
    if (tiny()) return run(), backend.synchronize(), 1e-6;
    for (int i = 0; i < 3; ++i) run();
    backend.synchronize();
    std::vector<double> times;
    for (int i = 0; i < 5; ++i) {
        const auto start = Clock::now();
        for (int k = 0; k < runs; ++k) run();
        backend.synchronize();
        times.push_back(std::chrono::duration<double>(Clock::now() - start).count() / runs);
    }
    std::nth_element(times.begin(), times.begin() + 2, times.end());
    return times[2];
}

struct Bench {
    GraphImpl g{device_under_test::backend(Compute::bf16)};

    // A value as a product before would leave it: in bf16.
    Tensor half(const Shape& shape, uint64_t seed = 1) {
        const Tensor t = g.input(shape);
        const int64_t n = elements_of(shape);
        const std::vector<float> some = random_values(std::min<int64_t>(n, 65536), seed);
        std::vector<uint16_t> bits(static_cast<size_t>(n));
        for (int64_t i = 0; i < n; ++i) bits[size_t(i)] = bf16_from_f32(some[size_t(i % 65521 % int64_t(some.size()))]);
        g.nodes[size_t(t.id())].storage = DType::bf16;
        g.backend->upload(*g.node(t.id()).buffer, 0, bits.data(), n * 2);
        return t;
    }
    Tensor full(const Shape& shape, uint64_t seed = 1) {
        const Tensor t = g.param(shape);
        const int64_t n = elements_of(shape);
        std::vector<float> values = random_values(std::min<int64_t>(n, 65521), seed, 0.1f);
        while (int64_t(values.size()) < n)
            values.insert(values.end(), values.begin(),
                          values.begin() + std::min<int64_t>(n - int64_t(values.size()), 65521));
        graph_support::set(t, values);
        return t;
    }
    Tensor indices(const std::vector<int32_t>& v) { return graph_support::indices(g, v); }
    // NF4 with double quantization, of random codes.
    Tensor four_bit(int64_t rows, int64_t cols) {
        static std::map<std::pair<int64_t, int64_t>, WeightPtr> made;
        WeightPtr& w = made[{rows, cols}];
        if (!w) {
            const int64_t part = std::min<int64_t>(rows, std::max<int64_t>(1, (int64_t(1) << 22) / cols));
            const Weight small = quantize_4bit(dense_weight("w", {part, cols}, random_values(part * cols, 3, 0.02f)),
                                               DType::nf4, true);
            w = repeated(small, part, rows, cols);
        }
        return g.weight(w);
    }
    double seconds(int runs = 10) { return time_of(*g.backend, [&] { g.run(); }, runs); }
    void check(Tensor y) {
        float value[64];
        std::vector<float> all = graph_support::get(y);
        for (float& v : value) v = all[size_t(&v - value) * (all.size() / 64)];
        for (const float v : value) EXPECT_TRUE(std::isfinite(v));
    }
    // The rows of `small` again and again: scales are per 64 elements, their scales per 16,384.
    static WeightPtr repeated(const Weight& small, int64_t part, int64_t rows, int64_t cols) {
        struct Arrays { std::vector<uint8_t> codes, code; std::vector<float> absmax2; };
        auto a = std::make_shared<Arrays>();
        const auto fill = [](auto& to, const auto* from, int64_t have, int64_t want) {
            to.resize(size_t(want));
            for (int64_t i = 0; i < want; ++i) to[size_t(i)] = from[i % have];
        };
        const int64_t n = rows * cols, m = part * cols, blocks = (n + 63) / 64;
        fill(a->codes, small.data, m / 2, n / 2);
        fill(a->code, small.quant.absmax_code, m / 64, blocks);
        fill(a->absmax2, small.quant.absmax2, std::max<int64_t>(1, m / 64 / 256), (blocks + 255) / 256);
        Weight w = small;
        w.shape = {rows, cols};
        w.data = a->codes.data();
        w.quant.absmax_code = a->code.data();
        w.quant.absmax2 = a->absmax2.data();
        w.owner = std::make_shared<std::pair<std::shared_ptr<Arrays>, std::shared_ptr<const void>>>(a, small.owner);
        return std::make_shared<const Weight>(std::move(w));
    }
};

TEST(Speed, Copy) {
    const auto backend = device_under_test::backend();
    const int64_t bytes = sized(int64_t(1) << 30);
    const BufferRef a = backend->allocate(bytes), b = backend->allocate(bytes);
    const double s = time_of(*backend, [&] { backend->copy(*a, 0, *b, 0, bytes); });
    ceilings.copy = 2 * double(bytes) / s;
    row(backend->name() + ": copy", s, bandwidth(2 * double(bytes), s));
}

TEST(Speed, Products) {
    struct Case { int64_t rows, out, in; };
    for (const Case& c : {Case{1, 4096, 4096}, {1, 14336, 4096}, {1, 4096, 14336}, {8, 14336, 4096}, {64, 14336, 4096},
                          {512, 14336, 4096}, {4096, 14336, 4096}, {4096, 4096, 14336}, {4096, 4096, 4096}}) {
        const int64_t rows = c.rows < 64 ? c.rows : sized(c.rows), out = sized(c.out), in = sized(c.in);
        const double count = 2 * double(rows) * double(out) * double(in), weight = double(out * in) * 0.516;
        const std::string name = str("nf4, ", rows, " rows, ", out, " x ", in);
        Bench b;
        const Tensor y = matmul(b.half({rows, in}), b.four_bit(out, in));
        b.g.output(y);
        const double s = b.seconds();
        row("qmatmul " + name, s, rows <= 8 ? bandwidth(weight, s) : operations(count, s));
        b.check(y);
        if (rows < 64) continue;
        Bench back;
        const Tensor dx = back.g.add(Op::qmatmul_dx, {back.half({rows, out}), back.four_bit(out, in)});
        back.g.output(dx);
        const double t = back.seconds();
        row("qmatmul_dx " + name, t, operations(count, t));
        back.check(dx);
    }
}

TEST(Speed, LowRankPaths) {
    const int64_t rows = sized(4096), out = sized(4096), in = sized(4096), rank = 16;
    const double bytes = double(rows) * double(in + 2 * out) * 2;
    Bench b;
    const Tensor y =
        lora(b.half({rows, out}), b.half({rows, in}), b.full({rank, in}), b.full({out, rank}), {.scale = 2});
    b.g.output(y);
    const double s = b.seconds();
    row(str("lora, ", rows, " rows, ", out, " x ", in, ", rank ", rank), s, bandwidth(bytes, s));
    b.check(y);
    Bench back;
    const Tensor d = back.g.add(Op::lora_back,
                                {back.half({rows, out}), back.half({rows, in}), back.full({rank, in}),
                                 back.full({out, rank}), Tensor{}},
                                attr_of(LoraAttr{.scale = 2}));
    back.g.output(d);
    const double t = back.seconds();
    row(str("lora_back, ", rows, " rows, ", out, " x ", in, ", rank ", rank), t,
        bandwidth(double(rows) * double(in + out) * 2, t));
    back.check(d);
    Bench towards_x;
    const Tensor dx = towards_x.g.add(Op::lora_dx, {towards_x.full({rows, rank}), towards_x.full({rank, in})},
                                      attr_of(LoraAttr{}));
    towards_x.g.output(dx);
    const double u = towards_x.seconds();
    row(str("lora_dx, ", rows, " rows of ", in, ", rank ", rank), u, bandwidth(double(rows) * double(in) * 2, u));
    towards_x.check(dx);
}

TEST(Speed, Attention) {
    struct Case { int64_t rows, document, heads, kv, dim; };
    for (const Case& c :
         {Case{4096, 4096, 32, 8, 128}, {4096, 512, 32, 8, 128}, {4096, 512, 9, 3, 64}, {1, 4096, 32, 8, 128}}) {
        const int64_t rows = c.rows == 1 ? 1 : sized(c.rows), document = sized(c.document),
                      keys = std::max(rows, document);
        std::vector<int32_t> first, last;
        double seen = 0;
        for (int64_t r = 0; r < rows; ++r) {
            first.push_back(int32_t(rows == 1 ? 0 : r / document * document));
            last.push_back(int32_t(rows == 1 ? keys : r + 1));
            seen += last.back() - first.back();
        }
        AttentionAttr a;
        a.heads = c.heads;
        a.kv_heads = c.kv;
        a.head_dim = c.dim;
        a.scale = 0.1f;
        Bench b;
        const Tensor q = b.half({rows, c.heads * c.dim}, 1), k = b.half({keys, c.kv * c.dim}, 2),
                     v = b.half({keys, c.kv * c.dim}, 3), f = b.indices(first), l = b.indices(last);
        const Tensor y = attention(q, k, v, f, l, a);
        b.g.output(y);
        const double s = b.seconds(), count = 4 * seen * double(c.heads * c.dim);
        const std::string name = str(rows, " rows, documents of ", document, ", ", c.heads, " heads of ", c.dim);
        row("attention " + name, s, rows == 1 ? bandwidth(double(keys * c.kv * c.dim) * 4, s) : operations(count, s));
        b.check(y);
        if (rows == 1) continue;
        Bench back;
        const Tensor q2 = back.full({rows, c.heads * c.dim}, 1), k2 = back.full({keys, c.kv * c.dim}, 2),
                     v2 = back.full({keys, c.kv * c.dim}, 3);
        for (const Tensor& t : {q2, k2, v2}) {         // bf16 as a product would leave them
            const int64_t n = back.g.node(t.id()).elements();
            std::vector<float> values = graph_support::get(t);
            std::vector<uint16_t> bits(values.size());
            for (size_t i = 0; i < values.size(); ++i) bits[i] = bf16_from_f32(values[i]);
            back.g.nodes[size_t(t.id())].storage = DType::bf16;
            back.g.backend->upload(*back.g.node(t.id()).buffer, 0, bits.data(), n * 2);
        }
        const Tensor loss = sum(attention(q2, k2, v2, back.indices(first), back.indices(last), a));
        back.g.backward(loss);
        for (const Tensor& t : {q2, k2, v2}) back.g.output(graph_support::grad_of(t));
        const double both = back.seconds(3);
        row("attention, forward and backward, " + name, both, operations(count * 3.5, both));
    }
}

TEST(Speed, LoopsOverElements) {
    const int64_t rows = sized(4096), n = sized(14336);
    Bench b;
    b.g.output(swiglu(b.half({rows, n}, 1), b.half({rows, n}, 2)));
    double s = b.seconds();
    row(str("swiglu, ", rows, " x ", n), s, bandwidth(double(rows * n) * 6, s));
    Bench c;
    c.g.output(rms_norm(c.full({rows, n}), c.full({n})));
    s = c.seconds();
    row(str("rms_norm, ", rows, " x ", n), s, bandwidth(double(rows * n) * 6, s));
    Bench d;
    d.g.output(add(d.full({rows, n}), d.half({rows, n})));
    s = d.seconds();
    row(str("add, ", rows, " x ", n), s, bandwidth(double(rows * n) * 10, s));
    Bench e;
    const int64_t count = sized(40'000'000);
    const Tensor p = e.full({count}), g = e.full({count}), m = e.full({count}), v = e.full({count});
    adamw(p, g, m, v, Tensor{}, graph_support::input(e.g, {4}, std::vector<float>{1e-4f, 1, 1, 0}), {});
    s = e.seconds();
    row(str("adamw, ", count, " parameters"), s, bandwidth(double(count) * 28, s));
}

TEST(Speed, Candidates) {
    const int64_t vocabulary = sized(128256), k = std::min<int64_t>(128, vocabulary);
    Bench b;
    const Tensor y = top_k(b.full({1, vocabulary}), k);
    b.g.output(y);
    const double s = b.seconds();
    row(str("top_k, the ", k, " best of ", vocabulary), s, bandwidth(double(vocabulary) * 4, s));
    b.check(y);
}

TEST(Speed, CrossEntropy) {
    const int64_t rows = sized(4096), n = sized(4096), vocabulary = sized(128256);
    Bench b;
    std::vector<int32_t> targets;
    for (int64_t i = 0; i < rows; ++i) targets.push_back(int32_t(i * 7919 % vocabulary));
    const Tensor y = linear_cross_entropy(b.half({rows, n}), b.four_bit(vocabulary, n), b.indices(targets), true);
    b.g.output(y);
    const double s = b.seconds(3), count = 4 * double(rows) * double(n) * double(vocabulary);
    row(str("linear_cross_entropy, ", rows, " rows, ", vocabulary, " x ", n), s, operations(count, s));
    b.check(y);
}

}  // namespace gpu_speed
