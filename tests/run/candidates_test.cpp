// candidates_test.cpp - where scores lie on a device, the best of them are chosen there: the tokens are those of the
// whole row, for every option, and little comes down for each.
#include "src/base/access.h"
#include "src/run/session.h"
#include "tests/model/tiny.h"
#include "tests/run/run_support.h"
#include "tests/support/over_cpu.h"

#include <gtest/gtest.h>

#include <cmath>

namespace candidates_test {

using qlora::Sampling;
using qlora::Scores;
using qlora::Token;

// Memory that is a device's own, as far as anybody asks.
struct Apart final : over_cpu::OverCpu {
    mutable int64_t down = 0;
    bool has_host_memory() const override { return false; }
    void download(const qlora::Buffer& from, int64_t offset, void* to, int64_t bytes) override {
        down += bytes;
        OverCpu::download(from, offset, to, bytes);
    }
};

std::map<std::string, Sampling> samplings() {
    std::map<std::string, Sampling> all;
    all["greedy"] = {.temperature = 0};
    all["greedy, penalty"] = {.temperature = 0, .repeat_penalty = 1.3f};
    all["default"] = {};
    all["hot"] = {.temperature = 3, .top_p = 1, .top_k = 128};
    all["min-p"] = {.temperature = 1.5f, .top_p = 1, .min_p = 0.1f};
    all["penalty"] = {.temperature = 1, .repeat_penalty = 1.2f};
    all["long penalty"] = {.temperature = 2, .repeat_penalty = 2, .top_k = 3, .repeat_last = 100};
    all["whole: rewards"] = {.repeat_penalty = 0.8f};
    all["whole: all"] = {.temperature = 1, .top_p = 0.99f, .top_k = 0};
    all["whole: many"] = {.temperature = 1, .top_k = 200};
    all["whole: logprobs"] = {.logprobs = true};
    all["whole: mask"] = {.mask = [](std::span<const Token>, std::span<float> scores) { scores[0] = -HUGE_VALF; }};
    for (auto& [name, s] : all) {
        s.max_tokens = 24;
        s.seed = 11;
    }
    return all;
}

qlora::Model model_on(const std::shared_ptr<qlora::BackendImpl>& impl) {
    return qlora::Model::load("models/tiny.gguf", {.backend = qlora::handle_of<qlora::Backend>(impl)});
}

TEST(Candidates, SessionsSayTheSameAndLittleComesDown) {
    const auto device = std::make_shared<Apart>();
    const qlora::Model there = model_on(device), here = model_on(device->inner);
    const int64_t row = here.info().vocabulary * 4;
    qlora::Session a(here, {.context = 128}), b(there, {.context = 128});
    for (const auto& [name, sampling] : samplings()) {
        const qlora::Reply want = a.complete("First Citizen:", sampling);
        const int64_t before = device->down;
        const qlora::Reply got = b.complete("First Citizen:", sampling);
        EXPECT_EQ(got.tokens, want.tokens) << name;
        EXPECT_EQ(got.text, want.text) << name;
        EXPECT_EQ(got.logprobs, want.logprobs) << name;
        const int64_t rows = int64_t(got.tokens.size()), each = name.starts_with("whole") ? row : 1024;
        EXPECT_LE(device->down - before, (rows + 3) * each) << name;
        EXPECT_GE(device->down - before, (rows - 1) * each) << name;
    }
}

TEST(Candidates, BatchesSayTheSame) {
    const auto device = std::make_shared<Apart>();
    std::map<std::string, qlora::Tokens> replies[2];
    for (const bool apart : {false, true}) {
        const qlora::Model model = model_on(apart ? device : device->inner);
        qlora::Batch batch(model, {.slots = 16, .context = 64});
        std::map<std::string, int64_t> slots;
        for (const auto& [name, sampling] : samplings()) 
            slots[name] = batch.add(model.tokenizer().encode("First Citizen:"), sampling);
        while (batch.step()) {}
        for (const auto& [name, slot] : slots) replies[apart][name] = batch.remove(slot).tokens;
    }
    EXPECT_EQ(replies[0], replies[1]);
}

// Scores that are no numbers are an error that names the token, as where the whole row is looked at.
TEST(Candidates, NaNIsNamed) {
    const auto device = std::make_shared<Apart>();
    for (const auto& backend : {std::shared_ptr<qlora::BackendImpl>(device), device->inner}) {
        const auto broken = tiny::make({});
        broken->backend = backend;
        qlora::WeightPtr& norm = broken->at(qlora::Slot::final_norm);
        std::vector<float> values = norm->decoded();
        values[0] = NAN;
        norm = std::make_shared<const qlora::Weight>(qlora::dense_weight(norm->name, norm->shape, values));
        qlora::SessionImpl session(broken, nullptr, {.context = 16});
        const Scores scores = session.feed(qlora::Tokens{1, 2}, 1);
        EXPECT_TRUE(scores.best.empty());
        ASSERT_FALSE(scores.all.empty());
        EXPECT_TRUE(std::isnan(scores.all[0]));
    }
}

}  // namespace candidates_test
