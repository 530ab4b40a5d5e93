// row_forms_test.cpp - the forms of published data sets, files that are written in other ways than one record a line,
// and what happens to rows that are bad, long, or have a system text where the template has no such role.
#include "src/base/access.h"
#include "src/run/records.h"
#include "src/run/rows.h"
#include "tests/run/run_support.h"

#include <fstream>

namespace row_forms_test {

using qlora::Json;
using run_support::contains;
using run_support::error_of;

std::vector<qlora::Example> read(std::string_view json) {
    return qlora::read_record(Json::parse(json, "test"), "file:7");
}
std::string refused(std::string_view json) {
    return error_of([&] { read(json); });
}

// "role: text|..." of the first example.
std::string said(const qlora::Example& e) {
    std::string out;
    for (const Json& m : e.chat.messages.array())
        out += (out.empty() ? "" : "|") + m.find("role")->string() + ": " + m.find("content")->string();
    return out;
}

TEST(RowForms, TheSetsThatQLoRAWasMeasuredOn) {
    const auto tree = read(R"({"message_tree_id": "t", "tree_state": "ready", "prompt": {"message_id": "m", "text": "q",
        "role": "prompter", "replies": [{"text": "second", "role": "assistant", "rank": 1, "replies": []},
        {"text": "deleted", "role": "assistant", "rank": 0, "deleted": true},
        {"text": "first", "role": "assistant", "rank": 0, "replies": [{"text": "and?", "role": "prompter", "replies": [
        {"text": "so", "role": "assistant", "replies": [{"text": "unanswered", "role": "prompter"}]}]}]}]}})");
    EXPECT_EQ(said(tree.at(0)), "user: q|assistant: first|user: and?|assistant: so");
    EXPECT_TRUE(tree[0].unused.empty());
    const auto tasks = read(R"({"id": "s", "instruction": "Add", "instances": [{"input": "1 2", "output": "3"},
        {"input": "", "output": "4"}, {"instruction_with_input": "Whole", "input": "w", "output": "5"}]})");
    ASSERT_EQ(tasks.size(), 3u);
    EXPECT_EQ(said(tasks[0]), "user: Add\n1 2|assistant: 3");
    EXPECT_EQ(said(tasks[1]), "user: Add|assistant: 4");
    EXPECT_EQ(said(tasks[2]), "user: Whole|assistant: 5");
    const auto chosen = read(
        R"({"chosen": "\n\nHuman: a \n\nb\n\nAssistant: c\n\nHuman: d\n\nAssistant: e", "rejected": "x"})");
    EXPECT_EQ(said(chosen.at(0)), "user: a \n\nb|assistant: c|user: d|assistant: e");
    EXPECT_EQ(chosen[0].unused, std::vector<std::string>{"rejected"});
    EXPECT_EQ(said(read(R"({"text": "<human>: a\n<bot>: b", "metadata": ""})").at(0)), "user: a|assistant: b");
    EXPECT_TRUE(contains(refused(R"({"instruction": "a", "instances": []})"), "at least one"));
    EXPECT_TRUE(contains(refused(R"({"prompt": {"text": "a", "role": "moderator", "replies": []}})"), "moderator"));
}

TEST(RowForms, OfPairsOfAnswersTheChosenOne) {
    const std::string question = R"({"role": "user", "content": "q"})",
                      yes = R"({"role": "assistant", "content": "yes"})",
                      no = R"({"role": "assistant", "content": "no"})";
    for (const std::string& pair :
         {std::string(R"({"prompt": "q", "chosen": "yes", "rejected": "no"})"),
          std::string(R"({"question": "q", "chosen": "yes", "rejected": "no"})"),
          R"({"prompt": "q", "chosen": [)" + yes + R"(], "rejected": [)" + no + "]}",
          R"({"prompt": [)" + question + R"(], "chosen": [)" + yes + R"(], "rejected": [)" + no + "]}",
          R"({"prompt": [)" + question + R"(], "chosen": "yes", "rejected": "no"})",
          R"({"prompt": "q", "chosen": [)" + question + "," + yes + R"(], "rejected": [)" + question + "," + no + "]}",
          R"({"chosen": [)" + question + "," + yes + R"(], "rejected": [)" + question + "," + no + "]}"})
        EXPECT_EQ(said(read(pair).at(0)), "user: q|assistant: yes") << pair;
    const auto scored = read(
        R"({"system": "s", "question": "q", "chosen": "yes", "rejected": "no", "score_chosen": 2})");
    EXPECT_EQ(said(scored.at(0)), "system: s|user: q|assistant: yes");
    EXPECT_EQ(scored[0].unused, (std::vector<std::string>{"rejected", "score_chosen"}));
    EXPECT_TRUE(contains(refused(R"({"chosen": "yes", "rejected": "no"})"), "needs prompt"));
    EXPECT_TRUE(contains(refused(R"({"prompt": "q", "chosen": null})"), "chosen is null"));
}

// "line: row" of each record.
std::string gathered(std::string_view lines) {
    std::string out;
    for (const qlora::Record& r : qlora::gather_trees(qlora::split_records(lines, "f.jsonl"), "f.jsonl")) {
        const Json row = r.text.empty() ? r.row : Json::parse(r.text, "test");
        out += qlora::str(out.empty() ? "" : "; ", r.line, ": ",
                          row.find("prompt") ? said(read(row.dump()).at(0)) : "kept");
    }
    return out;
}

TEST(RowForms, MessagesOfTreesOneARecord) {
    EXPECT_EQ(gathered(R"({"message_id": "b", "parent_id": "a", "text": "second", "role": "assistant", "rank": 1.0}
{"message_id": "a", "parent_id": null, "text": "q", "role": "prompter", "lang": "en"}
{"message_id": "x", "parent_id": null, "text": "other", "role": "prompter"}
{"message_id": "c", "parent_id": "a", "text": "first", "role": "assistant", "rank": 0.0}
{"message_id": "d", "parent_id": "c", "text": "and?", "role": "prompter", "rank": null}
{"message_id": "e", "parent_id": "d", "text": "gone", "role": "assistant", "rank": 0, "deleted": true}
{"message_id": "f", "parent_id": "d", "text": "so", "role": "assistant", "rank": 1}
{"message_id": "y", "parent_id": "x", "text": "reply", "role": "assistant"}
)"),
              "2: user: q|assistant: first|user: and?|assistant: so; 3: user: other|assistant: reply");
    // what belongs nowhere is left, for its line to be named
    EXPECT_EQ(gathered(R"({"message_id": "a", "text": "q", "role": "prompter", "parent_id": null}
{"message_id": "b", "parent_id": "lost", "text": "r", "role": "assistant"}
{"message_id": "a", "parent_id": null, "text": "twice", "role": "prompter"})"),
              "1: user: q; 2: kept; 3: kept");
    EXPECT_TRUE(contains(refused(R"({"message_id": "b", "parent_id": "lost", "text": "b", "role": "assistant"})"),
                         "its parent is not in the file"));
    EXPECT_EQ(gathered("{\"text\": \"a\"}\n{\"text\": \"b\"}"), "1: kept; 2: kept");
    // parents in a circle are no tree
    EXPECT_EQ(gathered(R"({"message_id": "a", "parent_id": "b", "text": "q", "role": "prompter"}
{"message_id": "b", "parent_id": "a", "text": "q", "role": "prompter"})"),
              "1: kept; 2: kept");
    std::string chain;
    for (int i = 0; i < 1200; ++i)
        chain += qlora::str(R"({"message_id": ")", i, R"(", "parent_id": ")", i ? qlora::str(i - 1) : "",
                            R"(", "text": "t", "role": "prompter"})", '\n');
    EXPECT_TRUE(contains(error_of([&] { gathered(chain); }), "f.jsonl:1: a tree of more than 1000 levels"));
}

TEST(RowForms, LabelsNumbersPairsAndColumns) {
    EXPECT_EQ(said(read(R"({"text": "a", "label": "good"})").at(0)), "user: a|assistant: good");
    EXPECT_TRUE(read(R"({"text": "a", "label": 1})").at(0).is_text);
    EXPECT_EQ(said(read(R"({"question": "1+1", "answer": 2})").at(0)), "user: 1+1|assistant: 2");
    EXPECT_EQ(said(read(R"({"conversation": [{"human": "a", "assistant": "b"}]})").at(0)), "user: a|assistant: b");
    EXPECT_EQ(said(read(R"({"messages": "[{\"role\": \"user\", \"content\": \"a\"}]"})").at(0)), "user: a");
    EXPECT_EQ(said(read(R"({"row_idx": 0, "row": {"question": "a", "answer": "b"}})").at(0)), "user: a|assistant: b");
    EXPECT_EQ(
        said(read(R"({"messages": [{"role": "user", "content": {"type": "text", "text": {"value": "a"}}}]})").at(0)),
        "user: a");
    EXPECT_TRUE(contains(refused(R"({"question": ["a", "b"], "answer": ["c", "d"]})"), "column by column"));
    EXPECT_TRUE(contains(refused(R"({"question": {"0": "a"}, "answer": {"0": "c"}})"), "column by column"));
    EXPECT_TRUE(contains(refused(R"({"q": "a"})"), "columns question=prompt"));
    std::vector<std::string> unused;
    const Json renamed = qlora::renamed_columns(
        Json::parse(R"({"q": "a", "text": "t", "a": 1, "system": "s"})", "test"),
        {{"q", "prompt"}, {"a", "completion"}}, unused, "file:7");
    EXPECT_EQ(renamed.dump(), R"({"prompt": "a", "completion": 1, "system": "s"})");
    EXPECT_EQ(unused, std::vector<std::string>{"text"});
    EXPECT_TRUE(contains(error_of([&] {
                             (void)qlora::renamed_columns(renamed, {{"q", "prompt"}}, unused, "file:7");
                         }),
                         "no column q"));
}

// "line: text" of each record, joined by "|".
std::string records(std::string_view text, const std::string& path = "f.jsonl") {
    std::string out;
    for (const qlora::Record& r : qlora::split_records(text, path))
        out += qlora::str(out.empty() ? "" : "|", r.line, ": ", r.text.empty() ? r.row.dump() : std::string(r.text));
    return out;
}

TEST(RowForms, FilesInOtherShapes) {
    EXPECT_EQ(records("{\"a\": 1},\n{\"a\": 2},\n"), "1: {\"a\": 1}|2: {\"a\": 2}");
    EXPECT_EQ(records("[{\"a\": 1},\n{\"a\": 2},\n]"), "1: {\"a\": 1}|2: {\"a\": 2}");
    EXPECT_EQ(records("{\n\"a\": \"}\"\n}\n\n{\n\"a\": 2}"), "1: {\n\"a\": \"}\"\n}|5: {\n\"a\": 2}");
    EXPECT_EQ(records("{\"version\": 1, \"data\":\n [{\"a\": 1},\n {\"a\": 2}]}"), "2: {\"a\": 1}|3: {\"a\": 2}");
    EXPECT_EQ(records("{\"text\": \"x\", \"data\": [{\"a\": 1}]}"), "1: {\"text\": \"x\", \"data\": [{\"a\": 1}]}");
    // a line that does not end spoils no other
    EXPECT_EQ(records("{\"a\": \n{\"a\": 2}\n"), "1: {\"a\":|2: {\"a\": 2}");
    EXPECT_TRUE(contains(error_of([] { records("[{\"a\": 1}\n"); }), "cut off"));
}

TEST(RowForms, Tables) {
    EXPECT_EQ(records("q,a\r\n\"x, \"\"y\"\"\nz\",1\r\nu,\r\n", "f.csv"),
              "2: {\"q\": \"x, \\\"y\\\"\\nz\", \"a\": \"1\"}|4: {\"q\": \"u\", \"a\": \"\"}");
    EXPECT_EQ(records("q;a\nx,y;1\n\n", "f.csv"), "2: {\"q\": \"x,y\", \"a\": \"1\"}");
    EXPECT_EQ(records("q\ta\nx,y\t1", "f.tsv"), "2: {\"q\": \"x,y\", \"a\": \"1\"}");
    EXPECT_TRUE(contains(error_of([] { records("q,a\nx\n", "f.csv"); }), "f.csv:2: 1 fields"));
    EXPECT_TRUE(
        contains(error_of([] { records("q,a\n\"x,1\n", "f.csv"); }), "f.csv:2: a field in quotes does not end"));
    EXPECT_TRUE(contains(error_of([] { records("q,a\n\"x\"y,1\n", "f.csv"); }), "text behind the closing quote"));
    EXPECT_TRUE(contains(error_of([] { records("q,q\nx,y\n", "f.csv"); }), "two columns"));
}

TEST(RowForms, BytesAsText) {
    using namespace std::string_literals;
    EXPECT_EQ(qlora::dataset_text("\xEF\xBB\xBFx", "f"), "x");
    EXPECT_EQ(qlora::dataset_text("\xFF\xFE\xE4\0\x3D\xD8\0\xDE"s, "f"), "\xC3\xA4\xF0\x9F\x98\x80");
    EXPECT_EQ(qlora::dataset_text("\xFE\xFF\0x"s, "f"), "x");
    EXPECT_TRUE(contains(error_of([] { (void)qlora::dataset_text("\xFF\xFE\0\xDC"s, "f"); }), "half a character"));
    EXPECT_TRUE(contains(error_of([] { (void)qlora::dataset_text("\xFF\xFEx"s, "f"); }), "odd number"));
    EXPECT_TRUE(contains(error_of([] { (void)qlora::dataset_text("x\0y\0"s, "f"); }), "zero byte"));
    EXPECT_TRUE(contains(error_of([] { (void)qlora::dataset_text("\x1F\x8B..", "f"); }), "gzip"));
    EXPECT_TRUE(
        contains(error_of([] { (void)qlora::dataset_text("version https://git-lfs.github.com/spec/v1\n", "f"); }),
                 "git lfs pull"));
}

struct RowRules : ::testing::Test {
    run_support::TemporaryFolder folder{"qlora-rules"};
    void SetUp() override {
        if (!qlora::exists(data_path("tokenizer/smollm2/tokenizer.json"))) GTEST_SKIP() << "needs ../shared/data";
    }
    static qlora::Tokenizer words(const std::string& chat_template) {
        const std::string file = data_path("tokenizer/smollm2/tokenizer.json");
        return qlora::handle_of<qlora::Tokenizer>(qlora::load_tokenizer_json(
            Json::parse(qlora::read_file(file), file),
            Json().set("chat_template", chat_template).set("eos_token", "<|im_end|>"), file));
    }
    static qlora::Tokenizer chat_words() {
        static const qlora::Tokenizer t = words(
            "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{% if "
            "add_generation_prompt %}<|im_start|>assistant\n{% endif %}");
        return t;
    }
    qlora::Dataset load(const std::string& content, const qlora::DatasetOptions& o, const qlora::Tokenizer& t) {
        std::ofstream(folder.path / "d.jsonl", std::ios::binary) << content;
        return qlora::Dataset::load(folder / "d.jsonl", t, o);
    }
    std::vector<std::string> lines(std::initializer_list<int> numbers) {
        std::vector<std::string> out;
        for (const int n : numbers) out.push_back(qlora::str(folder / "d.jsonl", ":", n));
        return out;
    }
};

TEST_F(RowRules, BadRowsAreSkippedWhenAskedAndNamed) {
    const std::string rows =
        "{\"prompt\": \"a\", \"completion\": \"b\"}\nno json\n{\"prompt\": 1, \"completion\": \"b\"}\n"
        "{\"text\": \"t\"}\n{\"prompt\": \"c\", \"completion\": \"\"}\n";
    EXPECT_TRUE(contains(error_of([&] { (void)load(rows, {}, chat_words()); }), "d.jsonl:2"));
    const qlora::DatasetInfo info = load(rows, {.skip_bad_rows = true}, chat_words()).info();
    EXPECT_EQ(info.rows, 1);
    EXPECT_EQ(info.bad, 3);
    ASSERT_EQ(info.bad_at.size(), 3u);
    EXPECT_TRUE(contains(info.bad_at[1], "d.jsonl:3: prompt must be a string"));
    EXPECT_EQ(info.dropped_at, lines({5}));
    EXPECT_TRUE(
        contains(error_of([&] { (void)load("x\ny\n", {.skip_bad_rows = true}, chat_words()); }), "2 records are bad"));
}

TEST_F(RowRules, LongRows) {
    std::string answer;
    for (int i = 0; i < 60; ++i) answer += " word";
    const std::string rows = "{\"prompt\": \"a\", \"completion\": \"b\"}\n{\"prompt\": \"a\", \"completion\": \"" +
                             answer + "\"}\n";
    qlora::DatasetOptions o{.context = 32};
    const qlora::Tokenizer t = chat_words();
    const auto ends = [&](const qlora::Rendered& r) { return r.trained.back() && t.ends_reply(r.tokens.back()); };
    const qlora::Dataset cut = load(rows, o, t);
    EXPECT_EQ(cut.info().truncated_at, lines({2}));
    EXPECT_EQ(cut.row(1).tokens.size(), 32u);
    EXPECT_FALSE(ends(cut.row(1)));    // a cut answer is not taught to end
    o.long_rows = qlora::LongRows::drop;
    const qlora::Dataset dropped = load(rows, o, t);
    EXPECT_EQ(dropped.info().rows, 1);
    EXPECT_EQ(dropped.info().long_dropped, 1);
    EXPECT_EQ(dropped.info().long_at, lines({2}));
    o.long_rows = qlora::LongRows::split;
    const qlora::Dataset split = load(rows, o, t);
    EXPECT_EQ(split.info().long_split, 1);
    EXPECT_EQ(split.info().trained_tokens, load(rows, {}, t).info().trained_tokens);    // each of them, once
    for (int64_t i = 1; i + 1 < split.info().rows; ++i) EXPECT_FALSE(ends(split.row(i))) << i;
    EXPECT_EQ(split.info().cut_turns, 0);
    qlora::Tokens joined;
    for (int64_t i = 1; i < split.info().rows; ++i) {
        const qlora::Tokens piece = split.row(i).tokens;
        joined.insert(joined.end(), piece.begin() + (i > 1), piece.end());
    }
    EXPECT_EQ(joined, load(rows, {}, t).row(1).tokens);
}

TEST_F(RowRules, SystemTextsWhereTheTemplateHasNoSuchRole) {
    const std::string gemma = data_path("chat_templates/llama.cpp/google-gemma-2-2b-it.jinja");
    if (!qlora::exists(gemma)) GTEST_SKIP() << "needs ../shared/data";
    const qlora::Tokenizer t = words(qlora::read_file(gemma));
    const qlora::Tokenizer silent = words(
        "{% for m in messages %}{% if m.role != 'system' %}[{{ m.role }}]{{ m.content }}"
        "<|im_end|>{% endif %}{% endfor %}");
    EXPECT_FALSE(t.has_system_role());
    EXPECT_FALSE(silent.has_system_role());
    EXPECT_TRUE(chat_words().has_system_role());
    const std::vector<qlora::Message> chat{{"system", "S1"}, {"user", "q"}, {"assistant", "a"}},
        merged{{"user", "S1\n\nq"}, {"assistant", "a"}};
    for (const qlora::Tokenizer& each : {t, silent}) {
        EXPECT_EQ(each.render(chat).tokens, each.render(merged).tokens);
        EXPECT_EQ(each.render(chat).trained, each.render(merged).trained);
        EXPECT_EQ(each.render(std::span(chat).first(2), true).text, each.render(std::span(merged).first(1), true).text);
    }
    const std::string row = R"({"messages": [{"role": "system", "content": "S1"}, {"role": "user", "content": "q"},)"
                            R"({"role": "assistant", "content": "a"}]})";
    const qlora::Dataset data = load(row, {}, t);
    EXPECT_EQ(data.row(0).tokens, t.render(merged).tokens);
    EXPECT_EQ(data.info().merged_systems, 1);
    EXPECT_TRUE(data.info().unused.empty());
    const qlora::Dataset dropped = load(row, {.system = qlora::SystemRule::drop}, t);
    EXPECT_EQ(dropped.row(0).tokens, t.render(std::vector<qlora::Message>{{"user", "q"}, {"assistant", "a"}}).tokens);
    EXPECT_EQ(dropped.info().unused.at(0).first, "system text");
    EXPECT_TRUE(
        contains(error_of([&] { (void)load(row, {.system = qlora::SystemRule::error}, t); }), "no system role"));
    EXPECT_EQ(load(row, {.system = qlora::SystemRule::error}, chat_words()).info().rows, 1);
}

TEST_F(RowRules, ColumnsAndPick) {
    const std::string rows =
        "{\"q\": \"a\", \"a\": \"b\", \"text\": \"t\"}\n{\"q\": \"c\", \"a\": \"d\", \"text\": \"t\"}\n";
    const qlora::Dataset data = load(rows, {.columns = {{"q", "prompt"}, {"a", "completion"}}}, chat_words());
    EXPECT_EQ(data.info().format, "prompt/completion");
    EXPECT_EQ(data.info().unused, (std::vector<std::pair<std::string, int64_t>>{{"text", 2}}));
    const std::vector<int64_t> chosen{1, 0, 1};
    const qlora::Dataset picked = data.pick(chosen);
    EXPECT_EQ(picked.info().rows, 3);
    EXPECT_EQ(picked.row(2).tokens, data.row(1).tokens);
    const std::vector<int64_t> outside{2};
    EXPECT_TRUE(contains(error_of([&] { (void)data.pick(outside); }), "row 2 of 2"));
}

}    // namespace row_forms_test
