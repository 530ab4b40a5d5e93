// rows_test.cpp - examples to rows: control tokens in texts, marks of templates, message keys, tool calls, masks; ids
// as Hugging Face makes them.
#include "src/base/access.h"
#include "src/run/marked_text.h"
#include "src/run/rows.h"
#include "tests/run/run_support.h"

#include <fstream>

namespace rows_test {

using qlora::Json;
using run_support::contains;
using run_support::error_of;

std::string template_of(const std::string& name) {
    return qlora::read_file(data_path("chat_templates/llama.cpp/" + name + ".jinja"));
}

// One of the tokenizers under tokenizer/hf, with its own template or another: loaded once, and given the template at
// each call.
qlora::Tokenizer tokenizer(const std::string& name, const std::string& source = {}) {
    struct Loaded { std::shared_ptr<qlora::TokenizerImpl> impl; std::string own; };
    static std::map<std::string, Loaded> loaded;
    Loaded& t = loaded[name];
    if (!t.impl) {
        t.impl = std::const_pointer_cast<qlora::TokenizerImpl>(
            impl_of(qlora::Tokenizer::load(data_path("tokenizer/hf/" + name))));
        t.own = t.impl->chat_template;
    }
    t.impl->chat_template = source.empty() ? t.own : source;
    return qlora::handle_of<qlora::Tokenizer>(t.impl);
}

struct Rows : ::testing::Test {
    run_support::TemporaryFolder folder{"qlora-rows"};
    void SetUp() override {
        if (!qlora::exists(data_path("tokenizer/hf/qwen3/tokenizer.json"))) GTEST_SKIP() << "needs ../shared/data";
    }
    qlora::Dataset load(const std::string& content, const qlora::Tokenizer& t, const qlora::DatasetOptions& o = {},
                        const char* name = "d.jsonl") {
        std::ofstream(folder.path / name, std::ios::binary) << content;
        return qlora::Dataset::load(folder / name, t, o);
    }
};

// The trained stretches as text, joined by "|".
std::string spoken(const qlora::Tokenizer& t, const qlora::Rendered& r) {
    std::string out;
    for (size_t i = 0; i < r.tokens.size(); ++i)
        if (r.trained[i]) out += (out.empty() || r.trained[i - 1] ? "" : "|") + impl_of(t)->piece(r.tokens[i], true);
    return out;
}

int64_t unused(const qlora::DatasetInfo& info, std::string_view name) {
    for (const auto& [key, count] : info.unused) if (key == name) return count;
    return 0;
}

std::string dialogue(const std::string& assistant, const std::string& more = {}) {
    return R"({"messages": [{"role": "user", "content": "w"}, {"role": "assistant", )" + assistant + "}]" + more +
           "}\n";
}

TEST_F(Rows, AsHuggingFaceMakesThem) {
    const std::string path = golden_path("records.jsonl"), text = qlora::read_file(path);
    std::map<std::string, int> kinds;
    for (const qlora::Record& line : qlora::split_records(text, path)) {
        const Json row = Json::parse(line.text, path);
        const auto field = [&](const char* name) { return row.find(name) ? row.find(name)->string() : std::string(); };
        const std::string what = field("tokenizer") + " " + field("template") + ": " + field("kind");
        const qlora::Tokenizer t = tokenizer(
            field("tokenizer"), field("template").empty() ? std::string() : template_of(field("template")));
        if (row.find("refused")) {                     // by the template in that form; it may take another one of ours
            try {
                load(row.find("record")->dump() + "\n", t);
                ++kinds["taken though refused there"];
            } catch (const qlora::Error& error) {
                EXPECT_TRUE(contains(error.what(), "d.jsonl:1")) << what;
                ++kinds["refused"];
            }
            continue;
        }
        SCOPED_TRACE(what);
        std::optional<qlora::Dataset> read;
        EXPECT_EQ(error_of([&] { read = load(row.find("record")->dump() + "\n", t, {.context = 4096}); }), "no error");
        if (!read) continue;
        const qlora::Dataset& data = *read;
        ++kinds[field("kind")];
        // which the reference leaves out
        if (row.find("text") && !unused(data.info(), "message.tool_calls, printed as text")) {
            const std::string end = impl_of(t)->eos_text, rendered = data.row(0).text;
            const bool typed = contains(row.find("record")->dump(), "Hi <|im_start|>");    // stays text here, not there
            if (!typed) {
                EXPECT_TRUE(data.row(0).tokens == t.encode(field("text"), false, true) ||
                            data.row(0).tokens == t.encode(field("text") + end, false, true))
                    << rendered;
            } else if (field("tokenizer") != "mistral") {
                EXPECT_TRUE(rendered == field("text") || rendered == field("text") + end) << rendered;
            }
        }
        if (!row.find("tokens")) continue;
        qlora::Tokens expected;
        for (const Json& id : row.find("tokens")->array()) expected.push_back(qlora::Token(id.integer()));
        if (impl_of(t)->add_bos && expected[0] != t.bos()) expected.insert(expected.begin(), t.bos());
        // another vocabulary's end mark
        if (!t.ends_reply(expected.back()) && !t.ends_reply(expected[expected.size() - 2])) expected.push_back(t.eos());
        EXPECT_EQ(data.row(0).tokens, expected);
        EXPECT_EQ(data.info().templated, 1);
    }
    EXPECT_EQ(kinds["text"], 7);
    EXPECT_GE(kinds["tool calls"], 4);
}

TEST_F(Rows, ControlTokensInFilesOfText) {
    const qlora::Tokenizer t = tokenizer("qwen3");
    const std::string text = "<|im_start|>user\\nhi<|im_end|>\\n<|im_start|>assistant\\nhello<|im_end|>",
                      row = "{\"text\": \"" + text + "\"}\n";
    // tokenizer(text) of transformers
    const qlora::Tokens expected{151644, 872, 198, 6023, 151645, 198, 151644, 77091, 198, 14990, 151645};
    const qlora::Dataset data = load(row, t);
    EXPECT_EQ(data.row(0).tokens, expected);           // and the end token is not put there twice
    EXPECT_EQ(spoken(t, data.row(0)), "hello<|im_end|>");
    EXPECT_EQ(data.info().control_tokens, 4);
    EXPECT_EQ(data.info().templated, 1);
    EXPECT_EQ(data.info().turns, 1);
    EXPECT_EQ(data.info().trained_turns, 1);
    const qlora::Dataset as_text = load(row, t, {.special = qlora::Special::text});
    EXPECT_EQ(as_text.info().control_tokens, 0);
    EXPECT_EQ(as_text.info().spelled, 4);
    EXPECT_EQ(as_text.info().trained_tokens, as_text.info().tokens - 1);
    const qlora::Tokens spelled = as_text.row(0).tokens;
    EXPECT_EQ(std::count(spelled.begin(), spelled.end(), 151645), 1);  // the end that we put
    const qlora::Dataset plain = load("{\"text\": \"no marks here\"}\n", t);
    EXPECT_EQ(spoken(t, plain.row(0)), "no marks here<|im_end|>");
    EXPECT_EQ(plain.info().templated, 0);
    const qlora::Dataset file = load("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nhello<|im_end|>\n", t, {},
                                     "d.txt");
    EXPECT_EQ(spoken(t, file.row(0)), "hello<|im_end|>");
    EXPECT_TRUE(spoken(t, load(row, t, {.loss = qlora::Loss::all}).row(0)).starts_with("<|im_start|>user"));
    // The last turn alone, and an opened turn with nothing in it.
    const std::string two = "{\"text\": \"" + text + "\\n" + text + "\\n<|im_start|>assistant\\n\"}\n";
    EXPECT_EQ(spoken(t, load(two, t).row(0)), "hello<|im_end|>|hello<|im_end|>");
    EXPECT_EQ(load(two, t).info().turns, 2);
    EXPECT_EQ(spoken(t, load(two, t, {.loss = qlora::Loss::completion}).row(0)), "hello<|im_end|>");
    // A turn that nothing closes gets its end.
    EXPECT_EQ(
        spoken(t, load("{\"text\": \"<|im_start|>user\\nhi<|im_end|>\\n<|im_start|>assistant\\nhello\"}\n", t).row(0)),
        "hello<|im_end|>");
}

TEST_F(Rows, BeginningAndEndAreNotDoubled) {
    const qlora::Tokenizer t = tokenizer("llama3_1");
    for (const char* text :
         {"<|begin_of_text|>abc<|eot_id|>", "abc<|eot_id|>", "<|begin_of_text|>abc", "abc", "abc<|end_of_text|>\\n"}) {
        const qlora::Tokens tokens = load(std::string("{\"text\": \"") + text + "\"}\n", t).row(0).tokens;
        EXPECT_EQ(std::count(tokens.begin(), tokens.end(), t.bos()),
                  impl_of(t)->add_bos || std::string_view(text).starts_with("<|begin"))
            << text;
        EXPECT_EQ(std::count_if(tokens.begin(), tokens.end(), [&](qlora::Token id) { return t.ends_reply(id); }), 1)
            << text;
    }
    EXPECT_EQ(t.encode("<|begin_of_text|>a", true, true), t.encode("a", true));
    EXPECT_NE(t.encode("<|begin_of_text|>a", true), t.encode("a", true));
}

// Every template: what it prints for a dialogue is found again in the text, turn for turn.
TEST_F(Rows, MarksOfEveryTemplate) {
    int found = 0;
    std::string none;
    for (const auto& entry : std::filesystem::directory_iterator(data_path("chat_templates/llama.cpp"))) {
        const std::string name = entry.path().stem().string();
        for (const char* vocabulary : {"qwen3", "mistral"}) {
            const qlora::Tokenizer t = tokenizer(vocabulary, template_of(name));
            const qlora::DialogueRenderer renderer(*impl_of(t));
            const qlora::TurnMarks marks = qlora::turn_marks_of(*impl_of(t), renderer);
            if (marks.assistant.empty() || marks.user.empty()) {
                none += name + " (" + vocabulary + ") ";
                continue;
            }
            EXPECT_NE(marks.assistant, marks.user) << name;
            ++found;
            qlora::Dialogue d;
            // some templates refuse a dialogue without
            d.variables.set("tools", Json().push(qlora::probe_tool(true)));
            for (const char* said : {"Roses are red.", "Violets are blue."}) {
                d.messages.push(Json().set("role", "user").set("content", "Rhyme."));
                d.messages.push(Json().set("role", "assistant").set("content", said));
            }
            std::string text;
            try {
                text = renderer.reply(d).text;
            // one hands a lazy list to tojson, which the reference refuses as well: without tools
            } catch (const qlora::Error&) {
                d.variables = Json();
                text = renderer.reply(d).text;
            }
            // not the next reply's opening
            text.resize(std::min(text.size(), text.find(marks.assistant, text.find("Violets are blue."))));
            const qlora::MarkedText m = qlora::encode_marked(*impl_of(t), marks, text, false);
            EXPECT_EQ(m.turns, 2) << name << " " << vocabulary << " " << marks.assistant << " in " << text;
            EXPECT_EQ(m.trained_turns, 2) << name;
            std::string said;
            for (size_t i = 0; i < m.tokens.size(); ++i) if (m.trained[i]) said += impl_of(t)->piece(m.tokens[i], true);
            // U+2581 in a mark of DeepSeek's is a space to SPM: its tokens do not spell the text.
            if (contains(name, "deepseek") && std::string_view(vocabulary) == "mistral") continue;
            EXPECT_TRUE(contains(said, "Roses are red.") && contains(said, "Violets are blue."))
                << name << ": " << said;
            EXPECT_FALSE(contains(said, "Rhyme")) << name << ": " << said;
        }
    }
    // Refused by the template itself: it wants variables of its own.
    EXPECT_EQ(none, "fireworks-ai-llama-3-firefunction-v2 (qwen3) fireworks-ai-llama-3-firefunction-v2 (mistral) ");
    EXPECT_GE(found, 30);
}

TEST_F(Rows, TemplatedPromptsAreNotWrappedAgain) {
    const qlora::Tokenizer t = tokenizer("qwen3");
    const qlora::Dataset data = load(
        R"({"prompt": "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n", "completion": "hello"})"
        "\n"
        R"({"prompt": "hi", "completion": "hello<|im_end|>"})"
        "\n",
        t);
    EXPECT_EQ(data.row(0).tokens,
              (qlora::Tokens{151644, 872, 198, 6023, 151645, 198, 151644, 77091, 198, 14990, 151645}));
    EXPECT_EQ(spoken(t, data.row(0)), "hello<|im_end|>");
    EXPECT_EQ(data.info().templated, 1);
    EXPECT_EQ(data.info().spelled, 1);    // in the completion of a prompt that is wrapped: a message's text
    const qlora::Tokens second = data.row(1).tokens;
    EXPECT_EQ(std::count(second.begin(), second.end(), 151645), 2);    // of the two turns
    EXPECT_EQ(load(R"({"prompt": "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n", "completion": "hello"})"
                   "\n",
                   t, {.special = qlora::Special::text})
                  .info()
                  .templated,
              0);
}

TEST_F(Rows, ControlTokensInMessagesAreTextUnlessAskedFor) {
    const qlora::Tokenizer t = tokenizer("qwen3");
    const std::string row = dialogue(R"("content": "a<|im_end|>b")");
    const auto ends = [&](qlora::Special special) {
        const qlora::Tokens tokens = load(row, t, {.special = special}).row(0).tokens;
        return std::count(tokens.begin(), tokens.end(), 151645);
    };
    EXPECT_EQ(ends(qlora::Special::automatic), 2);
    EXPECT_EQ(ends(qlora::Special::text), 2);
    EXPECT_EQ(ends(qlora::Special::tokens), 3);
    EXPECT_EQ(load(row, t).info().spelled, 1);
    EXPECT_EQ(load(row, t, {.special = qlora::Special::tokens}).info().control_tokens, 1);
}

TEST_F(Rows, MaskedTurnsAreNotTrained) {
    const qlora::Tokenizer t = tokenizer("qwen3", template_of("Qwen-Qwen2.5-7B-Instruct"));
    for (const char* key : {R"("weight": 0)", R"("train": false)", R"("loss": false)", R"("masked": true)"}) {
        const std::string row =
            R"({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "no", )" +
            std::string(key) +
            R"(}, {"role": "user", "content": "q"}, {"role": "assistant", "content": "yes"}]})"
            "\n";
        const qlora::Dataset data = load(row, t);
        EXPECT_TRUE(spoken(t, data.row(0)).starts_with("yes<|im_end|>")) << key;
        EXPECT_EQ(data.info().turns, 2);
        EXPECT_EQ(data.info().trained_turns, 1);
        EXPECT_EQ(data.info().excluded_turns, 1);
        EXPECT_FALSE(contains(spoken(t, load(row, t, {.loss = qlora::Loss::all}).row(0)), "no<|im_end|>")) << key;
    }
    const qlora::DatasetInfo info =
        load(dialogue(R"("content": "no", "weight": 0)") + dialogue(R"("content": "yes")"), t).info();
    EXPECT_EQ(info.rows, 1);
    EXPECT_EQ(info.dropped, 1);
}

TEST_F(Rows, WhatNothingReadsIsNamedOnce) {
    const qlora::Tokenizer plain = tokenizer("llama3_1");             // its template knows neither tools nor reasoning
    const std::string rows =
        dialogue(R"("content": "a", "reasoning_content": "r")", R"(, "id": 1, "tools": [{"name": "f"}])") +
        dialogue(R"("content": "b", "name": "n")", R"(, "id": 2, "documents": [1], "chat_template_kwargs": {"x": 1})");
    const qlora::DatasetInfo info = load(rows, plain).info();
    EXPECT_EQ(unused(info, "id"), 2);
    EXPECT_EQ(unused(info, "tools"), 1);
    EXPECT_EQ(unused(info, "documents"), 1);
    EXPECT_EQ(unused(info, "x"), 1);
    EXPECT_EQ(unused(info, "message.reasoning_content"), 1);
    EXPECT_EQ(unused(info, "message.name"), 1);
    const qlora::DatasetInfo read = load(dialogue(R"("content": "a", "reasoning_content": "r")",
                                                  R"(, "tools": [{"name": "f"}])"),
                                         tokenizer("qwen3"))
                                        .info();
    EXPECT_TRUE(read.unused.empty()) << read.unused[0].first;
    // A template that prints no system text, and one that has no place for tool calls.
    const std::string drops =
        "{% for m in messages %}{% if m.role != 'system' %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% "
        "endif %}{% endfor %}";
    const qlora::DatasetInfo dropped =
        load(
            R"({"messages": [{"role": "system", "content": "S S"}, {"role": "user", "content": "w"}, {"role": "assistant", "content": "a"}]})"
            "\n",
            tokenizer("qwen3", drops))
            .info();
    EXPECT_EQ(dropped.merged_systems, 1);              // it is put before the question, so nothing is unread
    EXPECT_EQ(unused(dropped, "system text"), 0);
    const qlora::Dataset as_text = load(dialogue(R"("content": "a", "tool_calls": [{"name": "f", "arguments": {}}])"),
                                        tokenizer("qwen3", drops));
    EXPECT_EQ(unused(as_text.info(), "message.tool_calls, printed as text"), 1);
    EXPECT_TRUE(contains(spoken(tokenizer("qwen3", drops), as_text.row(0)),
                         "<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>"));
}

TEST_F(Rows, ArgumentsAreEncodedOnceInTheFormThatTheTemplateTakes) {
    for (const auto& entry : std::filesystem::directory_iterator(data_path("chat_templates/llama.cpp"))) {
        const std::string name = entry.path().stem().string();
        const qlora::Tokenizer t = tokenizer("qwen3", template_of(name));
        const qlora::ToolForm form = qlora::tool_form_of(qlora::DialogueRenderer(*impl_of(t)));
        std::string printed[2];
        for (const bool text : {false, true}) {
            const std::string arguments = text ? R"("{\"city\": \"Ulm\"}")" : R"({"city": "Ulm"})";
            const std::string row =
                R"({"messages": [{"role": "user", "content": "w"}, {"role": "assistant", "content": null, "tool_calls": [{"id": "abcd12345", "type": "function", "function": {"name": "get", "arguments": )" +
                arguments +
                R"(}}]}, {"role": "tool", "content": "5", "name": "get", "tool_call_id": "abcd12345"}, {"role": "assistant", "content": "cold"}], "tools": [{"type": "function", "function": {"name": "get", "description": "d", "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "c"}}, "required": ["city"]}}}]})"
                "\n";
            try {
                printed[text] = load(row, t, {.context = 8192}).row(0).text;
            } catch (const qlora::Error& error) {
                printed[text] = error.what();
            }
        }
        EXPECT_EQ(printed[0], printed[1]) << name;
        if (!form.calls) continue;
        EXPECT_TRUE(contains(printed[0], "Ulm")) << name << ": " << printed[0];
        EXPECT_FALSE(contains(printed[0], "\\\"city") || contains(printed[0], "'city'") || contains(printed[0], "None"))
            << name << ": " << printed[0];
    }
}

// The real file of tool calls: every assistant turn is counted, and none is lost.
TEST_F(Rows, TurnsOfARealFile) {
    const qlora::Tokenizer t = tokenizer("qwen3", template_of("Qwen-Qwen2.5-7B-Instruct"));
    const qlora::DatasetInfo info =
        qlora::Dataset::load(data_path("instruct/sharegpt_toolcall.json"), t, {.context = 8192}).info();
    EXPECT_EQ(info.turns, 662);
    EXPECT_EQ(info.trained_turns, 662);
    EXPECT_EQ(info.excluded_turns + info.silent_turns + info.cut_turns, 0);
    EXPECT_TRUE(info.unused.empty());
}

}  // namespace rows_test
