// adapter_config_test.cpp - every field of PEFT 0.21's LoraConfig: what it may hold, and that anything else is one line
// with file and field. Then the same for the tensors beside it.
#include "src/model/lora.h"
#include "tests/model/reference.h"

namespace adapter_config_test {

using namespace qlora;

struct Adapter {    // a good one, in a folder of its own, with one thing changed at a time
    std::shared_ptr<ModelImpl> model = tiny::make({});
    std::string folder = testing::TempDir() + "qlora_adapter_config", config = folder + "/adapter_config.json",
                tensors = folder + "/adapter_model.safetensors", good;
    explicit Adapter(bool dora = false) {
        std::filesystem::remove_all(folder);
        save_lora_peft(*create_lora(model, {.rank = 2, .modules = "q_proj,down_proj", .dora = dora}), folder);
        good = read_file(config);
    }
    std::string error() const {
        try { load_lora(model, folder); } catch (const Error& e) { return e.what(); }
        return "loaded";
    }
    std::string with(const std::string& key, const std::string& value) const {
        Json j = Json::parse(good, config);
        j.set(key, Json::parse(value, "value"));
        std::ofstream(config) << j.dump();
        const std::string result = error();
        std::ofstream(config) << good;
        return result;
    }
};

// Values that load, and values that do not.
struct Row { const char* key; std::vector<const char*> good, bad; };
const std::vector<Row> rows{
    {"alora_invocation_tokens", {"null", "[]"}, {"[1, 2]", "3", "\"x\""}},
    {"alpha_pattern",
     {"null", "{}", "{\"v_proj\": 3.5}"},
     {"[]", "3", "{\"q_proj\": \"x\"}", "{\"q_proj\": 1e300}", "{\"q_proj\": 1e10}", "{\"(q_\": 2}"}},
    {"arrow_config", {"null"}, {"{\"top_k\": 3}", "1"}},
    {"auto_mapping", {"null", "{\"parent_library\": \"x\"}"}, {"1", "\"x\"", "[]"}},
    {"base_model_name_or_path", {"null", "\"x\""}, {"1", "{}"}},
    {"bias", {"\"none\""}, {"\"all\"", "\"lora_only\"", "false", "null", "[]"}},
    {"corda_config", {"null", "{\"verbose\": false}"}, {"1", "\"x\""}},
    {"ensure_weight_tying", {"true", "false", "null"}, {"1", "\"x\""}},
    {"eva_config", {"null", "{\"rho\": 2}"}, {"[]", "2"}},
    {"exclude_modules",
     {"null", "[]", "[\"v_proj\"]", "\"q_proj\"", "\".*v_proj\"", "[\".*\"]"},
     {"[1]", "[\"q_proj\"]", "{}", "\".*q_proj\"", "\"(q_proj\"", "\"(?i)Q\""}},
    {"fan_in_fan_out", {"false", "null", "true"}, {"1"}},
    {"inference_mode", {"true", "false"}, {"0", "\"yes\""}},
    {"init_lora_weights",
     {"true", "false", "null", "\"gaussian\"", "\"orthogonal\"", "\"eva\""},
     {"\"olora\"", "\"corda\"", "\"loftq\"", "\"mica\"", "\"lora_ga\"", "\"pissa_niter_4\"", "\"nonsense\"", "1", "[]",
      "{}"}},
    {"kasa_config", {"null"}, {"{\"beta\": 1}", "true"}},
    {"layer_replication", {"null", "[]"}, {"[[0, 1], [0, 2]]", "1"}},
    {"layers_pattern", {"null", "\"layers\"", "[\"layers\"]", "[]"}, {"\"blocks\"", "[\"h\"]", "1", "[1]"}},
    {"layers_to_transform", {"null", "[]", "[0, 1]"}, {"[0]", "1", "[2]", "[-1]", "\"all\"", "[\"0\"]", "[0.5]"}},
    {"loftq_config", {"null", "{}", "{\"loftq_bits\": 4}"}, {"[]", "4"}},
    {"lora_alpha", {"8", "3.5", "0"}, {"\"x\"", "null", "1e300", "1e19", "1e10", "[]", "true"}},
    {"lora_bias", {"false", "null"}, {"true", "1"}},
    {"lora_dropout", {"0", "0.5"}, {"1", "-0.1", "\"x\"", "null"}},
    {"lora_ga_config", {"null", "{\"scale\": \"stable\"}"}, {"1"}},
    {"megatron_config", {"null"}, {"{\"a\": 1}", "\"x\""}},
    {"megatron_core", {"null", "\"megatron.core\""}, {"1", "{}"}},
    {"modules_to_save", {"null", "[]"}, {"[\"lm_head\"]", "\"lm_head\"", "1"}},
    {"monteclora_config", {"null"}, {"{\"a\": 1}"}},
    {"peft_type", {"\"LORA\""}, {"\"IA3\"", "null", "1"}},
    {"peft_version", {"\"0.21.2\"", "null"}, {"21"}},
    {"qalora_group_size", {"16", "null"}, {"\"x\"", "1.5"}},
    {"r", {"2", "2.0"}, {"0", "-1", "3", "2.5", "1000000000000", "\"2\"", "null", "[]", "true"}},
    {"rank_pattern",
     {"null", "{}", "{\"v_proj\": 7}"},
     {"[]", "{\"q_proj\": 3}", "{\"q_proj\": 0}", "{\"q_proj\": \"2\"}", "{\"[q\": 2}"}},
    {"revision", {"null", "\"main\""}, {"1"}},
    {"target_modules",
     {"\".*(q|down)_proj\"", "[\"q_proj\", \"down_proj\"]", "[\"mlp.down_proj\", \"q_proj\"]"},
     {"null", "\"all-linear\"", "\".*q_proj\"", "\"q_proj|\"", "\"(\"", "[\"q_proj\", \"down_proj\", \"lm_head\"]",
      "[\"q_proj\", \"down_proj\", \"k_proj\"]", "[\"q_proj\"]", "[]", "[1]", "1", "{}"}},
    {"target_parameters", {"null", "[]"}, {"[\"x\"]", "\"x\""}},
    {"task_type", {"null", "\"CAUSAL_LM\""}, {"1", "[]"}},
    {"trainable_token_indices", {"null", "[]"}, {"[1]", "{\"embed_tokens\": [1]}"}},
    {"use_bdlora", {"null"}, {"{\"nblocks\": 2}", "true"}},
    {"use_dora", {"false"}, {"true", "null", "1", "\"x\""}},
    {"use_qalora", {"false", "null"}, {"true"}},
    {"use_rslora", {"true", "false"}, {"null", "1", "\"x\""}},
    {"velora_config", {"null"}, {"{\"a\": 1}"}},
    {"a_field_of_tomorrow", {"null", "false", "[]", "{}"}, {"true", "1", "\"x\"", "[1]"}}};

TEST(AdapterConfig, EveryFieldIsReadOrRefusedByName) {
    const Adapter adapter;
    for (const Row& row : rows) {
        for (const char* value : row.good)
            EXPECT_EQ(adapter.with(row.key, value), "loaded") << row.key << " = " << value;
        for (const char* value : row.bad) {
            const std::string error = adapter.with(row.key, value);
            EXPECT_NE(error.find(adapter.config), std::string::npos) << row.key << " = " << value << ": " << error;
            // A rank that does not fit is the fault of one of two files: the tensor is named, and where the rank
            // stands.
            const bool rank = error.find("has shape") != error.npos && error.find("the rank in") != error.npos;
            EXPECT_TRUE(rank || error.find(row.key) != error.npos) << row.key << " = " << value << ": " << error;
            EXPECT_EQ(error.find('\n'), std::string::npos) << error;
        }
    }
}

TEST(AdapterConfig, TheTableKnowsTheFieldsThatPeftWrites) {
    for (const char* folder :
         {"model/peft", "model/peft_patterns", "model/peft_pissa", "training/adapter", "dora/adapter"}) {
        const std::string path = golden_path(std::string(folder) + "/adapter_config.json");
        const Json j = Json::parse(read_file(path), path);
        for (const auto& [key, value] : j.object())
            EXPECT_TRUE(std::any_of(rows.begin(), rows.end(), [&, name = key](const Row& r) { return r.key == name; }))
                << key << " of " << path;
    }
}

TEST(AdapterConfig, OtherDocumentsThanAnObject) {
    const Adapter adapter;
    for (const char* text : {"[]", "1", "null", "\"x\"", "", "{", "{\"r\": 2,}"}) {
        std::ofstream(adapter.config) << text;
        EXPECT_NE(adapter.error().find(adapter.config), std::string::npos) << text << ": " << adapter.error();
    }
}

TEST(AdapterTensors, EveryOneFindsItsPlaceAndItsPartners) {
    const Adapter adapter(true);
    const auto whole = SafeTensors::open(adapter.tensors);
    struct Changed { std::string name, dtype; Shape shape; std::vector<float> values; };
    const auto error_of = [&](const std::function<void(std::vector<Changed>&)>& change) {
        std::vector<Changed> all;
        for (const SafeTensor& t : whole->tensors()) all.push_back({t.name, t.dtype, t.shape, whole->floats(t)});
        change(all);
        const std::string path = adapter.folder + "/changed.safetensors";
        SafeTensorsWriter w;
        for (Changed& t : all) {
            if (t.dtype == "F32") w.add(t.name, t.shape, t.values);
            else
                w.tensors.push_back({t.name, t.dtype, t.shape, int64_t(t.values.size()) * 4,
                                     [v = t.values](AtomicFile& f) { f.write(v.data(), int64_t(v.size()) * 4); }});
        }
        w.write(path);
        std::filesystem::create_directories(adapter.folder + "/two");
        std::filesystem::copy_file(adapter.config, adapter.folder + "/two/adapter_config.json",
                                   std::filesystem::copy_options::overwrite_existing);
        std::filesystem::rename(path, adapter.folder + "/two/adapter_model.safetensors");
        try {
            load_lora(adapter.model, adapter.folder + "/two");
        } catch (const Error& e) { return std::string(e.what()); }
        return std::string("loaded");
    };
    EXPECT_EQ(error_of([](auto&) {}), "loaded");
    const std::string q = "base_model.model.model.layers.0.self_attn.q_proj";
    const auto named = [](std::vector<Changed>& all, const std::string& name) {
        return std::find_if(all.begin(), all.end(), [&](const Changed& t) { return t.name == name; });
    };
    for (const char* part : {".lora_A.weight", ".lora_B.weight", ".lora_magnitude_vector"}) {
        const std::string name = q + part;
        const auto expect_named = [&](const char* what, const std::function<void(std::vector<Changed>&)>& change) {
            const std::string error = error_of(change);
            EXPECT_NE(error.find(name), std::string::npos) << what << ": " << error;
            EXPECT_NE(error.find("two/adapter_model.safetensors"), std::string::npos) << what << ": " << error;
        };
        expect_named("missing", [&](auto& all) { all.erase(named(all, name)); });
        expect_named("another shape", [&](auto& all) {
            named(all, name)->shape = {1, int64_t(named(all, name)->values.size())};
        });
        expect_named("another length", [&](auto& all) {
            named(all, name)->shape = {4};
            named(all, name)->values.resize(4);
        });
        expect_named("another type", [&](auto& all) { named(all, name)->dtype = "I32"; });
        expect_named("not a number", [&](auto& all) { named(all, name)->values[1] = std::nanf(""); });
        expect_named("infinite", [&](auto& all) { named(all, name)->values[0] = HUGE_VALF; });
    }
    for (const char* name :
         {"base_model.model.model.layers.2.self_attn.q_proj.lora_A.weight", "base_model.model.lm_head.lora_A.weight",
          "base_model.model.model.embed_tokens.lora_embedding_A",
          "base_model.model.model.layers.0.self_attn.q_proj.lora_B.bias",
          "base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight",
          "base_model.model.model.layers.0.self_attn.q_proj.base_layer.weight",
          "base_model.model.model.layers.-1.self_attn.q_proj.lora_A.weight", "x"}) {
        const std::string error = error_of([&](auto& all) { all.push_back({name, "F32", {2}, {1, 2}}); });
        EXPECT_NE(error.find(str("the tensor ", name, " does not belong")), std::string::npos) << error;
    }
    // PEFT reads the longer name too, but not both.
    EXPECT_EQ(error_of([&](auto& all) { named(all, q + ".lora_magnitude_vector")->name += ".weight"; }), "loaded");
    EXPECT_NE(error_of([&](auto& all) {
                  Changed copy = *named(all, q + ".lora_magnitude_vector");
                  copy.name += ".weight";
                  all.push_back(copy);
              }).find("for one place"),
              std::string::npos);
    EXPECT_NE(adapter.with("use_dora", "false").find("lora_magnitude_vector is there, but use_dora"),
              std::string::npos);
}

}  // namespace adapter_config_test
