// bpe.cpp - see bpe.h. A word starts as its bytes (or characters); the best-ranked neighbours merge until none is left.
#include "src/text/bpe.h"
#include "src/text/unigram.h"

namespace qlora { inline namespace QLORA_ABI {
namespace bpe_room {

class BpeTokenizer final : public TokenCore {
public:
    BpeTokenizer(Vocabulary vocabulary, BpeOptions options, DecodeRules decode, std::vector<AddedToken> added,
                 std::string_view where)
        : TokenCore(std::move(vocabulary), std::move(decode), where), options_(std::move(options)) {
        if (!added.empty()) set_added(std::move(added));
        for (int b = 0; b < 256; ++b) {
            const std::string byte(1, char(b));
            byte_ids_[b] = text_token(options_.byte_level ? byte_level_text(byte) : token_of_byte(b));
            byte_fallback_ = byte_fallback_ && byte_ids_[b] >= 0;
        }
        byte_fallback_ = byte_fallback_ && options_.byte_fallback;
        if (!options_.byte_level && options_.words.empty() && !vocabulary_.ignore_merges && byte_fallback_ &&
            options_.scores.empty())    // Unigram would round its sums otherwise
            options_.words.push_back(scan_before_spaces(vocabulary_.tokens));
        if (options_.scores.empty()) read_merges();
        else make_unigram();
    }

protected:
    void normalize(NormalText& text) const override {
        for (const auto& step : options_.normalizers) step(text);
    }
    void encode_segment(std::string_view text, bool first, Tokens& out) const override {
        std::string changed;
        if (!options_.changes.empty()) {
            changed = std::string(text);
            for (const auto& change : options_.changes) change(changed, first);
            text = changed;
        }
        Work work{out, WordMemory(out), {}};
        const auto emit = [&](std::string_view word) { encode_word(word, work); };
        for_each_word(options_.words, text, emit);
    }

private:
    struct Work {
        Tokens& out;
        WordMemory memory;
        MergeScratch scratch;
    };

    Token text_token(std::string_view text) const {    // a token that text may become
        const Token id = id_of(text);
        return id >= 0 && !is_control(id) ? id : -1;
    }

    // GGUF files may list merges whose parts or result are no tokens. Such strings get ids beyond the vocabulary: they
    // merge on, and if one is left at the end it falls apart into its bytes. A merge that would spell a control token
    // is dropped.
    void read_merges() {
        std::unordered_map<std::string_view, int32_t> beyond;
        const auto symbol = [&](std::string_view text) {
            if (const Token id = id_of(text); id >= 0) return id;
            if (options_.strict)
                fail(Errc::format, where_, ": a merge has \"", text, "\", which is not in the vocabulary");
            return beyond.try_emplace(text, int32_t(size() + int64_t(beyond.size()))).first->second;
        };
        const std::vector<std::string>& list = vocabulary_.merges;
        if (list.size() > size_t(INT32_MAX) / 4) fail(Errc::format, where_, ": ", list.size(), " merges");
        merges_ = MergeTable(list.size());
        std::vector<std::string> results(list.size()); // keeps the texts that `beyond` refers to
        for (size_t rank = 0; rank < list.size(); ++rank) {
            const std::string_view merge = list[rank];
            const size_t space = merge.find(' ', 1);   // a part may itself begin with a space
            if (space == std::string_view::npos || space + 1 == merge.size())
                fail(Errc::format, where_, ": merge ", rank, " (\"", merge,
                     "\") is not two parts with a space between");
            const std::string_view left = merge.substr(0, space), right = merge.substr(space + 1);
            results[rank] = std::string(left).append(right);
            const int32_t whole = symbol(results[rank]);
            if (whole < size() && is_control(whole)) continue;
            merges_.add(symbol(left), symbol(right), {vocabulary_.rank_of_result ? whole : int32_t(rank), whole});
        }
        vocabulary_.merges = {};
    }

    void encode_word(std::string_view word, Work& work) const {
        if (work.memory.repeat(word)) return;
        const size_t from = work.out.size();
        Token whole = -1;
        if (vocabulary_.ignore_merges)
            whole = text_token(options_.byte_level ? byte_level_text(word) : std::string(word));
        if (whole >= 0) work.out.push_back(whole);
        else if (unigram_) cut_word(word, work.out);
        else merge_word(word, work);
        work.memory.remember(word, from);
    }

    // The unknown token is 10 worse than the worst of all.
    void make_unigram() {
        constexpr double penalty = 10;
        std::vector<Unigram::Piece> pieces;
        for (size_t i = 0; i < options_.scores.size(); ++i)
            if (text_token(vocabulary_.tokens[i]) == Token(i))
                pieces.push_back({vocabulary_.tokens[i], Token(i), options_.scores[i]});
        const double worst = *std::min_element(options_.scores.begin(), options_.scores.end());
        unigram_.emplace(pieces, worst - penalty, false, where_);
    }

    // What is unknown is looked up once more as a whole, and falls apart into bytes only if all of them are tokens.
    void cut_word(std::string_view word, Tokens& out) const {
        std::vector<Unigram::Cut> cuts;
        unigram_->cut(word, cuts);
        for (size_t i = 0; i < cuts.size();) {
            if (cuts[i].id >= 0) {
                out.push_back(cuts[i++].id);
                continue;
            }
            const size_t begin = cuts[i].begin;
            for (; i < cuts.size() && cuts[i].id < 0; ++i) {}
            const std::string_view unknown = word.substr(begin, cuts[i - 1].end - begin);
            const auto known = [this](char byte) { return byte_ids_[uint8_t(byte)] >= 0; };
            if (const Token whole = text_token(unknown); whole >= 0) out.push_back(whole);
            else if (options_.byte_fallback && std::all_of(unknown.begin(), unknown.end(), known))
                for (const char byte : unknown) out.push_back(byte_ids_[uint8_t(byte)]);
            else if (vocabulary_.unk >= 0) out.push_back(vocabulary_.unk);
        }
    }

    void merge_word(std::string_view word, Work& work) const {
        work.scratch.start();
        if (options_.byte_level) {
            for (size_t i = 0; i < word.size(); ++i)
                add_symbol(int32_t(i), 1, byte_ids_[uint8_t(word[i])], work.scratch);
        } else {
            add_characters(word, work.scratch);
        }
        merge_all(work.scratch, [this](const Symbol& a, const Symbol& b) {
            return a.id < 0 || b.id < 0 ? MergeRule{} : merges_(a.id, b.id);
        });
        bool unknown = false;                          // the token before was the unknown token
        for (const Symbol& s : work.scratch.symbols) {
            if (s.length == 0) continue;
            if (s.id >= size()) {
                for (int32_t i = 0; i < s.length; ++i) {
                    if (const Token id = byte_ids_[uint8_t(word[size_t(s.begin + i)])]; id >= 0) work.out.push_back(id);
                }
            } else if (s.id >= 0) {
                work.out.push_back(s.id);
            } else if (options_.strict && vocabulary_.unk >= 0 && !(unknown && options_.fuse_unknown)) {
                work.out.push_back(vocabulary_.unk);
            }
            unknown = s.id < 0;
        }
    }

    void add_characters(std::string_view word, MergeScratch& scratch) const {
        for (size_t at = 0; at < word.size();) {
            const size_t bytes = size_t(utf8_at(word, at).bytes);
            const Token id = text_token(word.substr(at, bytes));
            if (id < 0 && byte_fallback_) {
                for (size_t i = 0; i < bytes; ++i) scratch.add(int32_t(at + i), 1, byte_ids_[uint8_t(word[at + i])]);
            } else {
                add_symbol(int32_t(at), int32_t(bytes), id, scratch);
            }
            at += bytes;
        }
    }

    // Without a token for the unknown, such symbols vanish, and what is beside them may merge.
    void add_symbol(int32_t begin, int32_t length, Token id, MergeScratch& scratch) const {
        if (id >= 0 || !options_.strict || vocabulary_.unk >= 0) scratch.add(begin, length, id);
    }

    BpeOptions options_;
    MergeTable merges_;
    std::optional<Unigram> unigram_;
    Token byte_ids_[256];
    bool byte_fallback_ = true;                        // every byte has its token
};

}  // namespace bpe_room

std::shared_ptr<const TokenizerImpl> make_bpe(Vocabulary vocabulary, BpeOptions options, DecodeRules decode,
                                              std::vector<AddedToken> added, std::string_view where) {
    return std::make_shared<bpe_room::BpeTokenizer>(std::move(vocabulary), std::move(options), std::move(decode),
                                                    std::move(added), where);
}

std::shared_ptr<const TokenizerImpl> make_byte_bpe(Vocabulary vocabulary, std::vector<AddedToken> added,
                                                   std::string_view where) {
    BpeOptions options;
    options.words = word_scanners(vocabulary.pre, where);
    if (whole_words_first(vocabulary.pre)) vocabulary.ignore_merges = true;
    DecodeRules decode;
    decode.byte_level = true;
    return make_bpe(std::move(vocabulary), std::move(options), std::move(decode), std::move(added), where);
}

std::shared_ptr<const TokenizerImpl> make_tokenizer(Vocabulary vocabulary, std::string_view where) {
    if (vocabulary.kind != Vocabulary::Kind::byte_bpe) return make_spm(std::move(vocabulary), {}, where);
    return make_byte_bpe(std::move(vocabulary), {}, where);
}

}}  // namespace qlora
