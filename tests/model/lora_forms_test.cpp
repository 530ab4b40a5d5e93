// lora_forms_test.cpp - copies and sums of adapters.
#include "src/base/access.h"
#include "src/model/lora_impl.h"
#include "src/run/trainer.h"
#include "tests/model/tiny.h"

#include <gtest/gtest.h>

#include <filesystem>

namespace lora_forms_test {

using namespace qlora;

const Tokens ids{1, 17, 5, 22, 9, 31, 2, 8};

Lora adapter(const Model& model, uint64_t seed, LoraOptions options = {.rank = 3}) {
    options.seed = seed;
    const Lora lora = Lora::create(model, options);
    std::vector<float> values = lora_values(*impl_of(lora));
    Rng rng{seed, 7, 0};
    for (float& v : values) v += (float(rng.below(2001)) / 1000 - 1) * 0.2f;
    impl_of(lora)->base->backend->upload(*impl_of(lora)->values, 0, values.data(), int64_t(values.size()) * 4);
    ++impl_of(lora)->version;
    return lora;
}

template <class Call>
std::string error_of(const Call& call) {
    try { call(); } catch (const Error& e) { return e.what(); }
    return "no error";
}

void expect_near(const std::vector<float>& a, const std::vector<float>& b, double most, const std::string& what) {
    ASSERT_EQ(a.size(), b.size());
    double difference = 0;
    for (size_t i = 0; i < a.size(); ++i) difference = std::max(difference, std::fabs(double(a[i]) - double(b[i])));
    EXPECT_LE(difference, most) << what;
}

TEST(LoraForms, ACopyIsApart) {
    const auto model = handle_of<Model>(tiny::make({}));
    for (const LoraOptions& options : {LoraOptions{.rank = 3}, LoraOptions{.rank = 3, .dora = true},
                                       LoraOptions{.rank = 3, .init = LoraInit::pissa}}) {
        const Lora lora = adapter(model, 4, options), copy = lora.copy();
        const std::vector<float> before = lora.logits(ids);
        EXPECT_EQ(copy.logits(ids), before);
        EXPECT_EQ(copy.fingerprint(), lora.fingerprint());
        EXPECT_EQ(copy.files(), lora.files());
        const std::vector<float> zero(size_t(lora.parameters()), 0.5f);
        impl_of(lora)->base->backend->upload(*impl_of(lora)->values, 0, zero.data(), int64_t(zero.size()) * 4);
        ++impl_of(lora)->version;
        EXPECT_NE(lora.logits(ids), before);
        EXPECT_EQ(copy.logits(ids), before);
    }
}

// Against the deltas that merging adds to the weights.
TEST(LoraForms, ASumAddsWhatEachAdds) {
    const auto model = handle_of<Model>(tiny::make({}));
    const std::vector<Lora> loras{adapter(model, 1), adapter(model, 2, {.rank = 5, .alpha = 7, .modules = "attention"}),
                                  adapter(model, 3, {.rank = 2, .rank_stabilized = true})};
    const std::vector<float> scales{0.5f, -1.25f, 2};
    const Lora sum = Lora::sum(loras, scales);
    for_each_tensor(impl_of(model)->config, [&](const Row& row, int64_t layer) {
        if (row.kind != Kind::linear) return;
        const std::vector<float> base = impl_of(model)->at(row.slot, layer)->decoded();
        std::vector<float> expected = base;
        for (size_t i = 0; i < loras.size(); ++i) {
            const std::vector<float> merged = impl_of(loras[i].merge())->at(row.slot, layer)->decoded();
            for (size_t k = 0; k < base.size(); ++k) expected[k] += scales[i] * (merged[k] - base[k]);
        }
        expect_near(impl_of(sum.merge())->at(row.slot, layer)->decoded(), expected, 2e-5,
                    tensor_name(World::hf, impl_of(model)->config, row, layer));
    });
    EXPECT_EQ(impl_of(sum)->find(0, Module::q_proj)->rank, 3 + 5 + 2);
    EXPECT_EQ(impl_of(sum)->find(0, Module::up_proj)->rank, 3 + 2);
    // saved and loaded as any adapter
    EXPECT_EQ(Lora::load(model, Source::folder(sum.files())).logits(ids), sum.logits(ids));
    const std::string gguf = testing::TempDir() + "qlora_lora_sum.gguf";
    sum.save(gguf);
    expect_near(Lora::load(model, gguf).logits(ids), sum.logits(ids), 1e-5, "gguf");
    const float none = 0;
    expect_near(Lora::sum({loras.data(), 1}, {&none, 1}).logits(ids), model.logits(ids), 0, "times zero");
}

TEST(LoraForms, WhatCannotBeAddedIsRefused) {
    const auto model = handle_of<Model>(tiny::make({})), other = handle_of<Model>(tiny::make({}));
    const std::vector<float> ones{1, 1};
    const auto sum = [&](const Lora& a, const Lora& b) {
        const std::vector<Lora> both{a, b};
        return error_of([&] { (void)Lora::sum(both, ones); });
    };
    EXPECT_NE(sum(adapter(model, 1), adapter(other, 1)).find("another base"), std::string::npos);
    EXPECT_NE(sum(adapter(model, 1), adapter(model, 1, {.rank = 3, .dora = true})).find("dora"), std::string::npos);
    EXPECT_NE(error_of([&] { (void)Lora::sum({}, {}); }).find("0 adapters"), std::string::npos);
    const Lora one = adapter(model, 1);
    EXPECT_NE(error_of([&] { (void)Lora::sum({&one, 1}, ones); }).find("1 adapters and 2 scales"), std::string::npos);
    const float infinite = HUGE_VALF;
    EXPECT_NE(error_of([&] { (void)Lora::sum({&one, 1}, {&infinite, 1}); }).find("scale 0 is inf"), std::string::npos);
}

}  // namespace lora_forms_test
