// records_test.cpp - the formats of training data, one record at a time, and how files are cut into records.
#include "src/run/dataset.h"

#include <gtest/gtest.h>

namespace records_test {

qlora::Example read(std::string_view json) { return qlora::read_example(qlora::Json::parse(json, "test"), "file:7"); }

std::string error_of(std::string_view json) {
    try {
        read(json);
    } catch (const qlora::Error& e) {
        return e.what();
    }
    return "no error";
}

bool contains(const std::string& text, std::string_view part) { return text.find(part) != text.npos; }

TEST(Records, Formats) {
    EXPECT_EQ(read(R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]})").format, "messages");
    EXPECT_EQ(read(R"({"text": "a"})").format, "text");
    EXPECT_EQ(read(R"({"prompt": "a", "completion": "b"})").completion, "b");
    EXPECT_EQ(read(R"({"prompt": "a", "response": "b"})").completion, "b");
    EXPECT_EQ(read(R"({"prompt": [{"role": "user", "content": "a"}], "completion": [{"role": "assistant", "content": "b"}]})").messages.dump(),
              R"([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])");
    const qlora::Example alpaca = read(R"({"instruction": "Add", "input": "1 2", "output": "3", "system": "S", "history": [["q", "a"]]})");
    EXPECT_EQ(alpaca.format, "alpaca");
    EXPECT_EQ(alpaca.messages.dump(), R"([{"role": "system", "content": "S"}, {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}, )"
                                      R"({"role": "user", "content": "Add\n1 2"}, {"role": "assistant", "content": "3"}])");
    EXPECT_TRUE(contains(alpaca.prompt, "### Instruction:\nAdd\n\n### Input:\n1 2\n\n### Response:\n"));
    const qlora::Example share = read(R"({"conversations": [{"from": "human", "value": "x"}, {"from": "function_call", "value": "{}"},
        {"from": "observation", "value": "o"}, {"from": "gpt", "value": "y"}], "system": "S", "tools": "[{\"name\": \"f\"}]"})");
    EXPECT_EQ(share.format, "sharegpt");
    ASSERT_EQ(share.messages.array().size(), 5u);
    EXPECT_EQ(share.messages.array()[0].find("role")->string(), "system");
    EXPECT_EQ(share.messages.array()[2].find("role")->string(), "assistant");
    EXPECT_EQ(share.messages.array()[3].find("role")->string(), "tool");
    EXPECT_EQ(share.tools.dump(), R"([{"name": "f"}])");
}

TEST(Records, ContentParts) {
    EXPECT_EQ(read(R"({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]})").messages.array()[0].find("content")->string(), "ab");
    EXPECT_TRUE(contains(error_of(R"({"messages": [{"role": "user", "content": [{"type": "image", "url": "x"}]}]})"), "image"));
}

TEST(Records, ErrorsNameLineAndField) {
    EXPECT_TRUE(contains(error_of(R"({"messages": "x"})"), "file:7: messages"));
    EXPECT_TRUE(contains(error_of(R"({"messages": [{"role": "user"}]})"), "file:7: messages[0]"));
    EXPECT_TRUE(contains(error_of(R"({"messages": [{"role": "alien", "content": ""}]})"), "alien"));
    EXPECT_TRUE(contains(error_of(R"({"question": "x", "answer": "y"})"), "question, answer"));
    EXPECT_TRUE(contains(error_of(R"({"prompt": "a", "chosen": "b", "rejected": "c"})"), "preference"));
    EXPECT_TRUE(contains(error_of(R"({"text": 5})"), "file:7: text"));
    EXPECT_TRUE(contains(error_of("[1]"), "object"));
}

TEST(Records, LinesWithByteOrderMarkAndCarriageReturns) {
    const auto records = qlora::split_records("\xEF\xBB\xBF{\"text\": \"a\"}\r\n\r\n{\"text\": \"b\"}\r\n", "f");
    ASSERT_EQ(records.size(), 2u);
    EXPECT_EQ(records[0].line, 1);
    EXPECT_EQ(records[1].line, 3);
    EXPECT_EQ(qlora::Json::parse(records[1].text, "f").find("text")->string(), "b");
}

TEST(Records, ArraysKeepLineNumbers) {
    const auto records = qlora::split_records("[\n {\"a\": \"]},[{\\\"\"},\n\n {\"b\": [1, {}]}\n]\n", "f");
    ASSERT_EQ(records.size(), 2u);
    EXPECT_EQ(records[0].line, 2);
    EXPECT_EQ(records[1].line, 4);
    EXPECT_EQ(qlora::Json::parse(records[0].text, "f").find("a")->string(), "]},[{\"");
    EXPECT_TRUE(qlora::split_records("[ ]", "f").empty());
    EXPECT_THROW(qlora::split_records("[{\"a\": 1}, {\"b\"", "f"), qlora::Error);
    EXPECT_THROW(qlora::split_records("[{}] x", "f"), qlora::Error);
    EXPECT_THROW(qlora::split_records(" \n", "f"), qlora::Error);
    EXPECT_THROW(qlora::split_records("[\"\\", "f"), qlora::Error);
}

}  // namespace records_test
