// attention_test.cpp - attention on the device against the CPU: masks of every kind, grouped queries, head
// sizes, few and many rows, caches, forward and backward.
#include "src/ops/rooms.h"
#include "src/tensor/encode.h"
#include "tests/cuda/device_under_test.h"
#include "tests/ops/trial.h"

namespace cuda_attention_test {

using namespace qlora;

enum class Mask { causal, documents, window, gaps, past };
struct Case {
    int64_t heads, kv_heads, size, rows;
    Mask mask = Mask::causal;
    float cap = 0;
    int64_t past = 0;                                  // keys before the first row's
};
std::string title(const Case& c) {
    return str(c.heads, '/', c.kv_heads, " heads of ", c.size, ", rows ", c.rows, ", past ", c.past, ", mask ",
               int(c.mask), ", cap ", c.cap);
}

struct Ranges { std::vector<int32_t> first, last; };
Ranges ranges(const Case& c) {
    Ranges r;
    for (int64_t t = 0; t < c.rows; ++t) {
        int64_t first = 0, last = c.past + t + 1;
        const int64_t cut = c.rows * 2 / 3;
        if (c.mask != Mask::causal && t >= cut) first = c.past + cut;          // a second document
        if (c.mask == Mask::window || c.mask == Mask::gaps) first = std::max(first, last - 20);
        if (c.mask == Mask::gaps && t % 7 == 3) last = first;                  // sees nothing
        if (c.mask == Mask::gaps && t == 1) first = -5, last = c.past + c.rows + 100;      // clamped
        r.first.push_back(int32_t(first));
        r.last.push_back(int32_t(last));
    }
    return r;
}

AttentionAttr attr(const Case& c) {
    AttentionAttr a;
    a.heads = c.heads;
    a.kv_heads = c.kv_heads;
    a.head_dim = c.size;
    a.scale = 1 / std::sqrt(float(c.size));
    a.cap = c.cap;
    return a;
}

// y and [dq | dk | dv] for a random dy. What q, k, v and dy are made of: swiglu, so that they are stored in 16 bits
// where the backend does that, or as they are.
std::vector<std::vector<float>> results(const Case& c, std::shared_ptr<BackendImpl> backend, bool made) {
    GraphImpl g(std::move(backend));
    const Shape q{c.rows, c.heads * c.size}, k{c.past + c.rows, c.kv_heads * c.size};
    std::vector<Tensor> t;
    for (const Shape& shape : {q, k, k, q}) {
        const std::vector<float> fixed(size_t(elements_of(shape)), 2.0f),
            values = samples::normal_values(elements_of(shape), t.size() + 5);
        const Tensor gate = g.input(shape), up = g.input(shape);
        g.write(gate, fixed.data(), int64_t(fixed.size()) * 4);
        g.write(up, values.data(), int64_t(values.size()) * 4);
        t.push_back(made ? swiglu(gate, up) : up);
    }
    const Tensor first = g.input({c.rows}, DType::i32), last = g.input({c.rows}, DType::i32);
    const Ranges r = ranges(c);
    g.write(first, r.first.data(), c.rows * 4);
    g.write(last, r.last.data(), c.rows * 4);
    const Tensor y = attention(t[0], t[1], t[2], first, last, attr(c));
    const Tensor back = g.add(Op::attention_back, {t[3], t[0], t[1], t[2], first, last, y}, attr_of(attr(c)));
    g.output(y);
    g.output(back);
    g.run();
    std::vector<float> all(size_t(g.node(back.id()).elements())), value(size_t(elements_of(q)));
    g.read(y, value.data(), int64_t(value.size()) * 4);
    g.read(back, all.data(), int64_t(all.size()) * 4);
    const auto dk = all.begin() + elements_of(q), dv = dk + elements_of(k);
    return {value, {all.begin(), dk}, {dk, dv}, {dv, all.end()}};
}

void compare(const std::vector<Case>& cases, Compute compute, double tolerance, bool made = true) {
    const auto cpu = make_cpu_backend(2, Compute::f32), cuda = device_under_test::backend(compute);
    for (const Case& c : cases) {
        const auto want = results(c, cpu, made);
        std::vector<std::vector<float>> first;
        const auto run = [&](const char* order) {
            const auto got = results(c, cuda, made);
            samples::expect_close(got, want, tolerance, title(c) + ", " + order);
            if (first.empty()) first = got;
            EXPECT_EQ(got, first) << title(c) << ": the order of threads shows";
        };
        if (c.rows * c.size <= 2000) device_under_test::in_every_order(run);
        else run("forward");                           // on the emulation the larger ones take long
    }
}

TEST(CudaAttention, EveryHeadSizeAndMaskInFullPrecision) {
    compare({{2, 1, 16, 3},
             {4, 2, 24, 17, Mask::documents},
             {3, 1, 64, 12, Mask::gaps},
             {1, 1, 80, 19, Mask::window, 2},
             {5, 1, 96, 1, Mask::causal, 0, 30},
             {2, 2, 128, 9, Mask::gaps, 1.5f},
             {1, 1, 256, 6},
             {1, 1, 320, 5, Mask::documents, 0, 3},
             {2, 1, 5, 11, Mask::gaps},
             {1, 1, 8, 130, Mask::window}},
            Compute::f32, 2e-5);
}

// Tensor cores: rounded factors, sums in f32. Zero beside what is seen must be exact: a wrong mask is no rounding.
TEST(CudaAttention, EveryHeadSizeAndMaskInSixteenBits) {
    const std::vector<Case> cases{{2, 1, 64, 130, Mask::gaps},         {1, 1, 128, 70, Mask::documents},
                                  {1, 1, 96, 90, Mask::window, 1.5f},  {2, 2, 80, 20, Mask::causal, 0, 50},
                                  {2, 1, 256, 34, Mask::gaps},         {1, 1, 128, 15, Mask::window, 2, 3},
                                  {1, 1, 64, 20, Mask::gaps, 4, 50},   {3, 1, 16, 3},
                                  {2, 1, 5, 9},                        {1, 1, 64, 1, Mask::causal, 0, 70}};
    compare(cases, Compute::bf16, 0x1p-6);
    compare({cases[5], cases[6], cases[8]}, Compute::bf16, 0x1p-6, false);
}

// Caches: a past in any 16-bit type, by rows and by heads, few rows over many keys. No gradient.
std::vector<float> over_cache(const Case& c, DType type, bool by_head, std::shared_ptr<BackendImpl> backend) {
    GraphImpl g(std::move(backend));
    const int64_t keys = c.past + c.rows;
    const Shape shape = by_head ? Shape{c.kv_heads, keys, c.size} : Shape{keys, c.kv_heads * c.size};
    const Tensor q = g.input({c.rows, c.heads * c.size}), first = g.input({c.rows}, DType::i32),
                 last = g.input({c.rows}, DType::i32);
    const Tensor k = g.state(shape, {}, type), v = g.state(shape, {}, type);
    const Tensor y = attention(q, k, v, first, last, attr(c));
    g.output(y);
    const Ranges r = ranges(c);
    g.write(first, r.first.data(), c.rows * 4);
    g.write(last, r.last.data(), c.rows * 4);
    const std::vector<float> values = samples::normal_values(c.rows * c.heads * c.size, 1);
    g.write(q, values.data(), int64_t(values.size()) * 4);
    uint64_t seed = 2;
    for (const Tensor& t : {k, v}) {
        const std::vector<float> plain = samples::normal_values(elements_of(shape), seed++);
        std::vector<uint8_t> stored(size_t(bytes_of(type, elements_of(shape))));
        encode_plain(type, "cache", plain.data(), stored.data(), elements_of(shape));
        g.write(t, stored.data(), int64_t(stored.size()));
    }
    g.run();
    std::vector<float> out(size_t(c.rows * c.heads * c.size));
    g.read(y, out.data(), int64_t(out.size()) * 4);
    return out;
}

TEST(CudaAttention, CachesOfEveryType) {
    const auto cpu = make_cpu_backend(2, Compute::f32);
    const std::vector<Case> cases{{4, 2, 32, 1, Mask::causal, 0, 200}, {3, 1, 64, 2, Mask::gaps, 0, 150},
                                  {6, 1, 96, 1, Mask::causal, 3, 40}, {1, 1, 64, 17, Mask::causal, 0, 40}};
    for (const Compute compute : {Compute::f32, Compute::bf16}) {
        const auto cuda = device_under_test::backend(compute);
        for (const DType type : {DType::f32, DType::f16, DType::bf16, DType::q8_0})
            for (const bool by_head : {false, true})
                for (const Case& c : cases)
                    samples::expect_close({over_cache(c, type, by_head, cuda)}, {over_cache(c, type, by_head, cpu)},
                                          compute == Compute::f32 ? 2e-5 : 0x1p-6,
                                          str(title(c), ", cache of ", name_of(type), by_head ? " by heads" : ""));
    }
}

}  // namespace cuda_attention_test
