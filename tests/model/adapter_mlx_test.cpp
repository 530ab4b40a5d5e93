// adapter_mlx_test.cpp - adapters in the folders of mlx-lm: what the library of that name computed with one, what is
// saved comes back, and what such a folder cannot hold is refused.
#include "src/model/lora_impl.h"
#include "tests/model/reference.h"
#include "tests/run/run_support.h"

namespace adapter_mlx_test {

using namespace qlora;
using run_support::contains;
using run_support::error_of;
using run_support::TemporaryFolder;

std::shared_ptr<LoraImpl> adapter(bool dora, bool adjacent) {
    LoraOptions options{.rank = 3, .alpha = 7, .modules = "q_proj,k_proj,down_proj"};
    options.layers = {1};
    options.dora = dora;
    const auto lora = create_lora(tiny::make({.adjacent = adjacent}), options);
    std::vector<float> values = lora_values(*lora);
    Rng rng{5, 0, 0};
    for (float& v : values) v += 0.1f * rng.normal();
    set_lora_values(*lora, values);
    return lora;
}

// tools/make_mlx_golden.py
TEST(MlxAdapter, ComputesWhatMlxComputes) {
    const Json golden = reference::golden("mlx.json");
    Tokens ids;
    for (const Json& id : golden.find("ids")->array()) ids.push_back(Token(id.integer()));
    const auto model = tiny::load(golden_path("training/model"));
    for (const char* kind : {"base", "lora", "dora"}) {
        const bool plain = kind[0] == 'b';
        const auto lora = plain ? nullptr : load_lora(model, golden_path(std::string("model/mlx_") + kind));
        const std::vector<float> got = tiny::logits(model, lora.get(), ids);
        const Json::Array& rows = golden.find(kind)->array();
        for (size_t r = 0; r < rows.size(); ++r)
            for (size_t i = 0; i < rows[r].array().size(); ++i)
                ASSERT_NEAR(got[r * rows[r].array().size() + i], rows[r].array()[i].number(), 2e-5) << kind << ' ' << r;
    }
}

TEST(MlxAdapter, ComesBackAsItWas) {
    for (const bool dora : {false, true})
        for (const bool adjacent : {false, true}) {
            const auto lora = adapter(dora, adjacent);
            const TemporaryFolder folder("qlora-mlx");
            save_lora_mlx(*lora, folder / "a");
            const auto again = load_lora(lora->base, folder / "a");
            EXPECT_EQ(lora_values(*again), lora_values(*lora));
            EXPECT_EQ(again->options.dora, dora);
            EXPECT_EQ(tiny::logits(again->base, again.get(), Tokens{1, 2, 3}),
                      tiny::logits(lora->base, lora.get(), Tokens{1, 2, 3}));
        }
}

// The same numbers as in PEFT's file, the other way round; in Hugging Face's order of rows both.
TEST(MlxAdapter, HoldsTransposedFactors) {
    const auto lora = adapter(false, true);
    const TemporaryFolder folder("qlora-mlx");
    save_lora_mlx(*lora, folder / "mlx");
    save_lora_peft(*lora, folder / "peft");
    const auto mlx = SafeTensors::open(folder / "mlx/adapters.safetensors"),
               peft = SafeTensors::open(folder / "peft/adapter_model.safetensors");
    ASSERT_EQ(mlx->tensors().size(), peft->tensors().size());
    for (const SafeTensor& t : mlx->tensors()) {
        std::string name = "base_model.model." + t.name;
        name.replace(name.rfind('.'), name.npos, t.name.ends_with("lora_a") ? ".lora_A.weight" : ".lora_B.weight");
        const SafeTensor* other = peft->find(name);
        ASSERT_NE(other, nullptr) << name;
        ASSERT_EQ(t.shape, (Shape{other->shape[1], other->shape[0]})) << name;
        const std::vector<float> a = mlx->floats(t), b = peft->floats(*other);
        for (int64_t i = 0; i < t.shape[0]; ++i)
            for (int64_t j = 0; j < t.shape[1]; ++j)
                ASSERT_EQ(a[size_t(i * t.shape[1] + j)], b[size_t(j * t.shape[0] + i)]) << name;
    }
    const Json config = Json::parse(read_file(folder / "mlx/adapter_config.json"), "config");
    EXPECT_EQ(config.find("num_layers")->integer(), lora->base->config.layers - 1);
    EXPECT_EQ(config.find("lora_parameters")->find("keys")->dump(),
              "[\"self_attn.q_proj\", \"self_attn.k_proj\", \"mlp.down_proj\"]");
    EXPECT_NEAR(config.find("lora_parameters")->find("scale")->number(), 7.0 / 3, 1e-6);
}

TEST(MlxAdapter, WhatItCannotHoldIsRefused) {
    const auto several = create_lora(tiny::make({}), {.rank = 3, .rank_pattern = {{"q_proj", 2}}});
    const TemporaryFolder folder("qlora-mlx");
    EXPECT_TRUE(contains(error_of([&] { save_lora_mlx(*several, folder / "a"); }), "one rank and one scale"));
    const auto other = create_lora(tiny::make({.family = "gpt2"}), {.rank = 3});
    EXPECT_TRUE(contains(error_of([&] { save_lora_mlx(*other, folder / "a"); }), "mlx-lm has other names"));
    EXPECT_FALSE(exists(folder / "a"));
}

TEST(MlxAdapter, DamagedFoldersAreNamed) {
    const auto lora = adapter(false, false);
    const TemporaryFolder folder("qlora-mlx");
    save_lora_mlx(*lora, folder / "a");
    const std::string path = folder / "a/adapter_config.json", whole = read_file(path);
    const auto refused = [&](const char* from, const char* to, const char* says) {
        std::string text = whole;
        ASSERT_NE(text.find(from), text.npos) << from;
        write_file_atomic(path, text.replace(text.find(from), std::string_view(from).size(), to));
        const std::string error = error_of([&] { load_lora(lora->base, folder / "a"); });
        EXPECT_TRUE(contains(error, says) && contains(error, "adapter")) << error;
    };
    refused("\"lora\"", "\"full\"", "fine_tune_type = \"full\"");
    refused("\"lora\"", "\"dora\"", ".m is missing");
    refused("\"lora_parameters\"", "\"lora_parameter\"", "lora_parameters is missing");
    refused("\"rank\": 3", "\"rank\": 4", "expected [");
    refused("\"rank\": 3", "\"rank\": 0", "rank is 0");
    refused("\"rank\": 3", "\"rank\": 3, \"alpha\": 16", "versions of mlx-lm differ");
    refused("\"scale\"", "\"scales\"", "has no scale");
    refused("\"dropout\": 0.0", "\"dropout\": 2", "dropout is 2");
    write_file_atomic(path, whole);
    EXPECT_TRUE(contains(error_of([&] { load_lora(tiny::make({.layers = 1}), folder / "a", OnBase::any); }),
                         "does not belong to a linear layer"));
}

}  // namespace adapter_mlx_test
