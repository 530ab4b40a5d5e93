// sampler_test.cpp - what each option keeps, that draws follow the distribution, and that they repeat.
#include "src/run/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

namespace sampler_test {

qlora::Sampling plain() {
    qlora::Sampling s;
    s.temperature = 1;
    s.top_p = 1;
    s.top_k = 0;
    s.seed = 7;
    return s;
}

std::map<qlora::Token, int> draw(const qlora::Sampling& s, const std::vector<float>& logits, int count) {
    qlora::Sampler sampler(s);
    std::map<qlora::Token, int> seen;
    for (int i = 0; i < count; ++i) ++seen[sampler.pick(logits)];
    return seen;
}

const std::vector<float> logits{std::log(0.5f), std::log(0.1f), std::log(0.3f), std::log(0.06f), std::log(0.04f)};

TEST(Sampler, GreedyTakesTheBestAndTheLowerOfEquals) {
    qlora::Sampling s = plain();
    s.temperature = 0;
    EXPECT_EQ(draw(s, {1, 3, 2, 3}, 1).begin()->first, 1);
}

TEST(Sampler, FollowsTheDistribution) {
    const int n = 100000;
    auto seen = draw(plain(), logits, n);
    for (size_t i = 0; i < logits.size(); ++i) {
        const double p = std::exp(double(logits[i])), sigma = std::sqrt(p * (1 - p) / n);
        EXPECT_NEAR(double(seen[qlora::Token(i)]) / n, p, 4.5 * sigma) << i;
    }
}

TEST(Sampler, TemperatureSharpens) {
    qlora::Sampling s = plain();
    s.temperature = 0.5f;
    const int n = 50000;
    auto seen = draw(s, logits, n);
    const double total = 0.25 + 0.01 + 0.09 + 0.0036 + 0.0016;         // squares of the probabilities
    EXPECT_NEAR(double(seen[0]) / n, 0.25 / total, 0.01);
    EXPECT_NEAR(double(seen[2]) / n, 0.09 / total, 0.01);
}

TEST(Sampler, CutsTheTail) {
    qlora::Sampling s = plain();
    s.top_k = 2;
    EXPECT_EQ(draw(s, logits, 5000).size(), 2u);
    s = plain();
    s.top_p = 0.75f;                                   // 0.5 + 0.3 reaches it
    EXPECT_EQ(draw(s, logits, 5000).size(), 2u);
    s.top_p = 0.81f;
    EXPECT_EQ(draw(s, logits, 5000).size(), 3u);
    s.top_p = 1e-6f;
    EXPECT_EQ(draw(s, logits, 100).size(), 1u);
    s = plain();
    s.min_p = 0.19f;                                   // of the best: 0.5 * 0.19 = 0.095
    EXPECT_EQ(draw(s, logits, 5000).size(), 3u);
}

TEST(Sampler, PenaltyCountsRecentTokensOnce) {
    qlora::Sampling s = plain();
    s.temperature = 0;
    s.repeat_penalty = 2;
    s.repeat_last = 2;
    qlora::Sampler sampler(s);
    const std::vector<float> scores{4, 3, -1, -1.5f};
    EXPECT_EQ(sampler.pick(scores), 0);
    sampler.accept(0);
    sampler.accept(0);
    EXPECT_EQ(sampler.pick(scores), 1);                // 4 / 2 < 3; applied once, not twice
    sampler.accept(1);
    EXPECT_EQ(sampler.pick(scores), 0);                // 2 against 1.5
    sampler.accept(1);                                 // 0 is forgotten now
    EXPECT_EQ(sampler.pick(scores), 0);
    qlora::Sampler negative(s);
    negative.accept(2);
    EXPECT_EQ(negative.pick(std::vector<float>{-9, -9, -1, -1.5f}), 3);        // -1 * 2 < -1.5
}

// Of a row with many equal scores, the wanted() best say what the whole row says.
TEST(Sampler, TheBestScoresAreEnough) {
    qlora::Rng rng{5, 0, 0};
    for (int trial = 0; trial < 300; ++trial) {
        qlora::Sampling s;
        s.temperature = float(rng.below(3));
        s.top_p = rng.below(2) ? 1 : 0.8f;
        s.min_p = rng.below(2) ? 0 : 0.05f;
        s.top_k = int64_t(rng.below(6));
        s.repeat_penalty = rng.below(2) ? 1 : 1.5f;
        s.repeat_last = int64_t(rng.below(9));
        s.seed = uint64_t(trial);
        qlora::Sampler whole(s), best(s);
        EXPECT_EQ(whole.wanted() == 0, s.temperature > 0 && s.top_k == 0);
        for (int step = 0; step < 20 && whole.wanted() > 0; ++step) {
            std::vector<float> scores(40);
            for (float& v : scores) v = std::round(3 * rng.normal());
            std::vector<qlora::Candidate> sorted;
            for (size_t i = 0; i < scores.size(); ++i) sorted.push_back({scores[i], qlora::Token(i)});
            std::stable_sort(sorted.begin(), sorted.end(), [](auto& a, auto& b) { return a.score > b.score; });
            sorted.resize(size_t(best.wanted()));
            const qlora::Token token = whole.pick(scores);
            ASSERT_EQ(best.pick_of(sorted), token) << "trial " << trial << ", step " << step;
            whole.accept(token);
            best.accept(token);
        }
    }
    qlora::Sampling s;
    EXPECT_EQ(qlora::Sampler(s).wanted(), 40);
    s.repeat_penalty = 1.1f;
    EXPECT_EQ(qlora::Sampler(s).wanted(), 104);
    s.repeat_penalty = 0.9f;
    EXPECT_EQ(qlora::Sampler(s).wanted(), 0) << "a token far down may rise";
    s = {.mask = [](std::span<const qlora::Token>, std::span<float>) {}};
    EXPECT_EQ(qlora::Sampler(s).wanted(), 0);
}

// As src/run/sampler.cpp says it, with every score sorted and every weight made: the token for a number u in [0, 1).
qlora::Token drawn_of_all(const qlora::Sampling& s, const std::vector<float>& scores, double u) {
    std::vector<qlora::Candidate> all;
    for (size_t i = 0; i < scores.size(); ++i) all.push_back({scores[i], qlora::Token(i)});
    std::stable_sort(all.begin(), all.end(), [](auto& a, auto& b) { return a.score > b.score; });
    if (s.top_k > 0) all.resize(std::min(all.size(), size_t(s.top_k)));
    const auto weight = [&](size_t i, double t) { return std::exp((double(all[i].score) - double(all[0].score)) / t); };
    const auto sum = [&](double t) {
        double total = 0;
        for (size_t i = 0; i < all.size(); ++i) total += weight(i, t);
        return total;
    };
    const double enough = double(s.top_p) * sum(1);
    double reached = 0;
    size_t keep = 0;
    while (keep < all.size() && (s.top_p == 1 || reached < enough)) reached += weight(keep++, 1);
    while (keep > 1 && weight(keep - 1, 1) < double(s.min_p)) --keep;
    all.resize(std::max<size_t>(keep, 1));
    double left = u * sum(double(s.temperature));
    for (size_t i = 0; i < all.size(); ++i)
        if ((left -= weight(i, double(s.temperature))) < 0) return all[i].id;
    return all.back().id;
}

// Vocabularies of which only a part is put in order: flat scores, a few high ones, and many that are equal.
TEST(Sampler, DrawsAsIfAllWereSorted) {
    qlora::Rng rng{6, 0, 0};
    for (int trial = 0; trial < 400; ++trial) {
        qlora::Sampling s;
        s.temperature = 0.3f + float(rng.below(4)) * 0.7f;
        s.top_p = rng.below(3) ? 1 - 0.2f * float(rng.below(4)) : 0.9999f;
        s.min_p = rng.below(3) ? 0 : 0.001f * float(rng.below(100));
        s.top_k = rng.below(2) ? 0 : int64_t(rng.below(400));
        s.repeat_penalty = 1;
        s.seed = uint64_t(trial);
        const float spread = 0.2f + 2 * float(rng.below(3));
        std::vector<float> scores(size_t(rng.below(6000)) + 1);
        for (float& v : scores) v = std::round(8 * spread * rng.normal()) / 8;
        qlora::Sampler sampler(s);
        qlora::Rng draws{s.seed, 0x73616d706c65, 0};
        for (int step = 0; step < 3; ++step) {
            const uint32_t high = draws.next() >> 5, low = draws.next() >> 6;
            const double u = (double(high) * 0x1p26 + double(low)) * 0x1p-53;
            ASSERT_EQ(sampler.pick(scores), drawn_of_all(s, scores, u)) << "trial " << trial << ", step " << step;
        }
    }
}

TEST(Sampler, SameSeedSameDraws) {
    qlora::Sampling s = plain();
    qlora::Sampler a(s), b(s);
    s.seed = 8;
    qlora::Sampler c(s);
    int different = 0;
    for (int i = 0; i < 200; ++i) {
        const qlora::Token x = a.pick(logits);
        EXPECT_EQ(x, b.pick(logits));
        different += x != c.pick(logits);
    }
    EXPECT_GT(different, 20);
}

TEST(Sampler, RefusesNonsense) {
    const auto refused = [](auto change) {
        qlora::Sampling s = plain();
        change(s);
        EXPECT_THROW(qlora::Sampler sampler(s), qlora::Error);
    };
    refused([](auto& s) { s.temperature = -1; });
    refused([](auto& s) { s.temperature = NAN; });
    refused([](auto& s) { s.top_p = 0; });
    refused([](auto& s) { s.top_p = 1.5f; });
    refused([](auto& s) { s.min_p = -0.1f; });
    refused([](auto& s) { s.repeat_penalty = 0; });
    refused([](auto& s) { s.top_k = -1; });
    refused([](auto& s) { s.max_tokens = -1; });
    qlora::Sampler sampler(plain());
    EXPECT_THROW(sampler.pick(std::vector<float>{1, NAN}), qlora::Error);
    EXPECT_THROW(sampler.pick(std::vector<float>{}), qlora::Error);
}

}  // namespace sampler_test
