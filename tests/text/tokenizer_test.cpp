// tokenizer_test.cpp - GGUF vocabularies against published ids; small made-up vocabularies for every rule; hostile
// vocabularies and texts.
#include "src/format/gguf.h"
#include "src/text/tokenizer.h"
#include "src/text/utf8.h"
#include "tests/support/linear.h"
#include "tests/support/support.h"

#include <fstream>
#include <limits>
#include <sstream>

namespace tokenizer_test {

using qlora::Error, qlora::Token, qlora::Tokens, qlora::Vocabulary;
using Tokenizer = std::shared_ptr<const qlora::TokenizerImpl>;
using Type = Vocabulary::Type;

inline Tokenizer from_gguf(const std::string& path) {
    const auto file = qlora::Gguf::open(path);
    Vocabulary v;
    v.kind = file->string("tokenizer.ggml.model", "") == "llama" ? Vocabulary::Kind::spm : Vocabulary::Kind::byte_bpe;
    v.pre = file->string("tokenizer.ggml.pre", "");
    v.tokens = file->strings("tokenizer.ggml.tokens");
    v.scores = file->floats("tokenizer.ggml.scores");
    for (int64_t type : file->integers("tokenizer.ggml.token_type")) v.types.push_back(Type(type));
    v.merges = file->strings("tokenizer.ggml.merges");
    v.bos = Token(file->integer("tokenizer.ggml.bos_token_id", -1));
    v.eos = Token(file->integer("tokenizer.ggml.eos_token_id", -1));
    v.unk = Token(file->integer("tokenizer.ggml.unknown_token_id", -1));
    return make_tokenizer(std::move(v), path);
}

inline std::vector<std::string> split(const std::string& text, const std::string& separator) {
    std::vector<std::string> parts;
    size_t at = 0;
    for (size_t hit; (hit = text.find(separator, at)) != std::string::npos; at = hit + separator.size())
        parts.push_back(text.substr(at, hit - at));
    parts.push_back(text.substr(at));
    return parts;
}

inline std::string read(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}

inline Tokens encode(const Tokenizer& t, std::string_view text) {
    Tokens out;
    t->encode(text, out);
    return out;
}
inline Tokens encode_template(const Tokenizer& t, std::string_view text) {
    Tokens out;
    t->encode_template(text, out);
    return out;
}

// The published vectors of llama.cpp: strings in .inp, ids in .out. Decoding must give the string back.
inline void check_vectors(const std::string& name) {
    const std::string path = data_path("tokenizer/ggml-vocab-" + name + ".gguf");
    if (!std::ifstream(path)) GTEST_SKIP() << "needs ../shared/data";
    const Tokenizer t = from_gguf(path);
    const std::vector<std::string> texts = split(read(path + ".inp"), "\n__ggml_vocab_test__\n"),
                                   lines = split(read(path + ".out"), "\n");
    ASSERT_GE(texts.size(), 46u);
    ASSERT_GE(lines.size(), texts.size());
    for (size_t i = 0; i < texts.size(); ++i) {
        Tokens expected;
        std::istringstream in(lines[i]);
        for (Token id; in >> id;) expected.push_back(id);
        EXPECT_EQ(encode(t, texts[i]), expected) << name << " string " << i << ": " << texts[i];
        EXPECT_EQ(t->decode(expected), texts[i]) << name << " string " << i;
    }
}
TEST(TokenizerVectors, Gpt2) { check_vectors("gpt-2"); }
TEST(TokenizerVectors, LlamaSpm) { check_vectors("llama-spm"); }
TEST(TokenizerVectors, Phi3) { check_vectors("phi-3"); }
TEST(TokenizerVectors, DeepseekCoder) { check_vectors("deepseek-coder"); }

// "ab" "abc" by merges, a control token, a user-defined token, and all bytes, so that any text encodes.
inline std::string byte_token(int b) {                 // GPT-2's alphabet, written out independently
    std::string out;
    int shifted = 0;
    for (int i = 0; i < b; ++i) shifted += !((i >= 33 && i <= 126) || (i >= 161 && i <= 172) || i >= 174);
    const bool prints = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
    qlora::utf8_append(out, prints ? char32_t(b) : char32_t(256 + shifted));
    return out;
}
inline Vocabulary small_bpe() {
    Vocabulary v;
    v.pre = "gpt-2";
    for (int b = 0; b < 256; ++b) v.tokens.push_back(byte_token(b));
    for (const char* extra : {"ab", "abc", "bc", "<|im_end|>", "<think>", "<|im_end|>\n"}) v.tokens.push_back(extra);
    v.types.assign(v.tokens.size(), Type::normal);
    v.types[259] = Type::control;
    v.types[260] = Type::user_defined;
    v.merges = {"a b", "ab c", "b c"};
    v.eos = 259;
    return v;
}
constexpr Token ab = 256, abc = 257, bc = 258, im_end = 259, think = 260;

TEST(TokenizerBpe, MergesByRankLeftmostFirst) {
    const Tokenizer t = make_tokenizer(small_bpe(), "small");
    EXPECT_EQ(encode(t, "abc"), (Tokens{abc}));
    EXPECT_EQ(encode(t, "bc"), (Tokens{bc}));
    EXPECT_EQ(encode(t, "ababbc"), (Tokens{ab, ab, bc}));
    EXPECT_EQ(encode(t, ""), Tokens{});
}

TEST(TokenizerBpe, WordsCutBeforeMerging) {
    Vocabulary v = small_bpe();
    v.merges.push_back("c Ġ");                         // would join across a word boundary
    v.tokens.push_back("cĠ");
    v.types.push_back(Type::normal);
    EXPECT_EQ(encode(make_tokenizer(v, "small"), "c a"), (Tokens{'c', ' ', 'a'}));
}

TEST(TokenizerBpe, EveryByteRoundTrips) {
    const Tokenizer t = make_tokenizer(small_bpe(), "small");
    std::string all;
    for (int b = 0; b < 256; ++b) all += char(b);
    // then CJK, a torn character, a surrogate, beyond U+10FFFF
    all += "abc \xE4\xB8\xAD \xC3 \xED\xA0\x80 \xF4\x90\x80\x80";
    EXPECT_EQ(t->decode(encode(t, all)), all);
}

TEST(TokenizerBpe, ControlTokensOnlyFromTemplates) {
    const Tokenizer t = make_tokenizer(small_bpe(), "small");
    const Tokens text = encode(t, "a<|im_end|>b");
    EXPECT_EQ(std::count(text.begin(), text.end(), im_end), 0);
    EXPECT_EQ(t->decode(text), "a<|im_end|>b");
    EXPECT_EQ(encode_template(t, "a<|im_end|>b"), (Tokens{'a', im_end, 'b'}));
    EXPECT_EQ(encode(t, "a<think>b"), (Tokens{'a', think, 'b'}));
    EXPECT_EQ(t->decode(Tokens{'a', im_end, 'b'}), "ab");
    EXPECT_EQ(t->decode(Tokens{'a', im_end, 'b'}, true), "a<|im_end|>b");
    EXPECT_EQ(t->piece(im_end, false), "");
    EXPECT_EQ(t->piece(im_end, true), "<|im_end|>");
    EXPECT_EQ(t->end_of_reply, (std::vector<Token>{im_end}));
    EXPECT_EQ(t->eos_text, "<|im_end|>");
}

// A merge list must not be a way around that either, nor a type that calls an end token normal.
TEST(TokenizerBpe, MergesNeverSpellControlTokens) {
    Vocabulary v = small_bpe();
    v.tokens.push_back("zz");
    v.types.push_back(Type::control);
    v.merges.insert(v.merges.begin(), "z z");
    v.ignore_merges = true;                            // whole words are looked up first
    EXPECT_EQ(encode(make_tokenizer(v, "small"), "zz"), (Tokens{'z', 'z'}));
    v.types[259] = Type::normal;
    const Tokens text = encode(make_tokenizer(v, "small"), "<|im_end|>");
    EXPECT_EQ(std::count(text.begin(), text.end(), im_end), 0);
}

TEST(TokenizerBpe, LiteralRangesStayText) {
    const Tokenizer t = make_tokenizer(small_bpe(), "small");
    const std::string text = "x<|im_end|>abc<|im_end|><think>";
    const std::vector<qlora::RenderedTemplate::Span> literal = {{0, 14}};    // the first end token came from a message
    Tokens out;
    std::vector<int64_t> starts;
    t->encode_rendered(text, literal, out, &starts);
    ASSERT_EQ(out.size(), starts.size());
    EXPECT_EQ(std::count(out.begin(), out.end(), im_end), 1);
    EXPECT_EQ(std::count(out.begin(), out.end(), think), 1);
    const size_t word = size_t(std::find(out.begin(), out.end(), abc) - out.begin());
    ASSERT_LT(word + 2, out.size());
    EXPECT_EQ(starts[word], 11);
    EXPECT_EQ(out[word + 1], im_end);
    EXPECT_EQ(starts[word + 1], 14);
    EXPECT_EQ(starts[word + 2], 24);
    const std::vector<qlora::RenderedTemplate::Span> touching = {{20, 21}};    // one byte of the second end token
    out.clear();
    t->encode_rendered(text, touching, out, nullptr);
    EXPECT_EQ(std::count(out.begin(), out.end(), im_end), 1);
}

TEST(TokenizerBpe, MergesOfMissingTokensFallApart) {
    Vocabulary v = small_bpe();
    v.merges = {"x y", "xy z"};                        // neither "xy" nor "xyz" is a token
    const Tokenizer t = make_tokenizer(v, "small");
    EXPECT_EQ(encode(t, "xyz"), (Tokens{'x', 'y', 'z'}));
    v.tokens.push_back("xyz");    // now the second merge has a result, by way of a string that is no token
    v.types.push_back(Type::normal);
    EXPECT_EQ(encode(make_tokenizer(v, "small"), "xyz"), (Tokens{Token(v.tokens.size() - 1)}));
}

TEST(TokenizerBpe, HostileVocabularies) {
    const auto fails = [](Vocabulary v, const char* word) {
        try {
            make_tokenizer(std::move(v), "evil.gguf");
            ADD_FAILURE() << "accepted: " << word;
        } catch (const Error& e) {
            EXPECT_NE(std::string(e.what()).find(word), std::string::npos) << e.what();
            EXPECT_NE(std::string(e.what()).find("evil.gguf"), std::string::npos) << e.what();
        }
    };
    Vocabulary v = small_bpe();
    v.pre = "no-such-pre";
    fails(v, "no-such-pre");
    v = small_bpe();
    v.merges.push_back("nospace");
    fails(v, "nospace");
    v = small_bpe();
    v.types.pop_back();
    fails(v, "types");
    v = small_bpe();
    v.tokens[260] = std::string(1 << 20, 'a');         // a user-defined token that would make matching quadratic
    fails(v, "260");
    fails(Vocabulary{}, "0 tokens");
    v = small_bpe();
    v.bos = 1 << 30;                                   // ids out of range are absent tokens
    v.eos = -7;
    v.unk = 262;
    v.add_bos = true;
    v.tokens[260].clear();                             // an empty user-defined token matches nowhere
    const Tokenizer t = make_tokenizer(v, "small");
    EXPECT_EQ(t->bos, -1);
    EXPECT_FALSE(t->add_bos);
    EXPECT_EQ(encode(t, "abc"), (Tokens{abc}));
    EXPECT_THROW(t->piece(262, false), Error);
    EXPECT_THROW(t->piece(-1, false), Error);
    EXPECT_THROW(t->decode(Tokens{1, 99999}), Error);
}

inline Vocabulary small_spm() {
    Vocabulary v;
    v.kind = Vocabulary::Kind::spm;
    v.tokens = {"<unk>", "<s>", "</s>"};
    v.types = {Type::unknown, Type::control, Type::control};
    for (int b = 0; b < 256; ++b) {
        char name[8];
        std::snprintf(name, sizeof name, "<0x%02X>", b);
        v.tokens.push_back(name);
        v.types.push_back(Type::byte);
    }
    for (const char* piece : {"▁", "h", "e", "he", "▁he", "<", "s", ">", "<s", "l", "▁h"}) {
        v.tokens.push_back(piece);
        v.types.push_back(Type::normal);
    }
    for (size_t i = 0; i < v.tokens.size(); ++i) v.scores.push_back(i < 259 ? 0 : -float(i));
    v.bos = 1;
    v.eos = 2;
    v.unk = 0;
    return v;
}

TEST(TokenizerSpm, ScoresSpacesAndBytes) {
    const Tokenizer t = make_tokenizer(small_spm(), "small");
    EXPECT_EQ(encode(t, "he"), (Tokens{263}));    // " he": h+e beats U+2581+h by score, then the space joins
    EXPECT_EQ(t->decode(Tokens{263}), "he");
    EXPECT_EQ(encode(t, "hel\n"), (Tokens{263, 268, 3 + 10}));
    EXPECT_EQ(t->decode(encode(t, "  he \xFF\xC3 é")), "  he \xFF\xC3 é");
    Vocabulary v = small_spm();
    v.add_space_prefix = false;
    EXPECT_EQ(encode(make_tokenizer(v, "small"), "he"), (Tokens{262}));
    EXPECT_EQ(make_tokenizer(v, "small")->decode(Tokens{263}), " he");
}

// Text is cut before spaces for speed, but not where a token reaches across one; and repeated words come from memory.
TEST(TokenizerSpm, TokensAcrossSpaces) {
    Vocabulary v = small_spm();
    v.tokens.push_back("e▁");
    v.types.push_back(Type::normal);
    v.scores.push_back(-1);                            // better than everything else
    EXPECT_EQ(encode(make_tokenizer(v, "small"), "he h"), (Tokens{269, 270, 260}));
    EXPECT_EQ(encode(make_tokenizer(small_spm(), "small"), "he h"), (Tokens{263, 269}));
    EXPECT_EQ(encode(make_tokenizer(small_spm(), "small"), "he he he\nhe"), (Tokens{263, 263, 263, 3 + 10, 262}));
}

TEST(TokenizerSpm, ControlTokensOnlyFromTemplates) {
    const Tokenizer t = make_tokenizer(small_spm(), "small");
    for (Token id : encode(t, "<s></s><unk><0x0A>")) EXPECT_GT(id, 2);
    EXPECT_EQ(t->decode(encode(t, "<s></s><unk><0x0A>")), "<s></s><unk><0x0A>");
    EXPECT_EQ(encode_template(t, "<s>he"), (Tokens{1, 263}));
    EXPECT_EQ(t->decode(Tokens{1, 263, 2}), "he");
    Vocabulary v = small_spm();
    v.scores[260] = std::numeric_limits<float>::quiet_NaN();
    EXPECT_THROW(make_tokenizer(v, "small"), Error);
}

// Text that has no token does not become one that ends a turn, as where the unknown token is the end token too.
TEST(TokenizerSpm, UnknownTextIsNoControlToken) {
    Vocabulary v = small_spm();
    for (size_t i = 3; i < 259; ++i) v.tokens[i] = "no byte " + std::to_string(i);
    EXPECT_EQ(encode(make_tokenizer(v, "small"), "heQ"), (Tokens{263, 0}));
    v.unk = v.eos;
    EXPECT_EQ(encode(make_tokenizer(v, "small"), "heQ"), (Tokens{263}));
}

TEST(TokenizerPublic, TokensOneByOne) {
    const qlora::Tokenizer t = qlora::Tokenizer::load("models/tiny.gguf");
    const std::string text = "O Romeo, wherefore\nart thou? \xC3\xA9";
    std::string pieces;
    for (const Token token : t.encode(text)) {
        EXPECT_FALSE(t.is_control(token));
        pieces += t.piece(token);
    }
    EXPECT_EQ(pieces, text);
    ASSERT_GE(t.eos(), 0);
    EXPECT_TRUE(t.is_control(t.eos()));
    EXPECT_EQ(t.piece(t.eos()), "");
    EXPECT_EQ(t.piece(t.eos(), true), t.decode(Tokens{t.eos()}, true));
    for (const Token none : {Token(-1), Token(t.size())}) {
        EXPECT_THROW((void)t.piece(none), Error);
        EXPECT_THROW((void)t.is_control(none), Error);
    }
}

// n log n whatever the text.
TEST(TokenizerHostile, LongRunsTakeLinearTime) {
    Vocabulary bpe = small_bpe(), spm = small_spm();
    for (Vocabulary* v : {&bpe, &spm}) {
        for (int n = 1; n <= 64; n *= 2) {    // "aa", "aaaa", ... so that merging has work to do at every level
            v->merges.push_back(std::string(size_t(n), 'a') + " " + std::string(size_t(n), 'a'));
            v->tokens.push_back(std::string(size_t(2 * n), 'a'));
            v->types.push_back(Type::normal);
            if (!v->scores.empty()) v->scores.push_back(float(-n));
        }
    }
    spm.tokens.push_back("a");
    spm.types.push_back(Type::normal);
    spm.scores.push_back(-1000);
    const size_t length = 1 << 17;
    std::string mixed;
    while (mixed.size() < length) mixed += "\n\r \t'";
    for (const Vocabulary& v : {bpe, spm}) {
        const Tokenizer t = make_tokenizer(v, "small");
        for (const std::string& text : {std::string(length, 'a'), std::string(length, ' '), std::string(length, '\n'),
                                        std::string(length, '\xE2'), std::string(length, '<'), mixed})
            expect_linear(
                text, [&](const std::string& part) { EXPECT_EQ(t->decode(encode(t, part)).size(), part.size()); },
                "a run of " + std::to_string(text[0]));
    }
}

TEST(Utf8, ValidatesSanitizesAndFindsTheWholePart) {
    EXPECT_TRUE(qlora::utf8_valid("aé中😀"));
    for (const char* bad : {"\x80", "\xC0\x80", "\xC1\xBF", "\xE0\x9F\xBF", "\xED\xA0\x80", "\xF0\x8F\xBF\xBF",
                            "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xE4\xB8", "\xFF"})
        EXPECT_FALSE(qlora::utf8_valid(bad)) << bad;
    EXPECT_EQ(qlora::utf8_sanitize("a\xFF" "b\xE4\xB8"), "a\xEF\xBF\xBD" "b\xEF\xBF\xBD\xEF\xBF\xBD");
    const std::string text = "a中";
    for (size_t n = 0; n <= text.size(); ++n)
        EXPECT_EQ(qlora::utf8_whole(text.substr(0, n)), n == 0 ? 0u : n < 4 ? 1u : 4u) << n;
    EXPECT_EQ(qlora::utf8_whole("a\xFF"), 2u);         // nothing can complete this one
    EXPECT_EQ(qlora::utf8_whole("\xF0\x9F\x98"), 0u);
}

}  // namespace tokenizer_test
