// spm.cpp - SentencePiece's BPE as GGUF stores it: neighbours merge if their text is a token, the one with the highest
// score first. A space is U+2581; characters that are no token become the tokens of their bytes.
#include "src/text/bpe.h"

#include <cmath>

namespace qlora { inline namespace QLORA_ABI {
namespace spm_room {

constexpr std::string_view lower_block = "\xE2\x96\x81";               // U+2581

inline DecodeRules decode_rules(const Vocabulary& v) {
    DecodeRules rules;
    rules.byte_tokens = true;
    rules.replace = {{std::string(lower_block), " "}};
    rules.strip_left = v.add_space_prefix ? 1 : 0;
    return rules;
}

class SpmTokenizer final : public TokenCore {
public:
    SpmTokenizer(Vocabulary vocabulary, DecodeRules decode, std::string_view where)
        : TokenCore(std::move(vocabulary), std::move(decode), where) {
        std::fill(byte_ids_, byte_ids_ + 256, -1);
        for (size_t i = 0; i < vocabulary_.tokens.size(); ++i) {
            const int byte = byte_of_token(vocabulary_.tokens[i]);
            if (byte >= 0 && !is_control(Token(i))) byte_ids_[byte] = Token(i);
        }
        rank_tokens();
        words_ = {scan_before_spaces(vocabulary_.tokens)};
        strip_after_controls();
    }

protected:
    void encode_segment(std::string_view text, bool, Tokens& out) const override {
        const std::string escaped = replace_all((vocabulary_.add_space_prefix ? " " : "") + std::string(text), " ",
                                                lower_block);
        WordMemory memory(out);
        MergeScratch scratch;
        const auto emit = [&](std::string_view word) {
            if (memory.repeat(word)) return;
            const size_t from = out.size();
            merge_word(word, scratch, out);
            memory.remember(word, from);
        };
        for_each_word(words_, escaped, emit);
    }

private:
    void merge_word(std::string_view word, MergeScratch& scratch, Tokens& out) const {
        scratch.start();
        for (size_t at = 0; at < word.size();) {
            const int bytes = utf8_at(word, at).bytes;
            scratch.add(int32_t(at), bytes, token_of(word.substr(at, size_t(bytes))).id);
            at += size_t(bytes);
        }
        merge_all(scratch, [&](const Symbol& a, const Symbol& b) {
            return token_of(word.substr(size_t(a.begin), size_t(a.length + b.length)));
        });
        for (const Symbol& s : scratch.symbols) {
            if (s.length == 0) continue;
            if (s.id >= 0) out.push_back(s.id);
            else for (int32_t i = 0; i < s.length; ++i) add_byte(uint8_t(word[size_t(s.begin + i)]), out);
        }
    }

    MergeRule token_of(std::string_view text) const {
        if (text.size() > longest_) return {};
        const auto found = ids_.find(text);
        if (found == ids_.end() || ranks_[size_t(found->second)] < 0) return {};
        return {ranks_[size_t(found->second)], found->second};
    }

    void add_byte(uint8_t byte, Tokens& out) const {
        if (byte_ids_[byte] >= 0) out.push_back(byte_ids_[byte]);
        else if (vocabulary_.unk >= 0) out.push_back(vocabulary_.unk);
    }

    // Equal scores share a rank, so that the leftmost pair goes first. Control, unknown and byte tokens are never made
    // by merging.
    void rank_tokens() {
        const size_t count = vocabulary_.tokens.size();
        ranks_.assign(count, -1);
        std::vector<Token> order;
        for (size_t i = 0; i < count; ++i) {
            if (is_control(Token(i)) || type_of(Token(i)) == Vocabulary::Type::byte) continue;
            if (!vocabulary_.scores.empty() && std::isnan(vocabulary_.scores[i]))
                fail(Errc::format, where_, ": the score of token ", i, " is not a number");
            order.push_back(Token(i));
            longest_ = std::max(longest_, vocabulary_.tokens[i].size());
        }
        const auto score = [&](Token id) { return vocabulary_.scores.empty() ? 0.0f : vocabulary_.scores[size_t(id)]; };
        std::stable_sort(order.begin(), order.end(), [&](Token a, Token b) { return score(a) > score(b); });
        int32_t rank = 0;
        for (size_t i = 0; i < order.size(); ++i) {
            if (i && score(order[i]) < score(order[i - 1])) ++rank;
            ranks_[size_t(order[i])] = rank;
        }
    }

    // Phi-3's control tokens take the white space after them along; GGUF has no field for it, so the vocabulary is
    // known by two names.
    void strip_after_controls() {
        if (id_of("<|placeholder1|>") < 0 || id_of("<|assistant|>") < 0) return;
        std::vector<AddedToken> added;
        for (size_t i = 0; i < vocabulary_.tokens.size(); ++i) {
            if (!is_control(Token(i)) && type_of(Token(i)) != Vocabulary::Type::user_defined) continue;
            AddedToken token{Token(i), is_control(Token(i))};
            const std::string& text = vocabulary_.tokens[i];
            token.right_strip = text == "</s>" ||
                                (token.control && text != "<unk>" && text != "<s>" && text != "<|endoftext|>");
            added.push_back(token);
        }
        set_added(std::move(added));
    }

    WordScanners words_;
    std::vector<int32_t> ranks_;                       // by id; -1: text does not become this token
    Token byte_ids_[256];
    size_t longest_ = 0;                               // bytes of the longest token: longer spans are not looked up
};

}  // namespace spm_room

std::shared_ptr<const TokenizerImpl> make_spm(Vocabulary vocabulary, std::string_view where) {
    DecodeRules decode = spm_room::decode_rules(vocabulary);
    return std::make_shared<spm_room::SpmTokenizer>(std::move(vocabulary), std::move(decode), where);
}

}}  // namespace qlora
