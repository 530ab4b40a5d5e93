// emulation_test.cpp - the emulation itself: it must see the mistakes that it is there to see. Each is planted here.
#include "tests/cuda-emulation/cuda_emulation.h"

#include "src/base/half.h"
#include "src/base/rng.h"
#include "src/cuda/mma.cuh"

#include <gtest/gtest.h>

namespace cuda_emulation_tests {

using cuda_emulation::Order;
namespace cuda = qlora::cuda;

constexpr Order orders[] = {Order::forward, Order::reverse, Order::random};
#if defined(__SANITIZE_THREAD__)
constexpr bool thread_sanitizer = true;                // reports planted races and abandoned threads itself
#else
constexpr bool thread_sanitizer = false;
#endif

struct Emulation : testing::Test {
    Emulation() { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
    void TearDown() override {
        cuda_emulation::options = {};
        EXPECT_EQ(cuda_emulation::queued_work(), 0);
        EXPECT_EQ(cuda_emulation::memory().error, "");
    }
};

template <class Action>
std::string failure(const Action& action) {
    try {
        action();
    } catch (const cuda_emulation::Failure& e) {
        return e.what();
    }
    return "none";
}
std::string mistake(unsigned threads, const std::function<void()>& kernel, size_t shared = 0) {
    return failure([&] { cuda_emulation::run(dim3(1), threads, shared, kernel); });
}
#define EXPECT_SAYS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

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
    if (thread_sanitizer) GTEST_SKIP();
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
    if (thread_sanitizer) GTEST_SKIP();
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
    if (thread_sanitizer) GTEST_SKIP();
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

// ---- Streams.
struct CudaStreams : Emulation {
    cudaStream_t one = nullptr, two = nullptr;
    cudaEvent_t event = nullptr;
    int* device = nullptr;
    int *pinned = nullptr, allocations = cuda_emulation::live_allocations;
    void SetUp() override {
        ASSERT_EQ(cudaStreamCreateWithFlags(&one, cudaStreamNonBlocking), cudaSuccess);
        ASSERT_EQ(cudaStreamCreateWithFlags(&two, cudaStreamNonBlocking), cudaSuccess);
        ASSERT_EQ(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), cudaSuccess);
        void* p = nullptr;
        ASSERT_EQ(cudaMalloc(&p, 64), cudaSuccess);
        device = static_cast<int*>(p);
        ASSERT_EQ(cudaMallocHost(&p, 64), cudaSuccess);
        pinned = static_cast<int*>(p);
    }
    void TearDown() override {
        cudaDeviceSynchronize();
        cudaFree(device);
        cudaFreeHost(pinned);
        cudaEventDestroy(event);
        cudaStreamDestroy(one);
        cudaStreamDestroy(two);
        EXPECT_EQ(cuda_emulation::live_allocations, allocations);
        EXPECT_EQ(cuda_emulation::live_streams, 0);
        EXPECT_EQ(cuda_emulation::live_events, 0);
        Emulation::TearDown();
    }
    void set(cudaStream_t s, int value) {
        cuda_emulation::launch(dim3(1), 1, 0, s, [to = device, value] { *to = value; });
    }
    int value(cudaStream_t s) {
        int found = 0;
        cudaMemcpyAsync(&found, device, sizeof found, cudaMemcpyDeviceToHost, s);
        cudaStreamSynchronize(s);
        return found;
    }
};

TEST_F(CudaStreams, AMissingWaitShows) {
    int wrong = 0;
    for (uint64_t seed = 1; seed <= 20; ++seed) {
        cuda_emulation::options.seed = seed;
        set(one, 1);
        EXPECT_EQ(value(one), 1);
        set(one, 2);
        wrong += value(two) != 2;                      // nothing says that it comes later
        cudaDeviceSynchronize();
        set(one, 3);
        cudaEventRecord(event, one);
        cudaStreamWaitEvent(two, event, 0);
        EXPECT_EQ(value(two), 3);
    }
    EXPECT_GT(wrong, 10);
}

TEST_F(CudaStreams, CopiesAreLateAndPageableMemoryIsReadAtOnce) {
    int host = 5, back = -1;
    cudaMemcpyAsync(device, &host, sizeof host, cudaMemcpyHostToDevice, one);
    host = 6;                                          // staged already
    cudaMemcpyAsync(&back, device, sizeof back, cudaMemcpyDeviceToHost, one);
    EXPECT_EQ(back, -1);                               // the early read
    cudaStreamSynchronize(one);
    EXPECT_EQ(back, 5);
    *pinned = 7;
    cudaMemcpyAsync(device, pinned, sizeof host, cudaMemcpyHostToDevice, one);
    *pinned = 8;                                       // the mistake
    EXPECT_EQ(value(one), 8);
    cudaMemsetAsync(device, 0, 4, one);
    cudaEventRecord(event, one);
    int questions = 0;
    while (cudaEventQuery(event) == cudaErrorNotReady) ++questions;
    EXPECT_GT(questions, 0);
    EXPECT_EQ(cudaEventSynchronize(event), cudaSuccess);
    EXPECT_EQ(value(two), 0);
}

TEST_F(CudaStreams, ACopyBeyondAnAllocationOrInAWrongDirectionIsRefused) {
    int host[32] = {};
    EXPECT_EQ(cudaMemcpyAsync(device, host, 68, cudaMemcpyHostToDevice, one), cudaErrorInvalidValue);
    EXPECT_EQ(cudaMemcpyAsync(host, device, 64, cudaMemcpyHostToDevice, one), cudaErrorInvalidValue);
    EXPECT_EQ(cudaMemsetAsync(host, 0, 4, one), cudaErrorInvalidValue);
    EXPECT_EQ(cudaMemsetAsync(device + 15, 0, 8, one), cudaErrorInvalidValue);
    EXPECT_EQ(cudaMemcpyAsync(device, pinned, 64, cudaMemcpyDefault, one), cudaSuccess);
    cudaGetLastError();
}

TEST_F(CudaStreams, AFailureEmptiesThem) {
    if (thread_sanitizer) GTEST_SKIP();
    cuda_emulation::launch(dim3(1), 32, 0, one, [] { if (threadIdx.x < 16) __syncwarp(); });
    set(one, 1);
    EXPECT_SAYS(failure([&] { cudaStreamSynchronize(one); }), "has ended");
    EXPECT_EQ(cuda_emulation::queued_work(), 0);
    set(one, 4);
    EXPECT_EQ(value(one), 4);
    cuda_emulation::launch(dim3(1), 2000, 0, one, [] {});
    EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidConfiguration);
}

TEST_F(CudaStreams, AGraphDoesItsWorkAtEachLaunchInAnyOrderOfItsEdges) {
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t exec = nullptr;
    const auto capture = [&](bool with_wait) {
        EXPECT_EQ(cudaStreamBeginCapture(one, cudaStreamCaptureModeThreadLocal), cudaSuccess);
        cudaEventRecord(event, one);
        cudaStreamWaitEvent(two, event, 0);            // two is captured, too
        cuda_emulation::launch(dim3(1), 1, 0, two, [to = device] { to[1] = to[0] + 1; });
        if (with_wait) {
            cudaEventRecord(event, two);
            cudaStreamWaitEvent(one, event, 0);
        }
        cuda_emulation::launch(dim3(1), 1, 0, one, [to = device] { to[0] = to[1]; });
        if (!with_wait) {
            cudaEventRecord(event, two);
            cudaStreamWaitEvent(one, event, 0);
        }
        EXPECT_EQ(cudaStreamEndCapture(one, &graph), cudaSuccess);
        EXPECT_EQ(cudaGraphInstantiate(&exec, graph, 0), cudaSuccess);
        int wrong = 0;
        for (int turn = 0; turn < 10; ++turn) {
            set(one, 10);
            for (int i = 0; i < 3; ++i) cudaGraphLaunch(exec, one);
            wrong += value(one) != 13;
        }
        cudaGraphDestroy(graph);
        cudaGraphExecDestroy(exec);
        return wrong;
    };
    EXPECT_EQ(capture(true), 0);
    EXPECT_GT(capture(false), 0);
    // what cannot be captured
    cudaStreamBeginCapture(one, cudaStreamCaptureModeThreadLocal);
    EXPECT_EQ(cudaStreamSynchronize(one), cudaErrorStreamCaptureUnsupported);
    EXPECT_EQ(cudaStreamEndCapture(one, &graph), cudaErrorStreamCaptureInvalidated);
    cudaStreamBeginCapture(one, cudaStreamCaptureModeThreadLocal);
    cudaEventRecord(event, one);
    cudaStreamWaitEvent(two, event, 0);
    set(two, 1);
    EXPECT_EQ(cudaStreamEndCapture(one, &graph), cudaErrorStreamCaptureUnjoined);
    EXPECT_EQ(cuda_emulation::live_graphs, 0);
    cudaGetLastError();
}

// ---- Memory.
struct CudaMemory : CudaStreams {};

TEST_F(CudaMemory, AKernelBeyondAnAllocationIsAnError) {
    if (thread_sanitizer) GTEST_SKIP();
    const auto write = [&](size_t offset) {
        return failure([&] {
            cuda_emulation::launch(dim3(1), 32, 0, one, [p = reinterpret_cast<char*>(device), offset] {
                if (threadIdx.x == 7) p[offset] = 1;
            });
            cudaStreamSynchronize(one);
        });
    };
    EXPECT_EQ(write(63), "none");
    EXPECT_SAYS(write(256), "device work touches what is not allocated: byte 256 of an allocation of 64 bytes");
#if defined(__SANITIZE_ADDRESS__)
    EXPECT_DEATH(write(64), "use-after-poison");
#else
    EXPECT_SAYS(write(64), "wrote beside an allocation of 64 bytes");
#endif
}

TEST_F(CudaMemory, HostCodeThatReadsItEnds) {
    if (thread_sanitizer) GTEST_SKIP();
    EXPECT_DEATH(std::fprintf(stderr, "read %d\n", *const_cast<volatile int*>(device)),
                 "host code touches device memory: byte 0 of an allocation of 64 bytes");
}

TEST_F(CudaMemory, QueuedWorkMustNotUseWhatIsFreed) {
    if (thread_sanitizer) GTEST_SKIP();
    void* p = nullptr;
    const auto use = [&] {
        cudaMalloc(&p, 16);
        cuda_emulation::launch(dim3(1), 1, 0, one, [p] { *static_cast<int*>(p) = 1; });
    };
    use();
    cudaFree(p);                                       // waits, as the real one does; a test may ask how often
    EXPECT_EQ(cuda_emulation::queued_work(), 0);
    EXPECT_GT(cuda_emulation::frees_that_waited, 0);
    cuda_emulation::free_waits = false;
    use();
    cudaFree(p);
    EXPECT_SAYS(failure([&] { cudaStreamSynchronize(one); }), "device work touches freed memory");
    cudaMalloc(&p, 16);
    cudaMemsetAsync(p, 0, 16, one);
    cudaFree(p);
    EXPECT_SAYS(failure([&] { cudaStreamSynchronize(one); }), "uses freed memory");
    cuda_emulation::free_waits = true;
    EXPECT_EQ(cudaFree(p), cudaErrorInvalidValue);     // twice
    EXPECT_SAYS(failure([&] { cudaStreamSynchronize(one); }), "not allocated");
    cudaGetLastError();
}

TEST_F(CudaMemory, WhatIsNotFreedIsCounted) {
    const int before = cuda_emulation::live_allocations;
    void *p = nullptr, *q = nullptr, *nothing = nullptr;
    cudaMalloc(&p, 16);
    cudaMallocHost(&q, 16);
    cudaMalloc(&nothing, 0);
    EXPECT_EQ(cuda_emulation::live_allocations, before + 2);
    EXPECT_EQ(nothing, nullptr);
    cudaFree(p);
    cudaFreeHost(q);
    EXPECT_EQ(cudaFree(nothing), cudaSuccess);
    EXPECT_EQ(cuda_emulation::live_streams, 2);
    EXPECT_EQ(cuda_emulation::live_events, 1);
}

TEST_F(CudaMemory, AllocationsKeepToTheCapacity) {
    auto& m = cuda_emulation::memory();
    const size_t before = std::exchange(m.capacity, m.used + 1000);
    size_t available = 0, total = 0;
    cudaMemGetInfo(&available, &total);
    EXPECT_EQ(available, 1000u);
    void *p = nullptr, *q = nullptr;
    EXPECT_EQ(cudaMalloc(&p, 700), cudaSuccess);
    EXPECT_EQ(cudaMalloc(&q, 300), cudaErrorMemoryAllocation);
    EXPECT_EQ(cudaGetLastError(), cudaErrorMemoryAllocation);
    cudaFree(p);
    EXPECT_EQ(cudaMalloc(&q, 300), cudaSuccess);
    cudaFree(q);
    m.capacity = before;
}

TEST_F(CudaMemory, TheNthCallFails) {
    cuda_emulation::fail_after = 2;
    void *p = nullptr, *q = nullptr;
    EXPECT_EQ(cudaMalloc(&p, 16), cudaSuccess);
    EXPECT_EQ(cudaStreamSynchronize(one), cudaSuccess);
    EXPECT_EQ(cudaMalloc(&q, 16), cudaErrorMemoryAllocation);
    EXPECT_EQ(cudaMalloc(&q, 16), cudaSuccess);
    cudaFree(p);
    cudaFree(q);
    EXPECT_EQ(cuda_emulation::fail_after, -1);
    cudaGetLastError();
}

TEST_F(CudaMemory, ManagedMemoryMovesWhenItIsPrefetchedOrTouched) {
    if (thread_sanitizer) GTEST_SKIP();
    auto& m = cuda_emulation::memory();
    constexpr size_t page = cuda_emulation::Memory::managed_page;
    const size_t before = std::exchange(m.capacity, m.used + 2 * page), used = m.used;
    m.device_faults = m.host_faults = 0;
    void* p = nullptr;
    ASSERT_EQ(cudaMallocManaged(&p, 3 * page), cudaSuccess);
    int* const x = static_cast<int*>(p);
    constexpr size_t apart = page / sizeof(int);
    const cudaMemLocation on_device{cudaMemLocationTypeDevice, 0}, on_host{cudaMemLocationTypeHost, 0};
    const auto add = [&](size_t pages) {
        cuda_emulation::launch(dim3(1), 1, 0, one, [=] {
            for (size_t i = 0; i < pages; ++i) x[i * apart] += 1;
        });
    };
    x[0] = x[apart] = 5;
    cudaMemPrefetchAsync(p, page, on_device, 0, one);
    add(1);
    cudaStreamSynchronize(one);
    EXPECT_EQ(m.device_faults, 0);
    add(2);
    cudaStreamSynchronize(one);
    EXPECT_EQ(m.device_faults, 1);
    EXPECT_EQ(m.used, used + 2 * page);
    EXPECT_EQ(x[0], 7);                                // back by a fault of the host
    EXPECT_EQ(m.host_faults, 1);
    cudaMemPrefetchAsync(p, 2 * page, on_host, 0, one);
    cudaStreamSynchronize(one);
    EXPECT_EQ(x[apart], 6);
    EXPECT_EQ(m.host_faults, 1);
    EXPECT_EQ(m.used, used);
    add(3);
    EXPECT_SAYS(failure([&] { cudaStreamSynchronize(one); }), "oversubscribed");
    cudaFree(p);
    EXPECT_EQ(m.used, used);
    m.capacity = before;
}

}  // namespace cuda_emulation_tests
