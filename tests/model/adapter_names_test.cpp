// adapter_names_test.cpp - which layers PEFT's own functions choose (tools/make_peft_rules_golden.py), adapters with
// parts missing, and other methods.
#include "src/format/gguf.h"
#include "src/model/family.h"
#include "src/model/lora_impl.h"
#include "tests/model/reference.h"

namespace adapter_names_test {

using namespace qlora;
using reference::golden, reference::folder_of, reference::reference_ids, reference::expect_rows;

std::vector<int64_t> numbers(const Json& list) {
    std::vector<int64_t> out;
    for (const Json& i : list.array()) out.push_back(i.integer());
    return out;
}

Json lora_config() { return Json().set("peft_type", "LORA").set("r", 4).set("lora_alpha", 8); }

TEST(AdapterNames, SelectionIsThatOfPeft) {
    const Config llama = family_named("llama")->start();
    const Json rules = golden("peft_rules.json");
    const Json::Array& names = rules.find("names")->array();
    for (const Json& entry : rules.find("selection")->array()) {
        Json config = lora_config();
        for (const char* key : {"target_modules", "exclude_modules", "layers_to_transform"})
            config.set(key, *entry.find(key));
        const LoraOptions options = read_peft_config(config, "test");
        std::vector<int64_t> chosen;
        for (size_t i = 0; i < names.size(); ++i)
            if (peft_adapts(llama, config, options, names[i].string(), "test")) chosen.push_back(int64_t(i));
        EXPECT_EQ(chosen, numbers(*entry.find("chosen"))) << config.dump();
    }
    EXPECT_GT(rules.find("selection")->array().size(), 400u);
}

TEST(AdapterNames, RankAndAlphaPatternsAreThoseOfPeft) {
    const Json rules = golden("peft_rules.json");
    for (const Json& entry : rules.find("patterns")->array()) {
        const std::string& key = entry.find("key")->string();
        std::vector<int64_t> by_rank, by_alpha;
        int64_t index = 0;
        for (int64_t layer = 0; layer < 12; ++layer)
            for (int m = 0; m < module_count; ++m, ++index) {
                ASSERT_EQ(rules.find("names")->array()[size_t(index)].string(), hf_name({}, layer, Module(m)));
                if (options_at({}, {.rank = 4, .rank_pattern = {{key, 3}}}, layer, Module(m)).rank == 3)
                    by_rank.push_back(index);
                if (options_at({}, {.alpha = 4, .alpha_pattern = {{key, 3.0f}}}, layer, Module(m)).alpha == 3)
                    by_alpha.push_back(index);
            }
        EXPECT_EQ(by_rank, numbers(*entry.find("fits"))) << key;
        EXPECT_EQ(by_alpha, numbers(*entry.find("fits"))) << key;
    }
}

std::shared_ptr<ModelImpl> llama(const std::string& name) {
    return tiny::load(folder_of("names_" + name, *golden("families.json").find("cases")->find("llama")));
}

std::string temporary(const std::string& name) {
    const std::string path = testing::TempDir() + "qlora_names_" + name;
    std::filesystem::remove_all(path);
    return path;
}

// An adapter that PEFT saved with expressions in every place that takes one: its scores, and the same again from what
// we write.
TEST(AdapterNames, AnAdapterChosenByExpressions) {
    const auto model = llama("expressions");
    const auto lora = load_lora(model, golden_path("model/peft_expressions"));
    EXPECT_EQ(lora->find(0, Module::q_proj)->rank, 1);
    EXPECT_EQ(lora->find(1, Module::q_proj)->rank, 3);
    EXPECT_EQ(lora->find(0, Module::k_proj), nullptr);
    EXPECT_NE(lora->find(1, Module::k_proj), nullptr);
    expect_rows(tiny::logits(model, lora.get(), reference_ids()), *golden("peft_expressions.json").find("logits"));
    const std::string again = temporary("again");
    save_lora_peft(*lora, again);
    const auto back = load_lora(model, again);
    ASSERT_EQ(back->targets.size(), lora->targets.size());
    EXPECT_EQ(tiny::logits(model, back.get(), reference_ids()), tiny::logits(model, lora.get(), reference_ids()));
    // New ones take them too.
    const auto made = create_lora(
        model, {.rank = 2, .exclude_pattern = ".*(k|down)_proj", .rank_pattern = {{"layers\\.[02]\\..*", 5}}});
    EXPECT_EQ(made->find(0, Module::k_proj), nullptr);
    EXPECT_EQ(made->find(0, Module::q_proj)->rank, 5);
    EXPECT_EQ(made->find(1, Module::q_proj)->rank, 2);
    save_lora_peft(*made, again);
    EXPECT_EQ(Json::parse(read_file(again + "/adapter_config.json"), again).find("exclude_modules")->dump(),
              "\".*(k|down)_proj\"");
    EXPECT_EQ(load_lora(model, again)->targets.size(), made->targets.size());
    EXPECT_THROW(create_lora(model, {.rank = 2, .exclude_pattern = "k_proj"}), Error);         // fits no whole name
    EXPECT_THROW(create_lora(model, {.rank = 2, .rank_pattern = {{"(q_proj", 3}}}), Error);
}

// Both ways to exclude at once have no place in PEFT's file: the layers are named in full.
TEST(AdapterNames, NamesAndAnExpressionTogether) {
    const auto model = llama("both");
    const auto made = create_lora(model, {.rank = 2, .exclude = {"q_proj"}, .exclude_pattern = ".*k_proj"});
    const std::string folder = temporary("both");
    save_lora_peft(*made, folder);
    const auto back = load_lora(model, folder);
    ASSERT_EQ(back->targets.size(), made->targets.size());
    EXPECT_EQ(back->find(0, Module::k_proj), nullptr);
}

std::string error_of(const std::shared_ptr<ModelImpl>& model, const std::string& path) {
    try { load_lora(model, path); } catch (const Error& e) { return e.what(); }
    return "loaded";
}

// The tensors of a folder that `keep` wants, in a folder of their own.
std::string part_of(const std::string& folder, const std::function<bool(std::string_view)>& keep) {
    const std::string to = temporary("part");
    std::filesystem::create_directory(to);
    std::filesystem::copy_file(folder + "/adapter_config.json", to + "/adapter_config.json");
    const auto tensors = SafeTensors::open(folder + "/adapter_model.safetensors");
    SafeTensorsWriter w;
    for (const SafeTensor& t : tensors->tensors())
        if (keep(t.name)) w.add(t.name, t.shape, tensors->floats(t));
    w.write(to + "/adapter_model.safetensors");
    return to;
}

TEST(MissingParts, AreListed) {
    const auto model = llama("missing");
    for (const char* name : {"model/peft", "model/peft_patterns", "model/peft_expressions", "ours"}) {
        std::string folder = golden_path(name);
        if (name == std::string("ours"))
            save_lora_peft(*create_lora(model, {.rank = 2, .dora = true}), folder = temporary("ours"));
        for (const char* gone : {".layers.2.", "q_proj", "lora_A", "layers.0.self_attn.v_proj.lora_B", "magnitude"}) {
            std::vector<std::string> removed;
            const std::string part = part_of(folder, [&](std::string_view t) {
                const bool kept = t.find(gone) == t.npos;
                if (!kept) removed.emplace_back(t);
                return kept;
            });
            if (removed.empty()) { EXPECT_EQ(error_of(model, part), "loaded"); continue; }
            const std::string error = error_of(model, part);
            EXPECT_NE(error.find(str(removed.size(), removed.size() == 1 ? " tensor is" : " tensors are", " missing")),
                      std::string::npos)
                << name << gone << ": " << error;
            int64_t listed = 0;
            for (const std::string& t : removed) listed += error.find(t) != error.npos;
            EXPECT_EQ(listed, std::min<int64_t>(12, int64_t(removed.size()))) << name << gone << ": " << error;
        }
    }
}

TEST(MissingParts, OfAGgufFile) {
    const auto model = llama("missing_gguf");
    const std::string path = temporary("missing.gguf"), part = temporary("part.gguf");
    save_lora_gguf(*create_lora(model, {.rank = 2}), path);
    EXPECT_EQ(error_of(model, path), "loaded");
    const auto file = Gguf::open(path);
    for (const char* gone : {"blk.2.", "blk.0.attn_q.weight.lora_a"}) {
        GgufWriter w;
        for (const GgufPair& p : file->pairs()) w.copy(*file, p);
        for (const GgufTensor& t : file->tensors())
            if (t.name.find(gone) == t.name.npos) {
                std::vector<float> values = file->weight(t).decoded();
                w.add({t.name, 0, t.shape, int64_t(values.size()) * 4,
                       [values](AtomicFile& f) { f.write(values.data(), int64_t(values.size()) * 4); }});
            }
        w.write(part);
        const std::string error = error_of(model, part);
        EXPECT_TRUE(error.find("qlora.adapter.layers says 21") != error.npos || error.find("needs both") != error.npos)
            << error;
    }
}

TEST(OtherMethods, AreRefusedByTheirName) {
    const auto model = llama("methods");
    const Json rules = golden("peft_rules.json");
    const std::string folder = temporary("methods");
    std::filesystem::copy(golden_path("model/peft"), folder);
    for (const auto& [name, config] : rules.find("methods")->object()) {
        std::ofstream(folder + "/adapter_config.json") << config.dump();
        const std::string error = error_of(model, folder);
        EXPECT_NE(error.find(str("peft_type is \"", name, "\"")), std::string::npos) << error;
    }
    EXPECT_GT(rules.find("methods")->object().size(), 15u);
}

}  // namespace adapter_names_test
