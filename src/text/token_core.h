// token_core.h - what every tokenizer shares: the vocabulary, the tokens that are cut out of the text before anything
// else, decoding.
#pragma once
#include "src/text/merge.h"
#include "src/text/normalize.h"
#include "src/text/pretokenize.h"
#include "src/text/tokenizer.h"

#include <unordered_map>

namespace qlora { inline namespace QLORA_ABI {

struct AddedToken {    // found in the text as it is written, whatever the model would make of it
    Token id = -1;
    bool control = false;                              // only in template text
    // looked for, in its normal form, in what the normalizers made of the text between the others
    bool normalized = false;
    // whole words only; takes the white space beside it along
    bool single_word = false, left_strip = false, right_strip = false;
};

class TokenTrie {                                      // the longest of many strings at a position
public:
    explicit TokenTrie(const std::vector<std::pair<std::string_view, int32_t>>& strings = {});
    struct Match { int32_t value = -1; size_t length = 0; };
    Match longest(std::string_view text, size_t at) const;
    // f(value, end) for every string that the text has at `at`, the shortest first
    template <class F>
    void each(std::string_view text, size_t at, const F& f) const {
        int32_t node = 0;
        for (size_t i = at; i < text.size();) {
            const MergeRule edge = edges_(node, uint8_t(text[i]));
            if (edge.rank < 0) break;
            node = edge.id;
            ++i;
            if (values_[size_t(node)] >= 0) f(values_[size_t(node)], i);
        }
    }
    bool empty() const { return values_.size() == 1; }
private:
    MergeTable edges_;                                 // (node, byte) -> node
    std::vector<int32_t> values_;                      // by node; -1: no string ends here
    bool starts_[256] = {};
};

struct DecodeRules {                                   // from the text of a token to its bytes
    bool byte_level = false;                           // GPT-2's alphabet of bytes
    bool byte_tokens = false;                          // "<0x0A>" is the byte 10
    std::vector<std::pair<std::string, std::string>> replace;          // U+2581 -> " "
    bool joined = false;    // no decoder: tokens as they are spelled, a space between each two
    int64_t strip_left = 0, strip_right = 0;           // up to so many spaces off the ends of the whole text
};

std::string byte_level_text(std::string_view bytes);   // bytes in GPT-2's alphabet, as UTF-8
std::string byte_level_bytes(std::string_view text);   // back; a text with other characters stays as it is
int byte_of_token(std::string_view token);             // "<0x0A>" -> 10; -1 for every other text
std::string token_of_byte(int byte);                   // 10 -> "<0x0A>"
bool ends_reply_by_name(std::string_view token);       // "<|im_end|>", "<|eot_id|>", ...
// most: bytes, see check_grown
std::string replace_all(std::string text, std::string_view from, std::string_view to, size_t most);

// SPM-style text is one long word. It may be cut before every U+2581 that follows another character x, without changing
// a single id, as long as no token contains x followed by U+2581: no merge can then reach across.
WordScanner scan_before_spaces(const std::vector<std::string>& tokens);

class WordMemory {    // words met before in this segment: where in `out` their tokens stand
public:
    explicit WordMemory(Tokens& out) : out_(out) {}
    bool repeat(std::string_view word) {               // appends the tokens of a known word
        check_stop();
        const auto known = word.size() > longest ? seen_.end() : seen_.find(word);
        if (known == seen_.end()) return false;
        for (size_t i = 0; i < known->second.second; ++i) out_.push_back(out_[known->second.first + i]);
        return true;
    }
    void remember(std::string_view word, size_t from) {
        if (word.size() <= longest && seen_.size() < most) seen_.emplace(word, std::pair(from, out_.size() - from));
    }
private:
    static constexpr size_t longest = 32, most = 1 << 16;              // longer words rarely come twice; some 5 MB
    Tokens& out_;
    std::unordered_map<std::string_view, std::pair<size_t, size_t>> seen_;
};

class TokenCore : public TokenizerImpl {
public:
    TokenCore(Vocabulary vocabulary, DecodeRules decode, std::string_view where);
    void encode(std::string_view text, Tokens& out) const final;
    void encode_template(std::string_view text, Tokens& out) const final;
    void encode_rendered(std::string_view text, std::span<const RenderedTemplate::Span> literal, Tokens& out,
                         std::vector<int64_t>* starts) const final;
    bool is_control(Token id) const final;
    int64_t count_control(std::string_view text) const final;
    std::string piece(Token, bool control) const final;
    std::string decode(std::span<const Token> tokens, bool control) const final;
    int64_t size() const final { return int64_t(vocabulary_.tokens.size()); }
    Token id_of(std::string_view token) const final;
protected:
    virtual void normalize(NormalText&) const {}
    // One stretch of normalized text without added tokens. first: nothing of the text precedes it.
    virtual void encode_segment(std::string_view text, bool first, Tokens& out) const = 0;
    void set_added(std::vector<AddedToken> added);     // replaces those that the types of the vocabulary give
    Vocabulary::Type type_of(Token id) const {
        return vocabulary_.types.empty() ? Vocabulary::Type::normal : vocabulary_.types[size_t(id)];
    }

    std::string where_;
    Vocabulary vocabulary_;
    std::unordered_map<std::string_view, Token> ids_;  // into vocabulary_.tokens
private:
    struct Found { size_t begin = 0, end = 0; const AddedToken* token = nullptr; };
    struct Added { TokenTrie all, text_only; };        // values index added_
    using Literal = std::span<const RenderedTemplate::Span>;
    // text came from the bytes at `begin`
    struct Stretch { std::string_view text; size_t begin = 0; const NormalText* normal = nullptr; };
    Found find_added(const Added&, const Stretch&, size_t from, bool controls, Literal literal) const;
    void collect_end_of_reply();
    void check_ends() const;
    void split(std::string_view text, bool controls, Literal literal, Tokens& out, std::vector<int64_t>* starts) const;
    void add_segment(std::string_view segment, size_t begin, bool controls, Literal literal, Tokens& out,
                     std::vector<int64_t>* starts) const;
    // token_starts.cpp
    void add_starts(const Stretch& piece, size_t at, std::span<const Token> tokens, std::vector<int64_t>& starts) const;
    const std::string& spelled(Token) const;
    std::string covered(Token) const;    // the bytes of normalized text that a token which is none of added_ stands for
    DecodeRules decode_;
    std::vector<AddedToken> added_;
    // of added tokens that are looked for in another form: how they print
    std::unordered_map<Token, std::string> normal_forms_;
    Added raw_, normal_;
};

}}  // namespace qlora
