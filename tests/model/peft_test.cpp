// peft_test.cpp - adapters that PEFT saved, with the options beyond a plain LoRA, and what we save of them
// (tools/make_family_golden.py wrote the references).
#include "src/model/lora.h"
#include "tests/model/reference.h"

namespace peft_test {

using namespace qlora;
using reference::expect_rows, reference::folder_of, reference::golden, reference::reference_ids;

std::shared_ptr<ModelImpl> llama(const std::string& name) {
    const Json families = golden("families.json");
    return tiny::load(folder_of("peft_" + name, *families.find("cases")->find("llama")));
}

std::string temporary(const std::string& name) {
    const std::string path = testing::TempDir() + "qlora_peft_" + name;
    std::filesystem::remove_all(path);
    return path;
}

Json config_of(const std::string& folder) { return Json::parse(read_file(folder + "/adapter_config.json"), folder); }

// The fields that decide what an adapter is, without the order of lists that PEFT keeps as sets.
std::vector<std::string> meaning(const Json& config) {
    std::vector<std::string> out;
    for (const char* key : {"r", "lora_alpha", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern",
                            "layers_to_transform", "exclude_modules", "target_modules", "bias"}) {
        const Json* v = config.find(key);
        std::vector<std::string> items;
        if (v && v->is_array()) for (const Json& i : v->array()) items.push_back(i.dump());
        if (v && v->is_object()) for (const auto& [k, i] : v->object()) items.push_back(str(k, "=", i.number()));
        std::sort(items.begin(), items.end());
        std::string line = str(key, ": ", v && !v->is_array() && !v->is_object() ? v->dump() : "");
        for (const std::string& i : items) line += " " + i;
        out.push_back(line);
    }
    return out;
}

void expect_same_tensors(const std::string& folder, const std::string& other) {
    const auto a = SafeTensors::open(folder + "/adapter_model.safetensors"),
               b = SafeTensors::open(other + "/adapter_model.safetensors");
    ASSERT_EQ(a->tensors().size(), b->tensors().size());
    for (const SafeTensor& t : a->tensors()) {
        const SafeTensor* s = b->find(t.name);
        ASSERT_NE(s, nullptr) << t.name;
        EXPECT_EQ(s->shape, t.shape) << t.name;
        EXPECT_EQ(b->floats(*s), a->floats(t)) << t.name;
    }
}

TEST(PeftPatterns, RanksAlphasLayersAndExclusions) {
    const auto model = llama("patterns");
    const std::string folder = golden_path("model/peft_patterns");
    const auto lora = load_lora(model, folder);
    ASSERT_EQ(lora->targets.size(), 5u);               // q, v, down of layer 0; q, v of layer 2
    EXPECT_EQ(lora->find(1, Module::q_proj), nullptr);
    EXPECT_EQ(lora->find(2, Module::down_proj), nullptr);
    EXPECT_EQ(lora->find(0, Module::q_proj)->rank, 1);
    EXPECT_EQ(lora->find(2, Module::q_proj)->rank, 2);
    EXPECT_EQ(lora->find(0, Module::v_proj)->rank, 3);
    // rank-stabilized, each by its own rank
    EXPECT_FLOAT_EQ(lora->find(0, Module::v_proj)->scale, float(3 / std::sqrt(3.0)));
    EXPECT_FLOAT_EQ(lora->find(2, Module::v_proj)->scale, float(7 / std::sqrt(3.0)));
    EXPECT_FLOAT_EQ(lora->find(0, Module::down_proj)->scale, float(5.5 / std::sqrt(2.0)));
    expect_rows(tiny::logits(model, lora.get(), reference_ids()), *golden("peft_patterns.json").find("logits"));

    const std::string again = temporary("patterns_again");
    save_lora_peft(*lora, again);
    expect_same_tensors(folder, again);
    std::vector<std::string> expected = meaning(config_of(folder));
    for (std::string& line : expected)                 // up_proj is excluded everywhere: nothing targets it
        if (const size_t at = line.find(" \"up_proj\""); at != line.npos && line.starts_with("target_modules"))
            line.erase(at, 10);
    EXPECT_EQ(meaning(config_of(again)), expected);
    // Made here with the same options, it has the same shape.
    LoraOptions options = lora->options;
    options.modules = "q_proj,v_proj,up_proj,down_proj";
    const auto made = create_lora(model, options);
    ASSERT_EQ(made->targets.size(), lora->targets.size());
    for (size_t i = 0; i < made->targets.size(); ++i) {
        EXPECT_EQ(made->targets[i].rank, lora->targets[i].rank);
        EXPECT_EQ(made->targets[i].scale, lora->targets[i].scale);
        EXPECT_EQ(made->targets[i].b, lora->targets[i].b);
    }
}

// Targets that no option describes are named in full, which PEFT reads as such.
TEST(PeftPatterns, AnySelectionIsWritten) {
    const auto model = tiny::make({});
    const auto lora = create_lora(model, {.rank = 2, .modules = "q_proj,v_proj"});
    lora->targets.erase(lora->targets.begin() + 1);    // v_proj of layer 0
    const std::string folder = temporary("selection");
    save_lora_peft(*lora, folder);
    EXPECT_EQ(config_of(folder).find("target_modules")->dump(),
              "[\"model.layers.0.self_attn.q_proj\", \"model.layers.1.self_attn.q_proj\", "
              "\"model.layers.1.self_attn.v_proj\"]");
    EXPECT_EQ(load_lora(model, folder)->targets.size(), 3u);
}

TEST(PeftPatterns, OptionsThatFitNothingAreRefused) {
    const auto model = tiny::make({});
    const auto error_of = [&](const LoraOptions& o) -> std::string {
        try { create_lora(model, o); } catch (const Error& e) { return e.what(); }
        return "made";
    };
    EXPECT_EQ(error_of({.rank = 2, .layers = {1}, .exclude = {"q_proj"}, .rank_pattern = {{"mlp.up_proj", 3}}}),
              "made");
    EXPECT_NE(error_of({.rank = 2, .layers = {2}}).find("layer 2"), std::string::npos);
    EXPECT_NE(error_of({.rank = 2, .layers = {-1}}).find("layer -1"), std::string::npos);
    EXPECT_NE(error_of({.rank = 2, .exclude = {"proj"}}).find("\"proj\" of exclude"), std::string::npos);
    EXPECT_NE(error_of({.rank = 2, .rank_pattern = {{"layers.7.self_attn.q_proj", 3}}}).find("rank_pattern"),
              std::string::npos);
    EXPECT_NE(error_of({.rank = 2, .rank_pattern = {{"q_proj", 0}}}).find("rank 0"), std::string::npos);
    EXPECT_NE(error_of({.rank = 2, .alpha_pattern = {{"q_proj", std::nanf("")}}}).find("alpha_pattern: q_proj"),
              std::string::npos);
    EXPECT_NE(error_of({.rank = 2, .modules = "q_proj", .exclude = {"q_proj"}}).find("leave no"), std::string::npos);
}

TEST(PeftPatterns, FilesThatContradictThemselves) {
    const auto model = llama("contradictions");
    const std::string folder = temporary("contradictions");
    std::filesystem::copy(golden_path("model/peft_patterns"), folder);
    const Json good = config_of(folder);
    const auto error_with = [&](const std::string& key, const Json& value) -> std::string {
        Json j = good;
        j.set(key, value);
        std::ofstream(folder + "/adapter_config.json") << j.dump();
        try { load_lora(model, folder); } catch (const Error& e) { return e.what(); }
        return "loaded";
    };
    using List = Json::Array;
    EXPECT_EQ(error_with("init_lora_weights", Json("gaussian")), "loaded");
    EXPECT_EQ(error_with("layers_pattern", Json("layers")), "loaded");
    EXPECT_NE(error_with("target_modules", Json(".*(q|v|down)_proj")).find("layers_to_transform cannot be used"),
              std::string::npos);
    const struct { const char *key, *expected; Json value;
    } table[] = {{"layers_to_transform", "rules out", Json(0)},
                 {"layers_to_transform", "layer 3", Json(List{Json(3)})},
                 {"layers_to_transform", "must be", Json("all")},
                 {"exclude_modules", "rules out", Json(List{Json("v_proj")})},
                 {"exclude_modules", "rules out", Json(".*v_proj")},
                 {"exclude_modules", "must be", Json(List{Json(1)})},
                 {"target_modules", "target_modules", Json(List{Json("q_proj"), Json("v_proj")})},
                 {"target_modules", "must be", Json(List{Json(1)})},
                 {"layers_pattern", "layers_pattern", Json("blocks")},
                 {"rank_pattern", "v_proj is 0", Json(Json::Object{{"v_proj", Json(0)}})},
                 {"rank_pattern", "must be", Json(List{Json(1)})},
                 {"alpha_pattern", "v_proj", Json(Json::Object{{"v_proj", Json("x")}})},
                 {"alpha_pattern", "a ( without its )", Json(Json::Object{{"(v_proj", Json(2)}})},
                 {"init_lora_weights", "pissa_niter_4", Json("pissa_niter_4")},
                 {"init_lora_weights", "loftq", Json("loftq")},
                 {"init_lora_weights", "olora", Json("olora")}};
    for (const auto& row : table)
        EXPECT_NE(error_with(row.key, row.value).find(row.expected), std::string::npos)
            << row.key << ": " << error_with(row.key, row.value);
}

// ---- Starts from singular values.

std::vector<float> values_of(const LoraImpl& lora) {
    std::vector<float> v(size_t(lora.parameters));
    lora.base->backend->download(*lora.values, 0, v.data(), lora.parameters * 4);
    return v;
}

// s B A {out, in} of a target.
std::vector<double> product(const LoraImpl& lora, const LoraTarget& t) {
    const std::vector<float> v = values_of(lora);
    std::vector<double> out(size_t(t.out * t.in));
    for (int64_t o = 0; o < t.out; ++o)
        for (int64_t r = 0; r < t.rank; ++r)
            for (int64_t i = 0; i < t.in; ++i)
                out[size_t(o * t.in + i)] += double(t.scale) * v[size_t(t.b + o * t.rank + r)] *
                                             v[size_t(t.a + r * t.in + i)];
    return out;
}

double distance(const std::vector<float>& a, const std::vector<float>& b) {
    double sum = 0;
    for (size_t i = 0; i < a.size(); ++i) sum += (double(a[i]) - b[i]) * (double(a[i]) - b[i]);
    return std::sqrt(sum / double(a.size()));
}

// The reference stores the product without a scale. Here s B A is that product for any alpha: the definition, where
// PEFT is off by s.
TEST(PeftStarts, LoftqIsTheBestOfWhatWasLost) {
    const Json reference = golden("init.json");
    const std::string folder = folder_of("loftq", reference);
    const auto model = tiny::load(folder, DType::nf4, false), original = tiny::load(folder);
    for (const float alpha : {4.0f, 1.0f}) {
        const auto lora = create_lora(model, {.rank = 4, .alpha = alpha, .init = LoraInit::loftq});
        EXPECT_EQ(lora->base, model);
        for (const auto& [name, golden] : reference.find("loftq")->object()) {
            const LoraTarget& t = *lora->find(0, name.ends_with("k_proj") ? Module::k_proj : Module::up_proj);
            const std::vector<double> ours = product(*lora, t);
            for (const int64_t part : {0, 1})
                for (int64_t i = 0; i < t.in; ++i)
                    ASSERT_NEAR(ours[size_t((part ? 5 : 0) * t.in + i)],
                                golden.find("rows")->array()[size_t(part)].array()[size_t(i)].number(), 2e-5)
                        << name << " " << i;
        }
        const std::vector<float> wanted = tiny::logits(original, nullptr, reference_ids());
        EXPECT_LT(distance(tiny::logits(model, lora.get(), reference_ids()), wanted),
                  0.95 * distance(tiny::logits(model, nullptr, reference_ids()), wanted));
    }
    // Saved, it is a plain adapter of the same base.
    const std::string saved = temporary("loftq");
    const auto lora = create_lora(model, {.rank = 4, .init = LoraInit::loftq});
    save_lora_peft(*lora, saved);
    EXPECT_EQ(tiny::logits(model, load_lora(model, saved).get(), reference_ids()),
              tiny::logits(model, lora.get(), reference_ids()));
}

// The folder as another program would write it again: the tensors alone.
void forget_note(const std::string& folder) {
    const std::string file = folder + "/adapter_model.safetensors";
    SafeTensorsWriter w;
    {
        const auto tensors = SafeTensors::open(file);
        for (const SafeTensor& t : tensors->tensors()) w.add(t.name, t.shape, tensors->floats(t));
    }
    w.write(file);
}

TEST(PeftStarts, PissaStandsOnTheBaseThatPeftMakes) {
    const auto model = llama("pissa");
    const auto lora = load_lora(model, golden_path("model/peft_pissa"));
    EXPECT_NE(lora->base, model);
    EXPECT_EQ(lora->base->at(Module::k_proj, 1), model->at(Module::k_proj, 1));
    expect_rows(tiny::logits(lora->base, lora.get(), reference_ids()), *golden("init.json").find("pissa"));
    const std::string again = temporary("pissa_again");
    save_lora_peft(*lora, again);
    // What we save of it is a plain adapter of twice the rank on the original base, which finds the changed base again.
    EXPECT_EQ(config_of(again).find("init_lora_weights")->dump(), "true");
    EXPECT_EQ(config_of(again).find("r")->integer(), 6);
    EXPECT_EQ(config_of(again).find("lora_alpha")->number(), 12);
    const auto back = load_lora(model, again);
    EXPECT_EQ(back->options.init, LoraInit::pissa);
    EXPECT_EQ(values_of(*back), values_of(*lora));
    EXPECT_EQ(tiny::logits(back->base, back.get(), reference_ids()),
              tiny::logits(lora->base, lora.get(), reference_ids()));
    forget_note(again);
    const auto plain = load_lora(model, again);
    EXPECT_EQ(plain->base, model);
    EXPECT_EQ(plain->targets[0].rank, 6);
    expect_rows(tiny::logits(model, plain.get(), reference_ids()), *golden("init.json").find("pissa"));
}

TEST(PeftStarts, PissaTakesOverTheLargestDirections) {
    const Json reference = golden("init.json");
    const std::string folder = folder_of("pissa_new", reference), saved = temporary("pissa");
    const auto original = tiny::load(folder);
    const std::vector<float> wanted = tiny::logits(original, nullptr, reference_ids());
    for (const std::optional<DType> type : {std::optional<DType>(), std::optional(DType::nf4)}) {
        const auto model = tiny::load(folder, type);
        const auto lora = create_lora(model, {.rank = 8, .alpha = 4, .init = LoraInit::pissa});
        const std::vector<float> started = tiny::logits(lora->base, lora.get(), reference_ids());
        // In floats it starts as the model; in 4 bits its weights are nearer to the model's than the plain 4-bit ones.
        if (!type) { EXPECT_LT(distance(started, wanted), 1e-4); }
        double plain = 0, split = 0;
        for (const LoraTarget& t : lora->targets) {
            const std::vector<float> w = original->at(t.module, 0)->decoded(),
                                     q = model->at(t.module, 0)->decoded();
            const std::vector<float> rest = lora->base->at(t.module, 0)->decoded();
            const std::vector<double> taken = product(*lora, t);
            for (size_t e = 0; e < w.size(); ++e) {
                plain += (double(w[e]) - q[e]) * (double(w[e]) - q[e]);
                split += (w[e] - rest[e] - taken[e]) * (w[e] - rest[e] - taken[e]);
            }
        }
        if (type) { EXPECT_LT(split, 0.9 * plain); }
        EXPECT_GT(distance(tiny::logits(lora->base, nullptr, reference_ids()), wanted), 0.1);
        EXPECT_EQ(lora->base->at(Module::q_proj, 0)->dtype, model->at(Module::q_proj, 0)->dtype);
        save_lora_peft(*lora, saved);
        const auto again = load_lora(model, saved);
        EXPECT_EQ(tiny::logits(again->base, again.get(), reference_ids()), started);
        // On the original model the saved adapter does the same, but for what quantizing the base does to it; in a GGUF
        // file, too.
        const std::string gguf = temporary("pissa.gguf");
        save_lora_gguf(*again, gguf);
        const auto elsewhere = load_lora(original, gguf, OnBase::as_held);
        EXPECT_EQ(elsewhere->base, original);
        EXPECT_LT(distance(tiny::logits(original, elsewhere.get(), reference_ids()), started),
                  type ? 0.5 * distance(wanted, std::vector<float>(wanted.size())) : 1e-4);
    }
}

TEST(PeftStarts, WhatCannotBeSplitIsRefused) {
    const auto error_of = [](std::shared_ptr<const ModelImpl> model, const LoraOptions& o) -> std::string {
        try { create_lora(model, o); } catch (const Error& e) { return e.what(); }
        return "made";
    };
    const std::string folder = folder_of("starts", golden("init.json"));
    const auto model = tiny::load(folder), four = tiny::load(folder, DType::nf4);
    EXPECT_NE(error_of(model, {.rank = 2, .init = LoraInit::loftq}).find("held as it is stored"), std::string::npos);
    EXPECT_NE(error_of(tiny::load(golden_path("model/bnb")), {.rank = 2, .modules = "q_proj", .init = LoraInit::pissa})
                  .find("stored as nf4"),
              std::string::npos);
    EXPECT_NE(error_of(tiny::load(golden_path("model/bnb")), {.rank = 2, .init = LoraInit::loftq})
                  .find("held as it is stored"),
              std::string::npos);
    EXPECT_NE(error_of(four, {.rank = 100, .modules = "k_proj", .init = LoraInit::loftq}).find("at most 64"),
              std::string::npos);
    EXPECT_NE(error_of(four, {.rank = 2, .alpha = -1, .init = LoraInit::pissa}).find("alpha"), std::string::npos);
}

}  // namespace peft_test
