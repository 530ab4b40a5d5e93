// normalize_test.cpp - texts through normalizers: what becomes of them, where each byte came from; and added tokens
// that are looked for after them, as the tokenizers library does (tools/make_added_token_golden.py).
#include "src/text/normalize.h"

#include "src/base/rng.h"
#include "src/text/tokenizer.h"
#include "tests/support/support.h"

#include <fstream>

#include <gtest/gtest.h>

namespace normalize_test {

using namespace qlora;

std::string random_text(Rng& rng) {
    static const char* parts[] = {"a",
                                  "b",
                                  " ",
                                  "ab",
                                  "\xC3\xA9",
                                  "e\xCC\x81",
                                  "A\xCC\x8A",
                                  "\xE1\x84\x80\xE1\x85\xA1",
                                  "\xC3\x84",
                                  "\xF0\x9F\x98\x80",
                                  "\xED\x95\x9C",
                                  "\xEA\xB0\x80",
                                  "\xE1\x86\xA8",
                                  "\xE4\xB8\xAD",
                                  "\xE3\x81\x8B",
                                  "\xE3\x82\x99",
                                  "=",
                                  "\xCC\xB8",
                                  "\xFF",
                                  "\t",
                                  "\xE2\x84\xAB",
                                  "\xCC\x81"};
    std::string text;
    for (uint64_t n = rng.below(12); n > 0; --n) text += parts[rng.below(std::size(parts))];
    return text;
}

// Each byte's origin lies in the text, origins rise, and what stands before and behind a byte is all of the text.
void check_origins(const NormalText& t, size_t original) {
    for (size_t i = 0; i < t.text().size(); ++i) {
        ASSERT_LE(t.from(i), t.until(i + 1));
        ASSERT_LE(t.until(i + 1), original);
        if (i) { ASSERT_LE(t.from(i - 1), t.from(i)); }
    }
}

TEST(NormalText, KnowsWhereItsBytesCameFrom) {
    Rng rng{3, 0, 0};
    for (int i = 0; i < 3000; ++i) {
        const std::string text = random_text(rng);
        NormalText t(text);
        const Form form = Form(rng.below(4));
        t.bring_into(form);
        ASSERT_EQ(t.text(), normal_form(form, text));
        check_origins(t, text.size());
        if (rng.below(2)) t.lower();
        if (rng.below(2)) t.replace("ab", "x");
        if (rng.below(2)) t.replace("a", "long");
        if (rng.below(2)) t.prepend("\xE2\x96\x81");
        if (rng.below(2)) t.strip(rng.below(2), rng.below(2));
        check_origins(t, text.size());
    }
    NormalText t("\xC3\x84 e\xCC\x81 ab");              // "Ä é ab", its é in two characters
    t.bring_into(Form::nfc);
    t.replace("ab", "xyz");
    EXPECT_EQ(t.text(), "\xC3\x84 \xC3\xA9 xyz");
    EXPECT_EQ(t.from(0), 0u);
    EXPECT_EQ(t.from(3), 3u);                           // the composed letter
    EXPECT_EQ(t.until(5), 6u);
    EXPECT_EQ(t.from(6), 7u);                           // x, y and z all came from "ab"
    EXPECT_EQ(t.from(8), 7u);
    EXPECT_EQ(t.until(9), 9u);
}

// Where a character begins a piece the text can be cut: for every character, behind what joins with marks, vowels and
// final consonants.
TEST(NormalText, PiecesComposeAlone) {
    for (const Form form : {Form::nfc, Form::nfd, Form::nfkc, Form::nfkd})
        for (const std::string before :
             {"a", "e\xCC\x81", "\xE1\x84\x80", "\xEA\xB0\x80", "\xE3\x81\x8B", "\xE0\xA7\x87", "\xF0\x91\x84\xB1"}) {
            const std::string left = normal_form(form, before);
            for (char32_t code = 0x80; code < 0x30000; ++code) {
                if (code >= 0xD800 && code < 0xE000) continue;
                std::string one;
                utf8_append(one, code);
                const std::string alone = normal_form(form, one);
                if (form_begins(form, code)) {
                    ASSERT_EQ(normal_form(form, before + one), left + alone) << before << std::hex << uint32_t(code);
                }
                ASSERT_EQ(form_settled(form, code), form_begins(form, code) && alone == one) << uint32_t(code);
            }
        }
}

// The letter is in the original where it is in the text, whatever is composed behind it.
TEST(NormalText, OneComposedCharacterMovesNoOther) {
    for (const std::string neighbour : {"a", "7", "\xE4\xB8\xAD", "\xED\x95\x9C", "\xD0\xAF"}) {
        const std::string text = neighbour + "\xE4\xB8\xAD" + "e\xCC\x81" + "\xED\x95\x9C" +
                                 "\xE1\x84\x80\xE1\x85\xA1" + neighbour;
        NormalText t(text);
        t.bring_into(Form::nfc);
        const size_t n = neighbour.size();
        ASSERT_EQ(t.text(), neighbour + "\xE4\xB8\xAD\xC3\xA9\xED\x95\x9C\xEA\xB0\x80" + neighbour);
        EXPECT_EQ(t.from(n), n);
        EXPECT_EQ(t.until(n), n);
        EXPECT_EQ(t.from(n + 3), n + 3);               // the composed letter, of three bytes
        EXPECT_EQ(t.until(n + 5), n + 6);
        EXPECT_EQ(t.from(n + 5), n + 6);
        EXPECT_EQ(t.from(n + 8), n + 9);               // the composed syllable, of six
        EXPECT_EQ(t.until(n + 11), n + 15);
        EXPECT_EQ(t.from(n + 11), n + 15);
    }
}

TEST(AddedTokens, AsTheTokenizersLibraryFindsThem) {
    std::ifstream in(golden_path("added_tokens.jsonl"));
    std::string line;
    ASSERT_TRUE(std::getline(in, line));
    const Json shared = Json::parse(line, "added_tokens.jsonl");
    int cases = 0;
    while (std::getline(in, line)) {
        const Json row = Json::parse(line, "added_tokens.jsonl");
        Json file = shared;
        for (const auto& [key, value] : row.array()[0].object()) file.set(key, value);
        const auto t = load_tokenizer_json(file, Json(), "golden");
        for (const Json& c : row.array()[1].array()) {
            const std::string& text = c.array()[0].string();
            Tokens expected, ids;
            for (const Json& id : c.array()[1].array()) expected.push_back(Token(id.integer()));
            t->encode_template(text, ids);
            EXPECT_EQ(ids, expected) << text << "\n" << row.array()[0].dump();
            EXPECT_EQ(t->decode(expected, true), c.array()[2].string()) << text << "\n" << row.array()[0].dump();
            ++cases;
        }
    }
    EXPECT_GE(cases, 700);
}

// as Llama 2's tokenizer.json: <s> is looked for behind the prefix
std::shared_ptr<const TokenizerImpl> spaces_in_front() {
    return load_tokenizer_json(
        Json::parse(
            R"({"added_tokens": [{"id": 0, "content": "<s>", "special": true, "normalized": true}], "decoder": null,
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Lowercase"}, {"type": "Replace", "pattern": {"String": " "}, "content": "__"}]},
        "model": {"type": "BPE", "vocab": {"<": 1, "s": 2, ">": 3, "_": 4, "a": 5}, "merges": []}})",
            "t"),
        Json(), "t");
}

// A message can never become a control token, however the normalizer moves its bytes; the template's own text can.
TEST(AddedTokens, NormalizedControlTokensInContentStayText) {
    const auto t = spaces_in_front();
    const auto rendered = [&](std::string_view text, std::vector<RenderedTemplate::Span> literal) {
        Tokens ids;
        std::vector<int64_t> starts;
        t->encode_rendered(text, literal, ids, &starts);
        EXPECT_EQ(ids.size(), starts.size());
        return ids;
    };
    const Tokens text{1, 2, 3};
    EXPECT_EQ(rendered("<S>", {}), Tokens{0});
    EXPECT_EQ(rendered("<S>", {{0, 3}}), text);
    for (int64_t begin = 0; begin < 3; ++begin) EXPECT_EQ(rendered("<S>", {{begin, begin + 1}}), text) << begin;
    EXPECT_EQ(rendered("  <s><s>", {{0, 5}}), (Tokens{4, 4, 4, 4, 1, 2, 3, 0}));
    EXPECT_EQ(rendered("  <s><s>", {{5, 8}}), (Tokens{4, 4, 4, 4, 0, 1, 2, 3}));
    Tokens plain;
    t->encode("<s>", plain);
    EXPECT_EQ(plain, text);
}

// Token starts are exact where a normal form moved the bytes.
TEST(AddedTokens, StartsAreThoseOfTheText) {
    Tokens ids;
    std::vector<int64_t> starts;
    spaces_in_front()->encode_rendered("A <s>a", {}, ids, &starts);
    EXPECT_EQ(ids, (Tokens{5, 4, 4, 0, 5}));
    EXPECT_EQ(starts, (std::vector<int64_t>{0, 1, 1, 2, 5}));
}

}  // namespace normalize_test
