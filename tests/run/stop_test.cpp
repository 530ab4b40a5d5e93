// stop_test.cpp - what a foreign file can make long asks whether to stop, often, and stops; outside of a scope nothing
// is asked.
#include "src/base/json.h"
#include "src/base/stop.h"
#include "src/text/chat_template.h"
#include "tests/run/run_support.h"

#include <fstream>
#include <functional>

namespace stop_test {

using run_support::error_of;

int64_t asked, allowed;
bool go_on() { return ++asked <= allowed; }

// The work asks at least `times` times, ends half-way when told to, soon after.
void expect_stops(const char* name, int64_t times, const std::function<void()>& work) {
    asked = 0;
    allowed = INT64_MAX;
    {
        const qlora::StopScope scope(go_on);
        work();
    }
    const int64_t whole = asked;
    EXPECT_GE(whole, times) << name;
    allowed = whole / 2;
    asked = 0;
    {
        const qlora::StopScope scope(go_on);
        EXPECT_TRUE(run_support::contains(error_of(work), "stopped")) << name;
    }
    EXPECT_LT(asked, whole / 2 + 5) << name;
    asked = 0;
    work();
    EXPECT_EQ(asked, 0) << name << ": asked outside of a scope";
}

TEST(Stop, JsonTemplatesAndFiles) {
    std::string list = "[0";
    for (int i = 0; i < 500; ++i) list += ",[]";
    expect_stops("json", 500, [&] { qlora::Json::parse(list + "]", "list"); });
    const auto loop = qlora::ChatTemplate::parse(
        "{% for i in range(300) %}{% for j in range(20) %}{% endfor %}{% endfor %}", "loop");
    expect_stops("template", 6000, [&] { loop->render(qlora::Json::Object{}); });
    run_support::TemporaryFolder folder{"qlora-stop"};
    std::ofstream(folder / "file", std::ios::binary) << list;
    expect_stops("file", 1, [&] { (void)qlora::read_file(folder / "file"); });
    expect_stops("save", 4, [&] { qlora::write_file_atomic(folder / "big", std::string(8 << 20, 'x')); });
}

TEST(Stop, TokenizersDataAndModels) {
    const std::string path = "models/tiny.gguf";
    const qlora::Model model = qlora::Model::load(path);
    std::string words, word, rows;
    for (int i = 0; i < 300; ++i) words += "word" + std::to_string(i) + " ";
    expect_stops("words", 300, [&] { (void)model.tokenizer().encode(words); });
    for (int i = 0; i < 500; ++i) word += "the";
    expect_stops("one word", 300, [&] { (void)model.tokenizer().encode(word); });
    for (int i = 0; i < 100; ++i) rows += R"({"prompt": "a", "completion": "b"})" "\n";
    run_support::TemporaryFolder folder{"qlora-stop"};
    std::ofstream(folder / "rows.jsonl", std::ios::binary) << rows;
    std::ofstream(folder / "text.txt", std::ios::binary) << words;
    expect_stops("rows", 300, [&] { (void)qlora::Dataset::load(folder / "rows.jsonl", model); });
    expect_stops("text", 300, [&] { (void)qlora::Dataset::load(folder / "text.txt", model); });
    expect_stops("model", 20, [&] { (void)qlora::Model::load(path, {.quantize = qlora::DType::nf4}); });
    const qlora::Dataset data = qlora::Dataset::load(folder / "rows.jsonl", model);
    expect_stops("measure", 1, [&] { (void)qlora::evaluate(model, data); });
}

TEST(Stop, TheInnermostScopeIsAsked) {
    asked = 0;
    allowed = INT64_MAX;
    const qlora::StopScope outer(go_on);
    {
        const qlora::StopScope inner([] { return false; });
        EXPECT_TRUE(run_support::contains(error_of([] { qlora::Json::parse("0", "number"); }), "stopped"));
    }
    {
        const qlora::StopScope nobody(nullptr);
        qlora::Json::parse("0", "number");
    }
    EXPECT_EQ(asked, 0);
    qlora::Json::parse("0", "number");
    EXPECT_EQ(asked, 1);
}

}  // namespace stop_test
