// text.cpp - tokenizers out of any kind of file. Dialogues are in render_chat.cpp.
#include "src/model/gguf_model.h"
#include "src/model/hf_model.h"

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
    return file.substr(0, file.find_last_of('/') + 1) + name;
}

}  // namespace text_room

std::vector<TextFile> read_text_files(const Source& folder, const std::string& tokenizer, bool to_save) {
    constexpr struct {
        const char* name;
        int64_t megabytes;
    } list[] = {{"tokenizer.json", 256},
                {"tokenizer_config.json", 64},
                {"special_tokens_map.json", 64},
                {"chat_template.jinja", 16},
                {"generation_config.json", 16}};
    std::vector<TextFile> out;
    for (const auto& file : list) {
        const std::string_view name = file.name;
        if (name == "special_tokens_map.json" && !to_save) continue;             // no tokenizer needs it
        const bool renamed = name == "tokenizer.json";
        const std::string& called = renamed ? tokenizer : file.name;
        if (has_file(folder, called)) out.push_back({file.name, text_of(folder, called, file.megabytes << 20)});
    }
    return out;
}

// Newer folders keep the chat template in a file of its own. What ends a reply is in generation_config.json, without it
// in config.json.
std::shared_ptr<const TokenizerImpl> hf_tokenizer(const Metadata& from, const std::string& where) {
    using text_room::beside;
    const Json tokenizer = Json::parse(*from.file("tokenizer.json"), where);
    Json config;
    if (const std::string* text = from.file("tokenizer_config.json"))
        config = Json::parse(*text, beside(where, "tokenizer_config.json"));
    if (const std::string* text = from.file("chat_template.jinja")) config.set("chat_template", Json(*text));
    std::vector<Token> ends;
    if (const std::string* text = from.file("generation_config.json")) {
        const std::string file = beside(where, "generation_config.json");
        ends = text_room::reply_ends(Json::parse(*text, file), file);
    } else if (!from.config.is_null()) {
        ends = text_room::reply_ends(from.config, beside(where, "config.json"));
    }
    return load_tokenizer_json(tokenizer, config, where, std::move(ends));
}

namespace text_room {

std::shared_ptr<const TokenizerImpl> of_folder(const Source& folder, const std::string& name) {
    Metadata from;
    from.files = read_text_files(folder, name, false);
    if (!from.file("generation_config.json") && has_file(folder, "config.json"))
        from.config = Json::parse(text_of(folder, "config.json", int64_t(16) << 20), path_in(folder, "config.json"));
    return hf_tokenizer(from, path_in(folder, name));
}

bool is_json(const Source& source) {
    if (!is_in_memory(source)) return source.name().ends_with(".json");
    return !std::string_view(reinterpret_cast<const char*>(open_file(source)->data()),
                             size_t(std::min<int64_t>(open_file(source)->size(), 4))).starts_with("GGUF");
}

}  // namespace text_room

std::shared_ptr<const TokenizerImpl> load_tokenizer(const Source& source) {
    const std::string &path = source.name(), file = "tokenizer.json";
    if (has_files(source)) {
        if (!has_file(source, file))
            fail(Errc::io, "load tokenizer ", path,
                 ": there is no tokenizer.json; name a folder that has one, or a GGUF file");
        return text_room::of_folder(source, file);
    }
    if (text_room::is_json(source)) {
        if (is_in_memory(source))
            return load_tokenizer_json(Json::parse(text_of(source, {}, int64_t(256) << 20), path), Json(), path, {});
        if (!exists(path))
            fail(Errc::io, "load tokenizer ", path,
                 ": there is no such file; name a tokenizer.json, its folder, or a GGUF file");
        const size_t slash = path.find_last_of('/');
        return text_room::of_folder(slash == path.npos ? "." : path.substr(0, slash), path.substr(slash + 1));
    }
    const auto tokenizer = gguf_tokenizer(*Gguf::open(source));
    if (!tokenizer) fail(Errc::format, "load tokenizer ", path, ": the file has no vocabulary");
    return tokenizer;
}

}}  // namespace qlora
