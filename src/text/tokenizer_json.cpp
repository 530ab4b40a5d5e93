// tokenizer_json.cpp - Hugging Face's tokenizer.json: the parts that the tokenizers of language models use. Anything
// else is an error that names it, because a step left out would silently give other tokens.
//
//   text -> added tokens cut out -> normalizer -> pre_tokenizer -> BPE -> ids        ids -> decoder -> text
#include "src/base/file.h"
#include "src/text/tokenizer_parts.h"

namespace qlora { inline namespace QLORA_ABI {
namespace tokenizer_json_room {

struct Reader : TokenizerParts {
    const Json& json;
    const Json& config;
    Vocabulary vocabulary{};
    BpeOptions options{};
    DecodeRules decode{};
    std::vector<AddedToken> added{};
    std::optional<std::string> begin_token{}, end_token{};             // of TemplateProcessing

    Reader(const Json& tokenizer, const Json& tokenizer_config, std::string_view file)
        : TokenizerParts{std::string(file)}, json(tokenizer), config(tokenizer_config) {}

    // -- model
    void read_model() {
        const Json* model = get(json, "model");
        if (!model || !model->is_object()) fail(Errc::format, where, ": no \"model\": this is not a tokenizer.json");
        const Json* type = get(*model, "type");
        if (type && type->as_string(name("model.type")) == "Unigram") return read_unigram(*model);
        if (type && type->string() != "BPE") unsupported("model type", type->string());
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

    // The tokens are in the order of their ids, each with its score: [["<unk>", 0.0], ["▁", -2.5], ...]
    void read_unigram(const Json& model) {
        options.byte_fallback = flag(model, "byte_fallback", false);
        const Json::Array& vocab = list(model, "vocab");
        const std::string of_vocab = name("model.vocab");
        double worst = 0;
        for (const Json& entry : vocab) {
            const Json::Array& pair = entry.as_array(of_vocab);
            if (pair.size() != 2) fail(Errc::format, of_vocab, " has ", entry.dump().substr(0, 120));
            vocabulary.tokens.push_back(pair[0].as_string(of_vocab));
            options.scores.push_back(pair[1].as_number(of_vocab));
            worst = std::min(worst, options.scores.back());
        }
        vocabulary.types.assign(vocab.size(), Vocabulary::Type::normal);
        vocabulary.rules += str(hash_bytes(options.scores.data(), int64_t(options.scores.size() * sizeof(double))));
        read_added(vocab.size());
        if (const Json* unk = get(model, "unk_id")) {
            const int64_t id = unk->as_int(name("model.unk_id"));
            if (id < 0 || id >= int64_t(vocab.size()))
                fail(Errc::format, where, ": model.unk_id is ", id, ", there are ", vocab.size(), " tokens");
            vocabulary.unk = Token(id);
        }
    }

    void read_vocab(const Json::Object& vocab) {
        const std::string of_vocab = name("model.vocab");
        for (const auto& [token, id] : vocab) {
            const int64_t at = id.as_int(of_vocab);
            place_token(vocabulary, at, token, most_ids(vocab.size()), where);
            vocabulary.types[size_t(at)] = Vocabulary::Type::normal;
        }
        read_added(vocab.size());
    }

    // ids may have gaps, but not so many that a small file asks for much memory
    size_t most_ids(size_t of_vocab) const {
        const Json* more = get(json, "added_tokens");
        return (of_vocab + (more && more->is_array() ? more->array().size() : 0)) * 2 + 1000;
    }

    void read_added(size_t of_vocab) {
        const Json* more = get(json, "added_tokens");
        const size_t most = most_ids(of_vocab);
        if (!more) return;
        for (const Json& entry : more->as_array(name("added_tokens"))) {
            const std::string content = text(entry, "content");
            const Json* id = get(entry, "id");
            if (!id) fail(Errc::format, where, ": the added token \"", content, "\" has no id");
            const int64_t at = id->as_int(name("added_tokens.id"));
            place_token(vocabulary, at, content, most, where);
            if (content.empty()) continue;
            const AddedToken token = added_token(entry, Token(at), content);
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

    Token find(std::string_view token) const { return find_token(vocabulary, token); }

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

    std::shared_ptr<const TokenizerImpl> read() {
        read_model();
        const bool byte_level = read_tokenizer_steps(get(json, "normalizer"), get(json, "pre_tokenizer"), options,
                                                     where);
        if (byte_level && !options.scores.empty()) unsupported("ByteLevel with the model", "Unigram");
        for (const char* decides : {"normalizer", "pre_tokenizer"})
            if (const Json* part = get(json, decides)) vocabulary.rules += part->dump();
        if (const Json* part = get(json, "post_processor")) read_post_processor(*part);
        const Json* decoder = get(json, "decoder");
        if (decoder) read_decoder(*decoder);
        check_count("decoders", decode.replace.size());
        for (const auto& token : {begin_token, end_token})
            if (token && find(*token) < 0)
                fail(Errc::format, where, ": post_processor adds the token \"", *token, "\", which does not exist");
        read_tokenizer_config(config, vocabulary, begin_token, end_token, where);
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
    tokenizer_json_room::Reader reader(tokenizer, config, where);
    reader.vocabulary.ends = std::move(ends);
    return reader.read();
}

}}  // namespace qlora
