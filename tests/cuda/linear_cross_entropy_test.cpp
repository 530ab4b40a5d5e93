// linear_cross_entropy_test.cpp - the room of src/cuda on the emulation against the CPU: stored types, several chunks
// with a rest, caps, rows without a target, and targets beyond the vocabulary.
#include "tests/cuda-emulation/cuda_emulation.h"

#include "src/cuda/linear_cross_entropy.cuh"
#include "src/ops/ops.h"
#include "src/tensor/nf4.h"
#include "tests/ops/samples.h"
#include "tests/support/blocks.h"

#include <gtest/gtest.h>

#include <cmath>

namespace cuda_linear_cross_entropy_tests {

using cuda_emulation::Order;
using qlora::Compute;
using qlora::DType;
using qlora::GraphImpl;
using qlora::Tensor;
namespace room = qlora::cuda::linear_cross_entropy_room;

struct Case {
    DType type;
    int64_t rows, n, vocabulary;
    float cap = 0;
    bool node = false;                                 // W is a float matrix of the graph
};

// Bytes of logits for several chunks; as they were afterwards.
struct Limit {
    const int64_t before = room::most_logits;
    explicit Limit(int64_t bytes) { room::most_logits = bytes; }
    ~Limit() {
        room::most_logits = before;
        cuda_emulation::options = {};
    }
};

std::vector<float> weight_values(const Case& c) {
    std::vector<float> values = samples::normal_values(c.vocabulary * c.n, 5);
    for (float& v : values) v *= 0.5f;
    return values;
}

qlora::WeightPtr weight_of(const Case& c) {
    qlora::Weight w = qlora::dense_weight("w", {c.vocabulary, c.n}, weight_values(c));
    if (c.type == DType::f32) return std::make_shared<const qlora::Weight>(w);
    if (qlora::is_4bit(c.type)) return std::make_shared<const qlora::Weight>(qlora::quantize_4bit(w, c.type, true));
    auto bytes = std::make_shared<std::vector<uint8_t>>(blocks_support::random_blocks(c.type, c.vocabulary * c.n));
    w.dtype = c.type;
    w.data = bytes->data();
    w.owner = bytes;
    if (c.type != DType::bf16) return std::make_shared<const qlora::Weight>(w);
    const std::vector<float> values = weight_values(c);                    // random bits could be infinite
    for (size_t i = 0; i < values.size(); ++i) {
        const uint16_t half = qlora::bf16_from_f32(values[i]);
        std::memcpy(bytes->data() + 2 * i, &half, 2);
    }
    return std::make_shared<const qlora::Weight>(w);
}

std::vector<int32_t> targets_of(const Case& c) {
    std::vector<int32_t> targets;
    for (int64_t i = 0; i < c.rows; ++i) targets.push_back(i % 5 == 2 ? -100 : int32_t(i * 31 % c.vocabulary));
    targets.back() = int32_t(c.vocabulary) - 1;
    return targets;
}

// nll, and what is kept behind it.
std::vector<std::vector<float>> results(const Case& c, std::shared_ptr<qlora::BackendImpl> backend,
                                        const std::vector<int32_t>& targets, bool with_grad = true) {
    GraphImpl g(std::move(backend));
    const Tensor x = g.input({c.rows, c.n}), t = g.input({c.rows}, DType::i32);
    const Tensor w = c.node ? g.input({c.vocabulary, c.n}) : g.weight(weight_of(c));
    const Tensor nll = qlora::linear_cross_entropy(x, w, t, with_grad, c.cap);
    g.output(nll);
    std::vector<float> values = samples::normal_values(c.rows * c.n, 8);
    if (qlora::type_info(c.type).block > 2)            // weights of random blocks are large
        for (float& v : values) v *= 0.02f;
    for (int64_t i = 0; i < c.rows; ++i)               // without a target: never looked at
        for (int64_t k = 0; k < c.n && targets[size_t(i)] < 0; ++k) values[size_t(i * c.n + k)] = NAN;
    const Tensor kept = with_grad ? qlora::view(nll, c.rows, {c.rows, c.n}) : nll;
    g.output(kept);
    g.write(x, values.data(), c.rows * c.n * 4);
    g.write(t, targets.data(), c.rows * 4);
    if (c.node) g.write(w, weight_values(c).data(), c.vocabulary * c.n * 4);
    g.run();
    std::vector<std::vector<float>> all(with_grad ? 2 : 1);
    all[0].resize(size_t(c.rows));
    g.read(nll, all[0].data(), c.rows * 4);
    if (!with_grad) return all;
    all[1].resize(size_t(c.rows * c.n));
    g.read(kept, all[1].data(), c.rows * c.n * 4);
    return all;
}

void expect_close(const std::vector<std::vector<float>>& got, const std::vector<std::vector<float>>& want,
                  double tolerance, const std::string& what) {
    ASSERT_EQ(got.size(), want.size());
    for (size_t k = 0; k < got.size(); ++k) {
        double largest = 1e-3;
        for (const float v : want[k]) largest = std::max(largest, std::fabs(double(v)));
        for (size_t i = 0; i < got[k].size(); ++i)
            ASSERT_NEAR(got[k][i], want[k][i], tolerance * largest) << what << ", result " << k << " at " << i;
    }
}

TEST(CudaLinearCrossEntropy, AgreesWithTheCpu) {
    const auto cpu = qlora::make_cpu_backend(2, Compute::f32);
    const Case cases[] = {{DType::f32, 7, 10, 13, 0, true},  {DType::f32, 5, 24, 37, 3},
                          {DType::bf16, 7, 16, 40},          {DType::f16, 6, 9, 25},
                          {DType::nf4, 7, 24, 301, 5},       {DType::nf4, 1, 77, 1},
                          {DType::fp4, 4, 64, 9},            {DType::q8_0, 9, 32, 50, 2},
                          {DType::q4_k, 3, 256, 33},         {DType::f32, 2, 8, 4200, 0, true}};
    for (const Case& c : cases) {
        const std::string what = qlora::str(qlora::name_of(c.type), " ", c.rows, "x", c.n, "x", c.vocabulary);
        const std::vector<int32_t> targets = targets_of(c);
        const auto want = results(c, cpu, targets);
        std::vector<std::vector<float>> first;
        for (const auto& [order, small] : {std::pair(Order::forward, false), std::pair(Order::random, true),
                                           std::pair(Order::reverse, true)}) {
            if (small && c.vocabulary > 4096) continue;
            const Limit limit(small ? (c.vocabulary + 7) / 8 * 8 * 12 : room::most_logits);    // three rows, or all
            cuda_emulation::options = {order, 3};
            const auto got = results(c, qlora::make_cuda_backend(0, Compute::f32), targets);
            expect_close(got, want, 2e-5, what + (small ? ", in pieces" : ""));
            if (small && first.empty()) first = got;
            if (small) { EXPECT_EQ(got, first) << what << ": the order of threads shows"; }
            if (small && c.type != DType::nf4) continue;
            const auto rounded = results(c, qlora::make_cuda_backend(0, Compute::bf16), targets);
            expect_close(rounded, want, 0x1p-6, what + ", bf16");
        }
    }
}

TEST(CudaLinearCrossEntropy, WithoutGradientTheSameLoss) {
    const Case c{DType::nf4, 7, 24, 301, 5};
    const std::vector<int32_t> targets = targets_of(c);
    for (const Compute compute : {Compute::f32, Compute::bf16}) {
        const auto backend = qlora::make_cuda_backend(0, compute);
        EXPECT_EQ(results(c, backend, targets, false)[0], results(c, backend, targets)[0]);
    }
}

TEST(CudaLinearCrossEntropy, RowsWithoutTargetGiveZeros) {
    const Case c{DType::nf4, 6, 24, 31};
    for (const Compute compute : {Compute::f32, Compute::bf16})
        for (const auto& values : results(c, qlora::make_cuda_backend(0, compute), std::vector<int32_t>(6, -1)))
            for (const float v : values) ASSERT_EQ(v, 0);
}

// Tiles of rows that have none are left out of both products, whatever engine computes them; the others' bytes do not
// change.
TEST(CudaLinearCrossEntropy, RowsWithoutTargetCostNothing) {
    const auto backend = qlora::make_cuda_backend(0, Compute::bf16);
    for (const int capability : {90, 89}) {            // by warpgroups, by warps
        static_cast<qlora::cuda::Device&>(*backend).capability = capability;
        for (const DType type : {DType::nf4, DType::bf16}) {
            const Case c{type, 512, 128, 128};
            const Limit limit(type == DType::nf4 ? room::most_logits : 128 * 128 * 4);  // one chunk, or four
            std::vector<int32_t> every, some;
            for (int64_t i = 0; i < c.rows; ++i) {
                every.push_back(int32_t(i * 31 % c.vocabulary));
                some.push_back(i % 5 == 2 ? every.back() : -100);          // 102 of them: one tile of four
            }
            const auto counted = [&](const std::vector<int32_t>& targets, int64_t& products) {
                const int64_t before = cuda_emulation::tensor_products;
                auto all = results(c, backend, targets);
                products = cuda_emulation::tensor_products - before;
                return all;
            };
            int64_t whole = 0, few = 0;
            const auto want = counted(every, whole), got = counted(some, few);
            EXPECT_EQ(whole, 2 * c.rows * c.n * c.vocabulary);
            EXPECT_EQ(few * 4, whole);
            for (int64_t i = 0; i < c.rows; ++i) {
                const bool trained = some[size_t(i)] >= 0;
                EXPECT_EQ(got[0][size_t(i)], trained ? want[0][size_t(i)] : 0) << i;
                for (int64_t k = i * c.n; k < (i + 1) * c.n; ++k)
                    EXPECT_EQ(got[1][size_t(k)], trained ? want[1][size_t(k)] : 0) << i;
            }
        }
    }
}

TEST(CudaLinearCrossEntropy, ATargetBeyondTheVocabularyIsReported) {
    const Case c{DType::nf4, 4, 24, 31};
    try {
        results(c, qlora::make_cuda_backend(0, Compute::f32), {0, 31, -5, 40});
        ADD_FAILURE() << "accepted";
    } catch (const qlora::Error& e) {
        EXPECT_EQ(e.code, qlora::Errc::argument);
        EXPECT_NE(std::string(e.what()).find("linear_cross_entropy: id 31 in row 1"), std::string::npos) << e.what();
    }
}

TEST(CudaLinearCrossEntropy, MemoryDoesNotGrowWithRowsTimesVocabulary) {
    const Limit limit(int64_t(8) << 20);
    GraphImpl g(qlora::make_cuda_backend(0, Compute::bf16));
    const Tensor x = g.input({4096, 64}), t = g.input({4096}, DType::i32), w = g.input({65536, 64});
    g.output(qlora::linear_cross_entropy(x, w, t, true));
    EXPECT_LT(qlora::make_plan(g).arena, int64_t(20) << 20);
}

}  // namespace cuda_linear_cross_entropy_tests
