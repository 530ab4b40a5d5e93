// pattern_test.cpp - expressions that Python's re was asked about (tools/make_peft_rules_golden.py), and limits.
#include "src/text/pattern.h"

#include "src/base/file.h"
#include "src/base/json.h"
#include "tests/support/support.h"

#include <gtest/gtest.h>


namespace pattern_test {

using namespace qlora;

// Equal to the reference, or refused as unsupported; what Python refuses is refused.
TEST(Pattern, FitsWhatPythonFits) {
    const std::string path = golden_path("model/peft_rules.json");
    const Json golden = Json::parse(read_file(path), path);
    const Json::Array& texts = golden.find("texts")->array();
    int64_t compared = 0, refused = 0, unsupported = 0;
    for (const Json& entry : golden.find("expressions")->array()) {
        const std::string& source = entry.array()[0].string();
        std::optional<Pattern> pattern;
        try {
            pattern.emplace(source, "test");
        } catch (const Error& e) {
            if (e.code == Errc::unsupported) { ++unsupported; continue; }
            EXPECT_TRUE(entry.array()[1].is_string()) << source << ": " << e.what();
            ++refused;
            continue;
        }
        if (entry.array()[1].is_string()) { ADD_FAILURE() << "Python refuses " << source; continue; }
        for (const bool whole : {true, false}) {
            std::vector<int64_t> fits, expected;
            for (size_t i = 0; i < texts.size(); ++i)
                if (whole ? pattern->fits(texts[i].string()) : pattern->begins(texts[i].string()))
                    fits.push_back(int64_t(i));
            for (const Json& i : entry.array()[whole ? 1 : 2].array()) expected.push_back(i.integer());
            EXPECT_EQ(fits, expected) << source << (whole ? " whole" : " begin");
        }
        ++compared;
    }
    EXPECT_GT(compared, 900);
    EXPECT_GT(refused, 100);
    EXPECT_LT(unsupported, 120);                       // possessive counts, such as a?+ and a{2}+
}

TEST(Pattern, WhatItCannotReadIsRefusedByName) {
    const struct { const char *source, *name;
    } table[] = {{"(?i)a", "flag"},
                 {"(?<=a)b", "lookbehind"},
                 {"(?<!a)b", "lookbehind"},
                 {"(a)\\1", "reference"},
                 {"(?P<n>a)(?P=n)", "reference"},
                 {"(?>a)", "atomic"},
                 {"a*+", "possessive"},
                 {"\\x41", "number"},
                 {"\\u0041", "number"},
                 {"(?(1)a|b)", "reference"},
                 {"a{1,100000}", "count"},
                 {"(?#x)a", "comment"}};
    for (const auto& row : table) {
        try {
            Pattern(row.source, "FILE: exclude_modules");
            ADD_FAILURE() << row.source;
        } catch (const Error& e) {
            EXPECT_EQ(e.code, Errc::unsupported) << row.source << e.what();
            EXPECT_NE(std::string(e.what()).find(row.name), std::string::npos) << e.what();
            EXPECT_NE(std::string(e.what()).find("FILE: exclude_modules"), std::string::npos) << e.what();
        }
    }
}

// What goes back and tries again would be at the first of these for years.
TEST(Pattern, NoExpressionTakesLongOrDeep) {
    const std::string text(60, 'a');
    EXPECT_FALSE(Pattern("(((((a*)*)*)*)*)*b", "test").fits(text));
    EXPECT_FALSE(Pattern("(a|a|a)*(a|aa)*(a*a*a*)*c", "test").fits(text));
    EXPECT_TRUE(Pattern("((a?){100}){100}", "test").fits(text));
    EXPECT_THROW(Pattern(std::string(5000, '(') + std::string(5000, ')'), "test"), Error);
    EXPECT_THROW(Pattern(std::string(1000, '(') + std::string(1000, ')'), "test"), Error);
    EXPECT_THROW(Pattern("a", "test").fits(std::string(300, 'a')), Error);
}

}  // namespace pattern_test
