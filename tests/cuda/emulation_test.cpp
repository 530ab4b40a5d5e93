// emulation_test.cpp - the emulation of a block of threads: it must see the mistakes that it is there to see.
#include "tests/cuda/planted.h"

#include "src/base/half.h"
#include "src/base/rng.h"
#include "src/cuda/mma.cuh"

namespace cuda_emulation_tests {

namespace cuda = qlora::cuda;

// ---- Threads of a block.
using CudaThreads = Emulation;

TEST_F(CudaThreads, AMissingBarrierShows) {
    const auto reversed = [](bool with_barrier, Order order) {
        std::vector<float> out(64);
        cuda_emulation::options = {order, 3};
        cuda_emulation::run(dim3(1), 64, [&] {
            QLORA_SHARED(float, s, 64);
            s[threadIdx.x] = float(threadIdx.x);
            if (with_barrier) __syncthreads();
            out[threadIdx.x] = s[63 - threadIdx.x];
        });
        return out;
    };
    std::vector<float> right;
    for (int i = 63; i >= 0; --i) right.push_back(float(i));
    if (thread_sanitizer) {
        EXPECT_EQ(reversed(true, Order::forward), right);
        const auto race = [&] {
            reversed(false, Order::forward);
            std::exit(0);
        };
        EXPECT_EXIT(race(), testing::ExitedWithCode(66), "data race");
        return;
    }
    for (const Order order : orders) {
        EXPECT_EQ(reversed(true, order), right);
        EXPECT_NE(reversed(false, order), right);
    }
}

TEST_F(CudaThreads, UnequalBarriersAndWrongMasksAreErrors) {
    if (thread_sanitizer) GTEST_SKIP() << "the thread sanitizer reports planted faults itself and ends the process";
    // legal: the rest has ended
    EXPECT_EQ(mistake(64, [] { if (threadIdx.x < 32) __syncthreads(); __syncwarp(); }), "none");
    const auto two = [] {
        if (threadIdx.x < 32) __syncthreads();
        else
            __syncthreads();
    };
    const auto of_ended = [] { if (threadIdx.x < 16) __shfl_xor_sync(~0u, 1, 1); };
    const auto outside = [] { if (threadIdx.x < 16) __shfl_sync(0xffffu, 1, 20); };
    const auto not_mine = [] { __shfl_sync(0xffffu, 1, 1); };
    const auto apart = [] {
        if (threadIdx.x < 16) __syncthreads();
        else __shfl_sync(~0u, 1, 0);
    };
    const auto different = [] {
        if (threadIdx.x < 16) __syncwarp();
        else __ballot_sync(~0u, 1);
    };
    for (const Order order : orders) {
        cuda_emulation::options = {order, 2};
        EXPECT_SAYS(mistake(64, two), "two barriers");
        EXPECT_SAYS(mistake(32, of_ended), "has ended");
        EXPECT_SAYS(mistake(20, [] { __syncwarp(); }), "does not exist");
        EXPECT_SAYS(mistake(32, outside), "outside the mask");
        EXPECT_SAYS(mistake(32, not_mine), "outside its own mask");
        EXPECT_SAYS(mistake(32, apart), "deadlock");
        EXPECT_SAYS(mistake(32, different), "different operations");
    }
    EXPECT_SAYS(mistake(2048, [] {}), "limits");
    EXPECT_EQ(mistake(32, [] { throw std::runtime_error("x"); }), "exception in a kernel: x");
    EXPECT_SAYS(mistake(32, [] { __trap(); }), "__trap()");
}

TEST_F(CudaThreads, WarpOperationsAndAtomicsAreThoseOfCuda) {
    for (const Order order : orders) {
        cuda_emulation::options = {order, 5};
        int total = 0, least = 1000;
        std::vector<uint32_t> ballots(64);
        std::vector<int> up(64), sums(64);
        cuda_emulation::run(dim3(1), 64, [&] {
            const int t = int(threadIdx.x);
            atomicAdd(&total, t);
            atomicMin(&least, 500 - t);
            ballots[size_t(t)] = __ballot_sync(~0u, t % 3 == 0);
            up[size_t(t)] = __shfl_up_sync(~0u, t, 2);
            sums[size_t(t)] = __reduce_add_sync(0xffffffffu, t);
        });
        EXPECT_EQ(total, 64 * 63 / 2);
        EXPECT_EQ(least, 500 - 63);
        EXPECT_EQ(ballots[5], 0x49249249u);
        EXPECT_EQ(up[33], 33);
        EXPECT_EQ(up[40], 38);
        EXPECT_EQ(sums[3], 31 * 16);
        EXPECT_EQ(sums[40], 31 * 16 + 32 * 32);
    }
}

TEST_F(CudaThreads, SharedMemoryStartsAsNanAndIsNoBetterAlignedThanItsType) {
    std::vector<char> nan(32);
    cuda_emulation::run(dim3(1), 32, 100, [&] {
        QLORA_SHARED(float, s, 32);
        QLORA_DYNAMIC_SHARED(float, d);
        nan[threadIdx.x] = std::isnan(s[threadIdx.x]) && std::isnan(d[threadIdx.x % 25]) &&
                           reinterpret_cast<uintptr_t>(s) % 16 == 4 && reinterpret_cast<uintptr_t>(d) % 1024 == 0;
    });
    EXPECT_EQ(nan, std::vector<char>(32, 1));
}

TEST_F(CudaThreads, AThreadThatNeverWaitsCostsNoSwitch) {
    if (thread_sanitizer) GTEST_SKIP() << "the thread sanitizer reports planted faults itself and ends the process";
    const int64_t before = cuda_emulation::switches;
    cuda_emulation::run(dim3(10), 256, [] {});
    EXPECT_LE(cuda_emulation::switches - before, 20);
}

// ---- cp.async, ldmatrix, mma.
using CudaCopies = Emulation;

TEST_F(CudaCopies, AreThereWhenTheyWereWaitedForAndNotBefore) {
    alignas(16) const float source[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    float early = 0, first = 0, second = 0, zero = 1;
    const auto kernel = [&] {
        QLORA_DYNAMIC_SHARED(float, s);
        cuda::cp_async16(s, source, true);
        cuda::cp_async_commit();
        cuda::cp_async16(s + 4, source + 4, true);
        cuda::cp_async16(s + 8, source, false);
        cuda::cp_async_commit();
        early = s[0];
        cuda::cp_async_wait<1>();
        first = s[3];
        second = s[4];
        cuda::cp_async_wait<0>();
        EXPECT_EQ(s[7], 8);
        zero = s[8];
    };
    EXPECT_EQ(mistake(1, kernel, 48), "none");
    EXPECT_TRUE(std::isnan(early) && std::isnan(second));
    EXPECT_EQ(first, 4);
    EXPECT_EQ(zero, 0);
}

TEST_F(CudaCopies, ThatNobodyWaitsForOrThatAreMisalignedAreErrors) {
    if (thread_sanitizer) GTEST_SKIP() << "the thread sanitizer reports planted faults itself and ends the process";
    alignas(16) const float source[8] = {};
    const auto forgotten = [&] {
        QLORA_DYNAMIC_SHARED(float, s);
        cuda::cp_async16(s, source, true);
        cuda::cp_async_commit();
    };
    const auto misaligned = [&] {
        QLORA_DYNAMIC_SHARED(float, s);
        cuda::cp_async16(s + 1, source, true);
    };
    const auto row = [] {
        QLORA_DYNAMIC_SHARED(float, s);
        uint32_t r[4];
        cuda::ldmatrix<false>(r, s + threadIdx.x);
    };
    EXPECT_SAYS(mistake(1, forgotten, 64), "never waited for");
    EXPECT_SAYS(mistake(1, misaligned, 64), "multiple of 16");
    EXPECT_SAYS(mistake(32, row, 128), "multiple of 16");
}

TEST_F(CudaCopies, AProductOfFragmentsIsTheProduct) {
    qlora::Rng rng{3};
    alignas(16) uint16_t x[16 * 16 + 16 * 8];          // a {16, 16}, b {16, 8}
    for (uint16_t& v : x) v = qlora::bf16_from_f32(rng.normal());
    for (const Order order : orders) {
        cuda_emulation::options = {order, 3};
        float y[16][8];
        cuda_emulation::run(dim3(1), 32, sizeof x, [&] {
            QLORA_DYNAMIC_SHARED(uint16_t, s);
            const int lane = int(threadIdx.x);
            for (int i = lane; i < 48; i += 32) cuda::cp_async16(s + 8 * i, x + 8 * i, true);
            cuda::cp_async_commit();
            cuda::cp_async_wait<0>();
            __syncwarp();
            uint32_t a[4], b[4];
            cuda::ldmatrix<false>(a, s + lane % 16 * 16 + lane / 16 * 8);
            cuda::ldmatrix<true>(b, s + 256 + lane % 16 * 8);
            float d[4] = {0, 0, 0, 1};
            cuda::mma_bf16(d, a, {b[0], b[1]});
            for (int i = 0; i < 4; ++i) y[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2] = d[i];
        });
        for (int i = 0; i < 16; ++i)
            for (int j = 0; j < 8; ++j) {
                float sum = i >= 8 && j % 2 ? 1.0f : 0.0f;
                for (int k = 0; k < 16; ++k)
                    sum += qlora::f32_from_bf16(x[i * 16 + k]) * qlora::f32_from_bf16(x[256 + k * 8 + j]);
                EXPECT_EQ(y[i][j], sum) << i << ' ' << j;
            }
    }
}

}  // namespace cuda_emulation_tests
