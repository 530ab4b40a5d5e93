// base_record_test.cpp - what an adapter was trained on: every kind of weight and setting that may differ is found,
// forms are followed, other bases refused with the remedy; and nothing that is not finite is written.
#include "src/model/lora_impl.h"
#include "tests/model/reference.h"

namespace base_record_test {

using namespace qlora;

std::string temporary(const std::string& name) {
    const std::string path = testing::TempDir() + "qlora_base_" + name;
    std::filesystem::remove_all(path);
    return path;
}

WeightPtr with(const WeightPtr& w, int64_t at, float value) {
    std::vector<float> values = w->decoded();
    values[size_t(at)] += value;
    return std::make_shared<const Weight>(dense_weight(w->name, w->shape, std::move(values)));
}

void change_last(WeightPtr& w) { w = with(w, w->elements() - 1, 1e-3f); }

// Every part of a model, changed in one place: its last number, which no sample of the first bytes sees.
const std::vector<std::pair<const char*, std::function<void(ModelImpl&)>>> changes{
    {"norms", [](ModelImpl& m) { change_last(m.at(Slot::final_norm)); }},
    {"norms", [](ModelImpl& m) { change_last(m.at(Slot::feed_forward_norm, 1)); }},
    {"norms", [](ModelImpl& m) { m.at(Slot::q_norm, 1) = with(m.at(Slot::q_norm, 1), 0, 1e-3f); }},
    {"embeddings", [](ModelImpl& m) { change_last(m.at(Slot::embedding)); }},
    {"embeddings", [](ModelImpl& m) { change_last(m.at(Slot::head)); }},
    {"weights", [](ModelImpl& m) { change_last(m.at(Slot::down_proj, 1)); }},
    {"biases",
     [](ModelImpl& m) {
         m.at(bias_of(Module::v_proj), 0) = std::make_shared<const Weight>(
             dense_weight("bias", {16}, std::vector<float>(16, 1e-3f)));
     }},
    {"configuration", [](ModelImpl& m) { m.config.eps *= 1.01f; }},
    {"configuration", [](ModelImpl& m) { m.config.inverse_frequencies.back() *= 1.01f; }},
    {"configuration", [](ModelImpl& m) { m.config.window = 7; }}};

std::string error_of(const std::function<void()>& call) {
    try { call(); } catch (const Error& e) { return e.what(); }
    return "";
}

// All weights are read once for a model; a copy, which may be changed, has a fingerprint of its own.
TEST(BaseRecord, TheFingerprintIsKept) {
    const auto model = tiny::make({});
    EXPECT_FALSE(model->fingerprint.value);
    const Json first = fingerprint_of(*model);
    ASSERT_TRUE(model->fingerprint.value);
    auto other = std::make_shared<ModelImpl>(*model);
    EXPECT_FALSE(other->fingerprint.value);
    change_last(other->at(Slot::down_proj, 1));
    EXPECT_NE(fingerprint_of(*other).dump(), first.dump());
    change_last(model->at(Slot::down_proj, 1));        // nobody changes a model: here it shows that nothing is read
    EXPECT_EQ(fingerprint_of(*model).dump(), first.dump());
}

TEST(BaseRecord, EveryPartOfAnotherBaseIsFound) {
    const auto model = tiny::make({.family = "qwen3"});
    const std::string folder = temporary("parts"), file = temporary("parts.gguf");
    const auto lora = create_lora(model, {.rank = 2, .modules = "q_proj"});
    save_lora_peft(*lora, folder);
    save_lora_gguf(*lora, file);
    for (const std::string& path : {folder, file}) {
        EXPECT_EQ(error_of([&] { load_lora(model, path); }), "");
        EXPECT_EQ(error_of([&] { load_lora(tiny::make({.family = "qwen3"}), path); }), "")
            << "the same model, loaded again";
        for (const auto& [name, change] : changes) {
            auto other = std::make_shared<ModelImpl>(*model);
            other->path = "another";
            change(*other);
            const std::string error = error_of([&] { load_lora(other, path); });
            EXPECT_NE(error.find("trained on tiny (f32)"), std::string::npos) << name << ": " << error;
            EXPECT_NE(error.find("another (f32)"), std::string::npos) << name << ": " << error;
            EXPECT_TRUE(error.find("--any-base") != error.npos || error.find("--quant TYPE") != error.npos) << error;
            EXPECT_TRUE(error.find(std::string("differs in: ") + name) != error.npos ||
                        error.find("norms have other values") != error.npos)
                << name << ": " << error;
            EXPECT_EQ(error_of([&] { load_lora(other, path, OnBase::any); }), "") << name;
        }
    }
}

// Forms of one model: the recorded one is followed from any other that can become it; as_held takes any form, and no
// other model.
TEST(BaseRecord, FormsAreFollowed) {
    const std::string source = reference::folder_of("base_forms", reference::golden("init.json"));
    const auto plain = tiny::load(source), twice = tiny::load(source, DType::nf4),
               once = tiny::load(source, DType::nf4, false), fp4 = tiny::load(source, DType::fp4);
    const std::string folder = temporary("forms");
    for (const auto& model : {twice, once, fp4}) {
        const auto lora = create_lora(model, {.rank = 2, .modules = "q_proj"});
        save_lora_peft(*lora, folder);
        const std::optional<AdapterBase> base = Lora::recorded_base(folder);
        ASSERT_TRUE(base && base->quantize);
        EXPECT_EQ(*base->quantize, model == fp4 ? DType::fp4 : DType::nf4);
        EXPECT_EQ(base->double_quant, model != once);
        EXPECT_EQ(base->weights, describe(*model).weights);
        EXPECT_EQ(load_lora(model, folder)->base, model);
        const auto followed = load_lora(plain, folder);
        EXPECT_EQ(fingerprint_of(*followed->base).dump(), fingerprint_of(*model).dump());
        EXPECT_EQ(tiny::logits(followed->base, followed.get(), reference::reference_ids()),
                  tiny::logits(model, lora.get(), reference::reference_ids()));
        EXPECT_EQ(load_lora(plain, folder, OnBase::as_held)->base, plain);
        for (const auto& other : {twice, once, fp4}) {
            if (other == model) continue;
            const std::string error = error_of([&] { load_lora(other, folder); });
            EXPECT_NE(error.find(str("with quantize = ", name_of(*base->quantize))), std::string::npos) << error;
            EXPECT_EQ(error.find("double_quant = false") != error.npos, model == once) << error;
            EXPECT_EQ(error_of([&] { load_lora(other, folder, OnBase::as_held); }), "");
        }
        auto changed = std::make_shared<ModelImpl>(*plain);
        changed->at(Slot::final_norm) = with(plain->at(Slot::final_norm), 0, 1e-3f);
        EXPECT_NE(error_of([&] { load_lora(changed, folder, OnBase::as_held); }).find("another model"),
                  std::string::npos);
    }
    // trained on the model as it is stored
    save_lora_peft(*create_lora(plain, {.rank = 2, .modules = "q_proj"}), folder);
    EXPECT_FALSE(Lora::recorded_base(folder)->quantize);
    EXPECT_NE(error_of([&] { load_lora(twice, folder); }).find("as it is stored"), std::string::npos);
}

TEST(BaseRecord, OfVersion010AndDamaged) {
    const auto model = tiny::make({}), other = tiny::make({.seed = 2});
    const std::string folder = temporary("old"), file = folder + "/base.json";
    save_lora_peft(*create_lora(model, {.rank = 2, .modules = "q_proj"}), folder);
    EXPECT_NE(error_of([&] { load_lora(other, folder); }), "");
    std::ofstream(file) << "{\"model\": \"m.gguf\", \"quant\": \"nf4\", \"double_quant\": false}";
    EXPECT_EQ(Lora::recorded_base(folder)->model, "m.gguf");
    const auto followed = load_lora(other, folder);
    EXPECT_EQ(followed->base->at(Module::q_proj, 0)->dtype, DType::nf4);
    EXPECT_NE(followed->base->at(Module::q_proj, 0)->quant.absmax, nullptr);
    for (const char* bad : {"[]", "{", "{\"quant\": \"q9\"}", "{\"quant\": 4}", "{\"double_quant\": \"yes\"}",
                            "{\"model\": 1}", "{\"fingerprint\": 3}", "{\"fingerprint\": {\"norms\": 3}}"}) {
        std::ofstream(file) << bad;
        EXPECT_NE(error_of([&] { load_lora(model, folder); }).find(file), std::string::npos) << bad;
    }
    std::filesystem::remove(file);
    EXPECT_FALSE(Lora::recorded_base(folder));
    EXPECT_EQ(error_of([&] { load_lora(other, folder); }), "");    // an adapter of another program: nothing to compare
}

// A pissa adapter is saved for the model it was created on, whatever became of that.
TEST(BaseRecord, OfAPissaAdapterIsTheModelAsItWas) {
    const std::string source = reference::folder_of("base_pissa", reference::golden("init.json"));
    const auto model = tiny::load(source, DType::nf4);
    const std::string folder = temporary("pissa");
    save_lora_peft(*create_lora(model, {.rank = 4, .modules = "q_proj", .init = LoraInit::pissa}), folder);
    EXPECT_EQ(read_base_record(Json::parse(read_file(folder + "/base.json"), folder), folder).fingerprint.dump(),
              fingerprint_of(*model).dump());
    EXPECT_EQ(error_of([&] { load_lora(model, folder); }), "");
}

TEST(Finite, NothingElseIsWritten) {
    const auto model = tiny::make({});
    for (const float bad : {NAN, INFINITY, -INFINITY})
        for (const bool dora : {false, true}) {
            const auto lora = create_lora(model, {.rank = 2, .dora = dora});
            for (const int64_t at : {int64_t(0), lora->targets[3].b, lora->parameters - 1}) {
                std::vector<float> values = lora_values(*lora);
                values[size_t(at)] = bad;
                set_lora_values(*lora, values);
                const std::string folder = temporary("nan"), file = temporary("nan.gguf");
                EXPECT_NE(error_of([&] { save_lora_peft(*lora, folder); }).find("holds"), std::string::npos);
                EXPECT_NE(error_of([&] { save_lora_gguf(*lora, file); }), "");
                EXPECT_FALSE(exists(folder));
                EXPECT_FALSE(exists(file));
            }
        }
}

TEST(Finite, AlphaHasABound) {
    const auto model = tiny::make({});
    for (const float alpha : {NAN, INFINITY, 1e19f, -1e19f, 1e10f, 3e38f}) {
        EXPECT_NE(error_of([&] { create_lora(model, {.rank = 2, .alpha = alpha}); }).find("alpha"), std::string::npos)
            << alpha;
        EXPECT_NE(error_of([&] {
                      create_lora(model, {.rank = 2, .alpha_pattern = {{"q_proj", alpha}}});
                  }).find("alpha"),
                  std::string::npos)
            << alpha;
        const auto lora = create_lora(model, {.rank = 2});             // and where it gets there by another way
        lora->options.alpha = alpha;
        EXPECT_NE(error_of([&] { save_lora_peft(*lora, temporary("alpha")); }).find("alpha"), std::string::npos)
            << alpha;
    }
    for (const float alpha : {0.0f, 0.5f, -3.0f, 1e9f}) {
        const std::string folder = temporary("alpha");
        save_lora_peft(*create_lora(model, {.rank = 2, .alpha = alpha}), folder);
        EXPECT_EQ(load_lora(model, folder)->options.alpha, alpha);
    }
}

}  // namespace base_record_test
