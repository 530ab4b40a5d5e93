// attention_test.cpp - attention against a naive double-precision definition, forward and backward, over every kind of
// key range.
#include "src/base/rng.h"
#include "src/ops/ops.h"
#include "src/tensor/encode.h"
#include "tests/support/op_golden.h"

#include "tests/support/every_set.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace attention_test {

using qlora::AttentionAttr;
using qlora::DType;
using qlora::Errc;
using qlora::GraphImpl;
using qlora::Op;
using qlora::Tensor;

std::vector<float> random_values(int64_t count, uint64_t seed) {
    qlora::Rng rng{seed};
    std::vector<float> values(static_cast<size_t>(count));
    for (float& v : values) v = rng.normal();
    return values;
}

struct Case {
    int64_t rows = 0, keys = 0, heads = 0, kv_heads = 0, head_dim = 0;
    std::vector<int32_t> first, last;
    std::vector<float> q, k, v, dy;
    float cap = 0, scale = 0;                          // scale 0: 1 / sqrt(head_dim)
    AttentionAttr attr() const {
        AttentionAttr a;
        a.heads = heads;
        a.kv_heads = kv_heads;
        a.head_dim = head_dim;
        a.scale = scale != 0 ? scale : 1 / std::sqrt(float(head_dim));
        a.cap = cap;
        return a;
    }
};

Case causal(int64_t rows, int64_t heads, int64_t kv_heads, int64_t head_dim) {
    Case c{rows,
           rows,
           heads,
           kv_heads,
           head_dim,
           {},
           {},
           random_values(rows * heads * head_dim, 1),
           random_values(rows * kv_heads * head_dim, 2),
           random_values(rows * kv_heads * head_dim, 3),
           random_values(rows * heads * head_dim, 4),
           0,
           0};
    for (int64_t t = 0; t < rows; ++t) {
        c.first.push_back(0);
        c.last.push_back(int32_t(t + 1));
    }
    return c;
}

struct Result { std::vector<float> y, back; };         // back: [dq | dk | dv]

Result run(const Case& c, int threads = 2, const qlora::Kernels& set = qlora::best_kernels(), bool backward = true) {
    GraphImpl g(qlora::make_cpu_backend(threads, qlora::Compute::f32));
    g.backend->host().kernels = &set;
    const Tensor q = g.input({c.rows, c.heads * c.head_dim}), k = g.input({c.keys, c.kv_heads * c.head_dim}),
                 v = g.input({c.keys, c.kv_heads * c.head_dim});
    const Tensor first = g.input({c.rows}, DType::i32), last = g.input({c.rows}, DType::i32), dy = g.input(q.shape());
    const Tensor y = qlora::attention(q, k, v, first, last, c.attr());
    const Tensor back = backward ? g.add(Op::attention_back, {dy, q, k, v, first, last, y}, qlora::attr_of(c.attr()))
                                 : y;
    g.output(y);
    g.output(back);
    g.write(q, c.q.data(), int64_t(c.q.size()) * 4);
    g.write(k, c.k.data(), int64_t(c.k.size()) * 4);
    g.write(v, c.v.data(), int64_t(c.v.size()) * 4);
    g.write(dy, c.dy.data(), int64_t(c.dy.size()) * 4);
    g.write(first, c.first.data(), c.rows * 4);
    g.write(last, c.last.data(), c.rows * 4);
    g.run();
    Result r{std::vector<float>(size_t(qlora::elements_of(y.shape()))),
             std::vector<float>(size_t(qlora::elements_of(back.shape())))};
    g.read(y, r.y.data(), int64_t(r.y.size()) * 4);
    g.read(back, r.back.data(), int64_t(r.back.size()) * 4);
    return r;
}

// Keys and values held in another type: y is that of the numbers which the type holds, to the byte.
std::vector<float> run_cached(const Case& c, DType type, int threads, const qlora::Kernels& set, bool by_head) {
    GraphImpl g(qlora::make_cpu_backend(threads, qlora::Compute::f32));
    g.backend->host().kernels = &set;
    const int64_t row = c.kv_heads * c.head_dim;
    const Tensor q = g.input({c.rows, c.heads * c.head_dim}), first = g.input({c.rows}, DType::i32),
                 last = g.input({c.rows}, DType::i32);
    const qlora::Shape shape = by_head ? qlora::Shape{c.kv_heads, c.keys, c.head_dim} : qlora::Shape{c.keys, row};
    const Tensor k = g.state(shape, {}, type), v = g.state(shape, {}, type);
    const Tensor y = qlora::attention(q, k, v, first, last, c.attr());
    g.output(y);
    for (const auto& [tensor, values] : {std::pair{k, &c.k}, {v, &c.v}}) {
        std::vector<float> laid_out = *values;
        for (int64_t j = 0; by_head && j < c.keys; ++j)
            for (int64_t h = 0; h < c.kv_heads; ++h)
                std::copy_n(&(*values)[size_t(j * row + h * c.head_dim)], c.head_dim,
                            &laid_out[size_t((h * c.keys + j) * c.head_dim)]);
        std::vector<uint8_t> held(size_t(qlora::bytes_of(type, c.keys * row)));
        qlora::encode_plain(type, "test", laid_out.data(), held.data(), c.keys * row);
        g.write(tensor, held.data(), int64_t(held.size()));
    }
    g.write(q, c.q.data(), int64_t(c.q.size()) * 4);
    g.write(first, c.first.data(), c.rows * 4);
    g.write(last, c.last.data(), c.rows * 4);
    g.run();
    std::vector<float> out(c.q.size());
    g.read(y, out.data(), int64_t(out.size()) * 4);
    return out;
}

struct Expected { std::vector<double> y, back; };

// The definition, one score at a time.
Expected naive(const Case& c) {
    const int64_t n = c.head_dim, group = c.heads / c.kv_heads, ldq = c.heads * n, ldk = c.kv_heads * n;
    const double scale = double(c.attr().scale);
    Expected e{std::vector<double>(c.q.size()), std::vector<double>(c.q.size() + 2 * c.k.size())};
    double *dq = e.back.data(), *dk = dq + c.q.size(), *dv = dk + c.k.size();
    for (int64_t h = 0; h < c.heads; ++h)
        for (int64_t t = 0; t < c.rows; ++t) {
            const int64_t from = c.first[size_t(t)], to = c.last[size_t(t)], q = t * ldq + h * n;
            std::vector<double> p, slope;              // of the cap
            double sum = 0, highest = -INFINITY, dot = 0;
            for (int64_t j = from; j < to; ++j) {
                double s = 0;
                for (int64_t d = 0; d < n; ++d)
                    s += double(c.q[size_t(q + d)]) * c.k[size_t(j * ldk + h / group * n + d)];
                p.push_back(c.cap > 0 ? c.cap * std::tanh(s * scale / c.cap) : s * scale);
                slope.push_back(c.cap > 0 ? 1 - std::pow(p.back() / c.cap, 2) : 1);
                highest = std::max(highest, p.back());
            }
            for (double& s : p) sum += s = std::exp(s - highest);
            for (int64_t j = from; j < to; ++j)
                for (int64_t d = 0; d < n; ++d)
                    e.y[size_t(q + d)] += p[size_t(j - from)] / sum * c.v[size_t(j * ldk + h / group * n + d)];
            for (int64_t d = 0; d < n; ++d) dot += double(c.dy[size_t(q + d)]) * e.y[size_t(q + d)];
            for (int64_t j = from; j < to; ++j) {
                const double weight = p[size_t(j - from)] / sum;
                const int64_t key = j * ldk + h / group * n;
                double dp = 0;
                for (int64_t d = 0; d < n; ++d) dp += double(c.dy[size_t(q + d)]) * c.v[size_t(key + d)];
                const double ds = weight * (dp - dot) * slope[size_t(j - from)] * scale;
                for (int64_t d = 0; d < n; ++d) {
                    dq[q + d] += ds * c.k[size_t(key + d)];
                    dk[key + d] += ds * c.q[size_t(q + d)];
                    dv[key + d] += weight * c.dy[size_t(q + d)];
                }
            }
        }
    return e;
}

// Scores of unit normal vectors are of order 1, so that a float softmax is good to about 1e-6; sums over a few hundred
// terms keep 1e-5.
void expect_near(const std::vector<float>& got, const std::vector<double>& want, const char* what) {
    ASSERT_EQ(got.size(), want.size());
    double worst = 0, largest = 0;
    for (size_t i = 0; i < got.size(); ++i) {
        ASSERT_TRUE(std::isfinite(got[i])) << what << " at " << i;
        worst = std::max(worst, std::abs(double(got[i]) - want[i]));
        largest = std::max(largest, std::abs(want[i]));
    }
    EXPECT_LE(worst, 1e-5 * std::max(1.0, largest)) << what;
}

void check(const Case& c) {
    const Expected want = naive(c);
    for (const qlora::Kernels& set : every_set_support::every_set()) {
        const Result got = run(c, 2, set);
        expect_near(got.y, want.y, "y");
        expect_near(got.back, want.back, "gradients");
    }
}

TEST(Attention, CausalOverBlockBorders) {
    for (int64_t rows : {1, 4, 5, 63, 64, 65, 150}) check(causal(rows, 2, 1, 16));
}

TEST(Attention, HeadsOfAnySize) {
    for (int64_t head_dim : {1, 6, 8, 40, 64, 80, 128}) check(causal(70, 3, 3, head_dim));
}

TEST(Attention, GroupedQueries) {
    check(causal(67, 8, 2, 16));
    check(causal(67, 9, 3, 64));
    check(causal(67, 4, 1, 32));
}

TEST(Attention, DocumentsDoNotSeeEachOther) {
    Case c = causal(140, 4, 2, 16);
    const std::vector<int32_t> starts{0, 3, 70, 129};
    for (int32_t t = 0; t < 140; ++t) c.first[size_t(t)] = *(std::upper_bound(starts.begin(), starts.end(), t) - 1);
    check(c);
    // What happens in the second document leaves the bytes of the others alone.
    const Result before = run(c);
    for (int64_t i = 3 * 4 * 16; i < 70 * 4 * 16; ++i) c.q[size_t(i)] += 1;
    for (int64_t i = 3 * 2 * 16; i < 70 * 2 * 16; ++i) c.k[size_t(i)] -= 2, c.v[size_t(i)] *= 3;
    const Result after = run(c);
    for (int64_t i = 0; i < 140 * 4 * 16; ++i) {
        const int64_t t = i / (4 * 16);
        if (t >= 3 && t < 70) continue;
        ASSERT_EQ(before.y[size_t(i)], after.y[size_t(i)]) << "row " << t;
    }
}

TEST(Attention, SlidingWindow) {
    Case c = causal(200, 2, 2, 16);
    for (int32_t t = 0; t < 200; ++t) c.first[size_t(t)] = std::max(0, t - 32);
    check(c);
}

TEST(Attention, EmptyRangesGiveZeros) {
    for (int64_t rows : {3, 100}) {
        Case c = causal(rows, 2, 1, 16);
        for (int64_t t : {int64_t(1), rows - 1}) c.first[size_t(t)] = c.last[size_t(t)] = 0;
        check(c);
        const Result r = run(c);
        for (int64_t i = 0; i < 2 * 16; ++i) {
            EXPECT_EQ(r.y[size_t(1 * 32 + i)], 0);
            EXPECT_EQ(r.back[size_t(1 * 32 + i)], 0);
        }
        for (int64_t t = 0; t < rows; ++t) c.first[size_t(t)] = c.last[size_t(t)] = 0;
        for (float y : run(c).y) ASSERT_EQ(y, 0);
        for (float d : run(c).back) ASSERT_EQ(d, 0);
    }
}

TEST(Attention, CachedDecodeEqualsFullAttention) {
    const Case full = causal(300, 4, 2, 32);
    const std::vector<float> want = run(full, 2, qlora::best_kernels(), false).y;
    for (int64_t rows : {1, 2, 4, 7}) {    // the last rows, against a cache with room to spare that holds garbage
        Case c = full;
        c.rows = rows;
        c.keys = 400;
        c.k.resize(400 * 64, NAN);
        c.v.resize(400 * 64, NAN);
        c.q.assign(full.q.end() - rows * 128, full.q.end());
        c.dy.resize(size_t(rows * 128));
        c.first.assign(size_t(rows), 0);
        c.last.assign(full.last.end() - rows, full.last.end());
        const std::vector<float> got = run(c, 2, qlora::best_kernels(), false).y;
        for (size_t i = 0; i < got.size(); ++i)
            ASSERT_NEAR(got[i], want[want.size() - got.size() + i], 2e-6) << rows << " rows at " << i;
    }
}

// Queries three times as long: scores reach far beyond a cap of 2.
Case with_cap(Case c) {
    c.cap = 2;
    for (float& q : c.q) q *= 3;
    return c;
}

TEST(Attention, CappedScores) {
    for (int64_t rows : {1, 4, 5, 64, 65, 150}) check(with_cap(causal(rows, 2, 1, 16)));
    check(with_cap(causal(67, 9, 3, 40)));
    Case window = with_cap(causal(200, 4, 2, 16));
    for (int32_t t = 0; t < 200; ++t) window.first[size_t(t)] = std::max(0, t - 32);
    for (int64_t t : {1, 70, 199}) window.first[size_t(t)] = window.last[size_t(t)] = 0;
    check(window);
    Case far = with_cap(causal(130, 2, 1, 16));
    for (float& q : far.q) q *= 1000;    // scores at the cap; 1 - (S / cap)^2 is good to 1e-6, and q and k multiply it
    const Result r = run(far);
    expect_near(r.y, naive(far).y, "y");
    for (float d : r.back) ASSERT_TRUE(std::isfinite(d));
}

TEST(Attention, CappedScoresEqualThoseOfGemma2) {
    const auto golden = [](const char* name) { return op_golden::floats("capped_attention", name); };
    Case c{6, 6, 4, 2, 3, op_golden::integers("capped_attention", "first"),
           op_golden::integers("capped_attention", "last"), golden("q"), golden("k"), golden("v"), golden("dy"),
           golden("cap")[0], golden("scale")[0]};
    std::vector<float> back = golden("dq");
    for (const char* name : {"dk", "dv"})
        for (float d : golden(name)) back.push_back(d);
    for (const qlora::Kernels& set : every_set_support::every_set()) {
        const Result got = run(c, 2, set);
        op_golden::expect_near(got.y, golden("y"), 2e-6);
        op_golden::expect_near(got.back, back, 4e-6);
        for (const bool by_head : {false, true})
            op_golden::expect_near(run_cached(c, DType::f16, 2, set, by_head), golden("y"), 2e-6);
        for (const int64_t row : {0, 3}) {             // three rows at a time: the path of generation
            Case few = c;
            few.rows = 3;
            few.first.assign(c.first.begin() + row, c.first.begin() + row + 3);
            few.last.assign(c.last.begin() + row, c.last.begin() + row + 3);
            few.q.assign(c.q.begin() + row * 12, c.q.begin() + (row + 3) * 12);
            few.dy.resize(3 * 12);
            const std::vector<float> y = golden("y"), want(y.begin() + row * 12, y.begin() + (row + 3) * 12);
            op_golden::expect_near(run(few, 2, set, false).y, want, 2e-6);
            op_golden::expect_near(run_cached(few, DType::f16, 2, set, true), want, 2e-6);
        }
    }
}

TEST(Attention, LargeScoresStayFinite) {
    Case c = causal(130, 2, 1, 16);
    for (float& q : c.q) q *= 300;                     // scores up to some thousands: exp alone would overflow
    const Result r = run(c);
    const Expected want = naive(c);
    // a score of 2000 in float is good to 1e-4
    for (size_t i = 0; i < r.y.size(); ++i) ASSERT_NEAR(r.y[i], want.y[i], 2e-3);
    for (float d : r.back) ASSERT_TRUE(std::isfinite(d));
}

TEST(Attention, SameBytesForAnyNumberOfThreads) {
    Case c = causal(200, 6, 2, 24);
    for (int32_t t = 0; t < 200; ++t) c.first[size_t(t)] = t / 90 * 90;
    for (const bool capped : {false, true}) {
        if (capped) c = with_cap(c);
        const Result one = run(c, 1);
        for (int threads : {2, 3}) {
            const Result many = run(c, threads);
            EXPECT_EQ(std::memcmp(one.y.data(), many.y.data(), one.y.size() * 4), 0) << threads;
            EXPECT_EQ(std::memcmp(one.back.data(), many.back.data(), one.back.size() * 4), 0) << threads;
        }
    }
}

TEST(Attention, WildRangesNeverReadOutside) {          // for the address sanitizer, and for finite results
    Case c = causal(70, 2, 1, 8);
    c.first[10] = -1000;
    c.last[20] = 1 << 30;
    c.first[30] = 1 << 30;
    c.last[40] = -5;
    const Result r = run(c);
    for (float y : r.y) ASSERT_TRUE(std::isfinite(y));
    for (float d : r.back) ASSERT_TRUE(std::isfinite(d));
}

TEST(Attention, PublicBuilderIsCausal) {
    const Case c = causal(20, 4, 2, 8);
    GraphImpl g(qlora::make_cpu_backend(1, qlora::Compute::f32));
    const Tensor q = g.input({20, 32}), k = g.input({20, 16}), v = g.input({20, 16});
    const Tensor y = qlora::attention(q, k, v, 4, 2);
    g.output(y);
    g.write(q, c.q.data(), int64_t(c.q.size()) * 4);
    g.write(k, c.k.data(), int64_t(c.k.size()) * 4);
    g.write(v, c.v.data(), int64_t(c.v.size()) * 4);
    g.run();
    std::vector<float> got(c.q.size());
    g.read(y, got.data(), int64_t(got.size()) * 4);
    expect_near(got, naive(c).y, "y");
}

Case held_as(Case c, DType type) {
    for (std::vector<float>* values : {&c.k, &c.v}) {
        std::vector<uint8_t> held(size_t(qlora::bytes_of(type, int64_t(values->size()))));
        qlora::encode_plain(type, "test", values->data(), held.data(), int64_t(values->size()));
        qlora::type_info(type).decode(held.data(), values->data(), int64_t(values->size()));
    }
    return c;
}

// The last rows of a dialogue against all of it.
Case last_rows(int64_t rows, int64_t keys, int64_t heads, int64_t kv_heads, int64_t head_dim) {
    Case c = causal(keys, heads, kv_heads, head_dim);
    c.rows = rows;
    c.q.resize(size_t(rows * heads * head_dim));
    c.dy.resize(c.q.size());
    c.first.assign(size_t(rows), 0);
    c.last.erase(c.last.begin(), c.last.end() - rows);
    return c;
}

TEST(Attention, AnyTypeOfCacheIsReadAsWhatItHolds) {
    for (const DType type : {DType::f32, DType::f16, DType::bf16, DType::q8_0})
        for (const int64_t rows : {1, 3, 4, 5, 70})
            for (const auto& [heads, kv_heads, head_dim] :
                 {std::array<int64_t, 3>{9, 3, 64}, {4, 4, 40}, {8, 2, 8}, {2, 1, 96}, {10, 2, 128}, {6, 1, 72}}) {
                if (head_dim % qlora::type_info(type).block) continue;
                Case c = last_rows(rows, 301, heads, kv_heads, head_dim);
                c.first[0] = 7;
                for (const qlora::Kernels& set : every_set_support::every_set()) {
                    const std::vector<float> want = run(held_as(c, type), 2, set, false).y;
                    for (const bool by_head : {false, true})
                        ASSERT_EQ(run_cached(c, type, 3, set, by_head), want)
                            << (by_head ? "by head, " : "") << qlora::name_of(type) << ", " << rows
                            << " rows, heads of " << head_dim << ", " << set.name;
                }
            }
}

// Heads that share keys are computed together, in parts that depend on the threads; each comes out as if it were alone.
TEST(Attention, EveryHeadAsIfAlone) {
    const Case c = last_rows(2, 600, 9, 3, 32);
    for (const int threads : {1, 2, 5}) {
        const std::vector<float> all = run(c, threads, qlora::best_kernels(), false).y;
        for (int64_t h = 0; h < 9; ++h) {
            Case one = last_rows(2, 600, 1, 1, 32);
            for (int64_t t = 0; t < 2; ++t) std::copy_n(&c.q[size_t((t * 9 + h) * 32)], 32, &one.q[size_t(t * 32)]);
            for (int64_t t = 0; t < 600; ++t) {
                std::copy_n(&c.k[size_t((t * 3 + h / 3) * 32)], 32, &one.k[size_t(t * 32)]);
                std::copy_n(&c.v[size_t((t * 3 + h / 3) * 32)], 32, &one.v[size_t(t * 32)]);
            }
            const std::vector<float> alone = run(one, 1, qlora::best_kernels(), false).y;
            for (int64_t t = 0; t < 2; ++t)
                ASSERT_EQ(std::memcmp(&alone[size_t(t * 32)], &all[size_t((t * 9 + h) * 32)], 32 * 4), 0)
                    << threads << " threads, head " << h << ", row " << t;
        }
    }
}

TEST(Attention, StatesThatDoNotFitAreRefused) {
    GraphImpl g(qlora::make_cpu_backend(1, qlora::Compute::f32));
    const auto refused = [](const char* words, auto f) {
        try {
            f();
            ADD_FAILURE() << "accepted; expected: " << words;
        } catch (const qlora::Error& e) {
            EXPECT_NE(std::string(e.what()).find(words), std::string::npos) << e.what();
        }
    };
    const Tensor q = g.input({1, 32}), row = g.input({1}, DType::i32), f16 = g.state({4, 32}, {}, DType::f16),
                 bf16 = g.state({4, 32}, {}, DType::bf16);
    refused("blocks of 32", [&] { g.state({4, 40}, {}, DType::q8_0); });
    refused("nf4", [&] { g.state({4, 64}, {}, DType::nf4); });
    refused("k f16 [4, 32], v bf16 [4, 32]", [&] { qlora::attention(q, f16, bf16, row, row, {1, 1, 32, 1}); });
    refused("expected f32", [&] {
        g.add(Op::attention_back, {q, q, f16, f16, row, row, q}, qlora::attr_of(AttentionAttr{1, 1, 32, 1}));
    });
    refused("a cache has no gradient", [&] {
        const Tensor k = g.state({1, 4, 32});
        g.add(Op::attention_back, {q, q, k, k, row, row, q}, qlora::attr_of(AttentionAttr{1, 1, 32, 1}));
    });
    refused("or {1, keys, 32}", [&] {
        qlora::attention(q, g.state({2, 4, 16}), g.state({2, 4, 16}), row, row, {1, 1, 32, 1});
    });
    refused("expected f32", [&] { qlora::scale(f16, 2); });
    refused("keeps its shape", [&] { qlora::reshape(f16, {8, 16}); });
    std::vector<float> values(128);
    refused("a state of f16", [&] { g.read(f16, values.data(), 512); });
}

TEST(Attention, WrongShapesName) {
    GraphImpl g(qlora::make_cpu_backend(1, qlora::Compute::f32));
    const Tensor q = g.input({4, 32}), k = g.input({4, 16}), v = g.input({4, 24});
    try {
        (void)qlora::attention(q, k, v, 4, 2);
        FAIL() << "accepted a v of another shape";
    } catch (const qlora::Error& e) {
        EXPECT_EQ(e.code, Errc::shape);
        for (const char* part : {"[4, 32]", "[4, 16]", "[4, 24]"})
            EXPECT_NE(std::string(e.what()).find(part), std::string::npos) << e.what();
    }
    EXPECT_THROW((void)qlora::attention(q, k, k, 4, 3), qlora::Error);
    EXPECT_THROW((void)qlora::attention(q, k, k, 0, 0), qlora::Error);
}

}  // namespace attention_test
