// pretokenize_test.cpp - the scanners against the regular expressions they stand for, and NFC and lower case against
// Unicode's own rules.
#include "src/base/json.h"
#include "src/text/pretokenize.h"
#include "tests/support/linear.h"
#include "tests/support/support.h"

#include <fstream>
#include <set>

namespace pretokenize_test {

inline std::vector<std::string> words(const qlora::WordScanners& passes, std::string_view text) {
    std::vector<std::string> out;
    const auto emit = [&](std::string_view word) { out.emplace_back(word); };
    qlora::for_each_word(passes, text, emit);
    return out;
}

// tests/golden/pretokenize.jsonl: [name, string, words by Oniguruma]; written by tools/make_pretokenize_golden.py.
TEST(Pretokenize, CutsAsTheRegularExpressionsDo) {
    std::ifstream in(golden_path("pretokenize.jsonl"));
    ASSERT_TRUE(in);
    std::set<std::string> names;
    int rows = 0;
    for (std::string line; std::getline(in, line); ++rows) {
        const qlora::Json row = qlora::Json::parse(line, "pretokenize.jsonl");
        const std::string &name = row.array()[0].string(), &text = row.array()[1].string();
        std::vector<std::string> expected;
        for (const qlora::Json& word : row.array()[2].array()) expected.push_back(word.string());
        EXPECT_EQ(words(qlora::word_scanners(name, "test"), text), expected) << name << ": " << text;
        names.insert(name);
    }
    EXPECT_EQ(names.size(), 11u);
    EXPECT_GE(rows, 11 * 40);
}

TEST(Pretokenize, NamesAndRegexes) {
    using Words = std::vector<std::string>;
    EXPECT_EQ(words(qlora::word_scanners("llama-bpe", "test"), "I'M  1234 ok\n"),
              (Words{"I", "'M", " ", " ", "123", "4", " ok", "\n"}));
    EXPECT_EQ(words(qlora::word_scanners("qwen2", "test"), "12"), (Words{"1", "2"}));
    EXPECT_EQ(words(qlora::word_scanners("smaug-bpe", "test"), "123"), (Words{"123"}));
    // a missing name is "default"
    EXPECT_EQ(words(qlora::word_scanners("", "test"), "a1234."), (Words{"a", "123", "4", "."}));
    EXPECT_EQ(words(qlora::word_scanners("jina-v2-code", "test"), "12"), (Words{"12"}));
    try {
        qlora::word_scanners("made-up", "some.gguf");
        ADD_FAILURE();
    } catch (const qlora::Error& e) {
        EXPECT_EQ(e.code, qlora::Errc::unsupported);
        EXPECT_NE(std::string(e.what()).find("made-up"), std::string::npos);
    }
    EXPECT_EQ(qlora::word_scanners_of_regex(R"(\p{N})").size(), 1u);
    EXPECT_TRUE(qlora::word_scanners_of_regex(R"(\p{Q})").empty());
}

// Whatever the bytes: every scanner moves on, loses nothing, and stays linear.
TEST(Pretokenize, HostileTexts) {
    const size_t size = 1 << 16;
    std::vector<std::string> texts = {std::string(size, ' '), std::string(size, '\n'), std::string(size, '\''),
                                      std::string(size, '\xFF'), std::string(size, '1')};
    for (const char* unit : {"\xCC\x80", "A", "\xE4\xB8\xAD" "B", " \n", "\xC2\xA0", "'S", ".\r", "\xF0\x9F"}) {
        std::string text;
        while (text.size() < size) text += unit;
        texts.push_back(text);
    }
    for (const char* name : {"llama-bpe", "qwen2", "qwen35", "gpt-2", "smollm", "tekken", "gpt-4o", "deepseek-llm",
                             "deepseek-coder", "default", "falcon"})
        for (const std::string& hostile : texts)
            expect_linear(hostile, [&](const std::string& text) {
                size_t total = 0, empty = 0;
                const auto emit = [&](std::string_view word) { total += word.size(); empty += word.empty(); };
                qlora::for_each_word(qlora::word_scanners(name, "test"), text, emit);
                EXPECT_EQ(total, text.size()) << name;
                EXPECT_EQ(empty, 0u) << name;
            }, name + (": " + hostile.substr(0, 4)));
}

TEST(Unicode, Categories) {
    EXPECT_EQ(qlora::char_class('A'), qlora::char_upper);
    EXPECT_EQ(qlora::char_class(U'ß'), qlora::char_lower);
    EXPECT_EQ(qlora::char_class(U'ǅ'), qlora::char_title);
    EXPECT_EQ(qlora::char_class(U'ー'), qlora::char_modifier);
    EXPECT_EQ(qlora::char_class(U'中'), qlora::char_other_letter);
    EXPECT_EQ(qlora::char_class(0x301), qlora::char_mark);
    EXPECT_EQ(qlora::char_class(U'Ⅷ'), qlora::char_number);
    EXPECT_EQ(qlora::char_class(U'«'), qlora::char_punctuation);
    EXPECT_EQ(qlora::char_class(U'€'), qlora::char_symbol);
    EXPECT_EQ(qlora::char_class(0x3000), qlora::char_none | qlora::char_space);
    EXPECT_EQ(qlora::char_class(0x200B), qlora::char_none);            // zero width "space" is none
    EXPECT_EQ(qlora::char_class(0x110000), qlora::char_none);
}

TEST(Unicode, Nfc) {
    const auto nfc = [](std::string_view text) { return qlora::normal_form(qlora::Form::nfc, text); };
    EXPECT_EQ(nfc("plain"), "plain");
    EXPECT_EQ(nfc("e\u0301"), "é");
    EXPECT_EQ(nfc("\u212b"), "Å");                              // the Angstrom sign
    EXPECT_EQ(nfc("a\u0315\u0300\u05ae\u0062"), "à\u05ae\u0315b");      // reordered by class, then composed
    EXPECT_EQ(nfc("a\u0328\u0301"), "ą\u0301");
    EXPECT_EQ(nfc("e\u0323\u0302"), "ệ");                       // in two steps
    EXPECT_EQ(nfc("e\u0302\u0323"), "ệ");
    EXPECT_EQ(nfc("\u1112\u1161\u11ab"), "한");
    EXPECT_EQ(nfc("\uac00\u11a8"), "각");
    // The reference's normal forms are those of Unicode 9: to it, newer marks (U+1DF6 of Unicode 10) keep their place
    // and newer pairs stay apart.
    EXPECT_EQ(nfc("x\u1df5\u0334"), "x\u0334\u1df5");
    EXPECT_EQ(nfc("x\u1df6\u0334"), "x\u1df6\u0334");
    EXPECT_EQ(nfc("\U0001611e\U0001611f"), "\U0001611e\U0001611f");
    EXPECT_EQ(nfc("\u0958"), "\u0915\u093c");                   // excluded from composition
    EXPECT_EQ(nfc("e\xFF\u0301"), "e\xFF\u0301");    // an invalid byte stays, and nothing joins across it
}

TEST(Unicode, Lowercase) {
    EXPECT_EQ(qlora::lowercase("ÀÉÎ straSSE ΣΊ ЖЁ ǅ Ⅷ"), "àéî strasse σί жё ǆ ⅷ");
    EXPECT_EQ(qlora::lowercase("İ"), "i\u0307");
    EXPECT_EQ(qlora::lowercase("\ua7cb\U00010d50"), "\u0264\U00010d70");      // of Unicode 16
    EXPECT_EQ(qlora::lowercase("\xFF" "A"), "\xFF" "a");
}

}  // namespace pretokenize_test
