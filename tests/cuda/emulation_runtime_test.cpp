// emulation_runtime_test.cpp - the emulation of streams and memory: it must see the mistakes that it is there to see.
#include "tests/cuda/planted.h"

namespace cuda_emulation_tests {

// ---- Streams.
struct CudaStreams : Emulation {
    cudaStream_t one = nullptr, two = nullptr;
    cudaEvent_t event = nullptr;
    int* device = nullptr;
    int *pinned = nullptr, allocations = cuda_emulation::live_allocations, streams = cuda_emulation::live_streams,
        events = cuda_emulation::live_events;          // of backends that other tests keep
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
        EXPECT_EQ(cuda_emulation::live_streams, streams);
        EXPECT_EQ(cuda_emulation::live_events, events);
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
    if (thread_sanitizer) GTEST_SKIP() << "the thread sanitizer reports planted faults itself and ends the process";
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
    if (thread_sanitizer) GTEST_SKIP() << "the thread sanitizer reports planted faults itself and ends the process";
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
    if (thread_sanitizer) GTEST_SKIP() << "the thread sanitizer reports planted faults itself and ends the process";
    EXPECT_DEATH(std::fprintf(stderr, "read %d\n", *const_cast<volatile int*>(device)),
                 "host code touches device memory: byte 0 of an allocation of 64 bytes");
}

TEST_F(CudaMemory, QueuedWorkMustNotUseWhatIsFreed) {
    if (thread_sanitizer) GTEST_SKIP() << "the thread sanitizer reports planted faults itself and ends the process";
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
    EXPECT_EQ(cuda_emulation::live_streams, streams + 2);
    EXPECT_EQ(cuda_emulation::live_events, events + 1);
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
    if (thread_sanitizer) GTEST_SKIP() << "the thread sanitizer reports planted faults itself and ends the process";
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
