// vocabulary_hf.cpp - a GGUF vocabulary as tokenizer.json and tokenizer_config.json.
//
// Byte-level BPE has its merges in both; its name stands for a regular expression, which is written out.
// SentencePiece's BPE merges any two neighbours whose text is a token, best score first: as a list of merges that is
// every way to cut a token into two tokens, by falling score.
#include "src/model/gguf_model.h"
#include "src/model/vocabulary.h"
#include "src/text/pretokenize.h"
#include "src/text/token_cuts.h"

#include <algorithm>
#include <numeric>

namespace qlora { inline namespace QLORA_ABI {
namespace vocabulary_hf_room {

using Type = Vocabulary::Type;
constexpr const char* lower_block = "\xE2\x96\x81";    // U+2581, a space in SentencePiece

// {"type": ..., key: value, ...}
Json step(const char* type, std::initializer_list<Json::Member> rest = {}) {
    Json::Object o{{"type", Json(type)}};
    o.insert(o.end(), rest);
    return Json(std::move(o));
}
Json byte_level(bool regex) {
    return step("ByteLevel", {{"add_prefix_space", false}, {"trim_offsets", false}, {"use_regex", regex}});
}
Json list(std::initializer_list<Json> steps, const char* name) {
    return step("Sequence", {{name, Json(Json::Array(steps))}});
}
Json pattern(const char* kind, std::string_view text) { return Json(Json::Object{{kind, Json(text)}}); }

Json pre_tokenizer(const std::string& pre, const std::string& where) {
    if (family_of_pre(pre) == "smollm")
        return list({step("Digits", {{"individual_digits", true}}), byte_level(true)}, "pretokenizers");
    const std::string_view regex = regex_of_pre(pre);
    if (regex.empty())
        fail(Errc::unsupported, "save: ", where, ": the pre-tokenizer \"", pre,
             "\" has no counterpart in a tokenizer.json; "
             "save a GGUF file, or load the original Hugging Face folder");
    if (family_of_pre(pre) == "gpt-2") return byte_level(true);
    return list({step("Split", {{"pattern", pattern("Regex", regex)}, {"behavior", "Isolated"}, {"invert", false}}),
                 byte_level(false)},
                "pretokenizers");
}

struct Ids {                                           // text -> id, the first of equals
    std::unordered_map<std::string_view, Token> ids;
    explicit Ids(const Vocabulary& v) {
        for (size_t i = 0; i < v.tokens.size(); ++i) ids.emplace(v.tokens[i], Token(i));
    }
    Token find(std::string_view text) const {
        const auto it = ids.find(text);
        return it == ids.end() ? -1 : it->second;
    }
};

Type type_of(const Vocabulary& v, Token id) { return v.types.empty() ? Type::normal : v.types[size_t(id)]; }

Json merge(std::string_view left, std::string_view right) { return Json(Json::Array{Json(left), Json(right)}); }

// As listed, without those that a tokenizer.json may not have: of parts that are no tokens.
Json::Array bpe_merges(const Vocabulary& v, const Ids& ids) {
    Json::Array out;
    for (const std::string& m : v.merges) {
        const size_t space = m.find(' ', 1);
        if (space == m.npos) continue;
        const std::string left = m.substr(0, space), right = m.substr(space + 1);
        if (ids.find(left) >= 0 && ids.find(right) >= 0 && ids.find(left + right) >= 0)
            out.push_back(merge(left, right));
    }
    return out;
}

Json::Array spm_merges(const Vocabulary& v, const Ids& ids, const std::string& where) {
    const auto made_by_merging = [&](Token id) {
        return id >= 0 && (type_of(v, id) == Type::normal || type_of(v, id) == Type::unused);
    };
    std::vector<Token> order(v.tokens.size());
    std::iota(order.begin(), order.end(), 0);
    if (!v.scores.empty())
        std::stable_sort(order.begin(), order.end(),
                         [&](Token a, Token b) { return v.scores[size_t(a)] > v.scores[size_t(b)]; });
    Json::Array out;
    TokenCuts cuts(v.tokens, where);
    for (const Token id : order) {
        const std::string_view text = v.tokens[size_t(id)];
        if (!made_by_merging(id) || ids.find(text) != id) continue;
        cuts.each(text, [&](std::string_view left, std::string_view right) {
            if (!made_by_merging(ids.find(left)) || !made_by_merging(ids.find(right))) return false;
            out.push_back(merge(left, right));
            return true;
        });
    }
    return out;
}

Json model(const Vocabulary& v, const std::string& where) {
    const bool spm = v.kind == Vocabulary::Kind::spm;
    const Ids ids(v);
    Json::Object vocab;
    for (size_t i = 0; i < v.tokens.size(); ++i)
        if (ids.find(v.tokens[i]) == Token(i)) vocab.emplace_back(v.tokens[i], Json(int64_t(i)));
    return step("BPE", {{"dropout", nullptr},
                        {"unk_token", spm && v.unk >= 0 ? Json(v.tokens[size_t(v.unk)]) : Json()},
                        {"continuing_subword_prefix", nullptr},
                        {"end_of_word_suffix", nullptr},
                        {"fuse_unk", spm},
                        {"byte_fallback", spm},
                        {"ignore_merges", v.ignore_merges},
                        {"vocab", Json(std::move(vocab))},
                        {"merges", Json(spm ? spm_merges(v, ids, where) : bpe_merges(v, ids))}});
}

Json added_tokens(const Vocabulary& v) {
    Json::Array out;
    for (size_t i = 0; i < v.tokens.size(); ++i) {
        const Type type = type_of(v, Token(i));
        if (type != Type::control && type != Type::unknown && type != Type::user_defined) continue;
        out.push_back(Json(Json::Object{{"id", int64_t(i)},
                                        {"content", v.tokens[i]},
                                        {"single_word", false},
                                        {"lstrip", false},
                                        {"rstrip", false},
                                        {"normalized", false},
                                        {"special", type != Type::user_defined}}));
    }
    return Json(std::move(out));
}

// What goes in front of and behind a text.
Json post_processor(const Vocabulary& v) {
    const Token begin = v.add_bos ? v.bos : -1, end = v.add_eos ? v.eos : -1;
    if (begin < 0 && end < 0) return v.kind == Vocabulary::Kind::spm ? Json() : byte_level(false);
    Json::Array single, pair;
    Json special{Json::Object{}};
    const auto put = [&](Json::Array& to, Token id, int type) {
        if (id < 0) return;
        const std::string& text = v.tokens[size_t(id)];
        to.push_back(Json(Json::Object{{"SpecialToken", Json(Json::Object{{"id", text}, {"type_id", type}})}}));
        special.set(text,
                    Json(Json::Object{
                        {"id", text}, {"ids", Json(Json::Array{int64_t(id)})}, {"tokens", Json(Json::Array{text})}}));
    };
    for (const char* name : {"A", "B"}) {
        const int type = *name - 'A';
        for (Json::Array* to : {&single, &pair}) {
            if (to == &single && type) continue;
            put(*to, begin, type);
            to->push_back(Json(Json::Object{{"Sequence", Json(Json::Object{{"id", name}, {"type_id", type}})}}));
            put(*to, end, type);
        }
    }
    return step(
        "TemplateProcessing",
        {{"single", Json(std::move(single))}, {"pair", Json(std::move(pair))}, {"special_tokens", std::move(special)}});
}

Json tokenizer(const Vocabulary& v, const std::string& where) {
    Json j;
    j.set("version", "1.0").set("truncation", nullptr).set("padding", nullptr).set("added_tokens", added_tokens(v));
    if (v.kind == Vocabulary::Kind::spm) {
        const Json spaces = step("Replace", {{"pattern", pattern("String", " ")}, {"content", lower_block}}),
                   back = step("Replace", {{"pattern", pattern("String", lower_block)}, {"content", " "}});
        const Json front = step("Prepend", {{"prepend", lower_block}}),
                   strip = step("Strip", {{"content", " "}, {"start", 1}, {"stop", 0}});
        j.set("normalizer", v.add_space_prefix ? list({front, spaces}, "normalizers") : spaces)
            .set("pre_tokenizer", nullptr)
            .set("post_processor", post_processor(v));
        j.set("decoder", v.add_space_prefix ? list({back, step("ByteFallback"), step("Fuse"), strip}, "decoders")
                                            : list({back, step("ByteFallback"), step("Fuse")}, "decoders"));
    } else {
        // Qwen's own files have it, GGUF has no field for it
        j.set("normalizer", v.pre == "qwen2" ? step("NFC") : Json());
        j.set("pre_tokenizer", pre_tokenizer(v.pre, where))
            .set("post_processor", post_processor(v))
            .set("decoder", byte_level(true));
    }
    return j.set("model", model(v, where));
}

Json config(const Vocabulary& v, int64_t context) {
    Json j;
    j.set("tokenizer_class", "PreTrainedTokenizerFast")
        .set("add_bos_token", v.add_bos)
        .set("add_eos_token", v.add_eos)
        .set("clean_up_tokenization_spaces", false)
        .set("model_max_length", context);
    for (const auto& [key, id] : {std::pair{"bos_token", v.bos}, std::pair{"eos_token", v.eos},
                                  std::pair{"unk_token", v.unk}, std::pair{"pad_token", v.pad}})
        if (id >= 0) j.set(key, Json(v.tokens[size_t(id)]));
    return j;
}

}  // namespace vocabulary_hf_room

TextFiles hf_vocabulary(const ModelImpl& model) {
    namespace room = vocabulary_hf_room;
    const Vocabulary v = gguf_vocabulary(*model.metadata->gguf);
    if (v.kind == Vocabulary::Kind::unigram)
        fail(Errc::unsupported, "save: ", model.path,
             ": a vocabulary of kind t5 has no counterpart in a tokenizer.json; "
             "save a GGUF file, or load the original Hugging Face folder");
    return {room::tokenizer(v, model.path).dump() + "\n", room::config(v, model.config.context).dump(2) + "\n",
            v.chat_template};
}

}}  // namespace qlora
