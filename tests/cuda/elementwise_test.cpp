// elementwise_test.cpp - rooms that go element by element or row by row, in the shapes that samples.h lacks: pieces of
// 8 with and without a rest, memory that is not aligned, rows of every kind of team, strips of rows, factors in every
// type. backend_test.cpp compiles the wing.
#include "tests/cuda-emulation/cuda_emulation.h"

#include "src/base/half.h"
#include "tests/ops/trial.h"

namespace cuda_elementwise_test {

using cuda_emulation::Order;
using qlora::Compute;
using qlora::DType;
using qlora::Gelu;
using qlora::GraphImpl;
using qlora::Op;
using qlora::Shape;
using qlora::Tensor;
using samples::Kind;
using samples::Sample;
using samples::Source;
using samples::Sources;
using samples::Trial;

std::shared_ptr<qlora::BackendImpl> cpu() {
    static const auto backend = qlora::make_cpu_backend(1, Compute::f32);
    return backend;
}
std::shared_ptr<qlora::BackendImpl> cuda(Compute compute) {
    static const std::shared_ptr<qlora::BackendImpl> exact = qlora::make_cuda_backend(0, Compute::f32),
                                                     fast = qlora::make_cuda_backend(0, Compute::bf16);
    return compute == Compute::f32 ? exact : fast;
}

// In f32 in two orders of threads, which must give the same bytes, and in 16 bits.
void expect_as_on_the_cpu(const Sample& s, double tolerance = 1e-5) {
    const auto want = Trial(s, cpu(), true).results();
    cuda_emulation::options = {Order::random, 5};
    const auto got = Trial(s, cuda(Compute::f32), true).results();
    cuda_emulation::options = {};
    samples::expect_close(got, want, tolerance, samples::title(s));
    EXPECT_EQ(Trial(s, cuda(Compute::f32), true).results(), got) << samples::title(s);
    samples::expect_close(Trial(s, cuda(Compute::bf16), true).results(), want, 0x1p-6, samples::title(s));
}

// The result of s as seen through a view that begins at element `at`, so that pointers are not aligned.
Sample of_views(Op op, const std::string& note, int sources, int64_t count, int64_t at,
                std::function<Tensor(const Sources&)> f) {
    return {op, qlora::str(note, count, " from ", at),
            std::vector<Source>(size_t(sources), Source{Kind::trained, {count + at}}),
            [=](GraphImpl&, const Sources& t) {
                Sources views;
                for (const Tensor& x : t) views.push_back(at ? view(scale(x, 1.5f), at, {count}) : x);
                return f(views);
            },
            {}};
}

TEST(CudaElementwise, PiecesRestsAndMemoryThatIsNotAligned) {
    for (const int64_t count : {1, 7, 8, 9, 600}) {
        for (const int64_t at : {0, 1, 2, 4}) {
            if (at && (count == 1 || count == 9)) continue;
            const auto check = [&](Op op, int sources, const std::function<Tensor(const Sources&)>& f) {
                // views have no gradient rule of their own where they show a part: values only
                Sample s = of_views(op, "", sources, count, at, f);
                if (at) for (Source& x : s.sources) x.kind = Kind::value;
                expect_as_on_the_cpu(s);
            };
            check(Op::add, 2, [](const Sources& t) { return add(t[0], t[1]); });
            check(Op::mul, 2, [](const Sources& t) { return mul(t[0], t[1]); });
            check(Op::silu, 1, [](const Sources& t) { return silu(t[0]); });
            check(Op::geglu, 2, [](const Sources& t) { return geglu(t[0], t[1]); });
            check(Op::gelu, 1, [](const Sources& t) { return gelu(t[0]); });
            check(Op::clamp, 1, [](const Sources& t) { return clamp(t[0], -0.5f, 1); });
            check(Op::softcap, 1, [](const Sources& t) { return softcap(t[0], 0.7f); });
            check(Op::dropout, 1, [](const Sources& t) { return dropout(t[0], {.p = 0.4f, .seed = 5, .stream = 1}); });
        }
    }
}

TEST(CudaElementwise, FarFromZeroNothingBecomesNaN) {
    const Sample s{Op::geglu, "large", {{Kind::trained, {40}}, {Kind::trained, {40}}},
                   [](GraphImpl&, const Sources& t) {
                       const Tensor far = scale(t[0], 1e4f), both = add(geglu(far, t[1]), geglu(far, t[1], Gelu::erf));
                       return add(both, softcap(scale(t[0], 1e5f), 30));
                   },
                   {}};
    expect_as_on_the_cpu(s);
    const Sample silus{Op::silu, "large", {{Kind::trained, {40}}},
                       [](GraphImpl&, const Sources& t) { return silu(scale(t[0], 500)); }, {}};
    expect_as_on_the_cpu(silus);
}

// The same elements are kept, and with the same bits, for steps of more than 32 bits too.
TEST(CudaElementwise, DropoutKeepsWhatTheCpuKeeps) {
    for (const uint64_t step : {uint64_t(0), uint64_t(7), (uint64_t(3) << 32) + 1}) {
        std::vector<std::vector<float>> results;
        for (const bool on_device : {false, true}) {
            GraphImpl g(on_device ? cuda(Compute::f32) : cpu());
            const qlora::DropoutAttr a{.p = 0.3f, .seed = ~uint64_t(0) - 2, .stream = uint64_t(1) << 40};
            const Tensor x = g.input({3, 347}), y = dropout(x, a);
            g.output(y);
            const std::vector<float> values = samples::normal_values(3 * 347, 4);
            g.write(x, values.data(), int64_t(values.size()) * 4);
            g.set_step(step);
            g.run();
            results.emplace_back(values.size());
            g.read(y, results.back().data(), int64_t(values.size()) * 4);
        }
        EXPECT_EQ(results[0], results[1]) << "step " << step;
    }
}

TEST(CudaElementwise, SumsOfSeveralPieces) {
    for (const int64_t count : {1, 255, 16384, 16385, 70000})
        expect_as_on_the_cpu({Op::sum, qlora::str(count), {{Kind::trained, {count}}},
                              [](GraphImpl&, const Sources& t) { return sum(t[0]); }, {}});
}

TEST(CudaElementwise, RowsAndColumnsOfEveryWidth) {
    const std::pair<int64_t, int64_t> shapes[] = {{1, 1}, {300, 1}, {5, 8}, {2, 33}, {270, 40}, {3, 2064}, {2, 300}};
    for (const auto& [rows, n] : shapes) {
        const Source x{Kind::trained, {rows, n}};
        const std::string note = qlora::str(rows, " x ", n);
        expect_as_on_the_cpu({Op::bias, note, {x, {Kind::trained, {n}}},
                              [](GraphImpl&, const Sources& t) { return bias(t[0], t[1]); }, {}});
        expect_as_on_the_cpu({Op::scale_rows, note, {x, {Kind::value, {rows}}},
                              [](GraphImpl&, const Sources& t) { return scale_rows(t[0], t[1]); }, {}});
    }
}

TEST(CudaElementwise, NormsOfEveryKindOfTeam) {
    const std::pair<int64_t, int64_t> shapes[] = {{1, 1},    {3, 5},    {70, 8},    {9, 64},    {5, 128},  {3, 256},
                                                  {2, 760},  {2, 1024}, {2, 1032},  {1, 3584},  {2, 4100}, {1, 8192},
                                                  {1, 9000}, {1, 9001}, {1, 16384}, {1, 17000}, {300, 16}};
    for (const auto& [rows, n] : shapes) {
        const Source x{Kind::trained, {rows, n}};
        expect_as_on_the_cpu({Op::rms_norm, qlora::str(rows, " x ", n), {x, {Kind::trained, {n}}},
                              [](GraphImpl&, const Sources& t) { return rms_norm(t[0], t[1], 1e-3f); }, {}}, 2e-5);
        const Source factor{Kind::trained, {n}};
        expect_as_on_the_cpu({Op::layer_norm, qlora::str(rows, " x ", n), {x, factor, factor},
                              [](GraphImpl&, const Sources& t) { return layer_norm(t[0], t[1], t[2], 1e-3f); }, {}},
                             2e-5);
        expect_as_on_the_cpu({Op::layer_norm, qlora::str("bare, ", rows, " x ", n), {x},
                              [](GraphImpl&, const Sources& t) { return layer_norm(t[0], {}, {}, 1e-3f); }, {}}, 2e-5);
    }
}

// 10^4 times their spread away from 0, rows that are held in registers and rows that are not.
TEST(CudaElementwise, NormsOfRowsFarFromZeroKeepTheirDigits) {
    for (const int64_t n : {5, 64, 3584, 9001}) {
        std::vector<std::vector<float>> results;
        for (const bool on_device : {false, true}) {
            GraphImpl g(on_device ? cuda(Compute::f32) : cpu());
            const Tensor x = g.param({2, n}), w = g.param({n}), y = layer_norm(x, w, {});
            std::vector<float> values = samples::normal_values(2 * n, 4), factors(size_t(n), 1.0f);
            for (float& v : values) v += 1e4f;
            g.write(x, values.data(), 2 * n * 4);
            g.write(w, factors.data(), n * 4);
            g.backward(sum(mul(y, mul(y, y))));
            std::vector<Tensor> all{y};
            for (const Tensor leaf : {x, w}) all.push_back(g.handle(g.grads[size_t(leaf.id())]));
            for (const Tensor t : all) g.output(t);
            g.run();
            results.emplace_back();
            for (const Tensor t : all) {
                std::vector<float> part(size_t(g.node(t.id()).elements()));
                g.read(t, part.data(), int64_t(part.size()) * 4);
                results.back().insert(results.back().end(), part.begin(), part.end());
            }
        }
        samples::expect_close({results[1]}, {results[0]}, 2e-6, qlora::str("n ", n));
    }
}

// A weight of n elements, encoded from normal values as bf16 or f16; q8_0 comes from samples.h.
std::shared_ptr<const qlora::Weight> weight_of(DType type, int64_t n) {
    if (type == DType::q8_0) return samples::stored_weight({n}, 3);
    auto bits = std::make_shared<std::vector<uint16_t>>();
    for (int64_t i = 0; i < n; ++i) bits->push_back(uint16_t((type == DType::bf16 ? 0x3f00 : 0x3800) + i * 3));
    qlora::Weight w;
    w.name = "factors";
    w.dtype = type;
    w.shape = {n};
    w.data = reinterpret_cast<const uint8_t*>(bits->data());
    w.owner = bits;
    return std::make_shared<const qlora::Weight>(std::move(w));
}

TEST(CudaElementwise, FactorsAreStoredWeightsOfAnyType) {
    for (const DType type : {DType::bf16, DType::f16, DType::q8_0}) {
        const auto w = weight_of(type, 64);
        const Source x{Kind::trained, {3, 64}};
        expect_as_on_the_cpu({Op::rms_norm, std::string(qlora::name_of(type)), {x},
                              [=](GraphImpl& g, const Sources& t) { return rms_norm(t[0], g.weight(w), 1e-5f); }, {}});
        expect_as_on_the_cpu({Op::bias, std::string(qlora::name_of(type)), {x},
                              [=](GraphImpl& g, const Sources& t) { return bias(t[0], g.weight(w)); }, {}});
        const auto b = weight_of(DType::q8_0, 64);     // both may have to be decoded
        expect_as_on_the_cpu({Op::layer_norm, std::string(qlora::name_of(type)), {x},
                              [=](GraphImpl& g, const Sources& t) {
                                  return layer_norm(t[0], g.weight(w), g.weight(b));
                              },
                              {}});
    }
}

TEST(CudaElementwise, HeadsTurnWholeOrInPart) {
    struct Heads { int64_t count, size, rotated; };
    const Heads all[] = {{1, 2, 2},  {3, 64, 64}, {5, 128, 64}, {2, 80, 32}, {2, 24, 24}, {40, 16, 16},
                         {2, 40, 24}, {2, 80, 20}, {2, 80, 80}, {3, 64, 16}};
    for (const Heads& h : all) {
        for (const bool adjacent : {false, true}) {
            const qlora::RopeAttr a{.head_dim = h.size, .rotated = h.rotated, .adjacent = adjacent, .magnitude = 1.1f};
            expect_as_on_the_cpu({Op::rope, qlora::str(h.count, " x ", h.size, adjacent ? " adjacent" : ""),
                                  {{Kind::trained, {3, h.count * h.size}},
                                   {Kind::index, {3}, {0, 5, 4000}},
                                   {Kind::value, {h.rotated / 2}}},
                                  [=](GraphImpl&, const Sources& t) { return rope(t[0], t[1], t[2], a); }, {}});
        }
    }
}

// Forward and backward, in f32 and in 16 bits: what does not turn is what came in, to the bit.
TEST(CudaElementwise, TheRestOfAHeadPasses) {
    for (const bool adjacent : {false, true}) {
        for (const int64_t rotated : {20, 32}) {       // one by one, and in pieces
            for (const Compute compute : {Compute::f32, Compute::bf16}) {
                GraphImpl g(cuda(compute));
                const Tensor x = g.param({3, 160}), at = g.input({3}, DType::i32), f = g.input({rotated / 2}),
                             dy = g.input({3, 160}),
                             y = rope(x, at, f, {.head_dim = 80, .rotated = rotated, .adjacent = adjacent});
                g.backward(sum(mul(y, dy)));
                const Tensor dx = g.handle(g.grads[size_t(x.id())]);
                g.output(y);
                g.output(dx);
                std::vector<float> in[2], out[2];
                for (size_t i = 0; i < 2; ++i) {
                    in[i] = samples::normal_values(480, 4 + i);
                    if (compute == Compute::bf16)      // what 16 bits hold
                        for (float& v : in[i]) v = qlora::f32_from_bf16(qlora::bf16_from_f32(v));
                    g.write(i ? dy : x, in[i].data(), 480 * 4);
                    out[i].resize(480);
                }
                const std::vector<int32_t> positions{1, 30, 4000};
                g.write(at, positions.data(), 12);
                g.run();
                g.read(y, out[0].data(), 480 * 4);
                g.read(dx, out[1].data(), 480 * 4);
                for (size_t i = 0; i < 480; ++i) {
                    if (int64_t(i) % 80 < rotated) continue;
                    ASSERT_EQ(in[0][i], out[0][i]) << rotated << " value " << i;
                    ASSERT_EQ(in[1][i], out[1][i]) << rotated << " gradient " << i;
                }
            }
        }
    }
}

TEST(CudaElementwise, StatesAreUpdatedInPlace) {
    const Source state{Kind::state, {3, 35}}, x{Kind::value, {3, 35}};
    expect_as_on_the_cpu({Op::accumulate, "", {state, x},
                          [](GraphImpl&, const Sources& t) { return accumulate(t[0], silu(t[1])); }, {}});
    expect_as_on_the_cpu({Op::copy, "", {state, x},
                          [](GraphImpl&, const Sources& t) { return copy(t[0], silu(t[1])); }, {}});
}

}  // namespace cuda_elementwise_test
