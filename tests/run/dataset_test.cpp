// dataset_test.cpp - files of every format to rows: counts, masks, cutting, dropping, splitting, errors.
#include "src/base/access.h"
#include "src/run/dataset.h"
#include "tests/run/run_support.h"

#include <fstream>

namespace dataset_test {

using run_support::contains;
using run_support::error_of;

qlora::Tokenizer words() {
    static const qlora::Tokenizer t = qlora::Tokenizer::load(data_path("tokenizer/smollm2/tokenizer.json"));
    return t;
}

// The same vocabulary with a chat template of the model's own.
qlora::Tokenizer chat_words() {
    static const qlora::Tokenizer t = [] {
        const std::string file = data_path("tokenizer/smollm2/tokenizer.json");
        const std::string chatml =
            "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{% if "
            "add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
        return qlora::handle_of<qlora::Tokenizer>(qlora::load_tokenizer_json(
            qlora::Json::parse(qlora::read_file(file), file),
            qlora::Json().set("chat_template", chatml).set("eos_token", "<|im_end|>"), file));
    }();
    return t;
}

std::string trained_text(const qlora::Tokenizer& t, const qlora::Rendered& r) {
    qlora::Tokens trained;
    for (size_t i = 0; i < r.tokens.size(); ++i)
        if (r.trained[i]) trained.push_back(r.tokens[i]);
    return impl_of(t)->decode(trained, true);
}

struct DatasetFiles : ::testing::Test {
    run_support::TemporaryFolder folder{"qlora-data"};
    void SetUp() override {
        if (!qlora::exists(data_path("tokenizer/smollm2/tokenizer.json"))) GTEST_SKIP() << "needs ../shared/data";
    }
    std::string file(const std::string& name, const std::string& content) {
        std::ofstream(folder.path / name, std::ios::binary) << content;
        return folder / name;
    }
    qlora::Dataset load(const std::string& content, const qlora::DatasetOptions& o = {}) {
        return qlora::Dataset::load(file("d.jsonl", content), chat_words(), o);
    }
};

TEST_F(DatasetFiles, RealFilesOfEveryFormat) {
    struct Case { const char *file, *format; int64_t records; };
    for (const Case& c :
         {Case{"alpaca_from_seed_tasks.json", "alpaca", 175}, Case{"identity.json", "alpaca", 91},
          Case{"openai_messages_oa100.jsonl", "messages", 100},
          Case{"prompt_response_dolly_hhrlhf.jsonl", "prompt/completion", 600},
          Case{"sharegpt_dummy_conversation.json", "sharegpt", 500}, Case{"sharegpt_toolcall.json", "sharegpt", 200},
          Case{"torchtune_chat_tiny.json", "sharegpt", 1}, Case{"selfinstruct_seed_tasks.jsonl", "alpaca", 175},
          Case{"oasst_tree_en_10.jsonl", "oasst tree", 10}}) {
        const qlora::Dataset data = qlora::Dataset::load(data_path(std::string("instruct/") + c.file), chat_words(),
                                                         {.context = 2048});
        const qlora::DatasetInfo info = data.info();
        EXPECT_EQ(info.format, c.format) << c.file;
        EXPECT_EQ(info.rows + info.dropped, c.records) << c.file;
        EXPECT_LE(info.dropped, 3) << c.file;
        EXPECT_GT(info.trained_tokens, 0) << c.file;
        EXPECT_LT(info.trained_tokens, info.tokens) << c.file;
        EXPECT_LE(info.longest, 2048) << c.file;
        int64_t tokens = 0;
        for (int64_t i = 0; i < info.rows; ++i) tokens += int64_t(data.row(i).tokens.size());
        EXPECT_EQ(tokens, info.tokens) << c.file;
    }
    for (const char* text : {"instruct/guanaco_text.jsonl", "instruct/wikisql_train.jsonl"}) {
        const qlora::DatasetInfo info = qlora::Dataset::load(data_path(text), words()).info();
        EXPECT_EQ(info.format, "text");
        EXPECT_EQ(info.dropped, 0);
        EXPECT_EQ(info.trained_tokens, info.tokens - info.rows);       // all but the first of each row
    }
    EXPECT_THROW((void)qlora::Dataset::load(data_path("instruct/dpo_sharegpt_60.json"), words()), qlora::Error);
}

TEST_F(DatasetFiles, MaskOfADialogue) {
    const std::string chat =
        R"({"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "a"}, {"role": "assistant", "content": "one"}, {"role": "user", "content": "b"}, {"role": "assistant", "content": "two"}]})"
        "\n";
    const qlora::Dataset all = load(chat);
    EXPECT_EQ(trained_text(chat_words(), all.row(0)), "one<|im_end|>two<|im_end|>");
    EXPECT_EQ(all.row(0).text,
              "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\none<|im_end|>\n<|"
              "im_start|>user\nb<|im_end|>\n<|im_start|>assistant\ntwo<|im_end|>\n");
    EXPECT_EQ(trained_text(chat_words(), load(chat, {.loss = qlora::Loss::completion}).row(0)), "two<|im_end|>");
    EXPECT_EQ(trained_text(chat_words(), load(chat, {.loss = qlora::Loss::all}).row(0)), all.row(0).text);
    EXPECT_EQ(all.info().trained_tokens, 4);
}

TEST_F(DatasetFiles, PromptsWithAndWithoutATemplate) {
    const std::string row = R"({"prompt": "Q: 1+1\nA:", "completion": " two"})" "\n";
    EXPECT_EQ(load(row).row(0).text, "<|im_start|>user\nQ: 1+1\nA:<|im_end|>\n<|im_start|>assistant\n two<|im_end|>\n");
    EXPECT_EQ(trained_text(chat_words(), load(row).row(0)), " two<|im_end|>");
    const qlora::Dataset plain = qlora::Dataset::load(folder / "d.jsonl", words());
    EXPECT_TRUE(plain.row(0).text.starts_with("Q: 1+1\nA: two")) << plain.row(0).text;
    EXPECT_TRUE(trained_text(words(), plain.row(0)).starts_with(" two"));
}

TEST_F(DatasetFiles, ToolCallsBecomeText) {
    const std::string row =
        R"({"conversations": [{"from": "human", "value": "w?"}, {"from": "function_call", "value": "{\"name\": \"sky\"}"}, {"from": "observation", "value": "blue"}, {"from": "gpt", "value": "Blue."}]})"
        "\n";
    EXPECT_EQ(trained_text(chat_words(), load(row).row(0)), "{\"name\": \"sky\"}<|im_end|>Blue.<|im_end|>");
    const std::string call =
        R"({"messages": [{"role": "user", "content": "w?"}, {"role": "assistant", "content": null, "tool_calls": [{"type": "function", "function": {"name": "sky"}}]}]})"
        "\n";
    EXPECT_EQ(trained_text(chat_words(), load(call).row(0)),
              "<tool_call>\n{\"name\": \"sky\"}\n</tool_call><|im_end|>");
}

TEST_F(DatasetFiles, RowsWithoutAnAnswerAreDroppedAndCounted) {
    const std::string good =
        R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]})"
        "\n";
    const std::string silent = R"({"messages": [{"role": "user", "content": "a"}]})"
                               "\n",
                      empty =
                          R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": ""}]})"
                          "\n";
    const qlora::DatasetInfo info = load(good + silent + empty + good).info();
    EXPECT_EQ(info.rows, 2);
    EXPECT_EQ(info.dropped, 2);
    EXPECT_TRUE(contains(error_of([&] { load(silent + silent); }), "nothing to train on: 2 records"));
    EXPECT_EQ(load("{\"prompt\": \"a\", \"completion\": \"b\"}\n{\"prompt\": \"a\"}\n").info().dropped, 1);
}

TEST_F(DatasetFiles, LongRowsAreCutAndCounted) {
    std::string longer;
    for (int i = 0; i < 100; ++i) longer += " word";
    const std::string late = R"({"messages": [{"role": "user", "content": ")" + longer +
                             R"("}, {"role": "assistant", "content": "b"}]})"
                             "\n";
    const std::string early = R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": ")" +
                              longer +
                              R"("}]})"
                              "\n";
    const qlora::DatasetInfo info = load(late + early, {.context = 50}).info();
    EXPECT_EQ(info.truncated, 2);
    EXPECT_EQ(info.dropped, 1);                        // its answer lies beyond the cut
    EXPECT_EQ(info.rows, 1);
    EXPECT_EQ(info.longest, 50);
    EXPECT_THROW(load(early, {.context = 1}), qlora::Error);
}

TEST_F(DatasetFiles, TextIsCutIntoPiecesThatPredictEveryTokenOnce) {
    std::string text = "\xEF\xBB\xBF";
    for (int i = 0; i < 40; ++i) text += "line " + std::to_string(i) + "\r\n";
    const qlora::Dataset data = qlora::Dataset::load(file("book.txt", text), words(), {.context = 32});
    qlora::Tokens joined = data.row(0).tokens;
    for (int64_t i = 1; i < data.info().rows; ++i) {
        const qlora::Tokens next = data.row(i).tokens;
        EXPECT_EQ(next.front(), joined.back());
        joined.insert(joined.end(), next.begin() + 1, next.end());
    }
    EXPECT_TRUE(words().decode(joined).starts_with("line 0\nline 1\n"));
    EXPECT_EQ(data.info().trained_tokens, int64_t(joined.size()) - 1);
    EXPECT_GT(data.info().rows, 5);
}

TEST_F(DatasetFiles, ErrorsNameFileAndLine) {
    const std::string good = R"({"text": "a b c"})" "\n";
    EXPECT_TRUE(contains(error_of([&] { load(good + "{\"text\": \n"); }), "d.jsonl:2"));
    EXPECT_TRUE(contains(error_of([&] { load(good + "\n" + R"({"prompt": "a", "completion": "b"})"); }), "d.jsonl:3"));
    EXPECT_TRUE(contains(error_of([&] { load(good + good + R"({"text": 3})"); }), "d.jsonl:3"));
    EXPECT_TRUE(contains(error_of([&] { (void)qlora::Dataset::load(folder / "none.jsonl", words()); }),
                         "no such file"));
    EXPECT_TRUE(contains(error_of([&] { (void)qlora::Dataset::load(file("x.parquet", "PAR1"), words()); }), "convert"));
    EXPECT_THROW(load(""), qlora::Error);
}

TEST_F(DatasetFiles, FoldersHaveSplits) {
    file("train.jsonl", "{\"text\": \"train text\"}\r\n");
    file("valid.jsonl", "{\"text\": \"valid text\"}\r\n");
    EXPECT_TRUE(contains(qlora::Dataset::load(folder.path.string(), words()).row(0).text, "train"));
    EXPECT_TRUE(contains(qlora::Dataset::load(folder.path.string(), words(), {.split = "valid"}).row(0).text, "valid"));
    const auto test = [&] { (void)qlora::Dataset::load(folder.path.string(), words(), {.split = "test"}); };
    EXPECT_TRUE(contains(error_of(test), "test.jsonl"));
    EXPECT_THROW((void)qlora::Dataset::load(folder / "train.jsonl", words(), {.split = "valid"}), qlora::Error);
}

TEST_F(DatasetFiles, SplitIsRandomCompleteAndRepeatable) {
    std::string rows;
    for (int i = 0; i < 50; ++i) rows += "{\"text\": \"row number " + std::to_string(i) + "\"}\n";
    const qlora::Dataset data = load(rows);
    const auto [rest, part] = data.split(0.2f, 7);
    EXPECT_EQ(rest.info().rows, 40);
    EXPECT_EQ(part.info().rows, 10);
    EXPECT_EQ(rest.info().tokens + part.info().tokens, data.info().tokens);
    EXPECT_EQ(rest.info().trained_tokens + part.info().trained_tokens, data.info().trained_tokens);
    std::vector<std::string> texts;
    for (int64_t i = 0; i < 40; ++i) texts.push_back(rest.row(i).text);
    for (int64_t i = 0; i < 10; ++i) texts.push_back(part.row(i).text);
    std::sort(texts.begin(), texts.end());
    EXPECT_EQ(std::unique(texts.begin(), texts.end()), texts.end());
    EXPECT_EQ(impl_of(data.split(0.2f, 7).second)->fingerprint(), impl_of(part)->fingerprint());
    EXPECT_NE(impl_of(data.split(0.2f, 8).second)->fingerprint(), impl_of(part)->fingerprint());
    EXPECT_EQ(data.split(0, 7).second.info().rows, 0);
    EXPECT_THROW((void)data.split(1.5f), qlora::Error);
    EXPECT_THROW((void)data.row(50), qlora::Error);
}

TEST_F(DatasetFiles, JoinedDataSetsAreRowsOneAfterAnother) {
    const std::string one = file("one.jsonl",
                                 "{\"prompt\": \"a\", \"completion\": \"b\", \"id\": 1}\n{\"prompt\": \"c\", "
                                 "\"completion\": \"d\", \"id\": 2}\n");
    const std::string two = file(
        "two.jsonl",
        R"({"messages": [{"role": "user", "content": "e"}, {"role": "assistant", "content": "f"}], "id": 3, "tag": 4})");
    const qlora::Dataset a = qlora::Dataset::load(one, chat_words()), b = qlora::Dataset::load(two, chat_words());
    const auto join = [](const qlora::Dataset& x, const qlora::Dataset& y) {
        return qlora::handle_of<qlora::Dataset>(qlora::join_datasets(std::vector{impl_of(x), impl_of(y)}));
    };
    const qlora::Dataset ab = join(a, b), ba = join(b, a);
    const qlora::DatasetInfo info = ab.info();
    EXPECT_EQ(info.rows, 3);
    EXPECT_EQ(info.format, "prompt/completion + messages");
    EXPECT_EQ(info.tokens, a.info().tokens + b.info().tokens);
    EXPECT_EQ(info.trained_turns, 3);
    EXPECT_EQ(info.unused, (std::vector<std::pair<std::string, int64_t>>{{"id", 3}, {"tag", 1}}));
    EXPECT_EQ(ab.row(1).tokens, a.row(1).tokens);
    EXPECT_EQ(ab.row(2).tokens, b.row(0).tokens);
    EXPECT_EQ(ab.row(2).trained, b.row(0).trained);
    // a run that goes on compares it: the order counts
    EXPECT_NE(impl_of(ab)->fingerprint(), impl_of(ba)->fingerprint());
    EXPECT_EQ(join(ab, a).info().format, "prompt/completion + messages");
    EXPECT_EQ(qlora::join_datasets(std::vector{impl_of(a)}), impl_of(a));
    EXPECT_TRUE(contains(error_of([] { qlora::join_datasets({}); }), "nothing to join"));
}

TEST_F(DatasetFiles, TypedControlTokensAreNotControlTokensWhereTextIsAskedFor) {
    const qlora::Dataset data = load(R"({"text": "a<|im_end|>b"})"
                                     "\n"
                                     R"({"text": "plain"})"
                                     "\n",
                                     {.special = qlora::Special::text});
    const qlora::Token end = impl_of(chat_words())->id_of("<|im_end|>");
    const qlora::Tokens tokens = data.row(0).tokens;
    // the end of the text, which is this model's end of text
    EXPECT_EQ(std::count(tokens.begin(), tokens.end(), end), 1);
    EXPECT_EQ(tokens.back(), end);
}

}  // namespace dataset_test
