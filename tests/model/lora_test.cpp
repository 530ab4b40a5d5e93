// lora_test.cpp - adapters: their start, their gradients, and their files.
#include "src/model/lora.h"

#include "src/format/safetensors.h"
#include "tests/model/tiny.h"
#include "tests/support/support.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>

namespace lora_test {

using namespace qlora;

const Tokens ids{3, 17, 5, 22, 9, 31, 2, 8, 14, 30};

std::vector<float> values_of(const LoraImpl& lora) {
    std::vector<float> v(size_t(lora.parameters));
    lora.base->backend->download(*lora.values, 0, v.data(), lora.parameters * 4);
    return v;
}

void set(LoraImpl& lora, const std::vector<float>& v) {
    lora.base->backend->upload(*lora.values, 0, v.data(), lora.parameters * 4);
}

// B away from zero, so that the adapter does something.
std::shared_ptr<LoraImpl> trained(std::shared_ptr<const ModelImpl> model, LoraOptions options) {
    auto lora = create_lora(model, options);
    std::vector<float> v = values_of(*lora);
    Rng rng{7, 1, 0};
    for (float& x : v) x += 0.1f * rng.normal();
    set(*lora, v);
    return lora;
}

std::string temporary(const std::string& name) {
    const std::string path = testing::TempDir() + "qlora_lora_" + name;
    std::filesystem::remove_all(path);
    return path;
}

TEST(Lora, StartsAsTheBaseModel) {
    const auto model = tiny::make({});
    const auto lora = create_lora(model, {.rank = 4, .seed = 11});
    EXPECT_EQ(lora->targets.size(), 14u);
    EXPECT_EQ(tiny::logits(model, lora.get(), ids), tiny::logits(model, nullptr, ids));
    const std::vector<float> v = values_of(*lora);
    for (const LoraTarget& t : lora->targets) {
        const float bound = 1 / std::sqrt(float(t.in));
        double sum = 0, squares = 0;
        for (int64_t i = 0; i < t.rank * t.in; ++i) {
            EXPECT_LE(std::fabs(v[size_t(t.a + i)]), bound);
            sum += v[size_t(t.a + i)];
            squares += v[size_t(t.a + i)] * v[size_t(t.a + i)];
        }
        const double n = double(t.rank * t.in);
        EXPECT_NEAR(sum / n, 0, 5 * bound / std::sqrt(3 * n));
        EXPECT_NEAR(squares / n, bound * bound / 3, 0.35 * bound * bound / 3);   // variance of a uniform distribution
        for (int64_t i = 0; i < t.out * t.rank; ++i) EXPECT_EQ(v[size_t(t.b + i)], 0);
    }
    EXPECT_EQ(values_of(*create_lora(model, {.rank = 4, .seed = 11})), v);
    EXPECT_NE(values_of(*create_lora(model, {.rank = 4, .seed = 12})), v);
}

TEST(Lora, ModulesAreParsed) {
    EXPECT_EQ(parse_modules({}, "all").size(), 7u);
    EXPECT_EQ(parse_modules({}, "attention").size(), 4u);
    EXPECT_EQ(parse_modules({}, " v_proj, q_proj,v_proj"), (std::vector<Module>{Module::q_proj, Module::v_proj}));
    EXPECT_THROW(parse_modules({}, "q_proj,nothing"), Error);
    EXPECT_THROW(parse_modules({}, ""), Error);
    const auto model = tiny::make({});
    EXPECT_THROW(create_lora(model, {.rank = 0}), Error);
    EXPECT_THROW(create_lora(model, {.rank = 1000}), Error);
    EXPECT_THROW(create_lora(model, {.dropout = 1}), Error);
}

std::vector<float> gradients(std::shared_ptr<const ModelImpl> model, const LoraImpl& lora, bool checkpoint,
                             bool dropout, int runs = 1) {
    const BufferRef buffer = model->backend->allocate(lora.parameters * 4);
    Decoder d(model, &lora,
              {.rows = 12,
               .output = DecoderSpec::Output::loss,
               .backward = true,
               .checkpoint = checkpoint,
               .dropout = dropout,
               .gradients = buffer});
    DecoderBatch batch = lay_out(std::vector<Document>{{std::span(ids).first(6), {}}, {std::span(ids).subspan(6), {}}},
                                 12);
    batch.dropout_step = 5;
    for (int i = 0; i < runs; ++i) d.run(batch);
    std::vector<float> g(size_t(lora.parameters));
    model->backend->download(*buffer, 0, g.data(), lora.parameters * 4);
    return g;
}

double loss(std::shared_ptr<const ModelImpl> model, const LoraImpl& lora) {
    Decoder d(model, &lora, {.rows = 12, .output = DecoderSpec::Output::loss});
    d.run(lay_out(std::vector<Document>{{std::span(ids).first(6), {}}, {std::span(ids).subspan(6), {}}}, 12));
    double sum = 0;
    for (float v : d.nll()) sum += v;
    return sum;
}

// Parts of a fused layer have one adapter, which is named as the class names the layer.
TEST(LoraModules, OfFusedLayers) {
    const Config phi3 = family_named("phi3")->start(), gpt2 = family_named("gpt2")->start();
    using Modules = std::vector<Module>;
    EXPECT_EQ(parse_modules(phi3, "all"),
              (Modules{Module::q_proj, Module::o_proj, Module::gate_proj, Module::down_proj}));
    EXPECT_EQ(parse_modules(phi3, "attention,gate_up_proj"),
              (Modules{Module::q_proj, Module::o_proj, Module::gate_proj}));
    EXPECT_EQ(parse_modules(phi3, "qkv_proj"), (Modules{Module::q_proj}));
    EXPECT_EQ(parse_modules(gpt2, "c_proj"), (Modules{Module::o_proj, Module::down_proj}));
    EXPECT_EQ(parse_modules(gpt2, "attn.c_proj, c_fc"), (Modules{Module::o_proj, Module::up_proj}));
    EXPECT_EQ(module_name(gpt2, Module::o_proj), "attn.c_proj");
    EXPECT_EQ(module_name(gpt2, Module::q_proj), "c_attn");
    std::string error = "taken";
    try { (void)parse_modules(phi3, "o_proj,q_proj"); } catch (const Error& e) { error = e.what(); }
    EXPECT_NE(error.find("q_proj of a phi3 model is a part of qkv_proj"), std::string::npos) << error;
    const auto model = tiny::make({.family = "phi3"});
    const auto lora = create_lora(model, {.rank = 2});
    EXPECT_EQ(lora->targets.size(), 8u);
    EXPECT_EQ(lora->find(1, Module::v_proj), lora->find(1, Module::q_proj));
    EXPECT_EQ(lora->find(0, Module::q_proj)->out, 32 + 16 + 16);
}

// As PEFT names an adapter of OLMo's own class, whose up comes before its gate: the rows of B follow it.
TEST(Lora, NamesAndRowsOfOlmosOwnLayout) {
    const auto model = tiny::make({.family = "hf_olmo"});
    const auto lora = trained(model, {.rank = 2, .alpha = 4});
    EXPECT_EQ(lora->targets.size(), 8u);
    const std::string folder = testing::TempDir() + "qlora_lora_hf_olmo";
    std::filesystem::remove_all(folder);
    save_lora_peft(*lora, folder);
    const auto file = SafeTensors::open(folder + "/adapter_model.safetensors");
    const std::string layer = "base_model.model.model.transformer.blocks.1.";
    for (const char* module : {"att_proj", "attn_out", "ff_proj", "ff_out"})
        for (const char* part : {".lora_A.weight", ".lora_B.weight"})
            EXPECT_NE(file->find(layer + module + part), nullptr) << module << part;
    const std::vector<float> b = file->floats(*file->find(layer + "ff_proj.lora_B.weight")), held = values_of(*lora);
    const LoraTarget& t = *lora->find(1, Module::up_proj);
    const auto half = std::ptrdiff_t(b.size() / 2);
    ASSERT_EQ(int64_t(b.size()), t.out * t.rank);
    EXPECT_TRUE(std::equal(b.begin(), b.begin() + half, held.begin() + t.b + half));
    EXPECT_TRUE(std::equal(b.begin() + half, b.end(), held.begin() + t.b));
    EXPECT_EQ(values_of(*load_lora(model, folder)), held);
    // "ff_out" would be the head as well, where there is one: layers are named in full
    const auto targets = [&](bool tied) {
        const auto of = tiny::make({.family = "hf_olmo", .tied = tied});
        std::filesystem::remove_all(folder);
        save_lora_peft(*create_lora(of, {.rank = 1, .modules = "ff_out"}), folder);
        EXPECT_EQ(load_lora(of, folder)->targets.size(), 2u);
        return Json::parse(read_file(folder + "/adapter_config.json"), "c").find("target_modules")->dump();
    };
    EXPECT_EQ(targets(false), R"(["model.transformer.blocks.0.ff_out", "model.transformer.blocks.1.ff_out"])");
    EXPECT_EQ(targets(true), R"(["ff_out"])");
}

class LoraFamilies : public testing::TestWithParam<std::string> {};

// Every family, every module: the gradient of a whole decoder against central differences.
TEST_P(LoraFamilies, GradientsMatchFiniteDifferences) {
    const auto model = tiny::make(
        {.family = GetParam(), .window = GetParam() == "mistral" ? 3 : 0, .tied = true});
    auto lora = trained(model, {.rank = 2, .alpha = 4});
    const std::vector<float> g = gradients(model, *lora, false, false), v = values_of(*lora);
    Rng rng{3, 0, 0};
    for (const LoraTarget& t : lora->targets)
        for (const int64_t at :
             {t.a + int64_t(rng.below(uint64_t(t.rank * t.in))), t.b + int64_t(rng.below(uint64_t(t.out * t.rank)))}) {
            const float h = 1e-2f;
            std::vector<float> moved = v;
            moved[size_t(at)] = v[size_t(at)] + h;
            set(*lora, moved);
            const double up = loss(model, *lora);
            moved[size_t(at)] = v[size_t(at)] - h;
            set(*lora, moved);
            const double down = loss(model, *lora);
            EXPECT_NEAR((up - down) / (2 * h), g[size_t(at)], 2e-3 + 0.01 * std::fabs(g[size_t(at)]))
                << name_of(t.module) << " of layer " << t.layer;
        }
    set(*lora, v);
}
INSTANTIATE_TEST_SUITE_P(Lora, LoraFamilies, testing::ValuesIn(tiny::every_family()),
                         [](const auto& of) { return of.param; });

TEST(LoraGradients, CheckpointingAndAccumulationChangeNothing) {
    const auto model = tiny::make({.family = "qwen3"});
    const auto lora = trained(model, {.rank = 3, .dropout = 0.2f});
    for (const bool dropout : {false, true}) {
        const std::vector<float> kept = gradients(model, *lora, false, dropout),
                                 recomputed = gradients(model, *lora, true, dropout),
                                 twice = gradients(model, *lora, true, dropout, 2);
        EXPECT_EQ(kept, recomputed);
        for (size_t i = 0; i < kept.size(); ++i) EXPECT_EQ(twice[i], kept[i] + kept[i]);
    }
    EXPECT_NE(gradients(model, *lora, false, true), gradients(model, *lora, false, false));
}

TEST(LoraFiles, PeftFolderRoundTrip) {
    for (const bool adjacent : {false, true}) {
        const auto model = tiny::make({.adjacent = adjacent});
        const auto lora = trained(
            model,
            {.rank = 3, .alpha = 5, .dropout = 0.25f, .modules = "q_proj,k_proj,down_proj", .rank_stabilized = true});
        const std::string folder = temporary("peft");
        save_lora_peft(*lora, folder);
        const auto again = load_lora(model, folder);
        EXPECT_EQ(values_of(*again), values_of(*lora));
        EXPECT_EQ(again->options.rank, 3);
        EXPECT_EQ(again->options.alpha, 5);
        EXPECT_EQ(again->options.dropout, 0.25f);
        EXPECT_TRUE(again->options.rank_stabilized);
        EXPECT_EQ(again->options.modules, "q_proj,k_proj,down_proj");
        for (size_t i = 0; i < lora->targets.size(); ++i) EXPECT_EQ(again->targets[i].scale, lora->targets[i].scale);
        save_lora_peft(*lora, folder);                 // replaces
        // B of q is in Hugging Face order in the file: row 1 of a head is GGUF's row 2.
        const auto file = SafeTensors::open(folder + "/adapter_model.safetensors");
        const std::vector<float> b = file->floats(
                                     *file->find("base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight")),
                                 v = values_of(*lora);
        const LoraTarget& t = *lora->find(0, Module::q_proj);
        EXPECT_EQ(b[3], v[size_t(t.b + 3 * (adjacent ? 2 : 1))]);
    }
}

TEST(LoraFiles, GgufRoundTrip) {
    const auto model = tiny::make({}), other = tiny::make({.adjacent = true});
    const auto lora = trained(model, {.rank = 4, .alpha = 6, .rank_stabilized = true});
    const std::string path = temporary("adapter.gguf");
    save_lora_gguf(*lora, path);
    const auto again = load_lora(model, path);
    EXPECT_EQ(values_of(*again), values_of(*lora));
    for (size_t i = 0; i < lora->targets.size(); ++i) EXPECT_FLOAT_EQ(again->targets[i].scale, lora->targets[i].scale);
    // The same adapter through both kinds of file onto a base in the other row order is the same adapter.
    const std::string folder = temporary("peft2");
    save_lora_peft(*lora, folder);
    EXPECT_EQ(values_of(*load_lora(other, path, OnBase::any)), values_of(*load_lora(other, folder, OnBase::any)));
    EXPECT_NE(values_of(*load_lora(other, path, OnBase::any)), values_of(*lora));
}

TEST(LoraFiles, EveryLieIsNamed) {
    const auto model = tiny::make({});
    const auto lora = trained(model, {.rank = 2, .modules = "q_proj", .layers = {1}});
    const std::string folder = temporary("hostile"), config = folder + "/adapter_config.json",
                      tensors = folder + "/adapter_model.safetensors";
    save_lora_peft(*lora, folder);
    const std::string good = read_file(config);
    auto error_with = [&](const std::string& key, const Json& value) -> std::string {
        Json j = Json::parse(good, config);
        j.set(key, value);
        std::ofstream(config) << j.dump();
        try { load_lora(model, folder); } catch (const Error& e) { return e.what(); }
        return "loaded";
    };
    EXPECT_EQ(error_with("something_new", Json()), "loaded");
    EXPECT_EQ(error_with("use_dora", Json(false)), "loaded");
    const struct { const char *key, *expected; Json value;
    } table[] = {{"r", "r is 0", Json(0)},
                 {"r", "r is", Json(int64_t(1000000000))},
                 {"r", "shape", Json(3)},
                 {"peft_type", "LORA", Json("IA3")},
                 {"use_dora", "use_dora", Json(true)},
                 {"bias", "bias", Json("all")},
                 {"fan_in_fan_out", "fan_in_fan_out", Json("x")},
                 {"modules_to_save", "modules_to_save", Json(Json::Array{Json("lm_head")})},
                 {"lora_alpha", "lora_alpha", Json("x")},
                 {"lora_alpha", "lora_alpha", Json(1e300)},
                 {"lora_dropout", "dropout", Json(1.5)},
                 {"target_parameters", "target_parameters", Json(Json::Array{Json("x")})},
                 {"rank_pattern", "shape", Json(Json::Object{{".*q_proj", Json(4)}})},
                 {"rank_pattern", "shape", Json(Json::Object{{"q_proj", Json(4)}})}};
    for (const auto& row : table)
        EXPECT_NE(error_with(row.key, row.value).find(row.expected), std::string::npos)
            << row.key << ": " << error_with(row.key, row.value);
    std::ofstream(config) << good;
    auto error_of = [&](SafeTensorsWriter& w) -> std::string {
        w.write(tensors);
        try { load_lora(model, folder); } catch (const Error& e) { return e.what(); }
        return "loaded";
    };
    auto two = [](const std::string& name, float a) {
        SafeTensorsWriter w;
        w.add(name + ".lora_A.weight", {2, 32}, std::vector<float>(64, a));
        w.add(name + ".lora_B.weight", {32, 2}, std::vector<float>(64, 1));
        return w;
    };
    SafeTensorsWriter w = two("base_model.model.model.layers.1.self_attn.q_proj", 1);
    EXPECT_EQ(error_of(w), "loaded");
    w = two("base_model.model.model.layers.2.self_attn.q_proj", 1);
    EXPECT_NE(error_of(w).find("does not belong"), std::string::npos);
    w = two("base_model.model.lm_head", 1);
    EXPECT_NE(error_of(w).find("does not belong"), std::string::npos);
    w = two("base_model.model.model.layers.1.mlp.up_proj", 1);
    EXPECT_NE(error_of(w).find("rules out"), std::string::npos);
    w = two("base_model.model.model.layers.1.self_attn.q_proj", std::nanf(""));
    EXPECT_NE(error_of(w).find("nan"), std::string::npos);
    w = two("base_model.model.model.layers.1.self_attn.q_proj", 1);
    w.tensors.pop_back();
    EXPECT_NE(error_of(w).find("1 tensor is missing"), std::string::npos);
    w.tensors.clear();
    EXPECT_NE(error_of(w).find("no adapter tensors"), std::string::npos);
}

TEST(LoraFiles, RanksAndAlphasByLayer) {
    const auto model = tiny::make({});
    auto lora = trained(model, {.rank = 2, .alpha = 4, .modules = "q_proj,v_proj"});
    const std::string folder = temporary("pattern"), config = folder + "/adapter_config.json";
    lora->targets[2].scale = 5;                        // layer 1, q_proj: alpha 10
    save_lora_peft(*lora, folder);
    const auto again = load_lora(model, folder);
    EXPECT_EQ(again->targets[2].scale, 5);
    EXPECT_EQ(again->targets[3].scale, 2);
    // A GGUF adapter has one alpha; the rest of the other is in B.
    const std::string gguf = temporary("pattern.gguf");
    save_lora_gguf(*lora, gguf);
    const auto other = load_lora(model, gguf);
    const Tokens prompt{1, 17, 5, 22, 9, 31};
    const std::vector<float> a = tiny::logits(model, lora.get(), prompt), b = tiny::logits(model, other.get(), prompt);
    for (size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], 1e-5);
    for (LoraTarget& t : lora->targets) t.scale = 0;
    EXPECT_THROW(save_lora_gguf(*lora, temporary("x.gguf")), Error) << "llama.cpp takes alpha 0 for none given";
}

// The adapter of another architecture: every tensor must bind, so it is refused.
TEST(LoraFiles, AForeignAdapterIsRefused) {
    const std::string path = data_path("adapter/gradience_tiny_lora");
    if (!exists(path)) GTEST_SKIP() << "needs ../shared/data/adapter";
    EXPECT_THROW(load_lora(tiny::make({}), path), Error);
}

}  // namespace lora_test
