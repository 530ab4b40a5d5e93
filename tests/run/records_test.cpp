// records_test.cpp - the formats of training data, one record at a time, and how files are cut into records.
#include "src/run/records.h"

#include <gtest/gtest.h>

namespace records_test {

std::vector<qlora::Example> read_all(std::string_view json) {
    return qlora::read_record(qlora::Json::parse(json, "test"), "file:7");
}
qlora::Example read(std::string_view json) { return read_all(json).at(0); }

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
    EXPECT_EQ(read(R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]})").format,
              "messages");
    EXPECT_EQ(read(R"({"text": "a"})").format, "text");
    EXPECT_EQ(read(R"({"prompt": "a", "completion": "b"})").completion, "b");
    EXPECT_EQ(read(R"({"prompt": "a", "response": "b"})").completion, "b");
    for (const char* pair : {R"({"question": "a", "answer": "b"})", R"({"query": "a", "response": "b"})",
                             R"({"input": "a", "output": "b"})"}) {
        EXPECT_EQ(read(pair).prompt, "a") << pair;
        EXPECT_EQ(read(pair).completion, "b") << pair;
        EXPECT_EQ(read(pair).format, "prompt/completion") << pair;
    }
    EXPECT_EQ(read(R"({"conversation": [{"role": "user", "content": "a"}]})").format, "sharegpt");
    EXPECT_EQ(read(R"({"text": "a", "label": 1})").unused, std::vector<std::string>{"label"});
    EXPECT_EQ(
        read(R"({"prompt": [{"role": "user", "content": "a"}], "completion": [{"role": "assistant", "content": "b"}]})")
            .chat.messages.dump(),
        R"([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])");
    const qlora::Example alpaca = read(
        R"({"instruction": "Add", "input": "1 2", "output": "3", "system": "S", "history": [["q", "a"]]})");
    EXPECT_EQ(alpaca.format, "alpaca");
    EXPECT_EQ(
        alpaca.chat.messages.dump(),
        R"([{"role": "system", "content": "S"}, {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}, )"
        R"({"role": "user", "content": "Add\n1 2"}, {"role": "assistant", "content": "3"}])");
    EXPECT_TRUE(contains(alpaca.prompt, "### Instruction:\nAdd\n\n### Input:\n1 2\n\n### Response:\n"));
    const qlora::Example share = read(
        R"({"conversations": [{"from": "human", "value": "x"}, {"from": "function_call", "value": "{}"},
        {"from": "observation", "value": "o"}, {"from": "gpt", "value": "y"}], "system": "S", "tools": "[{\"name\": \"f\"}]"})");
    EXPECT_EQ(share.format, "sharegpt");
    ASSERT_EQ(share.chat.messages.array().size(), 5u);
    EXPECT_EQ(share.chat.messages.array()[0].find("role")->string(), "system");
    EXPECT_EQ(share.chat.messages.array()[2].find("role")->string(), "assistant");
    EXPECT_EQ(share.chat.messages.array()[3].find("role")->string(), "tool");
    EXPECT_EQ(share.variables.find("tools")->dump(), R"([{"name": "f"}])");
}

TEST(Records, ContentParts) {
    EXPECT_EQ(
        read(
            R"({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]})")
            .chat.messages.array()[0]
            .find("content")
            ->string(),
        "ab");
    for (const char* spelled :
         {R"(["a", "b"])", R"([{"type": "text", "value": "ab"}])",
          R"([{"type": "input_text", "text": "a"}, {"type": "output_text", "text": "b"}])", R"([{"text": "ab"}])"})
        EXPECT_EQ(read(std::string(R"({"messages": [{"role": "user", "content": )") + spelled + "}]}")
                      .chat.messages.array()[0]
                      .find("content")
                      ->string(),
                  "ab")
            << spelled;
    for (const char* image : {R"({"type": "image", "url": "x"})", R"({"type": "image_url", "image_url": {"url": "x"}})",
                              R"({"type": "input_image"})", R"({"image": "x"})"})
        EXPECT_TRUE(contains(error_of(std::string(R"({"messages": [{"role": "user", "content": [)") + image + "]}]}"),
                             "file:7: messages[0]: content holds image"))
            << image;
    EXPECT_TRUE(contains(error_of(R"({"messages": [{"role": "user", "content": [{"type": "sound"}]}]})"), "sound"));
}

TEST(Records, EveryKeyOfAMessageIsKept) {
    const qlora::Example e = read(
        R"({"messages": [{"role": "user", "content": "a", "name": "Ann", "tool_calls": null}, {"role": "assistant", "content": "b",
        "reasoning_content": "r", "x": [1]}, {"role": "tool", "content": "t", "tool_call_id": "i"}], "tools": [], "documents": [{"title": "d"}],
        "chat_template_kwargs": {"enable_thinking": false}, "id": 7, "source": null, "tags": []})");
    EXPECT_EQ(
        e.chat.messages.dump(),
        R"([{"role": "user", "content": "a", "name": "Ann"}, {"role": "assistant", "content": "b", "reasoning_content": "r", "x": [1]}, )"
        R"({"role": "tool", "content": "t", "tool_call_id": "i"}])");
    EXPECT_EQ(e.variables.dump(), R"({"documents": [{"title": "d"}], "enable_thinking": false})");
    EXPECT_EQ(e.unused, std::vector<std::string>{"id"});               // null and empty say nothing
    EXPECT_TRUE(contains(error_of(R"({"messages": [], "chat_template_kwargs": {"messages": []}})"),
                         "chat_template_kwargs may not set messages"));
}

TEST(Records, MasksOfMessages) {
    const auto masked = [](const std::string& keys) {
        return read(R"({"messages": [{"role": "assistant", "content": "b", )" + keys + "}]}").chat.facts[0].masked;
    };
    for (const char* off : {R"("weight": 0)", R"("weight": 0.0)", R"("train": false)", R"("loss": false)",
                            R"("masked": true)", R"("train": 0)", R"("masked": 1)"})
        EXPECT_TRUE(masked(off)) << off;
    for (const char* on :
         {R"("weight": 1)", R"("train": true)", R"("loss": true)", R"("masked": false)", R"("weight": null)"})
        EXPECT_FALSE(masked(on)) << on;
    EXPECT_EQ(read(R"({"messages": [{"role": "assistant", "content": "b", "weight": 0}]})").chat.messages.dump(),
              R"([{"role": "assistant", "content": "b"}])");
    EXPECT_TRUE(contains(error_of(R"({"messages": [{"role": "assistant", "content": "b", "weight": 0.5}]})"),
                         "file:7: messages[0]: weight is 0.5"));
    EXPECT_TRUE(contains(error_of(R"({"messages": [{"role": "assistant", "content": "b", "train": "no"}]})"), "train"));
    EXPECT_EQ(read(R"({"messages": [{"role": "user", "content": "b", "train": true}]})").unused.size(), 1u);
}

TEST(Records, ToolCallsOfEverySpelling) {
    const std::string call = R"([{"type": "function", "function": {"name": "f", "arguments": {"a": 1}}}])";
    for (const char* spelled :
         {R"("content": null, "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {"a": 1}}}])",
          R"("tool_calls": [{"type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}}])",
          R"("tool_calls": [{"name": "f", "arguments": {"a": 1}}])",
          R"("tool_calls": "[{\"name\": \"f\", \"arguments\": {\"a\": 1}}]")",
          R"("content": null, "function_call": {"name": "f", "arguments": "{\"a\":1}"})"}) {
        const qlora::Example e = read(std::string(R"({"messages": [{"role": "assistant", )") + spelled + "}]}");
        const qlora::Json& m = e.chat.messages.array()[0];
        EXPECT_EQ(m.find("tool_calls")->dump(), call) << spelled;
        EXPECT_TRUE(m.find("content")->is_null()) << spelled;
        EXPECT_FALSE(m.find("function_call")) << spelled;
    }
    const qlora::Example share = read(
        R"({"conversations": [{"from": "function_call", "value": "{\"name\": \"f\", \"arguments\": {\"a\": 1}}"}, {"from": "function_call", "value": "call f!"}]})");
    EXPECT_EQ(share.chat.messages.array()[0].find("tool_calls")->dump(), call);
    // no JSON: the text it is
    EXPECT_EQ(share.chat.messages.array()[1].dump(), R"({"role": "assistant", "content": "call f!"})");
    EXPECT_EQ(
        read(
            R"({"messages": [{"role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": "not json"}]}]})")
            .chat.messages.array()[0]
            .find("tool_calls")
            ->array()[0]
            .find("function")
            ->find("arguments")
            ->string(),
        "not json");
    EXPECT_EQ(read(R"({"messages": [], "functions": [{"name": "f"}]})").variables.dump(),
              R"({"tools": [{"type": "function", "function": {"name": "f"}}]})");
    EXPECT_TRUE(contains(error_of(R"({"messages": [{"role": "assistant", "tool_calls": [{"arguments": {}}]}]})"),
                         "without a name"));
}

TEST(Records, ErrorsNameLineAndField) {
    EXPECT_TRUE(contains(error_of(R"({"messages": "x"})"), "file:7: messages"));
    EXPECT_TRUE(contains(error_of(R"({"messages": [{"role": "user"}]})"), "file:7: messages[0]"));
    EXPECT_TRUE(contains(error_of(R"({"messages": [{"role": "alien", "content": ""}]})"), "alien"));
    EXPECT_TRUE(contains(error_of(R"({"task": "x", "reply": "y"})"), "task, reply"));
    EXPECT_TRUE(contains(error_of(R"({"text": 5})"), "file:7: text"));
    EXPECT_TRUE(contains(error_of("[1]"), "object"));
}

TEST(Records, LinesWithByteOrderMarkAndCarriageReturns) {
    const auto records = qlora::split_records("{\"text\": \"a\"}\r\n\r\n{\"text\": \"b\"}\r\n", "f");
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
