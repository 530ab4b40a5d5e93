// text.cpp - tokenizers out of any kind of file. Dialogues are in render_chat.cpp.
#include "src/model/gguf_model.h"
#include "src/model/hf_model.h"

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

std::vector<TextFile> read_text_files(const std::string& folder, const std::string& tokenizer, bool to_save) {
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
        const std::string path = folder + "/" + (renamed ? tokenizer : file.name);
        if (exists(path)) out.push_back({file.name, read_file(path, file.megabytes << 20)});
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

std::shared_ptr<const TokenizerImpl> load_tokenizer(const std::string& path) {
    const bool folder = is_folder(path);
    if (folder || path.ends_with(".json")) {
        const std::string file = folder ? path + "/tokenizer.json" : path,
                          config = text_room::beside(file, "config.json");
        if (folder && !exists(file))
            fail(Errc::io, "load tokenizer ", path,
                 ": there is no tokenizer.json; name a folder that has one, or a GGUF file");
        const size_t slash = file.find_last_of('/');
        Metadata from;
        from.files = read_text_files(slash == file.npos ? "." : file.substr(0, slash), file.substr(slash + 1), false);
        if (!from.file("tokenizer.json"))
            fail(Errc::io, "load tokenizer ", path,
                 ": there is no such file; name a tokenizer.json, its folder, or a GGUF file");
        if (!from.file("generation_config.json") && exists(config))
            from.config = Json::parse(read_file(config, int64_t(16) << 20), config);
        return hf_tokenizer(from, file);
    }
    const auto tokenizer = gguf_tokenizer(*Gguf::open(path));
    if (!tokenizer) fail(Errc::format, "load tokenizer ", path, ": the file has no vocabulary");
    return tokenizer;
}

}}  // namespace qlora
