// qlora_curve_test.cpp - fifty steps of QLoRA on a real model (NF4, double quantization, r 16 on all linear layers)
// against PyTorch, transformers and PEFT, step by step. The promise is 1% in float32 and mixed, 2% in bf16 (against the
// same float32 reference); float32 is held to 0.2%, because 1% would not notice another beta2 (0.5%). Measured: at most
// 0.005%, 0.2% and 1.4%. What bf16 loses it loses going forward: rounded activations alone move a step's loss by up to
// 1.7%, rounded weights by 0.8%, rounded gradients by 0.2% (measured by rounding the packed factors of f32 products).
//
// Needs SmolLM2-135M-Instruct.Q4_1.gguf (make demo fetches it into models/; QLORA_SMOLLM2 names another place). The
// reference comes from tools/make_qlora_curve_golden.py. It trains on the NF4 weights that the definition gives: the
// CPU build of bitsandbytes picks a neighbour of the nearest 8-bit code for scales near their mean, so its double
// quantization is another one.
#include "src/base/access.h"
#include "src/base/json.h"
#include "src/cpu/kernels.h"
#include "tests/run/run_support.h"

#include <gtest/gtest.h>

namespace qlora_curve_test {

std::string model_path() {
    const char* given = std::getenv("QLORA_SMOLLM2");
    return given && *given ? given : "models/SmolLM2-135M-Instruct.Q4_1.gguf";
}

struct Case { const char* name; qlora::Compute compute; bool checkpoint; double loss_tolerance, norm_tolerance; };
class QloraCurve : public testing::TestWithParam<Case> {};

std::vector<run_support::Row> rows_of(const qlora::Json& golden) {
    std::vector<run_support::Row> rows;
    for (const qlora::Json& r : golden.find("rows")->array()) {
        run_support::Row& row = rows.emplace_back();
        for (const qlora::Json& t : r.find("tokens")->array()) row.tokens.push_back(qlora::Token(t.integer()));
        row.trained.assign(row.tokens.size(), 1);
        std::fill_n(row.trained.begin(), r.find("prompt")->integer(), uint8_t(0));
    }
    return rows;
}

TEST_P(QloraCurve, FollowsPeftAtEveryStep) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    GTEST_SKIP() << "a hundred steps of a 135M model take minutes under a sanitizer; the tiny models of trainer_test "
                    "cover the code";
#endif
    if (GetParam().compute != qlora::Compute::f32 && !qlora::best_kernels().gemm_bf16)
        GTEST_SKIP() << "bf16 computes in f32 here: the same run again";
    if (!qlora::exists(model_path())) GTEST_SKIP() << "needs " << model_path() << " (make demo fetches it)";
    const qlora::Json golden = qlora::Json::parse(qlora::read_file(golden_path("qlora_curve.json")),
                                                  "qlora_curve.json");
    const qlora::Model model = qlora::Model::load(
        model_path(), {.backend = qlora::Backend::cpu(0, GetParam().compute), .quantize = qlora::DType::nf4});
    const uint64_t seed = uint64_t(golden.find("seed")->integer());
    const qlora::Lora lora = qlora::Lora::create(
        model, {.rank = golden.find("rank")->integer(), .alpha = float(golden.find("alpha")->number()), .seed = seed});

    qlora::TrainOptions o;
    o.epochs = 2;
    o.batch = o.accumulate = 1;
    o.learning_rate = float(golden.find("learning_rate")->number());
    o.optimizer.max_grad_norm = float(golden.find("max_grad_norm")->number());
    o.warmup_steps = golden.find("warmup_steps")->integer();
    o.warmup_start = 0;                                // as the reference
    o.schedule = qlora::Schedule::linear;
    o.checkpoint_activations = GetParam().checkpoint;
    o.seed = seed;
    qlora::TrainerImpl trainer(impl_of(lora), impl_of(run_support::dataset(rows_of(golden))), o);

    const qlora::Json::Array &order = golden.find("order")->array(), &losses = golden.find("losses")->array(),
                             &norms = golden.find("grad_norms")->array();
    ASSERT_EQ(losses.size(), 50u);
    double worst_loss = 0, worst_norm = 0;
    for (size_t step = 0; step < losses.size(); ++step) {
        ASSERT_EQ(trainer.batches.step(int64_t(step)).at(0).at(0), order[step].integer())
            << "another order of the data than the reference's";
        ASSERT_TRUE(trainer.step());
        const double loss = losses[step].number(), norm = norms[step].number();
        EXPECT_NEAR(trainer.progress.last.loss, loss, GetParam().loss_tolerance * loss) << "loss of step " << step + 1;
        EXPECT_NEAR(trainer.progress.last.grad_norm, norm, GetParam().norm_tolerance * norm)
            << "gradient norm of step " << step + 1;
        worst_loss = std::max(worst_loss, std::fabs(trainer.progress.last.loss / loss - 1));
        worst_norm = std::max(worst_norm, std::fabs(trainer.progress.last.grad_norm / norm - 1));
    }
    EXPECT_FALSE(trainer.step());
    RecordProperty("worst_relative_loss", std::to_string(worst_loss));
    RecordProperty("worst_relative_norm", std::to_string(worst_norm));
}

INSTANTIATE_TEST_SUITE_P(Compute, QloraCurve,
                         testing::Values(Case{"f32", qlora::Compute::f32, false, 0.002, 0.005},
                                         Case{"mixed", qlora::Compute::mixed, true, 0.01, 0.05},
                                         Case{"bf16", qlora::Compute::bf16, true, 0.02, 0.1}),
                         [](const testing::TestParamInfo<Case>& of) { return std::string(of.param.name); });

}  // namespace qlora_curve_test
