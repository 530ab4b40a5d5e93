// text.cpp - tokenizers out of any kind of file. Dialogues are in render_chat.cpp.
#include "src/model/gguf_model.h"

namespace qlora { inline namespace QLORA_ABI {

namespace text_room {

// eos_token_id of generation_config.json (without it, of config.json): one id or a list, all of which end a reply
// (Llama 3 has three).
std::vector<Token> reply_ends(const std::string& file) {
    const Json json = Json::parse(read_file(file, int64_t(16) << 20), file);
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

// tokenizer.json and the files beside it. Newer folders keep the chat template in a file of its own.
std::shared_ptr<const TokenizerImpl> load_folder(const std::string& file, const std::string& folder) {
    const Json tokenizer = Json::parse(read_file(file, int64_t(256) << 20), file);
    Json config;
    const std::string config_file = folder + "/tokenizer_config.json", template_file = folder + "/chat_template.jinja",
                      generation_file = folder + "/generation_config.json";
    const std::string ends_file = exists(generation_file) ? generation_file : folder + "/config.json";
    if (exists(config_file)) config = Json::parse(read_file(config_file, int64_t(64) << 20), config_file);
    if (exists(template_file)) config.set("chat_template", Json(read_file(template_file, int64_t(16) << 20)));
    return load_tokenizer_json(tokenizer, config, file,
                               exists(ends_file) ? reply_ends(ends_file) : std::vector<Token>());
}

}  // namespace text_room

std::shared_ptr<const TokenizerImpl> load_tokenizer(const std::string& path) {
    if (is_folder(path)) {
        if (!exists(path + "/tokenizer.json")) fail(Errc::io, "load tokenizer ", path, ": there is no tokenizer.json");
        return text_room::load_folder(path + "/tokenizer.json", path);
    }
    if (path.size() > 5 && path.substr(path.size() - 5) == ".json") {
        const size_t slash = path.find_last_of('/');
        return text_room::load_folder(path, slash == path.npos ? "." : path.substr(0, slash));
    }
    const auto tokenizer = gguf_tokenizer(*Gguf::open(path));
    if (!tokenizer) fail(Errc::format, "load tokenizer ", path, ": the file has no vocabulary");
    return tokenizer;
}

}}  // namespace qlora
