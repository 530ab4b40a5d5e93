// tokenizer_parts_test.cpp - every component of tokenizer.json against the Python package `tokenizers`
// (tools/make_tokenizer_parts_golden.py says what a line holds), and what must be refused.
#include "src/base/file.h"
#include "src/text/split.h"
#include "src/text/tokenizer.h"
#include "tests/support/support.h"

#include <fstream>
#include <map>

namespace tokenizer_parts_test {

using namespace qlora;

TEST(TokenizerParts, AsTheTokenizersLibrary) {
    std::ifstream in(golden_path("tokenizer_parts.jsonl"));
    std::map<std::string, Json> models;
    std::shared_ptr<const TokenizerImpl> t;
    int tokenizers = 0, rows = 0;
    for (std::string line; std::getline(in, line);) {
        const Json row = Json::parse(line, "tokenizer_parts.jsonl");
        const Json::Array& fields = row.array();
        const std::string& name = fields[0].string();
        if (fields.size() == 2) {
            models.emplace(name, fields[1]);
        } else if (fields.size() == 3) {
            Json file = fields[2];
            t = load_tokenizer_json(file.set("model", models.at(fields[1].string())), Json(), name);
            ++tokenizers;
        } else {
            Tokens expected, found, known;
            for (const Json& id : fields[2].array()) expected.push_back(Token(id.integer()));
            for (const Token id : expected) if (id > 1) known.push_back(id);
            const std::string& text = fields[1].string();
            t->encode(text, found);
            ASSERT_EQ(found, expected) << name << ": " << text;
            ASSERT_EQ(utf8_sanitize(t->decode(known)), fields[3].is_null() ? text : fields[3].string()) << name;
            ++rows;
        }
    }
    EXPECT_GE(tokenizers, 27);
    EXPECT_GE(rows, 10 * tokenizers);
}

std::string error_of(const std::string& parts) {
    const std::string text = R"({"model": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0], ["a", -1], ["ab", -1.5]]})" + parts + "}";
    try {
        load_tokenizer_json(Json::parse(text, "t"), Json(), "t");
    } catch (const Error& e) {
        return e.what();
    }
    return "read";
}

TEST(TokenizerParts, WhatCannotBeReadIsNamed) {
    EXPECT_EQ(error_of(""), "read");
    for (const auto& [parts, said] :
         {std::pair(R"(, "pre_tokenizer": {"type": "ByteLevel"})", "Unigram"),
          std::pair(R"(, "pre_tokenizer": {"type": "Whitespace"})", "Whitespace"),
          std::pair(R"(, "normalizer": {"type": "Replace", "pattern": {"Regex": "a|b"}, "content": ""})", "a|b"),
          std::pair(R"(, "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "a*"}, "behavior": "Isolated"})", "a*"),
          std::pair(R"(, "pre_tokenizer": {"type": "Split", "pattern": {"String": "a"}, "behavior": "Some"})", "Some"),
          std::pair(R"(, "normalizer": {"type": "StripAccents"})", "StripAccents"),
          std::pair(R"(, "normalizer": {"type": "Precompiled"})", "Precompiled")})
        EXPECT_NE(error_of(parts).find(said), std::string::npos) << error_of(parts);
    const auto refused = [](const std::string& model) {
        EXPECT_THROW(load_tokenizer_json(Json::parse(R"({"model": {"type": "Unigram", )" + model + "}}", "t"), Json(), "t"), Error)
            << model;
    };
    refused(R"("unk_id": 3, "vocab": [["a", 0]])");
    refused(R"("unk_id": -1, "vocab": [["a", 0]])");
    refused(R"("vocab": [])");
    refused(R"("vocab": [["a"]])");
    refused(R"("vocab": [["a", "b"]])");
    refused(R"("vocab": {"a": 1})");
}

TEST(Split, ExpressionsOfOneClass) {
    const auto first = [](std::string_view source, std::string_view text) {
        const Matcher match = match_expression(source);
        if (!match) return std::string("none");
        const Found found = match(text, 0);
        return std::string(text.substr(found.begin, found.end - found.begin));
    };
    EXPECT_EQ(first(R"(\s+)", "ab \t\nc"), " \t\n");
    EXPECT_EQ(first(" {2,}", "a b   c"), "   ");
    EXPECT_EQ(first(R"(\p{N}{1,3})", "ab12345"), "123");
    EXPECT_EQ(first(R"([^\s\p{L}]{2})", "a 1, 23;"), "1,");
    EXPECT_EQ(first("[a-c-]+", "xb-ay"), "b-a");
    EXPECT_EQ(first(R"(\P{L})", "ab\xC3\xA9!"), "!");
    EXPECT_EQ(first(R"(\.)", "a.b"), ".");
    EXPECT_EQ(first("abc", "xabcd"), "abc");
    for (const char* more : {"a|b", "a*", "a?", "(a)", ".", "a+b", "[a", "[]", R"(\w+)", R"(\p{Greek})", "a{2,1}", "a{0,3}",
                             "[[:alpha:]]", R"([\S\P{L}])", "^a", "a+?", "[z-a]", "", R"(\)", "a{3"})
        EXPECT_EQ(first(more, "aabb"), "none") << more;
}

}  // namespace tokenizer_parts_test
