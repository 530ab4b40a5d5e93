// decoder_test.cpp - a trained model against published numbers: greedy text, scores and losses, with and without a
// cache.
#include "src/model/decoder.h"

#include "src/base/json.h"
#include "src/base/file.h"
#include "tests/model/tiny.h"
#include "tests/support/support.h"

#include <gtest/gtest.h>

#include <cmath>

namespace decoder_test {

using namespace qlora;
using tiny::load;

Json expected() { return Json::parse(read_file(data_path("model/stories260K/expected.json")), "expected.json"); }

Tokens ids_of(const Json& list) {
    Tokens ids;
    for (const Json& v : list.array()) ids.push_back(Token(v.integer()));
    return ids;
}

class Stories : public testing::TestWithParam<const char*> {
protected:
    void SetUp() override {
        const std::string path = data_path(std::string("model/stories260K/") + GetParam());
        if (!exists(path)) GTEST_SKIP() << "needs ../shared/data/model/stories260K";
        model = load(path);
    }
    std::shared_ptr<const ModelImpl> model;
};

TEST_P(Stories, ScoresMatchAFloat64Forward) {
    const Json e = expected();
    const Tokens ids = ids_of(*e.find("computed")->find("greedy_ids"));
    const std::vector<float> logits = tiny::logits(model, nullptr, ids);
    const int64_t vocabulary = model->config.vocabulary;
    for (const Json& position : e.find("computed")->find("first_positions_top5")->array()) {
        const float* row = logits.data() + position.find("pos")->integer() * vocabulary;
        for (const Json& top : position.find("top5")->array())
            EXPECT_NEAR(row[top.array()[0].integer()], top.array()[1].number(), 2e-4);
    }
    for (size_t t = 0; t + 1 < ids.size(); ++t) {
        const float* row = logits.data() + int64_t(t) * vocabulary;
        EXPECT_EQ(std::max_element(row, row + vocabulary) - row, ids[t + 1]) << "position " << t;
    }
}

TEST_P(Stories, LossesMatchAFloat64Forward) {
    const Json e = expected();
    for (const Json& row : e.find("computed")->find("nll")->array()) {
        const Tokens ids = ids_of(*row.find("ids"));
        const std::vector<float> nll = tiny::nll(model, nullptr, ids);
        double sum = 0;
        for (float v : nll) sum += v;
        const Json* mean = row.find("mean_nll");
        ASSERT_NE(mean, nullptr) << row.dump();
        EXPECT_NEAR(sum / double(ids.size() - 1), mean->number(), 1e-5);
    }
}

// One token at a time through the cache gives what one pass over the whole text gives.
TEST_P(Stories, CacheChangesNothing) {
    Tokens ids = ids_of(*expected().find("computed")->find("greedy_ids"));
    ids.resize(40);
    const std::vector<float> whole = tiny::logits(model, nullptr, ids);
    const int64_t vocabulary = model->config.vocabulary;
    KvCache cache = make_cache(*model, 64);
    Decoder prompt(model, nullptr, {.rows = 32, .logit_rows = 1, .cache = &cache}),
        one(model, nullptr, {.rows = 1, .cache = &cache});
    const int32_t length = 25;                         // 32 rows, 7 of them padding
    DecoderBatch batch = lay_out(std::vector<Document>{{std::span(ids).first(size_t(length)), {}}}, 32);
    for (int32_t i = 0; i < 32; ++i) batch.cache_rows.push_back(i < length ? i : -1);
    batch.logit_rows = {length - 1};
    prompt.run(batch);
    auto compare = [&](const std::vector<float>& row, int64_t t) {
        ASSERT_EQ(int64_t(row.size()), vocabulary);
        for (int64_t i = 0; i < vocabulary; ++i) ASSERT_NEAR(row[size_t(i)], whole[size_t(t * vocabulary + i)], 1e-4);
    };
    compare(prompt.logits(), length - 1);
    for (int32_t t = length; t < int32_t(ids.size()); ++t) {
        DecoderBatch next;
        next.tokens = {ids[size_t(t)]};
        next.positions = {t};
        next.first = {0};
        next.last = {t + 1};
        next.cache_rows = {t};
        one.run(next);
        compare(one.logits(), t);
    }
}

// Documents that share a stream do not see each other.
TEST_P(Stories, PackedDocumentsAreAlone) {
    const Tokens ids = ids_of(*expected().find("computed")->find("greedy_ids"));
    const std::span<const Token> a = std::span(ids).first(17), b = std::span(ids).subspan(40, 23);
    Decoder d(model, nullptr, {.rows = 48, .output = DecoderSpec::Output::loss});
    d.run(lay_out(std::vector<Document>{{a, {}}, {b, {}}}, 48));
    const std::vector<float> packed = d.nll(), alone_a = tiny::nll(model, nullptr, a),
                             alone_b = tiny::nll(model, nullptr, b);
    for (size_t i = 0; i < 17; ++i) EXPECT_NEAR(packed[i], alone_a[i], 1e-5);
    for (size_t i = 0; i < 23; ++i) EXPECT_NEAR(packed[17 + i], alone_b[i], 1e-5);
    for (size_t i = 40; i < 48; ++i) EXPECT_EQ(packed[i], 0) << "padding";
}

INSTANTIATE_TEST_SUITE_P(Decoder, Stories, testing::Values("stories260K.gguf", "hf"),
                         [](const auto& of) { return std::string(of.index ? "folder" : "gguf"); });

TEST(DecoderInput, IsChecked) {
    const auto model = tiny::make({});
    Decoder d(model, nullptr, {.rows = 2});
    DecoderBatch b = lay_out(std::vector<Document>{{std::vector<Token>{1, 2}, {}}}, 2);
    d.run(b);
    DecoderBatch bad = b;
    bad.tokens[1] = 9999;
    EXPECT_THROW(d.run(bad), Error);
    bad = b; bad.last[0] = 3;
    EXPECT_THROW(d.run(bad), Error);
    bad = b; bad.positions.pop_back();
    EXPECT_THROW(d.run(bad), Error);
    EXPECT_THROW(d.nll(), Error);
    EXPECT_THROW(Decoder(model, nullptr, {.rows = 0}), Error);
    EXPECT_THROW(Decoder(model, nullptr, {.rows = 2, .output = DecoderSpec::Output::loss, .backward = true}), Error);
    EXPECT_THROW(lay_out(std::vector<Document>{{std::vector<Token>{1, 2, 3}, {}}}, 2), Error);
    EXPECT_THROW(make_cache(*model, 0), Error);
}

// A window of w keys: what lies further back does not matter, what lies within does.
TEST(DecoderWindow, SeesOnlyItsKeys) {
    const auto model = tiny::make({.window = 4, .layers = 1});
    Tokens ids{5, 6, 7, 8, 9, 10, 11, 12}, far = ids, near = ids;
    far[2] = 30;                                       // row 7 sees the keys 4 to 7
    near[4] = 30;
    const std::vector<float> base = tiny::logits(model, nullptr, ids), changed_far = tiny::logits(model, nullptr, far),
                             changed_near = tiny::logits(model, nullptr, near);
    const int64_t vocabulary = model->config.vocabulary;
    double difference_far = 0, difference_near = 0;
    for (int64_t i = 7 * vocabulary; i < 8 * vocabulary; ++i) {
        difference_far += std::fabs(base[size_t(i)] - changed_far[size_t(i)]);
        difference_near += std::fabs(base[size_t(i)] - changed_near[size_t(i)]);
    }
    EXPECT_EQ(difference_far, 0);
    EXPECT_GT(difference_near, 1e-3);
}

class EveryFamily : public testing::TestWithParam<std::string> {
protected:
    static constexpr int64_t window = 5;
    std::shared_ptr<ModelImpl> model = tiny::make({.family = GetParam(), .window = window, .layers = 4});
};

// Greedy text through a cache, beyond the window, is what every new look at the whole text gives.
TEST_P(EveryFamily, GeneratesBeyondTheWindowAsFromTheStart) {
    const int64_t vocabulary = model->config.vocabulary;
    KvCache cache = make_cache(*model, 40, DType::f32);
    Decoder one(model, nullptr, {.rows = 1, .cache = &cache}), six(model, nullptr, {.rows = 6, .cache = &cache});
    Tokens ids{3, 17, 5, 22, 9, 31};
    DecoderBatch prompt;
    append_cached(prompt, ids, 0, 0);
    six.run(prompt);
    std::vector<float> scores = six.logits();
    scores.erase(scores.begin(), scores.end() - vocabulary);
    while (ids.size() < 30) {
        const std::vector<float> whole = tiny::logits(model, nullptr, ids);
        const float* last = whole.data() + whole.size() - size_t(vocabulary);
        for (int64_t i = 0; i < vocabulary; ++i) ASSERT_NEAR(scores[size_t(i)], last[i], 2e-4) << ids.size();
        ids.push_back(Token(std::max_element(scores.begin(), scores.end()) - scores.begin()));
        DecoderBatch next;
        append_cached(next, std::span(ids).last(1), int64_t(ids.size()) - 1, 0);
        one.run(next);
        scores = one.logits();
    }
}

// Documents of one stream, shorter and longer than the window, have the losses that they have alone.
TEST_P(EveryFamily, PackedDocumentsAreAlone) {
    const Tokens all{3, 17, 5, 22, 9, 31, 2, 8, 14, 30, 7, 1, 33, 12, 4, 29};
    const std::vector<std::span<const Token>> texts{std::span(all).first(4), all, std::span(all).subspan(3, 9)};
    std::vector<Document> packed;
    std::vector<float> alone;
    for (const auto& text : texts) {
        packed.push_back({text, {}});
        const std::vector<float> own = tiny::nll(model, nullptr, text);
        alone.insert(alone.end(), own.begin(), own.end());
    }
    Decoder d(model, nullptr, {.rows = int64_t(alone.size()) + 3, .output = DecoderSpec::Output::loss});
    d.run(lay_out(packed, int64_t(alone.size()) + 3));
    const std::vector<float> together = d.nll();
    for (size_t i = 0; i < alone.size(); ++i) ASSERT_NEAR(together[i], alone[i], 1e-5) << i;
}

// And the window is one: without it the same text has other scores.
TEST_P(EveryFamily, TheWindowMatters) {
    const Tokens ids{3, 17, 5, 22, 9, 31, 2, 8, 14, 30, 7, 1};
    auto open = std::make_shared<ModelImpl>(*model);
    open->config.window = 0;
    EXPECT_NE(tiny::logits(open, nullptr, ids), tiny::logits(model, nullptr, ids));
}
INSTANTIATE_TEST_SUITE_P(Decoder, EveryFamily, testing::ValuesIn(tiny::every_family()),
                         [](const auto& of) { return of.param; });

}  // namespace decoder_test
