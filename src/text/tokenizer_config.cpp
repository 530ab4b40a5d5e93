// tokenizer_config.cpp - tokenizer_config.json: which tokens begin and end a text, the chat template, and tokens beside
// those of the vocabulary.
#include "src/text/tokenizer_parts.h"

namespace qlora { inline namespace QLORA_ABI {
namespace tokenizer_config_room {

struct Reader : TokenizerParts {
    const Json& config;
    Vocabulary& v;

    std::string in_config(std::string_view key) const { return str(where, ": tokenizer_config.json: ", key); }

    std::string token(std::string_view key) const {    // "<s>" or {"content": "<s>", ...}; "" when absent
        const Json* found = get(config, key);
        if (found && found->is_object()) found = get(*found, "content");
        return found ? found->as_string(in_config(key)) : "";
    }

    void read_token(std::string_view key, Token& id) const {
        if (config.find(key)) id = find_token(v, token(key));
    }

    void read(const std::optional<std::string>& begin, const std::optional<std::string>& end) {
        if (!config.is_null()) config.as_object(in_config("the file"));
        read_token("bos_token", v.bos);
        read_token("eos_token", v.eos);
        read_token("pad_token", v.pad);
        if (const std::string eos = token("eos_token"); v.eos < 0 && !eos.empty())
            fail(Errc::format, in_config("eos_token"), " is \"", eos,
                 "\", which is not in the vocabulary: the model would never end a text");
        if (v.bos < 0 && begin) v.bos = find_token(v, *begin);
        if (v.eos < 0 && end) v.eos = find_token(v, *end);
        if (v.eos < 0 && config.is_null())             // the file stands alone: it does not say which token ends a text
            for (const char* usual : {"</s>", "<eos>", "<|end_of_text|>", "<|endoftext|>", "<|im_end|>"})
                if (v.eos < 0) v.eos = find_token(v, usual);
        v.add_bos = flag(config, "add_bos_token", v.add_bos || begin.has_value());
        v.add_eos = flag(config, "add_eos_token", v.add_eos || end.has_value());
        const Json* chat = get(config, "chat_template");
        if (chat && chat->is_string()) v.chat_template = chat->string();
        else if (chat)
            for (const Json& entry : chat->as_array(in_config("chat_template")))
                if (text(entry, "name") == "default") v.chat_template = text(entry, "template");
    }

    std::vector<AddedToken> decoder_tokens() {
        std::vector<AddedToken> added;
        const Json* decoder = get(config, "added_tokens_decoder");
        if (!decoder) return added;
        const std::string file = in_config("added_tokens_decoder");
        const size_t most = (v.tokens.size() + decoder->as_object(file).size()) * 2 + 1000;
        for (const auto& [key, entry] : decoder->object()) {
            int64_t id = 0;
            for (const char c : key)
                id = c >= '0' && c <= '9' && id < INT32_MAX ? id * 10 + (c - '0') : int64_t(INT32_MAX);
            const std::string content = text(entry, "content");
            if (key.empty() || content.empty())
                fail(Errc::format, file, " has the token \"", key, "\": \"", content, "\"");
            place_token(v, id, content, most, file);
            added.push_back(added_token(entry, Token(id), content));
            Vocabulary::Type& type = v.types[size_t(id)];
            if (type != Vocabulary::Type::unknown)
                type = added.back().control ? Vocabulary::Type::control : Vocabulary::Type::user_defined;
        }
        if (!v.scores.empty()) v.scores.resize(v.tokens.size(), 0.0f);
        return added;
    }
};

}  // namespace tokenizer_config_room

AddedToken TokenizerParts::added_token(const Json& entry, Token id, std::string_view content) const {
    AddedToken token{id};
    token.control = flag(entry, "special", false) || ends_reply_by_name(content);
    token.single_word = flag(entry, "single_word", false);
    token.normalized = flag(entry, "normalized", !flag(entry, "special", false));
    token.left_strip = flag(entry, "lstrip", false);
    token.right_strip = flag(entry, "rstrip", false);
    return token;
}

Token find_token(const Vocabulary& v, std::string_view text) {
    const auto at = std::find(v.tokens.begin(), v.tokens.end(), text);
    return at == v.tokens.end() || text.empty() ? -1 : Token(at - v.tokens.begin());
}

void place_token(Vocabulary& v, int64_t id, const std::string& token, size_t most, const std::string& where) {
    if (id < 0 || id >= int64_t(most))
        fail(Errc::format, where, ": token \"", token, "\" has the id ", id, ", beyond anything its ", most / 2,
             " tokens need");
    if (size_t(id) >= v.tokens.size()) {
        v.tokens.resize(size_t(id) + 1);
        v.types.resize(size_t(id) + 1, Vocabulary::Type::unused);
    }
    std::string& slot = v.tokens[size_t(id)];
    if (!slot.empty() && slot != token)
        fail(Errc::format, where, ": id ", id, " is both \"", slot, "\" and \"", token, "\"");
    slot = token;
}

void read_tokenizer_config(const Json& config, Vocabulary& v, const std::optional<std::string>& begin,
                           const std::optional<std::string>& end, const std::string& where) {
    tokenizer_config_room::Reader{{where}, config, v}.read(begin, end);
}

std::vector<AddedToken> add_decoder_tokens(const Json& config, Vocabulary& v, const std::string& where) {
    return tokenizer_config_room::Reader{{where}, config, v}.decoder_tokens();
}

}}  // namespace qlora
