// nf4_test.cpp - the 4-bit kernels of src/cuda, run on the emulation in several thread orders, against the definition
// on the CPU.
#include "tests/cuda-emulation/cuda_emulation.h"

#include "src/base/rng.h"
#include "src/cuda/nf4.cuh"
#include "src/tensor/nf4.h"

#include <gtest/gtest.h>

#include <cmath>

namespace cuda_nf4_tests {

using cuda_emulation::Order;
using qlora::DType;
namespace cuda = qlora::cuda;

#if defined(__SANITIZE_THREAD__)                        // finds a race in any order, and a thread costs it milliseconds
constexpr std::pair<Order, uint64_t> orders[] = {{Order::forward, 0}};
constexpr int64_t most_rows = 20;
#else
constexpr std::pair<Order, uint64_t> orders[] = {
    {Order::forward, 0}, {Order::reverse, 0}, {Order::random, 1}, {Order::random, 2}};
constexpr int64_t most_rows = 10'000;
#endif

qlora::Weight random_weight(int64_t rows, int64_t cols, DType type, bool double_quant) {
    qlora::Rng rng{uint64_t(rows * 1000 + cols)};
    std::vector<float> x(size_t(rows * cols));
    for (float& v : x) v = rng.normal() * 0.02f;
    return qlora::quantize_4bit(qlora::dense_weight("w", {rows, cols}, std::move(x)), type, double_quant);
}

// A copy on the "device", every array of exactly its size, so that the address sanitizer sees the first byte read
// beyond it.
struct OnDevice {
    cuda::Stream stream{0};
    std::vector<cuda::Memory> memory;
    qlora::WeightRef w;

    template <class T> const T* copy(const T* from, int64_t count) {
        memory.emplace_back(count * int64_t(sizeof(T)));
        memory.back().upload(stream, from, memory.back().bytes());
        return memory.back().as<T>();
    }
    explicit OnDevice(const qlora::Weight& source) : w(source.ref()) {
        const int64_t n = source.elements(), blocks = (n + 63) / 64;
        qlora::FourBit& q = w.quant;
        w.data = copy(source.data, qlora::bytes_of(source.dtype, n));
        q.codebook = copy(q.codebook, 16);
        if (q.absmax) q.absmax = copy(q.absmax, blocks);
        if (q.absmax_code) {
            q.absmax_code = copy(q.absmax_code, blocks);
            q.absmax_map = copy(q.absmax_map, 256);
            q.absmax2 = copy(q.absmax2, (blocks + 255) / 256);
        }
    }
};

TEST(CudaNf4, GemvMultipliesAsTheDefinition) {
    struct Case { int64_t rows, cols, tokens; DType type; bool double_quant; };
    for (const Case& c : {Case{13, 96, 3, DType::nf4, true},
                          {9, 4128, 1, DType::nf4, true},
                          {8, 8224, 1, DType::fp4, false},
                          {11, 77, 2, DType::nf4, true},
                          {1, 1, 1, DType::nf4, false},
                          {4100, 32, 1, DType::nf4, true}}) {
        if (c.rows > most_rows) continue;
        const qlora::Weight weight = random_weight(c.rows, c.cols, c.type, c.double_quant);
        const std::vector<float> w = weight.decoded();
        qlora::Rng rng{77};
        std::vector<float> x(size_t(c.tokens * c.cols)), first;
        for (float& v : x) v = rng.normal();
        OnDevice device(weight);
        const float* at = device.copy(x.data(), int64_t(x.size()));
        for (const auto& [order, seed] : orders) {
            cuda_emulation::options = {order, seed};
            cuda::Memory out(c.tokens * c.rows * 4);
            cuda::nf4_gemv(device.stream, device.w, at, out.as<float>(), c.tokens);
            std::vector<float> y(size_t(c.tokens * c.rows));
            out.download(device.stream, y.data(), out.bytes());
            for (int64_t t = 0; t < c.tokens; ++t)
                for (int64_t r = 0; r < c.rows; ++r) {
                    double sum = 0, size = 0;
                    for (int64_t k = 0; k < c.cols; ++k) {
                        const double term = double(w[size_t(r * c.cols + k)]) * x[size_t(t * c.cols + k)];
                        sum += term;
                        size += std::fabs(term);
                    }
                    ASSERT_NEAR(y[size_t(t * c.rows + r)], sum, 2e-6 * size)
                        << c.rows << 'x' << c.cols << " row " << r << " token " << t;
                }
            if (first.empty()) first = y;
            ASSERT_EQ(y, first) << "the result depends on the order of threads";
        }
    }
    cuda_emulation::options = {};
}

TEST(CudaNf4, RefusesWhatItCannotDo) {
    const qlora::Weight weight = random_weight(4, 64, DType::nf4, true);
    OnDevice device(weight);
    qlora::WeightRef odd = device.w;
    odd.quant.block = 48;
    EXPECT_THROW(cuda::nf4_gemv(device.stream, odd, nullptr, nullptr, 1), qlora::Error);
    odd = device.w;
    odd.dtype = DType::q4_0;
    EXPECT_THROW(cuda::nf4_gemv(device.stream, odd, nullptr, nullptr, 1), qlora::Error);
    odd = device.w;
    odd.rows = int64_t(1) << 40;                        // more blocks than a grid holds
    EXPECT_THROW(cuda::nf4_gemv(device.stream, odd, nullptr, nullptr, 1), qlora::Error);
    EXPECT_THROW(cuda::nf4_gemv(device.stream, device.w, nullptr, nullptr, 70'000), qlora::Error);
}

template <class Action>
std::pair<qlora::Errc, std::string> refusal(const Action& action) {
    try {
        action();
    } catch (const qlora::Error& e) {
        return {e.code, e.what()};
    }
    return {qlora::Errc::io, "accepted"};
}

TEST(CudaDevice, ErrorsOfTheRuntimeAreExceptions) {
    using cuda_emulation::next_error;
    const cuda::Stream stream(0);
    const int64_t before = stream.memory_free();       // other tests keep some
    next_error = cudaErrorMemoryAllocation;
    const std::string none = "cuda: allocate 1000 bytes: out of memory; use a smaller context, batch or rank, or a "
                             "device with more memory that is free (nvidia-smi shows who has it)";
    EXPECT_EQ(refusal([] { cuda::Memory m(1000); }), std::pair(qlora::Errc::memory, none));
    const cuda::Memory memory(16);                      // the error is forgotten
    next_error = cudaErrorLaunchFailure;
    EXPECT_EQ(refusal([&] { stream.sync(); }),
              std::pair(qlora::Errc::device, std::string("cuda: wait for the device: unspecified launch failure; the "
                                                         "device is lost to this process: start it again, what was "
                                                         "saved is whole")));
    const std::pair<cudaError_t, std::string> starts[] = {{cudaErrorInsufficientDriver, "install a newer one"},
                                                          {cudaErrorNoDevice, "use the CPU (--device cpu)"},
                                                          {cudaErrorDevicesUnavailable, "--device cuda:N"},
                                                          {cudaErrorNotSupported, "nvidia-smi"}};
    for (const auto& [code, remedy] : starts) {
        next_error = code;
        const auto [errc, text] = refusal([] { cuda::Stream s(0); });
        EXPECT_EQ(errc, qlora::Errc::device);
        EXPECT_NE(text.find(remedy), text.npos) << text;
    }
    EXPECT_NE(cuda::remedy_of(cudaErrorNoKernelImageForDevice).find("CUDA_ARCHS"), std::string_view::npos);
    EXPECT_EQ(refusal([] { cuda::Stream s(1); }).first, qlora::Errc::device);
    cuda_emulation::devices = 0;
    EXPECT_NE(refusal([] { cuda::Stream s(0); }).second.find("cuda: device 0 asked for"), std::string::npos);
    cuda_emulation::devices = 1;
    char byte = 0;
    EXPECT_EQ(refusal([&] { memory.download(stream, &byte, 1, 16); }).first, qlora::Errc::argument);
    EXPECT_EQ(stream.memory_free(), before - 256);
}

TEST(CudaDevice, MemoryIsFreedOnce) {
    const int before = cuda_emulation::live_allocations;
    {
        cuda::Memory a(10), b(20);
        cuda::Memory c = std::move(a);
        b = std::move(c);
        EXPECT_EQ(b.bytes(), 10);
        const cuda::Memory nothing(0);
    }
    EXPECT_EQ(cuda_emulation::live_allocations, before);
}

}  // namespace cuda_nf4_tests
