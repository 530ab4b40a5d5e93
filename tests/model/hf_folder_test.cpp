// hf_folder_test.cpp - Hugging Face folders that lie: every node of every JSON file replaced by every kind of value or
// left out, shards that point elsewhere, texts without an end. Each is an error that names the file, or a model; and
// what else a folder says about replies.
#include "src/model/gguf_model.h"
#include "src/model/hf_model.h"
#include "tests/model/reference.h"

#include <set>

#include <sys/stat.h>

namespace hf_folder_test {

using namespace qlora;

void write(const std::string& path, const std::string& text) { std::ofstream(path, std::ios::binary) << text; }

std::string temporary(const std::string& name) {
    const std::string path = testing::TempDir() + "qlora_hf_" + name;
    std::filesystem::remove_all(path);
    return path;
}

// A llama of two layers with biases and scaled rotation, all of whose sizes the files give.
const char* const config_text =
    R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": 8, "intermediate_size": 12,
    "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 6, "vocab_size": 12, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
    "tie_word_embeddings": false, "attention_bias": true, "mlp_bias": true, "partial_rotary_factor": 1.0, "rope_parameters": {"rope_type": "llama3", "rope_theta": 500.0,
    "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}})";

const char* const tokenizer_text =
    R"({"version": "1.0", "added_tokens": [{"id": 0, "content": "<unk>", "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false},
    {"id": 10, "content": "<end>", "special": true}], "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "_"},
    {"type": "Replace", "pattern": {"String": " "}, "content": "_"}, {"type": "Strip", "strip_left": true, "strip_right": true}]},
    "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"String": "_"}, "behavior": "MergedWithNext", "invert": false}, {"type": "Digits", "individual_digits": true}]},
    "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<unk>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]},
    "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "_"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
    "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
    "vocab": {"<unk>": 0, "a": 1, "b": 2, "ab": 3, "_": 4, "_a": 5, "1": 6}, "merges": ["a b", ["_", "a"]]}})";

std::string model_folder(const std::string& name) {
    const std::string folder = temporary(name);
    std::filesystem::create_directory(folder);
    write(folder + "/config.json", config_text);
    const Json json = Json::parse(config_text, "config");
    const Config c = hf_config(json, "config");
    SafeTensorsWriter w;
    auto add = [&](const std::string& tensor, const Shape& shape) {
        w.add(tensor, shape, reference::values(tensor, elements_of(shape), 0.3));
    };
    add("model.embed_tokens.weight", {c.vocabulary, c.hidden});
    add("lm_head.weight", {c.vocabulary, c.hidden});
    add("model.norm.weight", {c.hidden});
    for (int64_t i = 0; i < c.layers; ++i) {
        add(str("model.layers.", i, ".input_layernorm.weight"), {c.hidden});
        add(str("model.layers.", i, ".post_attention_layernorm.weight"), {c.hidden});
        for (int m = 0; m < module_count; ++m) {
            add(hf_name(c, i, Module(m)) + ".weight", shape_of(c, Module(m), i));
            add(hf_name(c, i, Module(m)) + ".bias", {shape_of(c, Module(m), i)[0]});
        }
    }
    w.write(folder + "/model.safetensors");
    write(folder + "/tokenizer.json", tokenizer_text);
    write(
        folder + "/tokenizer_config.json",
        R"({"bos_token": "<unk>", "eos_token": {"content": "<end>"}, "add_bos_token": false, "chat_template": "{{ messages[0].content }}"})");
    write(folder + "/generation_config.json", R"({"eos_token_id": [10, 3]})");
    return folder;
}

// "" when the folder loads.
std::string error_of(const std::string& folder) {
    try { tiny::load(folder); } catch (const Error& e) { return e.what(); }
    return "";
}

const std::vector<Json>& hostile_values() {
    static const std::vector<Json> values{Json(),
                                          Json(true),
                                          Json(-1),
                                          Json(0),
                                          Json(3),
                                          Json(int64_t(1) << 62),
                                          Json(INT64_MIN),
                                          Json(0.5),
                                          Json(1e300),
                                          Json(-1e300),
                                          Json(""),
                                          Json("x"),
                                          Json(std::string("a\0b", 3)),
                                          Json(std::string(3000, 'y')),
                                          Json(Json::Array{}),
                                          Json(Json::Array{Json(1), Json("z")}),
                                          Json(Json::Object{}),
                                          Json(Json::Object{{"type", "Nothing"}})};
    return values;
}

// Calls visit(document, path) for the document with each of its nodes replaced by each hostile value, and left out.
void for_each_lie(const Json& node, const std::string& path,
                  const std::function<void(const Json& changed, const std::string& what, const Json* value)>& visit) {
    for (const Json& value : hostile_values()) visit(value, path, &value);
    for (size_t i = 0; node.is_object() && i < node.object().size(); ++i) {
        Json less = node;
        less.object().erase(less.object().begin() + int64_t(i));
        visit(less, path + "." + node.object()[i].first + " left out", nullptr);
        for_each_lie(node.object()[i].second, path + "." + node.object()[i].first,
                     [&](const Json& changed, const std::string& what, const Json* value) {
                         Json whole = node;
                         whole.object()[i].second = changed;
                         visit(whole, what, value);
                     });
    }
    for (size_t i = 0; node.is_array() && i < node.array().size(); ++i)
        for_each_lie(node.array()[i], str(path, "[", i, "]"),
                     [&](const Json& changed, const std::string& what, const Json* value) {
                         Json whole = node;
                         whole.array()[i] = changed;
                         visit(whole, what, value);
                     });
}

TEST(HfFolderLies, ConfigurationFieldByField) {
    const std::string folder = model_folder("config"), file = folder + "/config.json";
    ASSERT_EQ(error_of(folder), "");
    // Where the class has a default, or where no tensor contradicts another number.
    const std::set<std::string> optional{".architectures",
                                         ".hidden_act",
                                         ".max_position_embeddings",
                                         ".rms_norm_eps",
                                         ".tie_word_embeddings",
                                         ".partial_rotary_factor",
                                         ".rope_parameters",
                                         ".rope_parameters.rope_type",
                                         ".rope_parameters.rope_theta"};
    const std::set<std::string> free{".max_position_embeddings",
                                     ".rms_norm_eps",
                                     ".rope_parameters.rope_theta",
                                     ".rope_parameters.factor",
                                     ".rope_parameters.low_freq_factor",
                                     ".rope_parameters.high_freq_factor",
                                     ".rope_parameters.original_max_position_embeddings"};
    // true, [] and {} fit
    const std::set<std::string> same{".tie_word_embeddings", ".attention_bias", ".mlp_bias", ".architectures",
                                     ".rope_parameters"};
    int accepted = 0, refused = 0;
    for_each_lie(Json::parse(config_text, "config"), "",
                 [&](const Json& changed, const std::string& what, const Json* value) {
                     write(file, changed.dump());
                     const std::string error = error_of(folder), path = what.substr(0, what.find(' '));
                     if (error.empty()) {
                         ++accepted;
                         const bool absent = !value || value->is_null();
                         EXPECT_TRUE(absent               ? optional.count(path)
                                     : value->is_number() ? free.count(path)
                                                          : same.count(path))
                             << what << (value ? " = " + value->dump().substr(0, 40) : "");
                         const auto model = tiny::load(folder);
                         Tokens ids{1, 2, 3, 4, 5, 6, 7};    // as many as the context, one of the lies, allows
                         ids.resize(size_t(std::min<int64_t>(int64_t(ids.size()), model->config.context)));
                         for (const float v : tiny::logits(model, nullptr, ids)) ASSERT_TRUE(std::isfinite(v)) << what;
                         return;
                     }
                     ++refused;
                     EXPECT_NE(error.find(folder), std::string::npos) << what << ": " << error;
                     EXPECT_LT(error.size(), 3000u);
                     const std::string field = path.substr(path.rfind('.') + 1);
                     // the wrong kind of value
                     const bool named = value && (value->is_string() || value->is_object()) && !field.empty() &&
                                        field.find('[') == field.npos;
                     if (named) {
                         EXPECT_NE(error.find(field), std::string::npos)
                             << what << " = " << value->dump().substr(0, 40) << ": " << error;
                     }
                 });
    EXPECT_GT(refused, 400);
    EXPECT_GT(accepted, 20);
}

TEST(HfFolderLies, EveryNodeOfTheTextFiles) {
    const std::string folder = model_folder("text");
    for (const auto& [file_name, least] :
         {std::pair{"tokenizer.json", 1500}, {"tokenizer_config.json", 70}, {"generation_config.json", 55}}) {
        const std::string name = file_name;
        const std::string file = folder + "/" + name, good = read_file(file);
        int refused = 0;
        for_each_lie(Json::parse(good, name), "", [&](const Json& changed, const std::string& what, const Json*) {
            write(file, changed.dump());
            try {
                const auto t = load_tokenizer(folder);
                Tokens out;
                t->encode("ab <end> 11 \xE2\x82\xAC_a", out);
                t->encode_template("ab <end> 11", out);
                t->decode(out);
            } catch (const Error& e) {
                ++refused;
                // rules that make far more of a text than they were given are found while they are used
                const std::string said = e.what();
                EXPECT_TRUE(said.find(folder) != said.npos || said.starts_with("tokenizer: its rules make"))
                    << name << what << ": " << said;
            }
        });
        EXPECT_GT(refused, least) << name;
        write(file, good);
    }
}

// The description of a 4-bit tensor is JSON in a tensor.
TEST(HfFolderLies, EveryNodeOfAQuantState) {
    const std::string source = golden_path("model/bnb"), folder = temporary("state"),
                      name = "model.layers.0.mlp.up_proj.weight.quant_state.bitsandbytes__nf4";
    std::filesystem::create_directory(folder);
    std::filesystem::copy_file(source + "/config.json", folder + "/config.json");
    const auto good = SafeTensors::open(source + "/model.safetensors");
    const std::string text(reinterpret_cast<const char*>(good->find(name)->data), size_t(good->find(name)->bytes));
    std::set<std::string> accepted;
    for_each_lie(Json::parse(text, "state"), "", [&](const Json& changed, const std::string& what, const Json* value) {
        const std::string state = changed.dump();
        SafeTensorsWriter w;
        for (const SafeTensor& t : good->tensors()) {
            if (t.name == name)
                w.tensors.push_back(
                    {t.name, "U8", {int64_t(state.size())}, int64_t(state.size()), [state](AtomicFile& f) {
                         f.write(state.data(), int64_t(state.size()));
                     }});
            else
                w.tensors.push_back(
                    {t.name, t.dtype, t.shape, t.bytes, [&t](AtomicFile& f) { f.write(t.data, t.bytes); }});
        }
        w.write(folder + "/model.safetensors");
        const std::string error = error_of(folder);
        if (error.empty())
            accepted.insert(what.substr(0, what.find(' ')) +
                            (value && !value->is_number() ? " " + value->dump().substr(0, 20) : ""));
        else EXPECT_NE(error.find("model.layers.0.mlp.up_proj.weight"), std::string::npos) << what << ": " << error;
    });
    // Any finite offset is possible; the type of the nested scales says nothing: the tensor itself has one.
    for (const std::string& what : accepted)
        EXPECT_TRUE(what == ".dtype" || what == ".nested_offset" || what.substr(0, 13) == ".nested_dtype") << what;
}

std::string sharded_folder(const std::string& name) {
    const std::string folder = model_folder(name);
    const auto all = SafeTensors::open(folder + "/model.safetensors");
    SafeTensorsWriter parts[2];
    Json map{Json::Object{}};
    int i = 0;
    for (const SafeTensor& t : all->tensors()) {
        parts[i % 2].tensors.push_back(
            {t.name, t.dtype, t.shape, t.bytes, [&t](AtomicFile& f) { f.write(t.data, t.bytes); }});
        map.set(t.name, Json(i++ % 2 ? "b.safetensors" : "a.safetensors"));
    }
    parts[0].write(folder + "/a.safetensors");
    parts[1].write(folder + "/b.safetensors");
    std::filesystem::remove(folder + "/model.safetensors");
    write(folder + "/model.safetensors.index.json",
          Json(Json::Object{{"metadata", Json::Object{{"total_size", 1}}}, {"weight_map", map}}).dump());
    return folder;
}

TEST(HfFolderLies, Shards) {
    const std::string folder = sharded_folder("shards"), index = folder + "/model.safetensors.index.json",
                      good = read_file(index), outside = temporary("outside");
    ASSERT_EQ(error_of(folder), "");
    std::filesystem::create_directory(outside);
    std::filesystem::copy_file(folder + "/a.safetensors", outside + "/a.safetensors");
    const auto with = [&](const std::string& from, const std::string& to) {
        std::string text = good;
        EXPECT_NE(text.find(from), text.npos);
        write(index, text.replace(text.find(from), from.size(), to));
        const std::string error = error_of(folder);
        write(index, good);
        return error;
    };
    std::filesystem::create_directory(folder + "/sub");
    ::mkfifo((folder + "/pipe").c_str(), 0600);
    const struct { std::string name; const char* expected;
    } names[] = {{"../qlora_hf_outside/a.safetensors", "plain file name"},
                 {outside + "/a.safetensors", "plain file name"},
                 {"sub/a.safetensors", "plain file name"},
                 {"..", "plain file name"},
                 {".", "plain file name"},
                 {"", "plain file name"},
                 {".hidden", "plain file name"},
                 {"sub\\\\a", "plain file name"},
                 {"a\\u0000b", "plain file name"},
                 {"file:a", "plain file name"},
                 {std::string(300, 'a'), "plain file name"},
                 {"sub", "folder"},
                 {"pipe", "regular file"},
                 {"none.safetensors", "none.safetensors"},
                 {"config.json", "config.json"},
                 {"b.safetensors", "is not in b.safetensors"}};
    for (const auto& row : names)
        EXPECT_NE(with("\"a.safetensors\"", "\"" + row.name + "\"").find(row.expected), std::string::npos)
            << row.name << ": " << with("\"a.safetensors\"", "\"" + row.name + "\"");
    EXPECT_NE(with("\"weight_map\"", "\"weight_maps\"").find("weight_map is missing"), std::string::npos);
    EXPECT_NE(with("\"weight_map\": {", "\"weight_map\": {\"model.norm.weight\": \"a.safetensors\", ")
                  .find("model.norm.weight"),
              std::string::npos)
        << "a key twice";
    EXPECT_NE(
        with("\"weight_map\": {", "\"weight_map\": {\"unknown.weight\": \"a.safetensors\", ").find("unknown.weight"),
        std::string::npos);
    write(index, "[" + std::string(1000000, '['));
    EXPECT_NE(error_of(folder).find("nested deeper"), std::string::npos);
    write(index, good);
    // The same tensor in both shards; then a shard that is a link, as the download cache of the hub makes them for all
    // its files.
    std::filesystem::copy_file(folder + "/a.safetensors", folder + "/c.safetensors");
    EXPECT_NE(with("\"b.safetensors\"", "\"c.safetensors\"").find("lies in two files"), std::string::npos);
    std::filesystem::remove(folder + "/a.safetensors");
    std::filesystem::create_symlink(outside + "/a.safetensors", folder + "/a.safetensors");
    EXPECT_EQ(error_of(folder), "");
}

// What ends a reply besides eos_token, and a chat template in a file of its own: both survive the way through a GGUF
// file.
TEST(HfFolder, RepliesEndWhereTheGenerationConfigurationSays) {
    const std::string folder = model_folder("generation"), gguf = folder + "/model.gguf";
    EXPECT_EQ(load_tokenizer(folder)->end_of_reply, (std::vector<Token>{10, 3}));
    write(folder + "/generation_config.json", R"({"eos_token_id": 2, "temperature": 0.6})");
    EXPECT_EQ(load_tokenizer(folder)->end_of_reply, (std::vector<Token>{10, 2}));
    write(folder + "/generation_config.json", R"({"eos_token_id": [10, 3, 500]})");          // 500: no such token
    EXPECT_NE(error_of(folder).find("token 500"), std::string::npos) << error_of(folder);
    write(folder + "/generation_config.json", R"({"eos_token_id": [10, 3]})");
    write(folder + "/chat_template.jinja", "{{ 'own file' }}");
    write(
        folder + "/tokenizer.json",
        R"({"added_tokens": [{"id": 10, "content": "<end>", "special": true}], "model": {"vocab": {"a": 1, "b": 2, "ab": 3}, "merges": []},
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false}, "decoder": {"type": "ByteLevel"}})");
    write(folder + "/tokenizer_config.json", R"({"eos_token": "<end>"})");
    const auto model = tiny::load(folder);
    EXPECT_EQ(model->tokenizer->chat_template, "{{ 'own file' }}");
    save_gguf_model(*model, gguf);
    const auto again = tiny::load(gguf);
    EXPECT_EQ(again->tokenizer->chat_template, "{{ 'own file' }}");
    EXPECT_EQ(again->tokenizer->end_of_reply, model->tokenizer->end_of_reply);
}

// A message is made of what a file holds: it must not be able to command the terminal that shows it.
TEST(HfFolderLies, MessagesArePrintable) {
    const std::string folder = model_folder("escape");
    write(folder + "/config.json", R"({"model_type": "\u001b]0;owned\u0007\u009b31m\u007f\r", "hidden_size": 8})");
    const std::string error = error_of(folder);
    EXPECT_NE(error.find("owned"), std::string::npos);
    for (size_t i = 0; i < error.size(); ++i)
        EXPECT_TRUE(uint8_t(error[i]) >= 0x20 && error[i] != 0x7F &&
                    !(uint8_t(error[i]) == 0xC2 && uint8_t(error[i + 1]) < 0xA0))
            << i;
}

}  // namespace hf_folder_test
