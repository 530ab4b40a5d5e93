// vocabulary_gguf.cpp - a tokenizer.json as the keys that llama.cpp reads. It knows three kinds:
//
//   gpt2   byte-level BPE: tokens, merges, and the name of the expression that cuts text into words
//   llama  SentencePiece's BPE: tokens and scores. A tokenizer.json of that kind lists merges instead, by falling score
//          of their result, so that minus the rank of a token's first merge is a score that merges in the same order.
//   t5     SentencePiece's Unigram: tokens, scores and its normalizer, out of a tokenizer.model.
#include "src/model/vocabulary.h"

#include "src/base/base64.h"
#include "src/model/hf_model.h"
#include "src/text/tiktoken.h"
#include "src/text/tokenizer_model.h"

namespace qlora { inline namespace QLORA_ABI {
namespace vocabulary_gguf_room {

using Type = Vocabulary::Type;
constexpr std::string_view lower_block = "\xE2\x96\x81";               // U+2581, a space in SentencePiece

std::string text_at(const Json& from, std::string_view key) {
    const Json* v = from.find(key);
    return v && v->is_string() ? v->string() : "";
}
bool flag_at(const Json& from, std::string_view key, bool fallback) {
    const Json* v = from.find(key);
    return v && v->is_bool() ? v->boolean() : fallback;
}

// The steps of a normalizer or pre_tokenizer, Sequence or not.
std::vector<const Json*> steps(const Json& tokenizer, std::string_view part, std::string_view list) {
    std::vector<const Json*> out;
    const Json* p = tokenizer.find(part);
    if (!p || p->is_null()) return out;
    const Json* parts = text_at(*p, "type") == "Sequence" ? p->find(list) : nullptr;
    if (!parts) return {p};
    for (const Json& step : parts->array()) out.push_back(&step);
    return out;
}

struct Kind { bool spm = false, space_prefix = false; std::string pre; };

// "llama": spaces become U+2581, one may go in front, characters without a token fall back to bytes.
std::optional<Kind> spm_kind(const Json& model, const std::vector<const Json*>& normal,
                             const std::vector<const Json*>& cut) {
    if (!flag_at(model, "byte_fallback", false) || flag_at(model, "ignore_merges", false)) return {};
    Kind kind;
    kind.spm = true;
    bool replaces = false;
    for (const Json* step : normal) {
        const std::string type = text_at(*step, "type");
        const Json* pattern = step->find("pattern");
        if (type == "Prepend" && text_at(*step, "prepend") == lower_block) kind.space_prefix = true;
        else if (type == "Replace" && pattern && text_at(*pattern, "String") == " " &&
                 text_at(*step, "content") == lower_block)
            replaces = true;
        else return {};
    }
    for (const Json* step : cut) {
        const Json* pattern = step->find("pattern");
        // Gemma's: after the normalizer no space is left to cut at
        if (replaces && text_at(*step, "type") == "Split" && pattern && text_at(*pattern, "String") == " ") continue;
        if (text_at(*step, "type") != "Metaspace" || text_at(*step, "replacement") != lower_block) return {};
        replaces = true;
        kind.space_prefix = kind.space_prefix || text_at(*step, "prepend_scheme") != "never";
    }
    if (!replaces) return {};
    return kind;
}

// "gpt2": the names are those of llama.cpp, by the exact expression. It does not compose characters (NFC), and nobody
// minds.
std::optional<Kind> bpe_kind(const Json& model, const std::vector<const Json*>& normal,
                             const std::vector<const Json*>& cut) {
    if (normal.size() > 1 || (normal.size() == 1 && text_at(*normal[0], "type") != "NFC")) return {};
    if (cut.empty() || text_at(*cut.back(), "type") != "ByteLevel" || flag_at(*cut.back(), "add_prefix_space", true))
        return {};
    const bool whole_words = flag_at(model, "ignore_merges", false), gpt2 = flag_at(*cut.back(), "use_regex", true);
    Kind kind;
    if (cut.size() == 1 && gpt2 && !whole_words) {
        kind.pre = "gpt-2";
    } else if (cut.size() == 2 && gpt2 && !whole_words && text_at(*cut[0], "type") == "Digits" &&
               flag_at(*cut[0], "individual_digits", false)) {
        kind.pre = "smollm";
    } else if (cut.size() == 2 && !gpt2 && text_at(*cut[0], "type") == "Split") {
        const Json* pattern = cut[0]->find("pattern");
        kind.pre = pre_of_regex(pattern ? text_at(*pattern, "Regex") : "", whole_words);
    }
    if (kind.pre.empty()) return {};
    return kind;
}

std::optional<Kind> kind_of(const Json& tokenizer) {
    const Json* model = tokenizer.find("model");
    if (!model || text_at(*model, "type") == "Unigram") return {};
    const auto normal = steps(tokenizer, "normalizer", "normalizers"),
               cut = steps(tokenizer, "pre_tokenizer", "pretokenizers");
    const std::optional<Kind> bpe = bpe_kind(*model, normal, cut);
    return bpe ? bpe : spm_kind(*model, normal, cut);
}

struct Lists { std::vector<std::string> tokens; std::vector<Type> types; std::vector<std::string> merges; };

Lists lists_of(const Json& tokenizer, const Kind& kind, int64_t rows) {
    Lists out{std::vector<std::string>(size_t(rows)), std::vector<Type>(size_t(rows), Type::unused), {}};
    const auto place = [&](const std::string& token, int64_t id, Type type) {
        if (id < 0 || id >= rows) return;              // a token without a row in the embedding can never be used
        out.tokens[size_t(id)] = token;
        out.types[size_t(id)] = type;
    };
    const Json& model = *tokenizer.find("model");
    const std::string unknown = text_at(model, "unk_token");
    for (const auto& [token, id] : model.find("vocab")->object())
        place(token, id.integer(),
              kind.spm && token == unknown            ? Type::unknown
              : kind.spm && byte_of_token(token) >= 0 ? Type::byte
                                                      : Type::normal);
    if (const Json* added = tokenizer.find("added_tokens"))
        for (const Json& entry : added->array()) {
            const std::string token = text_at(entry, "content");
            const bool control = flag_at(entry, "special", false) || ends_reply_by_name(token);
            place(token, entry.find("id")->integer(),
                  kind.spm && token == unknown ? Type::unknown
                  : control                    ? Type::control
                                               : Type::user_defined);
        }
    for (int64_t i = 0; i < rows; ++i)
        // llama.cpp wants a text for every row
        if (out.tokens[size_t(i)].empty()) out.tokens[size_t(i)] = str("[PAD", i, "]");
    for (const Json& merge : model.find("merges")->array())
        out.merges.push_back(merge.is_string() ? merge.string()
                                               : merge.array()[0].string() + " " + merge.array()[1].string());
    return out;
}

// Minus the rank of the first merge that makes a token; what no merge makes (single characters, bytes, control tokens)
// needs none.
Json::Array scores_of(const Lists& lists) {
    std::unordered_map<std::string, int64_t> ranks;
    for (size_t rank = 0; rank < lists.merges.size(); ++rank) {
        std::string whole = lists.merges[rank];
        whole.erase(whole.find(' ', 1), 1);
        ranks.try_emplace(std::move(whole), int64_t(rank));
    }
    Json::Array scores;
    for (const std::string& token : lists.tokens) {
        const auto found = ranks.find(token);
        scores.push_back(Json(found == ranks.end() ? 0.0 : -double(found->second)));
    }
    return scores;
}

struct Keys {                                          // what is written
    std::string kind = {}, pre = {};
    Lists lists = {};
    Json::Array scores = {};                           // of llama and t5
    bool space_prefix = false;
    Token unknown = -1;                                // where tokenizer_config.json need not name it
};

std::optional<Keys> keys_of_json(const Json& json, int64_t rows) {
    const std::optional<Kind> kind = kind_of(json);
    if (!kind) return {};
    Keys keys{kind->spm ? "llama" : "gpt2", kind->spm ? "default" : kind->pre, lists_of(json, *kind, rows)};
    if (kind->spm) keys.scores = scores_of(keys.lists);
    keys.space_prefix = kind->space_prefix;
    return keys;
}

// llama.cpp gives the kind "llama" no normalizer and "t5" no bytes, and knows the names of other expressions.
std::optional<Keys> keys_of_model(const Vocabulary& v, int64_t rows) {
    using VocabularyKind = Vocabulary::Kind;
    const bool bpe = v.kind == VocabularyKind::byte_bpe, unigram = v.kind == VocabularyKind::unigram;
    if (unigram && v.byte_fallback) return {};
    if (v.kind == VocabularyKind::spm && (!v.charsmap.empty() || v.remove_extra_spaces)) return {};
    if (bpe && v.pre == "cl100k") return {};
    Keys keys{bpe ? "gpt2" : unigram ? "t5" : "llama", bpe ? v.pre : "default", {v.tokens, v.types, v.merges}};
    Lists& lists = keys.lists;
    lists.tokens.resize(size_t(rows));
    lists.types.resize(size_t(rows), Type::unused);
    for (int64_t i = 0; i < rows; ++i) {
        std::string& token = lists.tokens[size_t(i)];
        if (token.empty()) token = str("[PAD", i, "]");
        if (!bpe) keys.scores.push_back(Json(size_t(i) < v.scores.size() ? double(v.scores[size_t(i)]) : 0.0));
    }
    keys.space_prefix = v.add_space_prefix;
    keys.unknown = v.unk;
    return keys;
}

void write_normalizer(GgufWriter& out, const Vocabulary& v) {
    using Key = GgufWriter::Type;
    out.set("tokenizer.ggml.remove_extra_whitespaces", Key::boolean, Json(v.remove_extra_spaces));
    if (v.charsmap.empty()) return;
    Json::Array bytes;
    for (const char c : v.charsmap) bytes.push_back(Json(int64_t(uint8_t(c))));
    out.set_array("tokenizer.ggml.precompiled_charsmap", Key::u8, std::move(bytes));
}

}  // namespace vocabulary_gguf_room

void write_tokenizer_model(GgufWriter& out, const TextFiles& files) {
    using Key = GgufWriter::Type;
    out.set("qlora.tokenizer_model", Key::string, Json(base64(files.model)));
    if (!files.form.empty()) out.set("qlora.tokenizer_form", Key::string, Json(files.form));
}

std::optional<TextFiles> gguf_tokenizer_model(const GgufPairs& file) {
    if (!file.pair("qlora.tokenizer_model") || !file.pair("qlora.family")) return {};
    TextFiles files{"", file.string("qlora.tokenizer_config", ""), file.string("tokenizer.chat_template", "")};
    files.form = file.string("qlora.tokenizer_form", "");
    if (!base64_bytes(file.string("qlora.tokenizer_model", ""), files.model))
        fail(Errc::format, "gguf: ", file.path(), ": qlora.tokenizer_model is not base64: the file is damaged");
    return files;
}

std::optional<TextFiles> original_text(const ModelImpl& model) {
    const Metadata& from = *model.metadata;
    if (from.gguf) {
        if (std::optional<TextFiles> files = gguf_tokenizer_model(*from.gguf)) return files;
        if (!from.gguf->pair("tokenizer.huggingface.json") || !from.gguf->pair("qlora.family")) return {};
        return TextFiles{from.gguf->string("tokenizer.huggingface.json", ""),
                         from.gguf->string("qlora.tokenizer_config", ""),
                         from.gguf->string("tokenizer.chat_template", "")};
    }
    const TextFile* file = tokenizer_file(from);
    if (!file) return {};
    const std::string* config = from.file("tokenizer_config.json");
    TextFiles files{"", config ? *config : "", model.tokenizer ? model.tokenizer->chat_template : ""};
    if (file->name == "tokenizer.json") {
        files.tokenizer = file->content;
        return files;
    }
    files.model = file->content;
    files.form = tokenizer_form(from);
    if (from.file("added_tokens.json")) files.config = tokenizer_config_of(from, model.path).dump(2) + "\n";
    return files;
}

bool write_gguf_vocabulary(GgufWriter& out, const TextFiles& files, const ModelImpl& model) {
    namespace room = vocabulary_gguf_room;
    using Key = GgufWriter::Type;
    if (!model.tokenizer) return false;
    const TokenizerImpl& t = *model.tokenizer;    // it has read the same file, so everything in it is known to be there
    const Json config = files.config.empty() ? Json() : Json::parse(files.config, "tokenizer_config.json");
    std::optional<room::Keys> keys;
    if (files.model.empty()) {
        keys = room::keys_of_json(Json::parse(files.tokenizer, "tokenizer.json"), model.config.vocabulary);
    } else {
        const Vocabulary v = read_tokenizer_model(files.model, files.form, config, model.path).vocabulary;
        keys = room::keys_of_model(v, model.config.vocabulary);
        if (keys && v.kind == Vocabulary::Kind::unigram) room::write_normalizer(out, v);
    }
    if (!keys) return false;
    const bool spm = keys->kind != "gpt2";
    Json::Array tokens, types, merges;
    for (const std::string& token : keys->lists.tokens) tokens.push_back(Json(token));
    for (const Vocabulary::Type type : keys->lists.types) types.push_back(Json(int(type)));
    for (const std::string& merge : keys->lists.merges) merges.push_back(Json(merge));
    const auto set_id = [&](const char* key, Token id) {
        if (id >= 0 && id < model.config.vocabulary)
            out.set(std::string("tokenizer.ggml.") + key, Key::u32, Json(int64_t(id)));
    };
    out.set("tokenizer.ggml.model", Key::string, Json(keys->kind));
    out.set("tokenizer.ggml.pre", Key::string, Json(keys->pre));
    out.set_array("tokenizer.ggml.tokens", Key::string, std::move(tokens));
    out.set_array("tokenizer.ggml.token_type", Key::i32, std::move(types));
    if (spm) out.set_array("tokenizer.ggml.scores", Key::f32, std::move(keys->scores));
    else out.set_array("tokenizer.ggml.merges", Key::string, std::move(merges));
    set_id("bos_token_id", t.bos);
    set_id("eos_token_id", t.eos);
    set_id("unknown_token_id", keys->unknown);
    const auto turn = std::find_if(t.end_of_reply.begin(), t.end_of_reply.end(), [&](Token id) { return id != t.eos; });
    // the file has room for one: that of generation_config.json comes first
    if (turn != t.end_of_reply.end()) set_id("eot_token_id", *turn);
    for (const auto& [key, name] :
         {std::pair{"padding_token_id", "pad_token"}, std::pair{"unknown_token_id", "unk_token"}}) {
        const Json* token = config.find(name);
        const std::string text = token && token->is_object() ? room::text_at(*token, "content")
                                                             : room::text_at(config, name);
        if (!text.empty()) set_id(key, t.id_of(text));
    }
    out.set("tokenizer.ggml.add_bos_token", Key::boolean, Json(t.add_bos));
    out.set("tokenizer.ggml.add_eos_token", Key::boolean, Json(t.add_eos));
    if (spm) out.set("tokenizer.ggml.add_space_prefix", Key::boolean, Json(keys->space_prefix));
    return true;
}

}}  // namespace qlora
