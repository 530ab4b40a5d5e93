// text.cpp - tokenizers out of any kind of file. Dialogues are in render_chat.cpp.
#include "src/base/system.h"
#include "src/model/gguf_model.h"
#include "src/model/hf_model.h"
#include "src/text/sentencepiece.h"
#include "src/text/tiktoken.h"
#include "src/text/tokenizer_model.h"

#include <algorithm>

namespace qlora { inline namespace QLORA_ABI {

namespace text_room {

// eos_token_id: one id or a list, all of which end a reply (Llama 3 has three).
std::vector<Token> reply_ends(const Json& json, const std::string& file) {
    std::vector<Token> ends;
    const auto add = [&](const Json& id) {
        const int64_t value = id.as_int(file + ": eos_token_id");
        if (value < -1 || value > INT32_MAX)
            fail(Errc::format, file, ": eos_token_id is ", value, ", expected a token");
        if (value >= 0) ends.push_back(Token(value));  // -1: none
    };
    json.as_object(file);
    const Json* eos = json.find("eos_token_id");
    if (eos && eos->is_array()) for (const Json& id : eos->array()) add(id);
    else if (eos && !eos->is_null()) add(*eos);
    return ends;
}

std::string beside(const std::string& file, const char* name) {
    return file.substr(0, file.find_last_of(sys::separators) + 1) + name;
}

constexpr int64_t most = int64_t(256) << 20;           // bytes of a tokenizer

constexpr const char* model_files[] = {"tokenizer.model", "qwen.tiktoken", "cl100k_base.tiktoken",
                                       "o200k_base.tiktoken"};
bool is_model_file(std::string_view name) {
    return std::find(std::begin(model_files), std::end(model_files), name) != std::end(model_files);
}

// The tokenizer.model of a folder, by whatever name; "" = none. named: the file that was asked for.
std::string model_file(const Source& folder, const std::string& named) {
    if (!named.ends_with(".json")) return named;
    for (const char* name : model_files) if (has_file(folder, name)) return name;
    return {};
}

// Folders older than added_tokens_decoder have added_tokens.json: {"<|im_start|>": 32000, ...}
Json with_added_tokens(Json config, const Json& added, const std::string& where) {
    const Json* decoder = config.find("added_tokens_decoder");
    if (decoder && !decoder->is_null()) return config;
    Json all = Json::Object{};
    for (const auto& [text, id] : added.as_object(where))
        all.set(str(id.as_int(where)), Json{}.set("content", text).set("normalized", false));
    return config.set("added_tokens_decoder", std::move(all));
}

}  // namespace text_room

std::vector<TextFile> read_text_files(const Source& folder, const std::string& tokenizer, bool to_save) {
    constexpr struct {
        const char* name;
        int64_t megabytes;
    } list[] = {{"tokenizer.json", 256},
                {"tokenizer_config.json", 64},
                {"special_tokens_map.json", 64},
                {"added_tokens.json", 64},
                {"chat_template.jinja", 16},
                {"generation_config.json", 16}};
    std::vector<TextFile> out;
    bool json = false;
    for (const auto& file : list) {
        const std::string_view name = file.name;
        const bool renamed = name == "tokenizer.json";
        const std::string& called = renamed ? tokenizer : file.name;
        if (renamed && !tokenizer.ends_with(".json")) continue;
        if (name == "special_tokens_map.json" && !to_save) continue;             // no tokenizer needs it
        if (name == "added_tokens.json" && json) continue;                       // tokenizer.json has them
        if (!has_file(folder, called)) continue;
        json = json || renamed;
        out.push_back({file.name, text_of(folder, called, file.megabytes << 20)});
    }
    const std::string other = json ? "" : text_room::model_file(folder, tokenizer);
    if (!other.empty())
        out.push_back({text_room::is_model_file(other) ? other : "tokenizer.model",
                       text_of(folder, other, text_room::most)});
    return out;
}

const TextFile* tokenizer_file(const Metadata& from) {
    for (const TextFile& f : from.files)
        if (f.name == "tokenizer.json" || text_room::is_model_file(f.name)) return &f;
    return nullptr;
}

std::string tokenizer_form(const Metadata& from) {
    const Json* type = from.config.find("model_type");
    return std::string(tiktoken_form(tokenizer_file(from)->name, type && type->is_string() ? type->string() : ""));
}

Json tokenizer_config_of(const Metadata& from, const std::string& where) {
    using text_room::beside;
    Json config;
    if (const std::string* text = from.file("tokenizer_config.json"))
        config = Json::parse(*text, beside(where, "tokenizer_config.json"));
    if (const std::string* text = from.file("added_tokens.json")) {
        const std::string file = beside(where, "added_tokens.json");
        config = text_room::with_added_tokens(std::move(config), Json::parse(*text, file), file);
    }
    return config;
}

// Newer folders keep the chat template in a file of its own. What ends a reply is in generation_config.json, without it
// in config.json.
std::shared_ptr<const TokenizerImpl> hf_tokenizer(const Metadata& from, const std::string& where) {
    using text_room::beside;
    const TextFile& tokenizer = *tokenizer_file(from);
    Json config = tokenizer_config_of(from, where);
    if (const std::string* text = from.file("chat_template.jinja")) config.set("chat_template", Json(*text));
    std::vector<Token> ends;
    if (const std::string* text = from.file("generation_config.json")) {
        const std::string file = beside(where, "generation_config.json");
        ends = text_room::reply_ends(Json::parse(*text, file), file);
    } else if (!from.config.is_null()) {
        ends = text_room::reply_ends(from.config, beside(where, "config.json"));
    }
    if (tokenizer.name == "tokenizer.json")
        return load_tokenizer_json(Json::parse(tokenizer.content, where), config, where, std::move(ends));
    TokenizerModel model = read_tokenizer_model(tokenizer.content, tokenizer_form(from), config, where);
    model.vocabulary.ends = std::move(ends);
    return make_tokenizer(std::move(model), where);
}

namespace text_room {

std::shared_ptr<const TokenizerImpl> of_folder(const Source& folder, const std::string& name) {
    Metadata from;
    from.files = read_text_files(folder, name, false);
    if (has_file(folder, "config.json"))
        from.config = Json::parse(text_of(folder, "config.json", int64_t(16) << 20), path_in(folder, "config.json"));
    return hf_tokenizer(from, path_in(folder, name));
}

// What a file that is a tokenizer by itself holds, by how it begins.
enum class Form { gguf, json, model };
Form form_of(const Source& source) {
    const auto file = open_file(source);
    const std::string_view front(reinterpret_cast<const char*>(file->data()),
                                 size_t(std::min<int64_t>(file->size(), 4096)));
    if (front.starts_with("GGUF")) return Form::gguf;
    return is_tiktoken(front) || is_sentencepiece(front) ? Form::model : Form::json;
}

}  // namespace text_room

std::shared_ptr<const TokenizerImpl> load_tokenizer(const Source& source) {
    using text_room::Form;
    const std::string& path = source.name();
    if (has_files(source)) {
        const std::string file = has_file(source, "tokenizer.json") ? "tokenizer.json"
                                                                    : text_room::model_file(source, ".json");
        if (file.empty())
            fail(Errc::io, "load tokenizer ", path,
                 ": there is no tokenizer.json and no tokenizer.model; name a folder that has one, or a GGUF file");
        return text_room::of_folder(source, file);
    }
    if (!is_in_memory(source) && !exists(path))
        fail(Errc::io, "load tokenizer ", path,
             ": there is no such file; name a tokenizer.json, a tokenizer.model, their folder, or a GGUF file");
    const bool memory = is_in_memory(source), named_json = !memory && path.ends_with(".json");
    const Form form = named_json ? Form::json : text_room::form_of(source);
    if (form == Form::model || named_json) {
        const size_t slash = path.find_last_of(sys::separators);
        const std::string folder = slash == path.npos ? "." : path.substr(0, slash);
        if (!memory) return text_room::of_folder(folder, path.substr(slash + 1));
        return make_tokenizer(read_tokenizer_model(text_of(source, {}, text_room::most), "", Json(), path), path);
    }
    if (memory && form == Form::json)
        return load_tokenizer_json(Json::parse(text_of(source, {}, text_room::most), path), Json(), path, {});
    const auto tokenizer = gguf_tokenizer(*Gguf::open(source));
    if (!tokenizer) fail(Errc::format, "load tokenizer ", path, ": the file has no vocabulary");
    return tokenizer;
}

}}  // namespace qlora
