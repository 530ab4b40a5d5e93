// tokenizer_json.cpp - Hugging Face's tokenizer.json: the parts that the tokenizers of language models use. Anything
// else is an error that names it, because a step left out would silently give other tokens.
//
//   text -> added tokens cut out -> normalizer -> pre_tokenizer -> BPE -> ids        ids -> decoder -> text
#include "src/text/bpe.h"

namespace qlora { inline namespace QLORA_ABI {
namespace tokenizer_json_room {

inline bool starts_with(std::string_view text, std::string_view front) { return text.substr(0, front.size()) == front; }

struct Reader {
    const Json& json;
    const Json& config;
    std::string where;
    Vocabulary vocabulary{};
    BpeOptions options{};
    DecodeRules decode{};
    std::vector<AddedToken> added{};
    bool byte_level = false;                           // ByteLevel has been met: nothing may follow it
    std::optional<std::string> begin_token{}, end_token{};             // of TemplateProcessing

    // -- access: absent and null are the same.
    static const Json* get(const Json& from, std::string_view key) {
        const Json* found = from.find(key);
        return found && !found->is_null() ? found : nullptr;
    }
    std::string name(std::string_view key) const { return str(where, ": ", key); }
    bool flag(const Json& from, std::string_view key, bool fallback) const {
        const Json* found = get(from, key);
        return found ? found->as_bool(name(key)) : fallback;
    }
    std::string text(const Json& from, std::string_view key) const {
        const Json* found = from.find(key);
        if (!found) fail(Errc::format, where, ": \"", key, "\" is missing in ", from.dump().substr(0, 120));
        return found->as_string(name(key));
    }
    [[noreturn]] void unsupported(std::string_view what, std::string_view value) const {
        fail(Errc::unsupported, where, ": ", what, " \"", value,
             "\" is not supported; export the tokenizer without it, or use the model's GGUF");
    }

    // -- model
    void read_model() {
        const Json* model = get(json, "model");
        if (!model || !model->is_object()) fail(Errc::format, where, ": no \"model\": this is not a tokenizer.json");
        if (const Json* type = get(*model, "type"); type && type->as_string(name("model.type")) != "BPE")
            unsupported("model type", type->string());
        if (const Json* dropout = get(*model, "dropout"); dropout && dropout->as_number(name("model.dropout")) != 0)
            unsupported("model option", "dropout");
        for (const char* affix : {"continuing_subword_prefix", "end_of_word_suffix"})
            if (const Json* found = get(*model, affix); found && !found->as_string(name(affix)).empty())
                unsupported("model option", affix);
        options.byte_fallback = flag(*model, "byte_fallback", false);
        options.fuse_unknown = flag(*model, "fuse_unk", false);
        vocabulary.ignore_merges = flag(*model, "ignore_merges", false);
        const Json *vocab = get(*model, "vocab"), *merges = get(*model, "merges");
        if (!vocab || !merges) fail(Errc::format, where, ": model.", vocab ? "merges" : "vocab", " is missing");
        read_vocab(vocab->as_object(name("model.vocab")));
        read_merges(merges->as_array(name("model.merges")));
        if (const Json* unk = get(*model, "unk_token")) vocabulary.unk = find(unk->as_string(name("model.unk_token")));
    }

    void place(int64_t id, const std::string& token, size_t most) {
        if (id < 0 || id >= int64_t(most))
            fail(Errc::format, where, ": token \"", token, "\" has the id ", id, ", beyond anything its ", most / 2,
                 " tokens need");
        if (size_t(id) >= vocabulary.tokens.size()) {
            vocabulary.tokens.resize(size_t(id) + 1);
            vocabulary.types.resize(size_t(id) + 1, Vocabulary::Type::unused);
        }
        std::string& slot = vocabulary.tokens[size_t(id)];
        if (!slot.empty() && slot != token)
            fail(Errc::format, where, ": id ", id, " is both \"", slot, "\" and \"", token, "\"");
        slot = token;
    }

    void read_vocab(const Json::Object& vocab) {
        const Json* more = get(json, "added_tokens");
        const size_t count = vocab.size() + (more && more->is_array() ? more->array().size() : 0);
        // ids may have gaps, but not so many that a small file asks for much memory
        const size_t most = count * 2 + 1000;
        const std::string of_vocab = name("model.vocab");
        for (const auto& [token, id] : vocab) {
            const int64_t at = id.as_int(of_vocab);
            place(at, token, most);
            vocabulary.types[size_t(at)] = Vocabulary::Type::normal;
        }
        if (!more) return;
        for (const Json& entry : more->as_array(name("added_tokens"))) {
            const std::string content = text(entry, "content");
            const Json* id = get(entry, "id");
            if (!id) fail(Errc::format, where, ": the added token \"", content, "\" has no id");
            const int64_t at = id->as_int(name("added_tokens.id"));
            place(at, content, most);
            if (content.empty()) continue;
            AddedToken token{Token(at)};
            token.control = flag(entry, "special", false) || ends_reply_by_name(content);
            token.single_word = flag(entry, "single_word", false);
            token.normalized = flag(entry, "normalized", !flag(entry, "special", false));
            token.left_strip = flag(entry, "lstrip", false);
            token.right_strip = flag(entry, "rstrip", false);
            vocabulary.types[size_t(token.id)] = token.control ? Vocabulary::Type::control
                                                               : Vocabulary::Type::user_defined;
            added.push_back(token);
        }
    }

    void read_merges(const Json::Array& merges) {
        const std::string of_merges = name("model.merges");
        vocabulary.merges.reserve(merges.size());
        for (const Json& merge : merges) {
            if (merge.is_string()) {
                vocabulary.merges.push_back(merge.string());
                continue;
            }
            const Json::Array& parts = merge.as_array(of_merges);
            if (parts.size() != 2)
                fail(Errc::format, where, ": a merge of ", parts.size(), " parts: ", merge.dump().substr(0, 120));
            const std::string& left = parts[0].as_string(of_merges);
            if (left.find(' ', 1) != std::string::npos) unsupported("a space inside the merge part", left);
            vocabulary.merges.push_back(left + " " + parts[1].as_string(of_merges));
        }
    }

    Token find(std::string_view token) const {         // used for a handful of names
        const auto at = std::find(vocabulary.tokens.begin(), vocabulary.tokens.end(), token);
        return at == vocabulary.tokens.end() ? -1 : Token(at - vocabulary.tokens.begin());
    }

    // -- normalizer
    void read_normalizer(const Json& n) {
        const std::string type = text(n, "type");
        if (type == "Sequence") {
            for (const Json& part : list(n, "normalizers")) read_normalizer(part);
        } else if (type == "NFC") {
            options.normalizers.push_back([](NormalText& t) { t.compose(); });
        } else if (type == "Lowercase") {
            options.normalizers.push_back([](NormalText& t) { t.lower(); });
        } else if (type == "Replace") {
            options.normalizers.push_back(
                [from = literal(n, "Replace"), to = text(n, "content")](NormalText& t) { t.replace(from, to); });
        } else if (type == "Prepend") {
            options.normalizers.push_back([front = text(n, "prepend")](NormalText& t) { t.prepend(front); });
        } else if (type == "Strip") {
            options.normalizers.push_back([left = flag(n, "strip_left", true), right = flag(n, "strip_right", true)](
                                              NormalText& t) { t.strip(left, right); });
        } else {
            unsupported("normalizer", type);
        }
    }

    const Json::Array& list(const Json& from, std::string_view key) const {
        const Json* found = from.find(key);
        if (!found) fail(Errc::format, where, ": \"", key, "\" is missing in ", from.dump().substr(0, 120));
        return found->as_array(name(key));
    }

    std::string literal(const Json& from, std::string_view of) const {         // {"pattern": {"String": ...}}
        const Json* pattern = get(from, "pattern");
        const Json* string = pattern ? get(*pattern, "String") : nullptr;
        if (!string) unsupported(str(of, " pattern"), pattern ? pattern->dump() : "null");
        return string->as_string(name("pattern"));
    }

    // -- pre_tokenizer
    void read_pre_tokenizer(const Json& p) {
        const std::string type = text(p, "type");
        if (byte_level) unsupported("a pre-tokenizer after ByteLevel:", type);
        if (type == "Sequence") {
            for (const Json& part : list(p, "pretokenizers")) read_pre_tokenizer(part);
        } else if (type == "ByteLevel") {
            byte_level = true;
            if (flag(p, "add_prefix_space", true)) {
                if (!options.words.empty())
                    unsupported("ByteLevel.add_prefix_space after another pre-tokenizer:", "true");
                options.changes.push_back([](std::string& s, bool) {
                    if (!s.empty() && s[0] != ' ') s.insert(0, 1, ' ');
                });
            }
            if (flag(p, "use_regex", true)) options.words.push_back(scan_gpt2);
        } else if (type == "Split") {
            read_split(p);
        } else if (type == "Digits") {
            options.words.push_back(flag(p, "individual_digits", false) ? scan_digit : scan_digits);
        } else if (type == "Metaspace") {
            read_metaspace(p);
        } else {
            unsupported("pre-tokenizer", type);
        }
    }

    void read_split(const Json& p) {
        const std::string behavior = text(p, "behavior");
        const bool invert = flag(p, "invert", false);
        const Json* pattern = get(p, "pattern");
        if (const Json* regex = pattern ? get(*pattern, "Regex") : nullptr) {
            const std::string& source = regex->as_string(name("Split.pattern"));
            const WordScanners known = word_scanners_of_regex(source);
            if (known.empty()) unsupported("the regular expression of Split", source);
            // Keeping only the matches is the same as isolating them if they leave nothing out, as those ending in |\s+
            // do.
            const bool covers = source.size() > 4 && source.substr(source.size() - 4) == R"(|\s+)";
            if (!(behavior == "Isolated" && !invert) && !(behavior == "Removed" && invert && covers))
                unsupported("Split behavior", behavior);
            options.words.insert(options.words.end(), known.begin(), known.end());
            return;
        }
        const std::string at = literal(p, "Split");
        if (invert) unsupported("Split.invert with the string", at);
        if (at.empty()) unsupported("Split pattern", "");
        options.words.push_back(split_scanner(at, behavior));
    }

    WordScanner split_scanner(const std::string& mark, const std::string& behavior) const {
        const auto next = [](std::string_view s, std::string_view m, size_t from) {
            return std::min(s.find(m, from), s.size());
        };
        if (behavior == "Isolated" || behavior == "Contiguous")
            return [mark, next, run = behavior == "Contiguous"](std::string_view s, size_t at) {
                size_t end = at;
                while (starts_with(s.substr(end), mark)) {
                    end += mark.size();
                    if (!run) break;
                }
                return end > at ? end : next(s, mark, at);
            };
        if (behavior == "MergedWithPrevious")
            return [mark, next](std::string_view s, size_t at) {
                return std::min(next(s, mark, at) + mark.size(), s.size());
            };
        if (behavior == "MergedWithNext")
            return [mark, next](std::string_view s, size_t at) {
                return next(s, mark, at + (starts_with(s.substr(at), mark) ? mark.size() : 0));
            };
        unsupported("Split behavior", behavior);
    }

    // Spaces become the mark; in front goes another, always or only where the text begins; words begin with the mark.
    void read_metaspace(const Json& p) {
        if (!options.words.empty()) unsupported("Metaspace after another pre-tokenizer:", "Metaspace");
        const std::string mark = text(p, "replacement"), scheme = prepend_scheme(p);
        if (mark.empty()) unsupported("Metaspace replacement", "");
        options.changes.push_back([mark, scheme](std::string& s, bool first) {
            s = replace_all(std::move(s), " ", mark);
            if ((scheme == "always" || (scheme == "first" && first)) && !starts_with(s, mark)) s.insert(0, mark);
        });
        if (flag(p, "split", true)) options.words.push_back(split_scanner(mark, "MergedWithNext"));
    }

    std::string prepend_scheme(const Json& p) const {
        const Json* scheme = get(p, "prepend_scheme");
        if (!scheme) return flag(p, "add_prefix_space", true) ? "always" : "never";
        const std::string& value = scheme->as_string(name("prepend_scheme"));
        if (value != "always" && value != "first" && value != "never") unsupported("prepend_scheme", value);
        return value;
    }

    // -- post_processor: only what goes before and after a single text
    void read_post_processor(const Json& p) {
        const std::string type = text(p, "type");
        if (type == "Sequence") {
            for (const Json& part : list(p, "processors")) read_post_processor(part);
        } else if (type == "TemplateProcessing") {
            bool after = false;
            for (const Json& item : list(p, "single")) {
                if (item.find("Sequence")) {
                    after = true;
                    continue;
                }
                const Json* special = get(item, "SpecialToken");
                if (!special) fail(Errc::format, where, ": TemplateProcessing has ", item.dump().substr(0, 120));
                std::optional<std::string>& slot = after ? end_token : begin_token;
                if (slot)
                    unsupported("TemplateProcessing with several special tokens on one side, among them",
                                text(*special, "id"));
                slot = text(*special, "id");
            }
        } else if (type != "ByteLevel") {
            unsupported("post-processor", type);
        }
    }

    // -- decoder
    void read_decoder(const Json& d) {
        const std::string type = text(d, "type");
        if (type == "Sequence") {
            for (const Json& part : list(d, "decoders")) read_decoder(part);
        } else if (type == "ByteLevel") {
            decode.byte_level = true;
        } else if (type == "Replace") {
            decode.replace.emplace_back(literal(d, "Replace"), text(d, "content"));
        } else if (type == "ByteFallback") {
            decode.byte_tokens = true;
        } else if (type == "Strip") {
            if (text(d, "content") != " ") unsupported("decoder Strip of", text(d, "content"));
            const auto count = [&](const char* key) {
                const Json* n = get(d, key);
                const int64_t value = n ? n->as_int(name(key)) : 0;
                if (value < 0 || value > 1000) fail(Errc::format, name(key), " of the decoder Strip is ", value);
                return value;
            };
            decode.strip_left = count("start");
            decode.strip_right = count("stop");
        } else if (type == "Metaspace") {
            decode.replace.emplace_back(text(d, "replacement"), " ");
            decode.strip_left = prepend_scheme(d) == "never" ? 0 : 1;
        } else if (type != "Fuse") {
            unsupported("decoder", type);
        }
    }

    // -- tokenizer_config.json
    std::string config_token(std::string_view key) const {    // "<s>" or {"content": "<s>", ...}; "" when absent
        const Json* found = get(config, key);
        if (found && found->is_object()) found = get(*found, "content");
        return found ? found->as_string(in_config(key)) : "";
    }
    std::string in_config(std::string_view key) const { return str(where, ": tokenizer_config.json: ", key); }

    void read_config() {
        Vocabulary& v = vocabulary;
        if (!config.is_null()) config.as_object(in_config("the file"));
        for (const auto& token : {begin_token, end_token})
            if (token && find_named(*token) < 0)
                fail(Errc::format, where, ": post_processor adds the token \"", *token, "\", which does not exist");
        v.bos = find_named(config_token("bos_token"));
        const std::string eos = config_token("eos_token");
        v.eos = find_named(eos);
        if (v.eos < 0 && !eos.empty())
            fail(Errc::format, in_config("eos_token"), " is \"", eos,
                 "\", which is not in the vocabulary: the model would never end a text");
        v.pad = find_named(config_token("pad_token"));
        if (v.bos < 0 && begin_token) v.bos = find_named(*begin_token);
        if (v.eos < 0 && end_token) v.eos = find_named(*end_token);
        if (v.eos < 0 && config.is_null())             // the file stands alone: it does not say which token ends a text
            for (const char* usual : {"</s>", "<eos>", "<|end_of_text|>", "<|endoftext|>", "<|im_end|>"})
                if (v.eos < 0) v.eos = find_named(usual);
        v.add_bos = flag(config, "add_bos_token", begin_token.has_value());
        v.add_eos = flag(config, "add_eos_token", end_token.has_value());
        const Json* chat = get(config, "chat_template");
        if (chat && chat->is_string()) v.chat_template = chat->string();
        else if (chat)
            for (const Json& entry : chat->as_array(in_config("chat_template")))
                if (text(entry, "name") == "default") v.chat_template = text(entry, "template");
    }
    Token find_named(const std::string& token) const { return token.empty() ? -1 : find(token); }

    std::shared_ptr<const TokenizerImpl> read() {
        read_model();
        if (const Json* part = get(json, "normalizer")) read_normalizer(*part);
        if (const Json* part = get(json, "pre_tokenizer")) read_pre_tokenizer(*part);
        for (const char* decides : {"normalizer", "pre_tokenizer"})
            if (const Json* part = get(json, decides)) vocabulary.rules += part->dump();
        if (const Json* part = get(json, "post_processor")) read_post_processor(*part);
        const Json* decoder = get(json, "decoder");
        if (decoder) read_decoder(*decoder);
        read_config();
        options.byte_level = byte_level;
        options.strict = true;
        if (byte_level) decode.byte_level = true;
        decode.joined = !decoder;
        decode.strip_left = decoder ? decode.strip_left : 1;
        if (!decoder)
            vocabulary.notes.push_back(where +
                                       " has no decoder: tokens are printed as they are spelled, with spaces between "
                                       "them, as the tokenizers library does");
        return make_bpe(std::move(vocabulary), std::move(options), std::move(decode), std::move(added), where);
    }
};

}  // namespace tokenizer_json_room

std::shared_ptr<const TokenizerImpl> load_tokenizer_json(const Json& tokenizer, const Json& config,
                                                         std::string_view where, std::vector<Token> ends) {
    tokenizer_json_room::Reader reader{tokenizer, config, std::string(where)};
    reader.vocabulary.ends = std::move(ends);
    return reader.read();
}

}}  // namespace qlora
