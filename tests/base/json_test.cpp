// json_test.cpp - the JSON parser against RFC 8259 and the writer against Python's json.dumps(ensure_ascii=False).
#include "src/base/json.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace json_tests {

using qlora::Json;

Json parse(std::string_view text) { return Json::parse(text, "test.json"); }

std::string refusal(std::string_view text) {
    try {
        parse(text);
    } catch (const qlora::Error& e) { return e.code == qlora::Errc::format ? e.what() : "wrong code"; }
    return "accepted";
}

TEST(Json, ReadsEveryKind) {
    const Json j = parse(R"( {"a": [1, -2.5, 1e3, true, false, null], "b": {"c": "x"}, "": 0} )");
    const auto& a = j.find("a")->as_array("a");
    EXPECT_EQ(a[0].as_int("x"), 1);
    EXPECT_EQ(a[1].as_number("x"), -2.5);
    EXPECT_EQ(a[2].as_int("x"), 1000);
    EXPECT_TRUE(a[3].as_bool("x"));
    EXPECT_FALSE(a[4].as_bool("x"));
    EXPECT_TRUE(a[5].is_null());
    EXPECT_EQ(j.find("b")->find("c")->as_string("x"), "x");
    EXPECT_EQ(j.find("")->as_int("x"), 0);
    EXPECT_EQ(j.find("nothing"), nullptr);
    EXPECT_EQ(a[0].find("x"), nullptr);
    EXPECT_EQ(parse("\xEF\xBB\xBF[]").as_array("x").size(), 0u);
}

TEST(Json, NumbersAtTheirLimits) {
    EXPECT_EQ(parse("9223372036854775807").integer(), std::numeric_limits<int64_t>::max());
    EXPECT_EQ(parse("-9223372036854775808").integer(), std::numeric_limits<int64_t>::min());
    EXPECT_EQ(parse("9223372036854775808").kind(), Json::Kind::number);
    EXPECT_EQ(parse("9223372036854775808").number(), 0x1p63);
    EXPECT_EQ(parse("1e-400").number(), 0.0);
    EXPECT_TRUE(std::signbit(parse("-0.000001e-400").number()));
    EXPECT_TRUE(parse("-0").is_number() && !parse("-0").is_int() && std::signbit(parse("-0").number()));
    EXPECT_EQ(parse("0e999999999999999999999").number(), 0.0);
    EXPECT_EQ(parse("1e-999999999999999999999").number(), 0.0);
    EXPECT_EQ(parse("5e-324").number(), 5e-324);
    EXPECT_EQ(parse("0." + std::string(400, '0') + "1e401").number(), 1.0);
    for (const char* small : {"0.1e-9223372036854775807", "-100e-9223372036854775807"})
        EXPECT_EQ(parse(small).number(), 0.0) << small;
    for (const char* big : {"1e400", "1e999999999999999999999", "-1e309", "48e09223372036854775807"})
        EXPECT_NE(refusal(big).find("does not fit a double"), std::string::npos) << big;
    EXPECT_NE(refusal(std::string(400, '9')).find("does not fit a double"), std::string::npos);
}

TEST(Json, RefusesWhatTheStandardRefuses) {
    for (const char* bad : {"",
                            " ",
                            "{",
                            "[",
                            "[1,]",
                            "[,1]",
                            "[1 2]",
                            "{\"a\"}",
                            "{\"a\":}",
                            "{\"a\":1,}",
                            "{a:1}",
                            "{'a':1}",
                            "01",
                            "-",
                            "-01",
                            "+1",
                            "1.",
                            ".5",
                            "1e",
                            "1e+",
                            "0x1",
                            "NaN",
                            "Infinity",
                            "tru",
                            "True",
                            "nul",
                            "\"",
                            "\"\\",
                            "\"\\x\"",
                            "\"\\u12\"",
                            "\"\\u12g4\"",
                            "\"\\u+123\"",
                            "\"\\ud800\"",
                            "\"\\udc00\"",
                            "\"\\ud800\\u0041\"",
                            "\"a\nb\"",
                            "\"\t\"",
                            "[1] 2",
                            "// x\n1",
                            "1 /**/",
                            "\"\xff\"",
                            "\"\xc0\x80\"",
                            "\"\xe0\x80\x80\"",
                            "\"\xed\xa0\x80\"",
                            "\"\xf4\x90\x80\x80\"",
                            "\"\xf0\x80\x80\x80\"",
                            "\"\xe2\x82\"",
                            "\xEF\xBB",
                            "[]]",
                            "[1}",
                            "{]"})
        EXPECT_NE(refusal(bad), "accepted") << bad;
    EXPECT_NE(refusal(std::string_view("\"\0\"", 3)), "accepted");
    EXPECT_NE(refusal(std::string_view("1\0", 2)), "accepted");
}

TEST(Json, ErrorsSayWhere) {
    EXPECT_EQ(refusal("{\"a\": 1,\n \"b\": x}"), "test.json: line 2, column 7: expected a value, found 'x'");
    // columns count characters
    EXPECT_EQ(refusal("[\"\xC3\xA4\", x]"), "test.json: column 7: expected a value, found 'x'");
    EXPECT_EQ(refusal("{\"a\": 1, \"b\": 2, \"a\": 3}"),
              "test.json: column 24: the object that ends here has the key \"a\" twice");
    EXPECT_EQ(refusal("{\"a\": 1, \"\\u0061\": 3}").substr(0, 19), "test.json: column 2");
    const auto in_file = [](std::string_view json) {
        try {
            (void)qlora::Json::parse(json, "chats.jsonl:12");
        } catch (const qlora::Error& e) { return std::string(e.what()); }
        return std::string("accepted");
    };
    // the line of the file, once
    EXPECT_EQ(in_file("{\"a\": x}"), "chats.jsonl:12: column 7: expected a value, found 'x'");
    EXPECT_EQ(in_file("{\"a\":\n\n x}"), "chats.jsonl:14: column 2: expected a value, found 'x'");
    for (const char* bad :
         {"", "x", "[1", "{\"a\"", "{\"a\" 1}", "\"\\u12g4\"", "[1] 2", "\"\xff\"", "1e", "{\"a\": 1, \"a\": 1}"}) {
        EXPECT_EQ(in_file(bad).substr(0, 23), "chats.jsonl:12: column ") << bad;
        EXPECT_EQ(in_file(bad).find("line"), std::string::npos) << bad;
    }
    try {
        parse("{\"n\": \"four\"}").find("n")->as_int("config.json: n");
        FAIL();
    } catch (const qlora::Error& e) { EXPECT_STREQ(e.what(), "config.json: n must be an integer, is a string"); }
    EXPECT_THROW(parse("1.5").as_int("x"), qlora::Error);
    EXPECT_THROW(parse("1e300").as_int("x"), qlora::Error);
    EXPECT_THROW(parse("1").as_bool("x"), qlora::Error);
}

TEST(Json, DepthIsLimitedAndSafe) {
    const auto nested = [](size_t n) { return std::string(n, '[') + std::string(n, ']'); };
    EXPECT_NO_THROW(parse(nested(128)));
    EXPECT_NE(refusal(nested(129)).find("nested deeper than 128 levels"), std::string::npos);
    EXPECT_NE(refusal(std::string(10'000'000, '[')).find("nested deeper"), std::string::npos);
    EXPECT_NO_THROW(Json::parse(nested(1000), "x", {.depth = 1 << 30}).dump(2));
    EXPECT_THROW(Json::parse(nested(1001), "x", {.depth = 1 << 30}), qlora::Error);
    EXPECT_THROW(Json::parse("[1, 2, 3]", "x", {.bytes = 8}), qlora::Error);
}

TEST(Json, ManyKeysAreCheckedFast) {
    std::string text = "{";
    for (int i = 0; i < 200'000; ++i) text += '"' + std::to_string(i) + "\":0,";
    EXPECT_EQ(parse(text + "\"x\":0}").as_object("x").size(), 200'001u);
    EXPECT_NE(refusal(text + "\"7\":0}").find("twice"), std::string::npos);
}

TEST(Json, StringsKeepTheirText) {
    EXPECT_EQ(parse(R"("\u00e4\ud83d\ude00\u0000\n\/\"")").string(),
              std::string("\xC3\xA4\xF0\x9F\x98\x80\0\n/\"", 10));
    const std::string all = "\"\\\b\f\n\r\t\x01\x1f\x7f /\xC3\xA4\xF0\x9F\x98\x80";
    EXPECT_EQ(parse(qlora::json_quote(all)).string(), all);
    // json.dumps(all, ensure_ascii=False)
    EXPECT_EQ(qlora::json_quote(all), "\"\\\"\\\\\\b\\f\\n\\r\\t\\u0001\\u001f\x7f /\xC3\xA4\xF0\x9F\x98\x80\"");
}

TEST(Json, FloatsPrintAsPythonPrintsThem) {
    const std::pair<double, const char*> cases[] = {// repr(x) of CPython 3.11
                                                    {0.0, "0.0"},
                                                    {-0.0, "-0.0"},
                                                    {1.0, "1.0"},
                                                    {0.1, "0.1"},
                                                    {1.0 / 3, "0.3333333333333333"},
                                                    {1e15, "1000000000000000.0"},
                                                    {1e16, "1e+16"},
                                                    {123456789012345680.0, "1.2345678901234568e+17"},
                                                    {9999999999999998.0, "9999999999999998.0"},
                                                    {0.0001, "0.0001"},
                                                    {0.00001, "1e-05"},
                                                    {1.5e-7, "1.5e-07"},
                                                    {2e-4, "0.0002"},
                                                    {5e-324, "5e-324"},
                                                    {1.7976931348623157e308, "1.7976931348623157e+308"},
                                                    {1e100, "1e+100"},
                                                    {12.5, "12.5"},
                                                    {-1234.5678, "-1234.5678"},
                                                    {100.0, "100.0"},
                                                    {1e22, "1e+22"}};
    for (const auto& [value, text] : cases) {
        EXPECT_EQ(Json(value).dump(), text);
        EXPECT_EQ(parse(text).number(), value) << text;
    }
    EXPECT_THROW(Json(std::numeric_limits<double>::infinity()).dump(), qlora::Error);
    EXPECT_THROW(Json(std::nan("")).dump(), qlora::Error);
}

TEST(Json, DumpsAsPythonDumps) {
    Json j;
    j.set("r", 16)
        .set("alpha", 2e-4)
        .set("list", Json().push(1).push(Json::Array{}).push(Json::Object{}))
        .set("s", "\xC3\xA4")
        .set("n", nullptr)
        .set("b", true);
    j.set("r", 64);
    EXPECT_EQ(j.dump(),
              "{\"r\": 64, \"alpha\": 0.0002, \"list\": [1, [], {}], \"s\": \"\xC3\xA4\", \"n\": null, \"b\": true}");
    EXPECT_EQ(j.dump(2),
              "{\n  \"r\": 64,\n  \"alpha\": 0.0002,\n  \"list\": [\n    1,\n    [],\n    {}\n  ],\n  \"s\": "
              "\"\xC3\xA4\",\n  \"n\": null,\n  \"b\": true\n}");
    EXPECT_EQ(parse(j.dump(2)).dump(), j.dump());
    EXPECT_THROW(Json(1).set("a", 1), qlora::Error);
    EXPECT_THROW(Json("x").push(1), qlora::Error);
}

}    // namespace json_tests
