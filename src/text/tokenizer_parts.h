// tokenizer_parts.h - what the readers of tokenizer.json and tokenizer_config.json share.
#pragma once
#include "src/text/bpe.h"

namespace qlora { inline namespace QLORA_ABI {

struct TokenizerParts {
    std::string where;                                 // the file, in errors
    // Absent and null are the same.
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
    const Json::Array& list(const Json& from, std::string_view key) const {
        const Json* found = from.find(key);
        if (!found) fail(Errc::format, where, ": \"", key, "\" is missing in ", from.dump().substr(0, 120));
        return found->as_array(name(key));
    }
    std::string literal(const Json& from, std::string_view of) const {         // {"pattern": {"String": ...}}
        const Json* pattern = get(from, "pattern");
        const Json* string = pattern ? get(*pattern, "String") : nullptr;
        if (!string) unsupported(str(of, " pattern"), pattern ? pattern->dump() : "null");
        constexpr size_t longest = 1024;               // a search takes so many steps for a byte of text at worst
        const std::string& bytes = string->as_string(name("pattern"));
        if (bytes.size() > longest)
            fail(Errc::format, where, ": the pattern of ", of, " has ", bytes.size(), " bytes; ", longest,
                 " are the most");
        return bytes;
    }
    std::string prepend_scheme(const Json& metaspace) const {
        const Json* scheme = get(metaspace, "prepend_scheme");
        if (!scheme) return flag(metaspace, "add_prefix_space", true) ? "always" : "never";
        const std::string& value = scheme->as_string(name("prepend_scheme"));
        if (value != "always" && value != "first" && value != "never") unsupported("prepend_scheme", value);
        return value;
    }
    AddedToken added_token(const Json& entry, Token id, std::string_view content) const;
    // Every step goes over the whole text, and pre-tokenizers call each other.
    void check_count(std::string_view what, size_t count) const {
        constexpr size_t most = 64;
        if (count > most) fail(Errc::format, where, ": ", count, " ", what, ", at most ", most, " are read");
    }
    [[noreturn]] void unsupported(std::string_view what, std::string_view value) const {
        fail(Errc::unsupported, where, ": ", what, " \"", value,
             "\" is not supported; export the tokenizer without it, or use the model's GGUF");
    }
};

Token find_token(const Vocabulary&, std::string_view text);            // -1 = none; for a handful of names

// What tokenizer_config.json (null: there is none) says of the tokens that begin and end a text, and the chat template.
// begin, end: those that tokenizer.json puts there. What it does not say stays as the vocabulary has it.
void read_tokenizer_config(const Json& config, Vocabulary&, const std::optional<std::string>& begin,
                           const std::optional<std::string>& end, const std::string& where);

// Its added_tokens_decoder, into a vocabulary that may have them already or grows.
std::vector<AddedToken> add_decoder_tokens(const Json& config, Vocabulary&, const std::string& where);

// A token at an id, which must be free or have that text. most: ids beyond are refused.
void place_token(Vocabulary&, int64_t id, const std::string& token, size_t most, const std::string& where);

// The normalizer and pre_tokenizer of a tokenizer.json (null: none). True: symbols are bytes (ByteLevel).
bool read_tokenizer_steps(const Json* normalizer, const Json* pre_tokenizer, BpeOptions&, const std::string& where);

}}  // namespace qlora
