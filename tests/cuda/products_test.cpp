// products_test.cpp - products with stored weights of every type on the emulation: a few vectors, and panels, of rows
// and of columns; f32 and bf16; against double.
#include "tests/cuda-emulation/cuda_emulation.h"

#include "src/base/half.h"
#include "src/cuda/panels.cuh"
#include "src/tensor/nf4.h"
#include "tests/support/blocks.h"

#include <gtest/gtest.h>

#include <cmath>

namespace cuda_products_tests {

using cuda_emulation::Order;
using qlora::Compute;
using qlora::DType;
namespace cuda = qlora::cuda;

#if defined(__SANITIZE_THREAD__)
constexpr bool is_slow = true;
#else
constexpr bool is_slow = false;
#endif

struct Stored {
    std::vector<uint8_t> bytes;
    std::vector<float> values;
    qlora::Weight w;
};
Stored stored(DType type, int64_t rows, int64_t cols, bool double_quant) {
    Stored s;
    if (qlora::is_4bit(type)) {
        qlora::Rng rng{uint64_t(rows * cols)};
        std::vector<float> x(size_t(rows * cols));
        for (float& v : x) v = rng.normal();
        s.w = qlora::quantize_4bit(qlora::dense_weight("w", {rows, cols}, std::move(x)), type, double_quant);
    } else {
        s.bytes = blocks_support::random_blocks(type, rows * cols);
        // of these types random bits are numbers of any size, and none
        for (size_t i = 0; type == DType::bf16 && i < s.bytes.size(); i += 2)
            s.bytes[i + 1] = uint8_t(0x3e + s.bytes[i] % 2 * 0x80);
        for (size_t i = 0; type == DType::mxfp4 && i < s.bytes.size(); i += 17)
            s.bytes[i] = uint8_t(124 + s.bytes[i] % 6);
        s.w.dtype = type;
        s.w.shape = {rows, cols};
        s.w.data = s.bytes.data();
        blocks_support::add_scales(s.w);
    }
    s.values = s.w.decoded();
    return s;
}

// Random numbers of that type on the device; values: what they are.
struct Matrix {
    cuda::Memory memory;
    DType type;
    std::vector<float> values;
    Matrix(const cuda::Stream& stream, int64_t count, DType t, uint64_t seed)
        : memory(qlora::bytes_of(t, count)), type(t), values(size_t(count)) {
        qlora::Rng rng{seed};
        std::vector<uint16_t> half;
        for (float& v : values) {
            v = rng.normal();
            if (t == DType::f32) continue;
            half.push_back(qlora::bf16_from_f32(v));
            v = qlora::f32_from_bf16(half.back());
        }
        memory.upload(stream, half.empty() ? static_cast<const void*>(values.data()) : half.data(), memory.bytes());
    }
    std::vector<float> read(const cuda::Stream& stream) const {
        std::vector<float> out(values.size());
        std::vector<uint16_t> half(values.size());
        memory.download(stream, type == DType::f32 ? static_cast<void*>(out.data()) : half.data(), memory.bytes());
        if (type != DType::f32)
            for (size_t i = 0; i < out.size(); ++i) out[i] = qlora::f32_from_bf16(half[i]);
        return out;
    }
};

struct Case {
    DType weight;
    int64_t m, out, in;
    DType x = DType::bf16, y = DType::bf16;
    float alpha = 1, beta = 0;
    bool double_quant = true;
};

void check(const Case& c, Compute compute, bool to_x) {
    SCOPED_TRACE(qlora::str(name_of(c.weight), " ", c.m, "x", c.out, "x", c.in, " ", name_of(c.x), name_of(c.y),
                            compute == Compute::f32 ? " exact" : "", to_x ? " to x" : "",
                            c.double_quant ? "" : " single"));
    const std::shared_ptr<qlora::BackendImpl> backend = qlora::make_cuda_backend(0, compute);
    const cuda::Device& device = static_cast<const cuda::Device&>(*backend);
    qlora::GraphImpl g{backend};
    qlora::Node node;
    node.op = qlora::Op::qmatmul;
    qlora::Call call{g, node, nullptr, {}, nullptr, *backend};

    const Stored s = stored(c.weight, c.out, c.in, c.double_quant);
    const qlora::WeightPtr held = backend->hold(std::make_shared<const qlora::Weight>(s.w), {});
    const int64_t n = to_x ? c.in : c.out, k = to_x ? c.out : c.in;
    const Matrix x(device.stream, c.m * k, c.x, 1), before(device.stream, c.m * n, c.y, 2);
    std::vector<double> want, size;
    for (int64_t i = 0; i < c.m; ++i)
        for (int64_t j = 0; j < n; ++j) {
            double sum = 0, all = 0;
            for (int64_t q = 0; q < k; ++q) {
                const float w = s.values[size_t(to_x ? q * n + j : j * k + q)];
                const double term = double(x.values[size_t(i * k + q)]) * w;
                sum += term;
                all += std::fabs(term);
            }
            const double old = c.beta != 0 ? double(c.beta) * before.values[size_t(i * n + j)] : 0;
            want.push_back(c.alpha * sum + old);
            size.push_back(std::fabs(c.alpha) * all + std::fabs(old));
        }
    std::vector<float> first;
    for (const Order order : {Order::forward, Order::random}) {
        cuda_emulation::options = {order, 3};
        Matrix y(device.stream, c.m * n, c.y, 2);
        cuda::Product p;
        p.m = c.m, p.n = n, p.k = k;
        p.a = {nullptr, c.x}, p.lda = k;
        p.c = {y.memory.as<void>(), c.y}, p.ldc = n;
        p.alpha = c.alpha, p.beta = c.beta;
        const cuda::Memory scratch(product_with_stored_scratch(cuda::engine_of(call), p, held->ref(), to_x));
        p.a.data = x.memory.as<void>();
        call.scratch = scratch.as<void>();
        const int64_t operations = backend->work().operations;
        product_with_stored(call, p, held->ref(), to_x);
        EXPECT_EQ(backend->work().operations - operations, 2 * c.m * n * k);
        const std::vector<float> got = y.read(device.stream);
        for (size_t i = 0; i < got.size(); ++i) {
            const double tolerance = (compute == Compute::f32 ? 2e-6 : 0x1p-7) * size[i] +
                                     (c.y == DType::f32 ? 0 : 0x1p-8 * std::fabs(want[i])) + 1e-30;
            ASSERT_NEAR(got[i], want[i], tolerance) << "at " << i;
        }
        if (first.empty()) first = got;
        ASSERT_EQ(got, first) << "the order of threads shows";
    }
    cuda_emulation::options = {};
}

TEST(CudaProducts, FewVectorsMeetWeightsOfEveryType) {
    for (int t = 0; t < qlora::dtype_count; ++t) {
        const DType type = DType(t);
        const qlora::TypeInfo& info = qlora::type_info(type);
        if (!qlora::can_decode(type) || (is_slow && t % 4)) continue;
        const int64_t in = std::max<int64_t>(info.block, 64) * (info.block > 64 ? 1 : 5);
        check({type, 2, 9, in}, Compute::bf16, false);
        check({type, 1, 11, in, DType::f32, DType::f32}, Compute::f32, false);
        if (info.block == 1) check({type, 3, 8, 77, DType::f32, DType::f32, 0.5f, 1}, Compute::f32, false);
    }
}

TEST(CudaProducts, FewVectorsMeetCodesOnTensorCores) {
    for (const bool double_quant : {true, false}) {
        check({DType::nf4, 1, 37, 2240, DType::bf16, DType::bf16, 1, 0, double_quant}, Compute::bf16, false);
        check({DType::fp4, 8, 16, 576, DType::f32, DType::f32, 2, 0.5f, double_quant}, Compute::bf16, false);
        check({DType::nf4, 5, 150, 64, DType::bf16, DType::f32, 1, 0, double_quant}, Compute::bf16, false);    // walks
        check({DType::nf4, 2, 5, 77, DType::bf16, DType::bf16, 1, 0, double_quant}, Compute::bf16, false);
    }
}

TEST(CudaProducts, PanelsGiveEveryResultOnce) {
    const int64_t usual = std::exchange(cuda::panels_room::panel_bytes, 1);    // panels of 256 rows or columns
    for (const bool to_x : {false, true}) {
        for (const DType type : {DType::nf4, DType::q4_k, DType::bf16, DType::f32, DType::f16, DType::q8_0,
                                 DType::nvfp4, DType::f8_e4m3}) {
            if (is_slow && type != DType::nf4) continue;
            const int64_t out = to_x ? 40 : 520, in = to_x ? 768 : 256;
            check({type, 18, out, in}, Compute::bf16, to_x);
            if (!is_slow) check({type, 9, out, in, DType::f32, DType::f32, 0.5f, 2}, Compute::bf16, to_x);
        }
        if (is_slow) continue;
        const int64_t out = to_x ? 40 : 300, in = to_x ? 328 : 80;             // blocks end within rows
        check({DType::nf4, 10, out, in, DType::f32, DType::f32}, Compute::f32, to_x);
        check({DType::nf4, 30, out, in + 5}, Compute::bf16, to_x);
        check({DType::q4_0, 9, out, 320, DType::f32, DType::f32}, Compute::f32, to_x);
    }
    cuda::panels_room::panel_bytes = usual;
    check({DType::nf4, 1, 30, 64, DType::bf16, DType::bf16}, Compute::bf16, true);
    check({DType::nf4, 70, 72, 128}, Compute::bf16, false);
}

}  // namespace cuda_products_tests
