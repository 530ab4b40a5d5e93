// tokenizer_limits_test.cpp - tokenizers that were made to win: small files that would become gigabytes, or hours, of a
// short text. Each ends in an error that says what it is.
#include "src/text/tokenizer_model.h"
#include "tests/support/sentencepiece_file.h"
#include "tests/support/support.h"

#include <gtest/gtest.h>

namespace tokenizer_limits_test {

using namespace qlora;
namespace file = sentencepiece_file;

std::shared_ptr<const TokenizerImpl> with(const std::string& parts) {
    const std::string text =
        R"({"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "_": 2}, "merges": []}, )" + parts + "}";
    return load_tokenizer_json(Json::parse(text, "t"), Json(), "t");
}

std::string repeated(const std::string& part, int times) {
    std::string out;
    for (int i = 0; i < times; ++i) out += (i ? ", " : "") + part;
    return out;
}

std::string sequence(const std::string& of, const std::string& name, const std::string& part, int times) {
    return "\"" + of + R"(": {"type": "Sequence", ")" + name + "\": [" + repeated(part, times) + "]}";
}

std::string replace(const std::string& to) {
    return R"({"type": "Replace", "pattern": {"String": "a"}, "content": ")" + to + "\"}";
}

// Ends in an error that says so, in a few words.
template <class F>
testing::AssertionResult refused(const std::string& said, const F& f) {
    try {
        f();
    } catch (const Error& e) {
        const std::string text = e.what();
        if (text.size() < 500 && text.find(said) != text.npos) return testing::AssertionSuccess();
        return testing::AssertionFailure() << text.substr(0, 1000);
    }
    return testing::AssertionFailure() << "no error";
}

Tokens encoded(const TokenizerImpl& t, const std::string& text) {
    Tokens tokens;
    t.encode(text, tokens);
    return tokens;
}

TEST(TokenizerLimits, NormalizersThatDouble) {
    const auto four = with(sequence("normalizer", "normalizers", replace("aa"), 4));
    EXPECT_EQ(encoded(*four, "ab").size(), 17u);
    const auto forty = with(sequence("normalizer", "normalizers", replace("aa"), 40));
    EXPECT_TRUE(refused("of which", [&] { encoded(*forty, "a"); }));
    const auto one = with("\"normalizer\": " + replace(std::string(100000, 'b')));
    EXPECT_TRUE(refused("of which", [&] { encoded(*one, std::string(100000, 'a')); }));
}

TEST(TokenizerLimits, DecodersThatDouble) {
    const Tokens a{0};
    const auto four = with(sequence("decoder", "decoders", replace("aa"), 4));
    EXPECT_EQ(four->decode(a), std::string(16, 'a'));
    const auto forty = with(sequence("decoder", "decoders", replace("aa"), 40));
    EXPECT_TRUE(refused("of which", [&] { forty->decode(a); }));
    const auto starts = [](const TokenizerImpl& t, const std::string& text) {
        Tokens tokens;
        std::vector<int64_t> at;
        t.encode_rendered(text, {}, tokens, &at);
        return at.size();
    };
    EXPECT_EQ(starts(*four, "ab"), 2u);
    EXPECT_TRUE(refused("of which", [&] {
        starts(*with("\"decoder\": " + replace(std::string(4000, 'b'))), std::string(100000, 'a'));
    }));
}

TEST(TokenizerLimits, StepsWithoutAnEnd) {             // pre-tokenizers call each other: the stack would end
    const std::string digits = R"({"type": "Digits"})", lower = R"({"type": "Lowercase"})";
    EXPECT_EQ(encoded(*with(sequence("pre_tokenizer", "pretokenizers", digits, 64)), "ab").size(), 2u);
    for (const int count : {65, 200000}) {
        EXPECT_TRUE(refused("pre-tokenizers, at most", [&] {
            with(sequence("pre_tokenizer", "pretokenizers", digits, count));
        }));
        EXPECT_TRUE(refused("normalizers, at most", [&] {
            with(sequence("normalizer", "normalizers", lower, count));
        }));
        EXPECT_TRUE(refused("decoders, at most", [&] { with(sequence("decoder", "decoders", replace("a"), count)); }));
    }
    const std::string longest = R"({"type": "Split", "behavior": "Isolated", "pattern": {"String": ")";
    EXPECT_EQ(encoded(*with("\"pre_tokenizer\": " + longest + std::string(1024, 'a') + "\"}}"), "ab").size(), 2u);
    EXPECT_TRUE(refused("1025 bytes", [&] {
        with("\"pre_tokenizer\": " + longest + std::string(1025, 'a') + "\"}}");
    }));
}

TEST(TokenizerLimits, MarksThatGrow) {
    const auto mark = [](const std::string& text) {
        return R"({"type": "Metaspace", "split": false, "prepend_scheme": "never", "replacement": ")" + text + "\"}";
    };
    EXPECT_EQ(encoded(*with("\"pre_tokenizer\": " + mark("__")), "a b").size(), 4u);
    EXPECT_TRUE(refused("of which", [&] {
        encoded(*with("\"pre_tokenizer\": " + mark(std::string(100000, '_'))), std::string(100000, ' '));
    }));
    EXPECT_TRUE(refused("Metaspace", [&] { with(sequence("pre_tokenizer", "pretokenizers", mark("  "), 40)); }));
}

// A double array of the units behind the first, and what follows it.
std::string charsmap(std::initializer_list<uint32_t> units, const std::string& strings) {
    std::string out;
    const auto add = [&](uint32_t value) {
        for (int i = 0; i < 4; ++i) out += char(value >> 8 * i & 255);
    };
    add(uint32_t(4 * (units.size() + 1)));
    add(0x60 << 10);                                   // 'a' leads to unit 1
    for (const uint32_t unit : units) add(unit);
    return out + strings + '\0';
}

TEST(TokenizerLimits, CharacterMapsThatLeadNowhere) {
    const auto encode = [](const std::string& map) {
        const std::string rules = file::bytes(2, map) + file::number(3, 0);
        const auto t = make_tokenizer(read_tokenizer_model(file::model(2, "", rules), "", Json(), "t"), "t");
        return encoded(*t, std::string(1000000, 'a')).size();
    };
    constexpr uint32_t a = 'a', ends = 1 << 8;
    EXPECT_EQ(encode(charsmap({a | ends | 3 << 10, 0}, "")), 0u);                      // a becomes nothing
    EXPECT_TRUE(refused("without an end", [&] { encode(charsmap({a | a << 10}, "")); }));         // back into itself
    const std::string much(100000, ' ');               // which would be passed over each time, and so not grow
    EXPECT_TRUE(refused("replacement", [&] { encode(charsmap({a | ends | 3 << 10, 0}, much)); }));
}

TEST(TokenizerLimits, TokensThatAreMadeInEveryWay) {
    std::string list;
    int rank = 0;
    const auto add = [&](const std::string& token) { list += str(base64(token), ' ', rank++, '\n'); };
    for (int b = 0; b < 256; ++b) add(std::string(1, char(b)));
    for (size_t length = 2; length < 128; ++length) add(std::string(length, ' '));     // as cl100k has
    EXPECT_EQ(read_tokenizer_model(list, "qwen", Json(), "t").vocabulary.merges.size(), 126u * 127 / 2);
    for (size_t length = 2; length < 1500; ++length) add(std::string(length, 'a'));
    EXPECT_TRUE(refused("far more ways", [&] { read_tokenizer_model(list, "qwen", Json(), "t"); }));
}

}  // namespace tokenizer_limits_test
