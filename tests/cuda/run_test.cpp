// run_test.cpp - all that a program does, on the CUDA backend: training, checkpoints that go on on the other backend,
// evaluation, generation, saving. The same calls on the CPU say what must come out.
#include "tests/cuda/device_under_test.h"

#include "src/base/access.h"
#include "src/cpu/cpu.h"
#include "tests/run/run_support.h"

#include <gtest/gtest.h>

namespace cuda_run_test {

using device_under_test::backend;
using qlora::Backend;
using qlora::Compute;
using qlora::DType;
using run_support::TemporaryFolder;
using run_support::values_of;

Backend cpu() { return Backend::cpu(2, Compute::f32); }

qlora::Model tiny(const Backend& b, std::optional<DType> quantize = DType::nf4) {
    return qlora::Model::load(golden_path("training/model"), {.backend = b, .quantize = quantize});
}

qlora::Lora adapter(const qlora::Model& model, bool dora = false) {
    qlora::LoraOptions o{.rank = 4, .alpha = 8, .dropout = 0.1f, .seed = 5};
    o.dora = dora;
    return qlora::Lora::create(model, o);
}

qlora::TrainOptions options(const qlora::AdamW& optimizer = {}, bool checkpoint = false) {
    qlora::TrainOptions o;
    o.epochs = 20;
    o.batch = 2;
    o.accumulate = 2;
    o.context = 64;
    o.learning_rate = 1e-2f;
    o.optimizer = optimizer;
    o.checkpoint_activations = checkpoint;
    return o;
}

struct Training {
    std::vector<double> losses, norms;
    std::vector<float> values;
};

Training train(const Backend& b, const qlora::TrainOptions& o, int steps, bool dora = false) {
    const qlora::Lora lora = adapter(tiny(b), dora);
    qlora::Trainer trainer(lora, run_support::dataset(run_support::random_rows(10)), o);
    Training run;
    for (int i = 0; i < steps && trainer.step(); ++i) {
        run.losses.push_back(trainer.last().loss);
        run.norms.push_back(trainer.last().grad_norm);
    }
    run.values = values_of(lora);
    return run;
}

void expect_near(const std::vector<double>& got, const std::vector<double>& want, double relative, const char* what) {
    ASSERT_EQ(got.size(), want.size());
    for (size_t i = 0; i < got.size(); ++i)
        EXPECT_NEAR(got[i], want[i], relative * std::fabs(want[i])) << what << " of step " << i;
}

// Kernels started, and nothing computed by the CPU's.
struct OnTheDevice {
    std::shared_ptr<qlora::BackendImpl> impl;
    int64_t before = qlora::cuda_kernels_started();
    explicit OnTheDevice(Compute compute) : impl(backend(compute)) {}
    ~OnTheDevice() {
        EXPECT_GT(qlora::cuda_kernels_started(), before);
        EXPECT_EQ(impl->host().work.operations.load(), 0) << "products that the CPU computed";
    }
};

TEST(CudaRun, TrainsAsTheCpuDoes) {
    const int steps = device_under_test::is_emulated() ? 4 : 10;
    for (const qlora::AdamW& optimizer : {qlora::AdamW{}, qlora::AdamW{.bits = 8}}) {
        const Training want = train(cpu(), options(optimizer), steps);
        const OnTheDevice device(Compute::f32);
        const auto run = [&] { return train(handle_of<Backend>(device.impl), options(optimizer), steps); };
        const Training got = run();
        expect_near(got.losses, want.losses, 1e-4, "loss");
        expect_near(got.norms, want.norms, 2e-3, "norm");
        EXPECT_EQ(got.values, run().values) << "not the same bytes";
    }
}

// Weights too: they are all on the device.
TEST(CudaRun, MemoryHasALimit) {
    Backend b = handle_of<Backend>(backend(Compute::f32));
    const size_t before = b.memory_used();
    {
        const qlora::Model model = tiny(b);
        const size_t held = b.memory_used() - before;
        EXPECT_GE(held, size_t(model.info().bytes));
        b.limit_memory(int64_t(b.memory_used()) + 1000);
        EXPECT_LE(b.memory_free(), 1000u);
        EXPECT_NE(run_support::error_of([&] { qlora::Session(model, {.context = 64}); }), "no error");
        EXPECT_NE(run_support::error_of([&] { (void)tiny(b); }).find("Backend::limit_memory"), std::string::npos);
        EXPECT_EQ(b.memory_used(), before + held);
        b.limit_memory(0);
        EXPECT_NO_THROW(qlora::Session(model, {.context = 64}));
    }
    EXPECT_EQ(b.memory_used(), before);
}

TEST(CudaRun, TrainsInSixteenBitsCloseToTheCpu) {
    const Training want = train(cpu(), options(), 4);
    const OnTheDevice device(Compute::bf16);
    const Training got = train(handle_of<Backend>(device.impl), options(), 4);
    expect_near(got.losses, want.losses, 1e-2, "loss");
    const Training again = train(handle_of<Backend>(device.impl), options({}, true), 4);
    expect_near(again.losses, got.losses, 1e-2, "loss with recomputation");
}

TEST(CudaRun, TrainsDora) {
    const Training want = train(cpu(), options(), 2, true);
    const OnTheDevice device(Compute::f32);
    expect_near(train(handle_of<Backend>(device.impl), options(), 2, true).losses, want.losses, 1e-4, "loss");
}

TEST(CudaRun, ARunGoesOnOnTheOtherBackend) {
    const OnTheDevice device(Compute::f32);
    const qlora::Dataset rows = run_support::dataset(run_support::random_rows(10));
    const auto resumed = [&](const Backend& first, const Backend& second) {
        const TemporaryFolder folder("cuda-resume");
        {
            qlora::Trainer trainer(adapter(tiny(first)), rows, options());
            trainer.step();
            trainer.save(folder / "checkpoint");
        }
        qlora::Trainer trainer(adapter(tiny(second)), rows, options());
        trainer.resume(folder / "checkpoint");
        trainer.step();
        return trainer.last().loss;
    };
    const double want = resumed(cpu(), cpu());
    EXPECT_NEAR(resumed(cpu(), handle_of<Backend>(device.impl)), want, 1e-4 * want);
    EXPECT_NEAR(resumed(handle_of<Backend>(device.impl), cpu()), want, 1e-4 * want);
}

TEST(CudaRun, ReadsMeasuresAndWritesAsTheCpuDoes) {
    const OnTheDevice device(Compute::f32);
    const TemporaryFolder folder("cuda-run");
    const qlora::Tokens prompt{1, 5, 9, 13};
    std::vector<float> logits[2];
    double nll[2];
    int at = 0;
    for (const Backend& b : {cpu(), handle_of<Backend>(device.impl)}) {
        const qlora::Model model = tiny(b);
        const qlora::Lora lora = adapter(model);
        qlora::Trainer trainer(lora, run_support::dataset(run_support::random_rows(10)), options());
        trainer.step();
        logits[at] = lora.logits(prompt);
        qlora::Tokens text;
        for (int i = 0; i < 40; ++i) text.push_back(1 + i * 7 % 60);
        nll[at] = qlora::perplexity(lora, text, 32, 16).nll;
        lora.save(folder / (at ? "cuda" : "cpu"));
        model.save(folder / (at ? "cuda.gguf" : "cpu.gguf"));
        lora.merge().save(folder / (at ? "cuda-merged.gguf" : "cpu-merged.gguf"));
        ++at;
    }
    EXPECT_LT(run_support::largest_difference(logits[1], logits[0]), 1e-3);
    EXPECT_NEAR(nll[1], nll[0], 1e-4 * nll[0]);
    EXPECT_EQ(qlora::read_file(folder / "cuda.gguf"), qlora::read_file(folder / "cpu.gguf"));
    EXPECT_EQ(std::filesystem::file_size(folder / "cuda-merged.gguf"),
              std::filesystem::file_size(folder / "cpu-merged.gguf"));
}

TEST(CudaRun, GeneratesTheSameTokens) {
    const OnTheDevice device(Compute::f32);
    const auto generated = [](const Backend& b, std::optional<DType> cache) {
        const qlora::Model model = qlora::Model::load("models/tiny.gguf", {.backend = b, .quantize = DType::nf4});
        qlora::Session session(model, {.context = 64, .cache = cache});
        return session.complete("First Citizen", {.temperature = 0, .max_tokens = 8}).tokens;
    };
    for (const std::optional<DType> cache : {std::optional<DType>(DType::f32), std::optional<DType>(DType::q8_0)})
        EXPECT_EQ(generated(handle_of<Backend>(device.impl), cache), generated(cpu(), cache));
}

}  // namespace cuda_run_test
