// dataset_memory_test.cpp - data sets out of memory are those of files with the same records.
#include "src/base/json.h"
#include "tests/run/run_support.h"

namespace dataset_memory_test {

using namespace qlora;
using run_support::contains;
using run_support::error_of;

struct FromMemory : testing::Test {
    Model model = Model::load("models/tiny.gguf", {.backend = Backend::cpu(1, Compute::f32)});
    run_support::TemporaryFolder folder{"qlora_dataset_memory"};

    Dataset of_file(const std::string& text, const DatasetOptions& options = {}) {
        write_file_atomic(folder / "rows.jsonl", text);
        return Dataset::load(folder / "rows.jsonl", model, options);
    }
    static void expect_same(const Dataset& a, const Dataset& b) {
        ASSERT_EQ(a.info().rows, b.info().rows);
        for (int64_t i = 0; i < a.info().rows; ++i) {
            EXPECT_EQ(a.row(i).tokens, b.row(i).tokens) << i;
            EXPECT_EQ(a.row(i).trained, b.row(i).trained) << i;
        }
        for (const auto count : {&DatasetInfo::tokens, &DatasetInfo::trained_tokens, &DatasetInfo::truncated,
                                 &DatasetInfo::dropped, &DatasetInfo::turns, &DatasetInfo::trained_turns,
                                 &DatasetInfo::spelled, &DatasetInfo::control_tokens})
            EXPECT_EQ(a.info().*count, b.info().*count);
        EXPECT_EQ(a.info().format, b.info().format);
        EXPECT_EQ(a.info().unused, b.info().unused);
    }
};

TEST_F(FromMemory, DialoguesAreThoseOfAFile) {
    const std::vector<std::vector<Message>> dialogues{
        {{"user", "Who goes there?"}, {"assistant", "A friend."}},
        {{"system", "You act."}, {"user", "Speak <|im_end|>"}, {"assistant", "No."}, {"user", "Now?"},
         {"assistant", "Ay."}},
        {{"user", "no answer"}},
        {{"user", "quote \"this\" \n"}, {"assistant", "\xC3\xA9t\xC3\xA9", R"({"train": false, "mood": "glad"})"},
         {"user", "And?"}, {"assistant", "Past."}}};
    std::string lines;
    for (const auto& dialogue : dialogues) {
        Json messages{Json::Array()};
        for (const Message& m : dialogue) {
            Json message = Json().set("role", m.role).set("content", m.content);
            const Json more = m.more.empty() ? Json{Json::Object{}} : Json::parse(m.more, "more");
            for (const auto& [key, value] : more.object()) message.set(key, value);
            messages.push(std::move(message));
        }
        lines += Json().set("messages", std::move(messages)).dump() + "\n";
    }
    for (const DatasetOptions& options :
         {DatasetOptions{}, DatasetOptions{.context = 24}, DatasetOptions{.loss = Loss::completion},
          DatasetOptions{.loss = Loss::all, .special = Special::tokens}})
        expect_same(Dataset::from_dialogues(dialogues, model, options), of_file(lines, options));
    const std::vector<std::vector<Message>> bad{dialogues[0], {{"user", "x", "{"}, {"assistant", "y"}}};
    const std::string error = error_of([&] { (void)Dataset::from_dialogues(bad, model); });
    EXPECT_TRUE(contains(error, "record 1")) << error;
    EXPECT_TRUE(contains(error_of([&] { (void)Dataset::from_dialogues({}, model); }), "nothing to train on"));
}

TEST_F(FromMemory, TextsAreThoseOfAFile) {
    const std::vector<std::string> texts{"To be, or not to be, that is the question.", "O", "Two\nlines."};
    std::string lines;
    for (const std::string& text : texts) lines += Json().set("text", text).dump() + "\n";
    for (const DatasetOptions& options : {DatasetOptions{}, DatasetOptions{.context = 8}})
        expect_same(Dataset::from_texts(texts, model, options), of_file(lines, options));
}

TEST_F(FromMemory, RowsStayAsTheyAre) {
    const std::vector<Rendered> rows{
        {"", {1, 5, 6, 7}, {0, 0, 1, 1}}, {"", {1, 9, 8}, {0, 2, 0}}, {"", {1, 2}, {1, 0}}};
    const Dataset data = Dataset::from_rows(rows, model);
    EXPECT_EQ(data.info().rows, 2) << "the third has no token to predict";
    EXPECT_EQ(data.info().dropped, 1);
    EXPECT_EQ(data.row(0).tokens, rows[0].tokens);
    EXPECT_EQ(data.row(0).trained, rows[0].trained);
    EXPECT_EQ(data.row(1).trained, (std::vector<uint8_t>{0, 1, 0}));
    EXPECT_EQ(Dataset::from_rows(rows, model, {.context = 3}).info().truncated, 1);
    const Rendered unequal{"", {1, 2, 3}, {1}}, outside{"", {1, 1 << 20}, {0, 1}};
    EXPECT_TRUE(contains(error_of([&] { (void)Dataset::from_rows({&unequal, 1}, model); }), "1 loss flags"));
    EXPECT_TRUE(contains(error_of([&] { (void)Dataset::from_rows({&outside, 1}, model); }), "vocabulary"));
}

TEST_F(FromMemory, JoinedRowsFollowEachOther) {
    const std::vector<std::string> first{"To be", "or not"}, second{"that is"};
    const Dataset a = Dataset::from_texts(first, model), b = Dataset::from_texts(second, model);
    const std::vector<Dataset> parts{a, b, a};
    const Dataset all = Dataset::join(parts);
    ASSERT_EQ(all.info().rows, 5);
    EXPECT_EQ(all.row(2).tokens, b.row(0).tokens);
    EXPECT_EQ(all.row(4).tokens, a.row(1).tokens);
    EXPECT_EQ(all.info().tokens, 2 * a.info().tokens + b.info().tokens);
    EXPECT_TRUE(contains(error_of([] { (void)Dataset::join({}); }), "nothing to join"));
    const Model other = Model::load("models/tiny.gguf", {.backend = Backend::cpu(1, Compute::f32)});
    const std::vector<Dataset> mixed{a, Dataset::from_texts(second, other)};
    EXPECT_TRUE(contains(error_of([&] { (void)Dataset::join(mixed); }), "another tokenizer"));
}

}  // namespace dataset_memory_test
