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
    for (const char* key : {"r", "lora_alpha", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "layers_to_transform", "exclude_modules", "target_modules", "bias"}) {
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
    const auto a = SafeTensors::open(folder + "/adapter_model.safetensors"), b = SafeTensors::open(other + "/adapter_model.safetensors");
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
    EXPECT_FLOAT_EQ(lora->find(0, Module::v_proj)->scale, float(3 / std::sqrt(3.0)));     // rank-stabilized, each by its own rank
    EXPECT_FLOAT_EQ(lora->find(2, Module::v_proj)->scale, float(7 / std::sqrt(3.0)));
    EXPECT_FLOAT_EQ(lora->find(0, Module::down_proj)->scale, float(5.5 / std::sqrt(2.0)));
    expect_rows(tiny::logits(model, lora.get(), reference_ids()), *golden("peft_patterns.json").find("logits"), 3e-4);

    const std::string again = temporary("patterns_again");
    save_lora_peft(*lora, again);
    expect_same_tensors(folder, again);
    std::vector<std::string> expected = meaning(config_of(folder));
    for (std::string& line : expected)                 // up_proj is excluded everywhere: nothing targets it
        if (const size_t at = line.find(" \"up_proj\""); at != line.npos && line.starts_with("target_modules")) line.erase(at, 10);
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
    EXPECT_EQ(config_of(folder).find("target_modules")->dump(), "[\"model.layers.0.self_attn.q_proj\", \"model.layers.1.self_attn.q_proj\", \"model.layers.1.self_attn.v_proj\"]");
    EXPECT_EQ(load_lora(model, folder)->targets.size(), 3u);
}

TEST(PeftPatterns, OptionsThatFitNothingAreRefused) {
    const auto model = tiny::make({});
    const auto error_of = [&](const LoraOptions& o) -> std::string {
        try { create_lora(model, o); } catch (const Error& e) { return e.what(); }
        return "made";
    };
    EXPECT_EQ(error_of({.rank = 2, .layers = {1}, .exclude = {"q_proj"}, .rank_pattern = {{"mlp.up_proj", 3}}}), "made");
    EXPECT_NE(error_of({.rank = 2, .layers = {2}}).find("layer 2"), std::string::npos);
    EXPECT_NE(error_of({.rank = 2, .layers = {-1}}).find("layer -1"), std::string::npos);
    EXPECT_NE(error_of({.rank = 2, .exclude = {"proj"}}).find("\"proj\" of exclude"), std::string::npos);
    EXPECT_NE(error_of({.rank = 2, .rank_pattern = {{"layers.7.self_attn.q_proj", 3}}}).find("rank_pattern"), std::string::npos);
    EXPECT_NE(error_of({.rank = 2, .rank_pattern = {{"q_proj", 0}}}).find("rank 0"), std::string::npos);
    EXPECT_NE(error_of({.rank = 2, .alpha_pattern = {{"q_proj", std::nanf("")}}}).find("scale"), std::string::npos);
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
    EXPECT_EQ(error_with("target_modules", Json(".*(q|v|down)_proj")), "loaded");
    const struct { const char *key, *expected; Json value; } table[] = {
        {"layers_to_transform", "rules out", Json(0)}, {"layers_to_transform", "layer 3", Json(List{Json(3)})}, {"layers_to_transform", "must be", Json("all")},
        {"exclude_modules", "rules out", Json(List{Json("v_proj")})}, {"exclude_modules", "array", Json(".*up_proj")}, {"exclude_modules", "must be", Json(List{Json(1)})},
        {"target_modules", "target_modules", Json(List{Json("q_proj"), Json("v_proj")})}, {"target_modules", "must be", Json(List{Json(1)})},
        {"layers_pattern", "layers_pattern", Json("blocks")}, {"rank_pattern", "v_proj is 0", Json(Json::Object{{"v_proj", Json(0)}})}, {"rank_pattern", "must be", Json(List{Json(1)})},
        {"alpha_pattern", "v_proj", Json(Json::Object{{"v_proj", Json("x")}})}, {"alpha_pattern", "regular expression", Json(Json::Object{{"^v_proj", Json(2)}})},
        {"init_lora_weights", "pissa", Json("pissa")}, {"init_lora_weights", "loftq", Json("loftq")}, {"init_lora_weights", "olora", Json("olora")}};
    for (const auto& row : table) EXPECT_NE(error_with(row.key, row.value).find(row.expected), std::string::npos) << row.key << ": " << error_with(row.key, row.value);
}

}  // namespace peft_test
