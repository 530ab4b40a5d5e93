// failures_test.cpp - what goes wrong with a device, on the emulation: every call that may fail does once, memory runs
// out, the device is lost in the middle of a run. Each is an Error that says what to do, nothing leaks, and what was
// saved is whole.
#include "tests/cuda-emulation/cuda_emulation.h"

#include "src/graph/graph.h"
#include "tests/run/run_support.h"

#include <gtest/gtest.h>

namespace cuda_failures_test {

using qlora::Compute;
using qlora::Errc;
using run_support::contains;

qlora::Backend device() { return qlora::handle_of<qlora::Backend>(qlora::make_cuda_backend(0, Compute::f32)); }

struct CudaFailures : ::testing::Test {
    int allocations = cuda_emulation::live_allocations, streams = cuda_emulation::live_streams,
        events = cuda_emulation::live_events, graphs = cuda_emulation::live_graphs;
    size_t capacity = cuda_emulation::memory().capacity;
    cudaError_t usual = cuda_emulation::fail_with;
    void TearDown() override {
        cuda_emulation::fail_after = -1;
        cuda_emulation::fail_with = usual;
        cuda_emulation::memory().capacity = capacity;
        cuda_emulation::memory().others = 0;
        cuda_emulation::memory().others_after = -1;
        EXPECT_EQ(cuda_emulation::live_allocations, allocations);
        EXPECT_EQ(cuda_emulation::live_streams, streams);
        EXPECT_EQ(cuda_emulation::live_events, events);
        EXPECT_EQ(cuda_emulation::live_graphs, graphs);
    }
};

qlora::Model tiny(const qlora::Backend& b) {
    return qlora::Model::load(golden_path("training/model"), {.backend = b, .quantize = qlora::DType::nf4});
}
qlora::TrainOptions options() {
    qlora::TrainOptions o;
    o.epochs = 20;
    o.batch = 1;
    o.accumulate = 1;
    o.context = 32;
    o.learning_rate = 1e-2f;
    return o;
}
qlora::Dataset rows() { return run_support::dataset(run_support::random_rows(3, 3, 4, 8)); }

// A whole small run; the Error that ended it, if any.
std::optional<qlora::Error> run(const std::string& checkpoint = {}) {
    try {
        qlora::Trainer trainer(qlora::Lora::create(tiny(device()), {.rank = 2, .alpha = 4}), rows(), options());
        for (int i = 0; i < 3; ++i) {
            trainer.step();
            if (i == 0 && !checkpoint.empty()) trainer.save(checkpoint);
        }
    } catch (const qlora::Error& e) {
        return e;
    }
    return {};
}

TEST_F(CudaFailures, EveryCallOfTheRuntimeMayFail) {
    int failed = 0;
    for (int64_t n = 0; n < 4000; n += n < 30 ? 1 : 137) {
        cuda_emulation::fail_with = cudaErrorLaunchFailure;
        cuda_emulation::fail_after = n;
        const auto error = run();
        cuda_emulation::fail_after = -1;
        if (!error) continue;                          // it came in a destructor, or not at all
        ++failed;
        EXPECT_EQ(error->code, Errc::device) << error->what();
        EXPECT_TRUE(contains(error->what(), "cuda")) << error->what();
        EXPECT_EQ(cuda_emulation::live_allocations, allocations) << "call " << n << ": " << error->what();
    }
    EXPECT_GT(failed, 20);
    EXPECT_FALSE(run());
}

TEST_F(CudaFailures, MemoryThatIsNotThereIsNamed) {
    for (const size_t room : {size_t(20) << 10, size_t(60) << 10}) {
        cuda_emulation::memory().capacity = cuda_emulation::memory().used + room;
        const auto error = run();
        ASSERT_TRUE(error) << room;
        EXPECT_EQ(error->code, Errc::memory);
        for (const char* part : {" bytes ", " free", "use a ", "rank"})        // of the plan, or of the backend
            EXPECT_TRUE(contains(error->what(), part)) << error->what();
    }
    cuda_emulation::memory().capacity = capacity;
    EXPECT_FALSE(run()) << "nothing was lost";
}

// Somebody else has a part of the card: what is free counts, not what the card has.
TEST_F(CudaFailures, AnotherProcessHasMemory) {
    auto& memory = cuda_emulation::memory();
    memory.others = memory.capacity - memory.used - (size_t(60) << 10);
    EXPECT_LE(device().memory_free(), size_t(60) << 10);
    const auto error = run();
    ASSERT_TRUE(error);
    EXPECT_EQ(error->code, Errc::memory) << error->what();
    memory.others = 0;
    EXPECT_FALSE(run());
}

// It takes all that is left between the plan and any of the allocations behind it, or while the run goes on. The error
// has the numbers, nothing leaks, the checkpoint is whole; when the other is gone, the run goes on from it.
TEST_F(CudaFailures, AnotherProcessTakesMemoryAtAnyTime) {
    auto& memory = cuda_emulation::memory();
    const run_support::TemporaryFolder folder("cuda-others");
    const auto last_loss = [&](const std::string& from) {
        qlora::Trainer trainer(qlora::Lora::create(tiny(device()), {.rank = 2, .alpha = 4}), rows(), options());
        if (from.empty()) trainer.step();
        else trainer.resume(from);
        trainer.step();
        return trainer.last().loss;
    };
    const double want = last_loss({});
    int failed = 0, resumed = 0;
    memory.others_take = memory.capacity;
    for (int64_t n = 0; n < 200; n += n < 40 ? 3 : 16) {
        memory.others_after = n;
        const auto error = run(folder / "checkpoint");
        const bool came = std::exchange(memory.others_after, -1) < 0;
        memory.others = 0;
        ASSERT_EQ(cuda_emulation::live_allocations, allocations) << n;
        if (error) {
            ++failed;
            EXPECT_EQ(error->code, Errc::memory) << error->what();
            for (const char* part : {" bytes", " free"}) EXPECT_TRUE(contains(error->what(), part)) << error->what();
        }
        if (std::filesystem::exists(folder / "checkpoint")) {
            ++resumed;
            EXPECT_EQ(last_loss(folder / "checkpoint"), want) << n;
            std::filesystem::remove_all(folder / "checkpoint");
        }
        if (!came) break;                              // a whole run has fewer allocations
    }
    EXPECT_GT(failed, 10);
    EXPECT_GT(resumed, 0);
}

TEST_F(CudaFailures, ADeviceThatIsLostLeavesTheCheckpointWhole) {
    const run_support::TemporaryFolder folder("cuda-lost");
    int64_t lost = 0;
    cuda_emulation::fail_with = cudaErrorLaunchFailure;
    for (const int64_t n : {500, 700, 900, 1100}) {
        cuda_emulation::fail_after = n;
        if (const auto error = run(folder / "checkpoint")) {
            ++lost;
            EXPECT_TRUE(contains(error->what(), "start it again")) << error->what();
        }
        cuda_emulation::fail_after = -1;
        if (!std::filesystem::exists(folder / "checkpoint")) continue;
        qlora::Trainer trainer(qlora::Lora::create(tiny(device()), {.rank = 2, .alpha = 4}), rows(), options());
        trainer.resume(folder / "checkpoint");
        EXPECT_TRUE(trainer.step());
        std::filesystem::remove_all(folder / "checkpoint");
    }
    EXPECT_GT(lost, 0);
}

// What throws then would end the process.
TEST_F(CudaFailures, WhatIsGivenBackToALostDeviceThrowsNothing) {
    auto backend = qlora::make_cuda_backend(0, Compute::f32);
    qlora::BufferRef memory = backend->allocate(100), pinned = backend->allocate(100, qlora::Memory::pinned);
    qlora::WeightPtr weight = backend->hold(
        std::make_shared<const qlora::Weight>(qlora::dense_weight("w", {2}, {1, 2})), qlora::Placement::device);
    std::shared_ptr<qlora::Pager> pager = backend->pager({.arrays = {{4096, 512}}, .budget = 512});
    ASSERT_TRUE(pager);
    cuda_emulation::fail_with = cudaErrorLaunchFailure;
    const auto drop = [](auto& what) {
        cuda_emulation::fail_after = 0;
        what.reset();
        EXPECT_LT(std::exchange(cuda_emulation::fail_after, -1), 0) << "it has asked the device for nothing";
    };
    drop(memory), drop(pinned), drop(weight), drop(pager), drop(backend);
}

}  // namespace cuda_failures_test
