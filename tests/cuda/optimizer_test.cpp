// optimizer_test.cpp - the CUDA rooms whose results must have the CPU's bytes (norm, AdamW in 32 and 8 bits, caches,
// embeddings), and shapes of the loss and of dora that the sweep's samples lack; each in several orders of threads.
#include "tests/cuda-emulation/cuda_emulation.h"

#include "src/tensor/encode.h"
#include "src/tensor/nf4.h"
#include "tests/support/graph_support.h"

namespace cuda_optimizer_test {

namespace s = graph_support;
using cuda_emulation::Order;
using qlora::Compute;
using qlora::DType;
using qlora::GraphImpl;
using qlora::Op;
using qlora::Shape;
using qlora::Tensor;

using Bytes = std::vector<std::vector<uint8_t>>;
using Build = std::function<std::vector<Tensor>(GraphImpl&)>;                  // returns what is compared

std::shared_ptr<qlora::BackendImpl> cuda(Compute compute = Compute::f32) {
    return qlora::make_cuda_backend(0, compute);
}

std::vector<uint8_t> bytes_of(GraphImpl& g, Tensor t) {
    const qlora::Node& n = g.node(t.id());
    std::vector<uint8_t> bytes;
    if (n.op == Op::state) {                           // as it is held
        bytes.resize(size_t(n.bytes()));
        g.backend->download(*n.buffer, 0, bytes.data(), int64_t(bytes.size()));
    } else {
        bytes.resize(size_t(n.elements()) * 4);
        g.read(t, bytes.data(), int64_t(bytes.size()));
    }
    return bytes;
}

Bytes results(std::shared_ptr<qlora::BackendImpl> backend, const Build& build, int runs) {
    GraphImpl g(std::move(backend));
    const std::vector<Tensor> wanted = build(g);
    for (const Tensor& t : wanted)
        if (g.node(t.id()).op != Op::state) g.output(t);
    for (int i = 0; i < runs; ++i) g.run();
    Bytes all;
    for (const Tensor& t : wanted) all.push_back(bytes_of(g, t));
    return all;
}

std::vector<float> floats(const std::vector<uint8_t>& bytes) {
    std::vector<float> v(bytes.size() / 4);
    if (!v.empty()) std::memcpy(v.data(), bytes.data(), v.size() * 4);
    return v;
}

void each_order(const std::function<void()>& f) {
    for (const Order order : {Order::forward, Order::reverse, Order::random}) {
        cuda_emulation::options = {order, 5};
        f();
    }
    cuda_emulation::options = {};
}

void expect_bytes(const std::string& what, const Build& build, int runs = 1) {
    const Bytes want = results(s::cpu(), build, runs);
    each_order([&] { EXPECT_TRUE(results(cuda(), build, runs) == want) << what; });
}

void expect_near(const std::string& what, const Build& build, double tolerance, Compute compute = Compute::f32) {
    const Bytes want = results(s::cpu(), build, 1);
    Bytes first;
    each_order([&] {
        const Bytes got = results(cuda(compute), build, 1);
        if (first.empty()) first = got;
        EXPECT_TRUE(got == first) << what << ": the order of threads shows";
        for (size_t k = 0; k < want.size(); ++k) {
            const std::vector<float> a = floats(got[k]), b = floats(want[k]);
            float largest = 1;
            for (const float v : b) largest = std::max(largest, std::fabs(v));
            for (size_t i = 0; i < b.size(); ++i)
                ASSERT_NEAR(a[i], b[i], tolerance * largest) << what << ", result " << k << " at " << i;
        }
    });
}

TEST(CudaGlobalNorm, HasTheBytesOfTheCpu) {
    for (const int64_t count : {1, 7, 8, 129, 16384, 16385, 16384 * 9 + 133})
        expect_bytes(qlora::str(count, " elements"),
                     [&](GraphImpl& g) { return std::vector{qlora::global_norm(s::input(g, {count}, 3))}; });
    expect_bytes("more tasks than a piece of their sum", [](GraphImpl& g) {
        std::vector<float> x(size_t(16384) * 260, 1e-3f);
        x[70000] = 3e19f;
        x[16384 * 257] = -3e13f;
        return std::vector{qlora::global_norm(s::input(g, {int64_t(x.size())}, x))};
    });
}

TEST(CudaGlobalNorm, ReadsSixteenBits) {
    expect_near("of a result in bf16", [](GraphImpl& g) {
        return std::vector{qlora::global_norm(qlora::swiglu(s::input(g, {300, 90}, 1), s::input(g, {300, 90}, 2)))};
    }, 0x1p-6, Compute::bf16);
}

// p, g, m, v and what makes a step.
struct Adam { float lr, t, factor, norm; qlora::AdamWAttr attr; };
const Adam steps[] = {
    {1e-3f, 1, 1, 0.3f, {}},
    {2e-4f, 2, 0.125f, 7, {.weight_decay = 0.1f, .max_norm = 0.5f}},
    {1e-2f, 1000, 0.25f, 1e-4f, {.beta1 = 0.8f, .beta2 = 0.95f, .epsilon = 1e-6f, .max_norm = 1}},
    {5e-5f, 123457, 1, 3, {.beta2 = 0.99f, .weight_decay = 0.01f, .max_norm = 1}},
    {0, 3, 1, NAN, {.max_norm = 1}},
};

TEST(CudaAdamW, HasTheBytesOfTheCpu) {
    for (const int64_t count : {1, 5000})
        for (const Adam& a : steps)
            for (const bool with_norm : {false, true})
                expect_bytes(qlora::str(count, " elements, t ", a.t, with_norm ? ", norm" : ""), [&](GraphImpl& g) {
                    const auto v = s::random_values(count, 4, 1e-2f);
                    std::vector<float> squares(v.size());
                    for (size_t i = 0; i < v.size(); ++i) squares[i] = v[i] * v[i];
                    const Tensor p = s::state(g, {count}, s::random_values(count, 1)),
                                 m = s::state(g, {count}, s::random_values(count, 2, 1e-2f)),
                                 moment2 = s::state(g, {count}, squares),
                                 norm = with_norm ? s::input(g, {1}, std::vector<float>{a.norm}) : Tensor{};
                    qlora::adamw(p, s::input(g, {count}, 3), m, moment2, norm,
                                 s::input(g, {4}, std::vector<float>{a.lr, a.t, a.factor, 0}), a.attr);
                    return std::vector{p, m, moment2};
                }, 2);
}

TEST(CudaAdamW, EightBitsHaveTheBytesOfTheCpu) {
    for (const int64_t count : {1, 257, 3000})
        for (const Adam& a : steps)
            expect_bytes(qlora::str(count, " elements, t ", a.t), [&](GraphImpl& g) {
                const int64_t blocks = qlora::adamw8_blocks(count);
                std::vector<float> gradient = s::random_values(count, 3, 1e-3f);
                for (size_t i = 256; i < std::min<size_t>(512, gradient.size()); ++i) gradient[i] = 0;
                const Tensor p = s::state(g, {count}, s::random_values(count, 1)),
                             code1 = g.state({count}, {}, DType::u8), code2 = g.state({count}, {}, DType::u8),
                             scale1 = g.state({blocks}), scale2 = g.state({blocks});
                qlora::adamw8(p, s::input(g, {count}, gradient), {code1, code2}, {scale1, scale2},
                              s::input(g, {1}, std::vector<float>{a.norm}),
                              s::input(g, {4}, std::vector<float>{a.lr, a.t, a.factor, 0}), a.attr);
                return std::vector{p, code1, code2, scale1, scale2};
            }, 4);
}

qlora::WeightPtr stored(const Shape& shape, DType type) {
    const qlora::Weight w = qlora::dense_weight("w", shape, s::random_values(qlora::elements_of(shape), 11, 0.1f));
    return std::make_shared<const qlora::Weight>(qlora::convert_weight(w, type));
}

TEST(CudaEmbedding, HasTheBytesOfTheCpuForEveryStoredType) {
    for (const DType type : {DType::f32, DType::f16, DType::bf16, DType::q8_0, DType::q4_0, DType::nf4, DType::fp4})
        expect_bytes(std::string(qlora::name_of(type)), [&](GraphImpl& g) {
            return std::vector{qlora::embed(g.weight(stored({7, 352}, type)), s::indices(g, {6, 0, 3, 3, 5}))};
        });
    expect_bytes("a row of one", [](GraphImpl& g) {
        return std::vector{qlora::embed(s::param(g, {1, 1}, 3), s::indices(g, {0}))};
    });
}

TEST(CudaEmbedding, GradientsAddRowsInOrder) {
    for (const int64_t n : {1, 33, 300})
        for (const bool one_id : {false, true})
            expect_bytes(qlora::str(n, one_id), [&](GraphImpl& g) {
                std::vector<int32_t> ids(70, 4);
                for (size_t i = 0; !one_id && i < ids.size(); ++i) ids[i] = int32_t(i * i % 13);
                const Tensor dy = s::input(g, {70, n}, 8);
                return std::vector{g.add(Op::embedding_back, {s::indices(g, ids), dy}, {}, {17, n})};
            });
}

TEST(CudaEmbedding, IdsBeyondTheTable) {
    for (const int32_t bad : {-1, 5, 1 << 30}) {
        GraphImpl g(cuda());
        const Tensor ids = s::indices(g, {1, 2, bad}), y = qlora::embed(s::param(g, {5, 6}, 3), ids);
        g.output(y);
        g.output(g.add(Op::embedding_back, {ids, y}, {}, {5, 6}));
        const std::string error = s::error_of([&] { g.run(); g.backend->synchronize(); });
        EXPECT_TRUE(s::contains(error, qlora::str("id ", bad, " in row 2"))) << error;
        s::set(ids, std::vector<int32_t>{4, 4, 4});
        g.run();
        EXPECT_EQ("", s::error_of([&] { g.backend->synchronize(); }));
    }
}

TEST(CudaStoreRows, HaveTheBytesOfTheCpu) {
    for (const DType type : {DType::f32, DType::f16, DType::bf16, DType::q8_0})
        for (const int64_t parts : {1, 3})
            expect_bytes(qlora::str(qlora::name_of(type), " in ", parts, " parts"), [&](GraphImpl& g) {
                const int64_t n = 96;
                std::vector<float> x = s::random_values(5 * parts * n, 9, 3);
                std::fill_n(x.begin(), 32, 0.0f);      // a block of zeros
                for (int i = 32; i < 64; ++i) x[size_t(i)] = float(i - 32) * 1e-7f;     // subnormal in f16
                x[70] = 60000;
                x[71] = -0.0f;
                const Tensor state = g.state(parts == 1 ? Shape{6, n} : Shape{parts, 6, n}, {}, type);
                qlora::store_rows(state, s::input(g, {5, parts * n}, x), s::indices(g, {3, -1, 5, 0, -9}));
                return std::vector{state};
            });
    expect_bytes("odd rows", [](GraphImpl& g) {
        const Tensor state = g.state({4, 5}, {}, DType::bf16);
        qlora::store_rows(state, s::input(g, {2, 5}, 2), s::indices(g, {3, 1}));
        return std::vector{state};
    });
}

TEST(CudaStoreRows, NumbersThatTheTypeCannotHoldAreNamed) {
    const struct { DType type; float number; } cases[] = {{DType::f16, 70000.0f}, {DType::q8_0, -1e8f},
                                                          {DType::bf16, INFINITY}, {DType::f16, NAN}};
    for (const auto& c : cases) {
        std::vector<float> x(3 * 64, 1.0f);
        x[64 + 7] = c.number;
        std::string errors[2];
        for (const auto& backend : {s::cpu(), cuda()}) {
            GraphImpl g(backend);
            qlora::store_rows(g.state({4, 64}, {}, c.type), s::input(g, {3, 64}, x), s::indices(g, {0, 1, 2}));
            errors[backend->name().starts_with("cuda")] = s::error_of([&] { g.run(); g.backend->synchronize(); });
        }
        EXPECT_TRUE(s::contains(errors[0], "cannot hold")) << errors[0];
        EXPECT_TRUE(s::contains(errors[1], "row 1 has the number")) << errors[1];
        EXPECT_EQ(s::contains(errors[0], "choose bf16 or f32"), s::contains(errors[1], "choose bf16 or f32"));
    }
}

TEST(CudaStoreRows, WhatCannotBeStored) {
    for (const DType type : {DType::q4_0, DType::q6_k}) {
        GraphImpl g(cuda());
        qlora::store_rows(g.state({2, 256}, {}, type), s::input(g, {1, 256}, 2), s::indices(g, {1}));
        EXPECT_TRUE(s::contains(s::error_of([&] { g.run(); }), "choose f32, f16, bf16 or q8_0"));
    }
    GraphImpl g(cuda());
    const Tensor state = g.state({2, 2});
    qlora::store_rows(state, s::input(g, {2, 2}, std::vector<float>{1, 2, 3, 4}), s::indices(g, {0, 2}));
    const std::string error = s::error_of([&] { g.run(); g.backend->synchronize(); });
    EXPECT_TRUE(s::contains(error, "store_rows") && s::contains(error, "2 in row 1")) << error;
    EXPECT_EQ((std::vector<float>{1, 2, 0, 0}), s::get(state));
}

TEST(CudaCrossEntropy, ShapesAndTargets) {
    for (const int64_t columns : {1, 257, 9000})
        for (const int ignored : {0, 1, 2}) {          // no row, some, all
            const Build build = [&](GraphImpl& g) {
                std::vector<int32_t> targets(9);
                for (size_t i = 0; i < targets.size(); ++i)
                    targets[i] = int64_t(i) % 3 < ignored * 2 - 1 ? -100 : int32_t(int64_t(i) * 37 % columns);
                std::vector<float> z = s::random_values(9 * columns, 5, 4);
                z[0] = 90;                             // exp(z) alone would overflow
                const Tensor logits = s::input(g, {9, columns}, z), t = s::indices(g, targets),
                             loss = qlora::cross_entropy(logits, t),
                             dy = s::input(g, {1}, std::vector<float>{0.7f});
                return std::vector{loss, g.add(Op::cross_entropy_back, {logits, t, loss, dy})};
            };
            expect_near(qlora::str(columns, " columns, ignored ", ignored), build, 2e-6);
        }
    GraphImpl g(cuda());
    g.output(qlora::cross_entropy(s::input(g, {3, 4}, 1), s::indices(g, {-2, 3, 4})));
    const std::string error = s::error_of([&] { g.run(); g.backend->synchronize(); });
    EXPECT_TRUE(s::contains(error, "cross_entropy") && s::contains(error, "4 in row 2")) << error;
}

TEST(CudaDora, ScalesAndTheirGradient) {
    for (const int64_t rows : {1, 40})
        for (const int64_t out : {1, 31, 300}) {
            const auto leaves = [&](GraphImpl& g) {
                std::vector<float> norms = s::random_values(out, 6);
                for (float& v : norms) v = std::fabs(v) + 0.1f;
                norms[0] = 0;                          // no direction
                return std::array{s::input(g, {rows, out}, 1), s::input(g, {out}, 2), s::input(g, {out}, norms)};
            };
            expect_bytes(qlora::str(rows, " x ", out), [&](GraphImpl& g) {
                const auto [z, m, n] = leaves(g);
                return std::vector{qlora::dora_scale(z, m, n)};
            });
            expect_near(qlora::str(rows, " x ", out), [&](GraphImpl& g) {
                const auto [z, m, n] = leaves(g);
                return std::vector{g.add(Op::dora_scale_dm, {s::input(g, {rows, out}, 7), z, n})};
            }, 1e-6);
        }
}

TEST(CudaDora, NormsOfEveryStoredType) {
    for (const DType type : {DType::f32, DType::bf16, DType::q8_0, DType::nf4})
        for (const int64_t out : {1, 6})
            for (const int64_t rank : {1, 17})
                expect_near(qlora::str(qlora::name_of(type), ", ", out, " rows, rank ", rank), [&](GraphImpl& g) {
                    return std::vector{qlora::dora_norm(g.weight(stored({out, 320}, type)), s::input(g, {rank, 320}, 1),
                                                        s::input(g, {out, rank}, 2), 0.5f)};
                }, 1e-6);
}

}  // namespace cuda_optimizer_test
