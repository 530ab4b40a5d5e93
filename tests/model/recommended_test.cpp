// recommended_test.cpp - how tokens are to be drawn, as a model's files say it.
#include "src/format/gguf.h"
#include "tests/run/run_support.h"

#include <gtest/gtest.h>

namespace recommended_test {

using qlora::Json;
using run_support::contains;
using run_support::error_of;

TEST(RecommendedSampling, IsReadFromTheModelsFiles) {
    const run_support::TemporaryFolder folder("qlora-recommended");
    const auto with = [&](const std::string& text) {
        std::filesystem::copy(golden_path("training/model"), folder / "m",
                              std::filesystem::copy_options::recursive |
                                  std::filesystem::copy_options::overwrite_existing);
        qlora::write_file_atomic((folder / "m/generation_config.json"), text);
        return qlora::Model::load(folder / "m").sampling();
    };
    const qlora::Sampling usual, none = with("{}");
    EXPECT_EQ(none.temperature, usual.temperature);
    EXPECT_EQ(none.top_k, usual.top_k);
    const qlora::Sampling s = with(R"({"do_sample": true, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "min_p": 0.1,
                                       "repetition_penalty": 1.05, "eos_token_id": 2})");
    EXPECT_EQ(s.temperature, 0.6f);
    EXPECT_EQ(s.top_k, 20);
    EXPECT_EQ(s.top_p, 0.95f);
    EXPECT_EQ(s.min_p, 0.1f);
    EXPECT_EQ(s.repeat_penalty, 1.05f);
    EXPECT_EQ(with(R"({"do_sample": false, "temperature": 0.6})").temperature, 0);
    EXPECT_TRUE(contains(error_of([&] { (void)with(R"({"top_p": 7})"); }), "generation_config.json: top_p is 7"));
}

TEST(RecommendedSampling, IsReadFromAGgufFile) {
    using Type = qlora::GgufWriter::Type;
    const run_support::TemporaryFolder folder("qlora-recommended");
    const auto tiny = qlora::Gguf::open(qlora::Source(std::string("models/tiny.gguf")));
    const auto with = [&](const std::vector<qlora::GgufWriter::Pair>& more) {
        qlora::GgufWriter w;
        for (const qlora::GgufPair& pair : tiny->pairs()) w.copy(*tiny, pair);
        w.pairs.insert(w.pairs.end(), more.begin(), more.end());
        for (const qlora::GgufTensor& t : tiny->tensors())
            w.add({t.name, t.ggml_type, t.shape, t.bytes,
                   [&tiny, &t](qlora::AtomicFile& f) { f.write(tiny->data(t), t.bytes); }});
        w.write(folder / "m.gguf");
        return qlora::Model::load(folder / "m.gguf").sampling();
    };
    const auto real = [](const char* name, double value) {
        return qlora::GgufWriter::Pair{std::string("general.sampling.") + name, Type::f32, Type::f32, Json(value)};
    };
    const auto whole = [](const char* name, int64_t value) {
        return qlora::GgufWriter::Pair{std::string("general.sampling.") + name, Type::i32, Type::i32, Json(value)};
    };
    const qlora::Sampling usual, none = with({});
    EXPECT_EQ(none.temperature, usual.temperature);
    const qlora::Sampling s = with({real("temp", 0.25), whole("top_k", 20), real("top_p", 0.5), real("min_p", 0.125),
                                    real("penalty_repeat", 1.25), whole("penalty_last_n", 96)});
    EXPECT_EQ(s.temperature, 0.25f);
    EXPECT_EQ(s.top_k, 20);
    EXPECT_EQ(s.top_p, 0.5f);
    EXPECT_EQ(s.min_p, 0.125f);
    EXPECT_EQ(s.repeat_penalty, 1.25f);
    EXPECT_EQ(s.repeat_last, 96);
    EXPECT_EQ(with({whole("top_k", -1)}).top_k, 0);
    EXPECT_TRUE(contains(error_of([&] { (void)with({real("top_p", 7)}); }), "general.sampling.top_p is 7"));
}

// A folder with that generation_config.json, as a GGUF file, and that as a folder again.
struct Travelled {
    explicit Travelled(const std::string& text) {
        const run_support::TemporaryFolder folder("qlora-recommended");
        const qlora::Model model = qlora::Model::load("models/tiny.gguf");
        model.save(folder / "m");
        qlora::write_file_atomic(folder / "m/generation_config.json", text);
        qlora::Model::load(folder / "m").save(folder / "m.gguf");
        const qlora::Model gguf = qlora::Model::load(folder / "m.gguf");
        gguf.save(folder / "again");
        before = qlora::Model::load(folder / "m").sampling();
        as_gguf = gguf.sampling();
        as_folder = qlora::Model::load(folder / "again").sampling();
        file = Json::parse(qlora::read_file(folder / "again/generation_config.json"), "again");
    }
    qlora::Sampling before, as_gguf, as_folder;
    Json file;
};

TEST(RecommendedSampling, GoesWithTheModel) {
    const Travelled t(R"({"do_sample": true, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "min_p": 0.1,
                          "repetition_penalty": 1.05, "repeat_last_n": -1})");
    for (const qlora::Sampling& s : {t.as_gguf, t.as_folder}) {
        EXPECT_EQ(s.temperature, t.before.temperature);
        EXPECT_EQ(s.top_k, t.before.top_k);
        EXPECT_EQ(s.top_p, t.before.top_p);
        EXPECT_EQ(s.min_p, t.before.min_p);
        EXPECT_EQ(s.repeat_penalty, t.before.repeat_penalty);
        EXPECT_EQ(s.repeat_last, t.before.repeat_last);
    }
    EXPECT_EQ(t.before.temperature, 0.6f);
    ASSERT_NE(t.file.find("temperature"), nullptr);
    EXPECT_EQ(t.file.find("temperature")->dump(), "0.6");
    EXPECT_TRUE(t.file.find("do_sample")->boolean());
}

TEST(RecommendedSampling, OfGreedyModelsHasNoTemperature) {
    const Travelled t(R"({"do_sample": false, "temperature": 0.6, "repetition_penalty": 1.5})");
    EXPECT_EQ(t.as_gguf.temperature, 0);
    EXPECT_EQ(t.as_folder.temperature, 0);
    ASSERT_NE(t.file.find("do_sample"), nullptr);
    EXPECT_FALSE(t.file.find("do_sample")->boolean());
    EXPECT_EQ(t.file.find("temperature"), nullptr);
    EXPECT_EQ(t.as_folder.repeat_penalty, 1.5f);
}

TEST(RecommendedSampling, IsNotMadeUp) {
    const Travelled t("{}");
    EXPECT_EQ(t.file.find("do_sample"), nullptr);
    EXPECT_EQ(t.file.find("temperature"), nullptr);
    EXPECT_EQ(t.as_gguf.temperature, qlora::Sampling().temperature);
}

}  // namespace recommended_test
