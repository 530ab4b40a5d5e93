// training.cpp - gpu_check: ten steps of training at the shape of a 135M model, beside the losses and the norms of the
// gradients that the CPU had, which tests/golden/gpu_training.txt keeps; and the same bytes twice. Weights are hashes
// of their places, exact in float: every compiler and every library makes the same. The emulation has a small shape.
//     QLORA_WRITE_GOLDEN=1 build/gpu_check --gtest_filter='Training.TheCpu*'     makes the file anew, in a minute
#include "tests/gpu/llama.h"

#include "src/cpu/cpu.h"
#include "src/tensor/encode.h"
#include "tests/cuda/device_under_test.h"
#include "tests/run/run_support.h"

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iomanip>

namespace gpu_training {

using namespace qlora;

constexpr int steps = 10;
struct Shaped { gpu_llama::Sizes sizes; int64_t longest; };            // tokens of a row
const Shaped shapes[] = {{{"135m", 30, 576, 9, 3, 1536, 49152, true}, 64},     // SmolLM2-135M
                         {{"small", 2, 64, 2, 1, 96, 256, true}, 24}};
const Shaped& shape() { return shapes[device_under_test::is_emulated()]; }

// Relative, of losses and norms; what the card may differ by, and a fault must not hide in. Ten steps of the 135M shape
// with AVX2 are within 2e-7 and 4e-6 of those with AVX-512, with products in bf16 on the CPU within 1.1e-3 and 2.3e-3.
// A device rounds activations to bf16 too: a first step of one row, on the emulation, was within 5e-4 and 8e-4.
struct Tolerance { double losses, norms; };
constexpr Tolerance tolerance_f32{2e-5, 2e-4}, tolerance_bf16{5e-3, 1e-2};

struct Fault { Slot slot; int64_t layer; float factor; };              // of one matrix

// Uniform in +-bound, a power of two: nothing is rounded.
std::vector<float> hashed(int64_t count, uint64_t tensor, float bound) {
    std::vector<float> values(size_t(count + 3) / 4 * 4);
    for (size_t i = 0; i < values.size(); i += 4) {
        const Random4 r = philox(135, tensor, i / 4);
        for (size_t k = 0; k < 4; ++k) values[i + k] = (2 * uniform01(r.v[k]) - 1) * bound;
    }
    values.resize(size_t(count));
    return values;
}

// Matrices in NF4 with double quantization, within 2^-4, which keeps what they give of order one; norms about 1.
WeightPtr made(const Row& row, uint64_t tensor, const Shape& shape, ThreadPool& pool, float factor = 1) {
    std::vector<float> values = hashed(elements_of(shape), tensor, row.kind == Kind::norm ? 0.5f : 0.0625f);
    for (float& v : values) v = row.kind == Kind::norm ? 1 + v : factor * v;
    Weight w = dense_weight("w", shape, std::move(values));
    if (row.kind == Kind::linear) w = convert_weight(w, DType::nf4, true, &pool);
    if (row.kind == Kind::embedding) w = convert_weight(w, DType::bf16);
    return std::make_shared<const Weight>(std::move(w));
}

Model model_of(const std::shared_ptr<BackendImpl>& backend, const Shaped& s, const std::optional<Fault>& fault) {
    static std::map<std::string, std::vector<WeightPtr>> made_before;
    std::vector<WeightPtr>& weights = made_before[s.sizes.name];
    ThreadPool& pool = backend->host().pool;
    size_t next = 0;
    return gpu_llama::model_of(backend, s.sizes, [&](const Row& row, int64_t layer, const Shape& shape) {
        const size_t tensor = next++;
        if (tensor == weights.size()) weights.push_back(made(row, tensor, shape, pool));
        const bool faulty = fault && row.slot == fault->slot && layer == fault->layer;
        return backend->hold(faulty ? made(row, tensor, shape, pool, fault->factor) : weights[tensor],
                             Placement::device);
    });
}

struct Training {
    std::vector<double> losses, norms;
    std::vector<float> values;
    double tokens_a_second = 0;                        // of the last step: a device replays it
};

Training train(const std::shared_ptr<BackendImpl>& backend, const Shaped& s, int count,
               const std::optional<Fault>& fault = {}) {
    std::vector<run_support::Row> rows = run_support::random_rows(8, 135, s.longest / 3, s.longest);
    for (run_support::Row& r : rows)
        for (Token& t : r.tokens) t = Token(int64_t(t) * 769 % s.sizes.vocabulary);
    const Lora lora =
        Lora::create(model_of(backend, s, fault), {.rank = 16, .alpha = 32, .dropout = 0.1f, .seed = 135});
    TrainOptions o;
    o.epochs = 20;
    o.batch = o.accumulate = 2;
    o.context = s.longest;
    o.learning_rate = 1e-3f;
    o.warmup_steps = 1;
    Trainer trainer(lora, run_support::dataset(rows), o);
    Training run;
    while (int(run.losses.size()) < count && trainer.step()) {
        run.losses.push_back(trainer.last().loss);
        run.norms.push_back(trainer.last().grad_norm);
    }
    run.tokens_a_second = double(trainer.last().tokens) / trainer.last().seconds;
    run.values = run_support::values_of(lora);
    return run;
}

const std::string golden = golden_path("gpu_training.txt");

void write_golden() {
    std::ofstream file(golden);
    file << "# shape, step, loss, norm of the gradient, of the CPU in f32; "
            "tests/gpu/training.cpp says how it is made\n";
    for (const Shaped& s : shapes) {
        const Training run = train(make_cpu_backend(0, Compute::f32), s, steps);
        for (size_t i = 0; i < run.losses.size(); ++i)
            file << std::setprecision(9) << s.sizes.name << ' ' << i + 1 << ' ' << run.losses[i] << ' '
                 << run.norms[i] << '\n';
    }
    ASSERT_TRUE(file.flush()) << golden;
}

Training stored(const Shaped& s) {
    std::ifstream file(golden);
    Training run;
    for (std::string line, name; std::getline(file, line);) {
        std::istringstream words(line);
        double step = 0, loss = 0, norm = 0;
        if (!(words >> name >> step >> loss >> norm) || name != s.sizes.name) continue;
        run.losses.push_back(loss);
        run.norms.push_back(norm);
    }
    EXPECT_EQ(run.losses.size(), size_t(steps)) << golden;
    return run;
}

// How far apart they are at most, in the steps that `got` has.
Tolerance apart(const Training& got, const Training& want) {
    Tolerance most{};
    for (size_t i = 0; i < std::min(got.losses.size(), want.losses.size()); ++i) {
        const auto worst = [](double& before, double a, double b) {
            const double d = std::fabs(a - b) / std::fabs(b);
            before = std::isfinite(d) ? std::max(before, d) : HUGE_VAL;
        };
        worst(most.losses, got.losses[i], want.losses[i]);
        worst(most.norms, got.norms[i], want.norms[i]);
    }
    return most;
}

// So the file is what this library computes, on any machine: two steps of the large shape, as it has a processor here.
TEST(Training, TheCpuHasTheStoredLosses) {
    if (std::getenv("QLORA_WRITE_GOLDEN")) write_golden();
    for (const Shaped& s : shapes) {
        const Training got = train(make_cpu_backend(0, Compute::f32), s, &s == shapes ? 2 : steps);
        const Tolerance most = apart(got, stored(s));
        EXPECT_LE(most.losses, tolerance_f32.losses) << s.sizes.name;
        EXPECT_LE(most.norms, tolerance_f32.norms) << s.sizes.name;
    }
}

void compare(Compute compute, const Tolerance& tolerance) {
    const int64_t before = cuda_kernels_started();
    const auto backend = device_under_test::backend(compute);
    const Training want = stored(shape()), got = train(backend, shape(), steps), again = train(backend, shape(), steps);
    const Tolerance most = apart(got, want);
    std::printf("training of %s, %s: loss %.4f to %.4f, %.1e off the CPU's (norms %.1e), %.0f tokens/s\n",
                shape().sizes.name, compute == Compute::f32 ? "f32" : "bf16", got.losses.front(), got.losses.back(),
                most.losses, most.norms, got.tokens_a_second);
    std::fflush(stdout);
    EXPECT_EQ(got.losses.size(), size_t(steps));
    EXPECT_LE(most.losses, tolerance.losses);
    EXPECT_LE(most.norms, tolerance.norms);
    EXPECT_TRUE(got.values == again.values && got.losses == again.losses) << "not the same bytes";
    EXPECT_GT(cuda_kernels_started(), before);
    EXPECT_EQ(backend->host().work.operations.load(), 0) << "products that the CPU computed";
}

TEST(Training, OnTheDevice) { compare(Compute::f32, tolerance_f32); }
TEST(Training, OnTheDeviceInSixteenBits) { compare(Compute::bf16, tolerance_bf16); }

// One matrix is 2 % too large, or twice as large where products are in bf16: three steps of the 135M shape are then six
// times as far apart as they may be.
TEST(Training, AFaultIsSeen) {
    const int64_t layer = shape().sizes.layers / 2;
    const auto of_fault = [&](Compute compute, float factor) {
        return apart(train(device_under_test::backend(compute), shape(), 3, Fault{Slot::down_proj, layer, factor}),
                     stored(shape()));
    };
    EXPECT_GT(of_fault(Compute::f32, 1.02f).losses, tolerance_f32.losses);
    EXPECT_GT(of_fault(Compute::bf16, 2).norms, tolerance_bf16.norms);
}

}  // namespace gpu_training
