// spm.cpp - SentencePiece's vocabularies. A space is U+2581, and one goes in front. BPE: neighbours merge if their text
// is a token, the one with the highest score first. Unigram: see unigram.h. Characters that are no token become the
// tokens of their bytes, or the unknown token, once for a run of them.
//
// From a SentencePiece model (Vocabulary::pieces) its rules hold to the letter: text goes through its character map,
// user-defined pieces are found inside of text and never merge, pieces that are unused fall apart into what they were
// merged from. In GGUF files of the kind "llama" such pieces are cut out of the text before, as llama.cpp does.
#include "src/text/bpe.h"
#include "src/text/charsmap.h"
#include "src/text/unigram.h"

#include <cmath>

namespace qlora { inline namespace QLORA_ABI {
namespace spm_room {

constexpr std::string_view lower_block = "\xE2\x96\x81";               // U+2581

inline DecodeRules decode_rules(const Vocabulary& v) {
    DecodeRules rules;
    rules.byte_tokens = true;
    rules.replace = {{std::string(lower_block), " "}};
    // where spaces never follow each other, all in front are of the kind that is not printed
    rules.strip_left = v.pieces && v.remove_extra_spaces ? INT64_MAX : v.add_space_prefix ? 1 : 0;
    return rules;
}

class SpmTokenizer final : public TokenCore {
public:
    SpmTokenizer(Vocabulary vocabulary, std::vector<AddedToken> added, DecodeRules decode, std::string_view where)
        : TokenCore(std::move(vocabulary), std::move(decode), where), charsmap_(vocabulary_.charsmap, where) {
        std::fill(byte_ids_, byte_ids_ + 256, -1);
        for (size_t i = 0; i < vocabulary_.tokens.size(); ++i) {
            const int byte = byte_of_token(vocabulary_.tokens[i]);
            if (byte >= 0 && !is_control(Token(i))) byte_ids_[byte] = Token(i);
        }
        for (size_t i = 0; i < vocabulary_.scores.size(); ++i)
            if (std::isnan(vocabulary_.scores[i]))
                fail(Errc::format, where_, ": the score of token ", i, " is not a number");
        find_inner();
        if (vocabulary_.kind == Vocabulary::Kind::unigram) {
            make_unigram();
        } else {
            rank_tokens();
            words_ = {scan_before_spaces(vocabulary_.tokens)};
        }
        if (vocabulary_.pieces) add_controls(std::move(added));
        else strip_after_controls();
    }

protected:
    // What SentencePiece makes of the characters; spaces stay spaces until they are encoded.
    void normalize(NormalText& text) const override {
        const bool trim = vocabulary_.remove_extra_spaces;
        if (!vocabulary_.pieces || (charsmap_.empty() && !trim && utf8_valid(text.text()))) return;
        text.rewrite([&, after_space = trim](size_t at, std::string& out) mutable {
            auto [piece, length] = normal_form(text.text(), at);
            while (after_space && piece.starts_with(' ')) piece.remove_prefix(1);
            out += piece;
            if (!piece.empty()) after_space = trim && piece.ends_with(' ');
            return length;
        });
        std::string_view rest = text.text();
        while (trim && (rest.ends_with(' ') || rest.ends_with(lower_block)))
            rest.remove_suffix(rest.ends_with(' ') ? 1 : lower_block.size());
        if (rest.size() < text.text().size()) text.keep(0, rest.size());
    }

    void encode_segment(std::string_view text, bool first, Tokens& out) const override {
        // In front of the whole text transformers puts it only where there is none.
        const bool has_one = text.starts_with(' ') || text.starts_with(lower_block);
        const bool front = vocabulary_.add_space_prefix && (vocabulary_.prefix_once ? first && !has_one : true);
        const std::string escaped =
            replace_all((front ? " " : "") + std::string(text), " ", lower_block, most_grown(text.size()));
        const size_t begin = out.size();
        if (unigram_) cut_best(escaped, out);
        else merge_words(escaped, out);
        if (!vocabulary_.pieces || vocabulary_.unk < 0) return;
        const auto unknown = [&](Token a, Token b) { return a == vocabulary_.unk && b == a; };
        out.erase(std::unique(out.begin() + int64_t(begin), out.end(), unknown), out.end());
    }

private:
    TokenTrie::Match inner_at(std::string_view text, size_t at) const {
        return inner_.empty() ? TokenTrie::Match{} : inner_.longest(text, at);
    }

    Charsmap::Match normal_form(std::string_view text, size_t at) const {
        if (const auto own = inner_at(text, at); own.value >= 0) return {text.substr(at, own.length), own.length};
        if (const auto match = charsmap_.longest(text, at); match.length) return match;
        const Utf8Char c = utf8_at(text, at);
        if (!c.valid) return {"\xEF\xBF\xBD", 1};
        return {text.substr(at, size_t(c.bytes)), size_t(c.bytes)};
    }

    void cut_best(std::string_view text, Tokens& out) const {
        std::vector<Unigram::Cut> cuts;
        unigram_->cut(text, cuts);
        for (const Unigram::Cut& c : cuts) {
            if (c.id >= 0) out.push_back(c.id);
            else add_unknown(text.substr(c.begin, c.end - c.begin), out);
        }
    }

    void merge_words(std::string_view text, Tokens& out) const {
        WordMemory memory(out);
        MergeScratch scratch;
        const auto emit = [&](std::string_view word) {
            if (memory.repeat(word)) return;
            const size_t from = out.size();
            merge_word(word, scratch, out);
            memory.remember(word, from);
        };
        for_each_word(words_, text, emit);
    }

    // Of every unused token the two that were last found to make it.
    using Parts = std::unordered_map<std::string_view, std::pair<std::string_view, std::string_view>>;

    void merge_word(std::string_view word, MergeScratch& scratch, Tokens& out) const {
        scratch.start();
        for (size_t at = 0; at < word.size();) {
            const TokenTrie::Match inner = inner_at(word, at);
            const size_t bytes = inner.value >= 0 ? inner.length : size_t(utf8_at(word, at).bytes);
            scratch.add(int32_t(at), int32_t(bytes),
                        inner.value >= 0 ? inner.value : token_of(word.substr(at, bytes)).id);
            at += bytes;
        }
        Parts parts;
        const auto text_of = [&](const Symbol& s) { return word.substr(size_t(s.begin), size_t(s.length)); };
        merge_all(scratch, [&](const Symbol& a, const Symbol& b) {
            if (inner(a.id) || inner(b.id)) return MergeRule{};
            const std::string_view both = word.substr(size_t(a.begin), size_t(a.length + b.length));
            const MergeRule rule = token_of(both);
            if (unused(rule.id)) parts[both] = {text_of(a), text_of(b)};
            return rule;
        });
        for (const Symbol& s : scratch.symbols)
            if (s.length) add_symbol(text_of(s), s.id, parts, out);
    }

    bool inner(Token id) const { return id >= 0 && !inner_.empty() && type_of(id) == Vocabulary::Type::user_defined; }
    bool unused(Token id) const { return id >= 0 && vocabulary_.pieces && type_of(id) == Vocabulary::Type::unused; }

    void add_symbol(std::string_view text, Token id, const Parts& parts, Tokens& out) const {
        std::vector<std::string_view> open;            // an unused token falls apart, and so may its parts
        if (unused(id)) open = {text};
        else if (id >= 0) return out.push_back(id);
        else return add_unknown(text, out);
        while (!open.empty()) {
            const std::string_view whole = open.back();
            open.pop_back();
            const Token known = token_of(whole).id;
            const auto found = unused(known) ? parts.find(whole) : parts.end();
            if (found == parts.end()) {
                if (known >= 0) out.push_back(known);
                else add_unknown(whole, out);
                continue;
            }
            open.push_back(found->second.second);
            open.push_back(found->second.first);
        }
    }

    MergeRule token_of(std::string_view text) const {
        if (text.size() > longest_) return {};
        const auto found = ids_.find(text);
        if (found == ids_.end() || ranks_[size_t(found->second)] < 0) return {};
        return {ranks_[size_t(found->second)], found->second};
    }

    void add_unknown(std::string_view text, Tokens& out) const {
        if (!vocabulary_.byte_fallback) {
            if (vocabulary_.unk >= 0) out.push_back(vocabulary_.unk);
            return;
        }
        for (const char c : text) {
            const Token id = byte_ids_[uint8_t(c)];
            if (id >= 0) out.push_back(id);
            else if (vocabulary_.unk >= 0) out.push_back(vocabulary_.unk);
        }
    }

    // Tokens that text may become: not the control, unknown and byte tokens, nor those that a model did not have.
    bool of_text(size_t id) const {
        return !is_control(Token(id)) && type_of(Token(id)) != Vocabulary::Type::byte &&
               (!vocabulary_.pieces || id < size_t(vocabulary_.pieces));
    }

    // The user-defined pieces of a SentencePiece model.
    void find_inner() {
        std::vector<std::pair<std::string_view, int32_t>> strings;
        for (size_t i = 0; i < size_t(vocabulary_.pieces); ++i) {
            if (type_of(Token(i)) != Vocabulary::Type::user_defined) continue;
            if (vocabulary_.tokens[i].size() > Unigram::longest)
                fail(Errc::format, where_, ": the user-defined piece ", i, " has ", vocabulary_.tokens[i].size(),
                     " bytes; ", Unigram::longest, " are the most");
            strings.emplace_back(vocabulary_.tokens[i], int32_t(i));
        }
        inner_ = TokenTrie(strings);
    }

    // Equal scores share a rank, so that the leftmost pair goes first. Control, unknown and byte tokens are never made
    // by merging.
    void rank_tokens() {
        const size_t count = vocabulary_.tokens.size();
        ranks_.assign(count, -1);
        std::vector<Token> order;
        for (size_t i = 0; i < count; ++i) {
            if (!of_text(i)) continue;
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

    // The unknown token is 10 worse than the worst of the normal ones; a user-defined one is nearly as good as if each
    // of its bytes were the best token.
    void make_unigram() {
        constexpr float penalty = 10;
        float worst = 0, best = 0;
        bool any = false;
        for (size_t i = 0; i < vocabulary_.tokens.size(); ++i) {
            if (type_of(Token(i)) != Vocabulary::Type::normal || vocabulary_.scores.empty()) continue;
            worst = any ? std::min(worst, vocabulary_.scores[i]) : vocabulary_.scores[i];
            best = any ? std::max(best, vocabulary_.scores[i]) : vocabulary_.scores[i];
            any = true;
        }
        if (!any) fail(Errc::format, where_, ": a Unigram vocabulary without a token that has a score");
        std::vector<Unigram::Piece> pieces;
        for (size_t i = 0; i < vocabulary_.tokens.size(); ++i) {
            const Vocabulary::Type type = type_of(Token(i));
            if (!of_text(i) || type == Vocabulary::Type::unused) continue;
            const std::string& text = vocabulary_.tokens[i];
            pieces.push_back({text, Token(i), type == Vocabulary::Type::user_defined
                                                  ? double(float(double(float(text.size()) * best) - 0.1))
                                                  : double(vocabulary_.scores[i])});
        }
        unigram_.emplace(pieces, double(worst - penalty), true, where_);
    }

    void add_controls(std::vector<AddedToken> added) {
        std::vector<char> known(vocabulary_.tokens.size(), 0);
        for (AddedToken& token : added) {
            token.control = token.control || is_control(token.id);
            known[size_t(token.id)] = 1;
        }
        for (size_t i = 0; i < known.size(); ++i)
            if (!known[i] && is_control(Token(i))) added.push_back({Token(i), true});
        set_added(std::move(added));
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

    Charsmap charsmap_;
    TokenTrie inner_;                                  // user-defined pieces, by id
    std::optional<Unigram> unigram_;
    WordScanners words_;
    std::vector<int32_t> ranks_;                       // by id; -1: text does not become this token
    Token byte_ids_[256];
    size_t longest_ = 0;                               // bytes of the longest token: longer spans are not looked up
};

}  // namespace spm_room

std::shared_ptr<const TokenizerImpl> make_spm(Vocabulary vocabulary, std::vector<AddedToken> added,
                                              std::string_view where) {
    DecodeRules decode = spm_room::decode_rules(vocabulary);
    return std::make_shared<spm_room::SpmTokenizer>(std::move(vocabulary), std::move(added), std::move(decode), where);
}

}}  // namespace qlora
