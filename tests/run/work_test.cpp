// work_test.cpp - the operations and bytes that a backend counts, against arithmetic by hand for a model of known
// shapes: what bench shows.
#include "src/base/access.h"
#include "src/run/session.h"
#include "tests/run/run_support.h"

#include <gtest/gtest.h>

namespace work_test {

// The committed model: 2 layers of 32 (4 heads of 8, 2 of them for keys and values), feed-forward 48, vocabulary 64,
// float32.
constexpr int64_t layers = 2, hidden = 32, heads = 4, head_dim = 8, kv = 16, feed_forward = 48, vocabulary = 64;
constexpr int64_t q_weights = hidden * hidden, kv_weights = hidden * kv, o_weights = hidden * hidden,
                  up_weights = hidden * feed_forward;
constexpr int64_t layer_weights = q_weights + 2 * kv_weights + o_weights + 3 * up_weights,
                  head_weights = vocabulary * hidden;

int64_t triangle(int64_t n) { return n * (n + 1) / 2; }
int64_t attention(int64_t pairs, int64_t products) { return 2 * products * pairs * head_dim * heads; }

template <class Do>
qlora::Work work_of(const qlora::Model& model, const Do& act) {
    const qlora::Work before = model.backend().work();
    act();
    const qlora::Work after = model.backend().work();
    return {after.operations - before.operations, after.bytes - before.bytes};
}

TEST(Work, AllPositionsOfATextPassTheHead) {
    const qlora::Model model = run_support::tiny_model();
    const int64_t n = 24;
    const qlora::Tokens tokens(size_t(n), 5);
    const qlora::Work w = work_of(model, [&] { (void)model.logits(tokens); });
    EXPECT_EQ(w.operations, 2 * n * (layers * layer_weights + head_weights) + layers * attention(triangle(n), 2));
}

TEST(Work, APromptPassesTheHeadOnceAndATokenReadsEveryWeightOnce) {
    const qlora::Model model = run_support::tiny_model();
    qlora::SessionImpl session(impl_of(model), nullptr, {.context = 64});
    const int64_t n = 16;                              // a whole chunk: no padded rows
    const qlora::Tokens prompt(size_t(n), 5), next(1, 6);
    const qlora::Work w = work_of(model, [&] { session.feed(prompt); });
    EXPECT_EQ(w.operations, 2 * (n * layers * layer_weights + head_weights) + layers * attention(triangle(n), 2));
    const qlora::Work one = work_of(model, [&] { session.feed(next); });
    EXPECT_EQ(one.operations, 2 * (layers * layer_weights + head_weights) + layers * attention(n + 1, 2));
    // keys and values in 16 bits
    EXPECT_EQ(one.bytes, 4 * (layers * layer_weights + head_weights) + layers * 2 * (n + 1) * kv * 2);
}

TEST(Work, StoredTypesCountTheirOwnBytes) {
    const qlora::Model model = run_support::tiny_model(1, qlora::DType::nf4);
    qlora::SessionImpl session(impl_of(model), nullptr, {.context = 64, .cache = qlora::DType::f32});
    session.feed(qlora::Tokens(32, 5));
    const qlora::Work one = work_of(model, [&] { session.feed(qlora::Tokens(1, 6)); });
    int64_t stored = 0;                                // codes, a byte a block of 64, a float a 256 blocks
    for (const int64_t weights : {q_weights, kv_weights, kv_weights, o_weights, up_weights, up_weights, up_weights})
        stored += weights / 2 + weights / 64 + 4;
    EXPECT_EQ(one.bytes, layers * stored + 4 * head_weights + layers * 2 * 33 * kv * 4);
}

// One step of one row with every token trained. The forward pass, each layer once more where its activations are
// recomputed, and the gradients: towards the input of every product that a factor lies behind (not of q, k, v in the
// first layer), and of the factors.
int64_t training_step(bool recompute) {
    const qlora::Model model = run_support::tiny_model();
    const qlora::Lora lora = qlora::Lora::create(model, {.rank = 4});
    qlora::TrainOptions o{.max_steps = 1, .accumulate = 1, .context = 64, .checkpoint_activations = recompute};
    run_support::Row row{qlora::Tokens(32, 5), std::vector<uint8_t>(32, 1)};
    qlora::Trainer trainer(lora, run_support::dataset({row}), o);
    return work_of(model, [&] { trainer.step(); }).operations;
}

TEST(Work, ATrainingStepCountsWhatItRecomputes) {
    const int64_t n = 32, targets = 31, rank = 4;
    int64_t lora_in = 0, lora_out = 0;                 // sums over the seven products of a layer
    for (const auto& [in, out] : {std::pair{hidden, hidden},
                                  {hidden, kv},
                                  {hidden, kv},
                                  {hidden, hidden},
                                  {hidden, feed_forward},
                                  {hidden, feed_forward},
                                  {feed_forward, hidden}})
        lora_in += in, lora_out += out;
    const int64_t lora_forward = 2 * n * rank * (lora_in + lora_out);
    const int64_t layer_forward = 2 * n * layer_weights + attention(triangle(n), 2) + lora_forward;
    const int64_t lora_backward = 2 * n * rank * (3 * lora_in + 2 * lora_out);     // u again, dA, dx; v, dB
    const int64_t first_layer = 2 * n * (q_weights + 2 * kv_weights) + 3 * 2 * n * rank * hidden;
    const int64_t backward =
        layers * (2 * n * layer_weights + attention(triangle(n), 7) + lora_backward) - first_layer;
    const int64_t plain = layers * layer_forward + 2 * 2 * targets * head_weights + backward;
    EXPECT_EQ(training_step(false), plain);
    // What a recomputed layer ends with is kept: the last product of each layer and its adapter are not made again.
    const int64_t down = 2 * n * up_weights + 2 * n * rank * (feed_forward + hidden);
    EXPECT_EQ(training_step(true), plain + layers * (layer_forward - down));
}

}  // namespace work_test
