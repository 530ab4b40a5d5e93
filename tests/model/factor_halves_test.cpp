// factor_halves_test.cpp - generation with the factors of an adapter in f16: close to the factors as they are, which
// are taken where exactness was asked for, where f16 would lose too much of them, and while somebody trains.
#include "src/base/access.h"
#include "src/model/lora_impl.h"
#include "src/run/session.h"
#include "tests/run/run_support.h"

#include <cmath>

namespace factor_halves_test {

using Scores = std::vector<float>;

qlora::Model model(qlora::Compute compute = qlora::Compute::mixed) {
    return qlora::Model::load(golden_path("training/model"), {.backend = qlora::Backend::cpu(1, compute)});
}

// Takes part in training without doing anything.
struct AtWork {
    qlora::LoraImpl& on;
    explicit AtWork(qlora::LoraImpl& lora) : on(lora) { ++on.trainers; }
    ~AtWork() { --on.trainers; }
};

void fill(qlora::LoraImpl& lora, float size, bool only_b = false) {
    qlora::Rng rng{9, 0};
    std::vector<float> values = qlora::lora_values(lora);
    for (const qlora::LoraTarget& t : lora.targets) {
        for (int64_t i = 0; i < t.rank * t.in; ++i) values[size_t(t.a + i)] = rng.normal() * (only_b ? 0.1f : size);
        for (int64_t i = 0; i < t.out * t.rank; ++i) values[size_t(t.b + i)] = rng.normal() * size;
    }
    lora.base->backend->upload(*lora.values, 0, values.data(), lora.parameters * 4);
    ++lora.version;
}

std::shared_ptr<qlora::LoraImpl> adapter(const qlora::Model& base, int64_t rank = 4, bool dora = false) {
    const auto lora = impl_of(qlora::Lora::create(base, {.rank = rank, .alpha = float(rank), .dora = dora, .seed = 5}));
    fill(*lora, 0.1f);
    return lora;
}

// Token after token, as in generation.
Scores scores(qlora::SessionImpl& session) {
    Scores last;
    for (const qlora::Token t : {3, 17, 5, 22, 9}) last = session.feed(qlora::Tokens{t}).all;
    return last;
}
Scores scores(const std::shared_ptr<qlora::LoraImpl>& lora) {
    qlora::SessionImpl session(lora->base, lora, {.context = 64, .cache = qlora::DType::f32});
    return scores(session);
}
Scores exact(const std::shared_ptr<qlora::LoraImpl>& lora) {
    const AtWork training(*lora);
    return scores(lora);
}

double apart(const Scores& a, const Scores& b) {
    double most = 0, size = 0;
    for (size_t i = 0; i < a.size(); ++i) {
        most = std::max(most, std::abs(double(a[i]) - double(b[i])));
        size = std::max(size, std::abs(double(b[i])));
    }
    return most / size;
}

struct FactorHalves : ::testing::Test {
    void SetUp() override {
        if (impl_of(model())->backend->rows_of_half_factors() == 0) GTEST_SKIP() << "this set reads f16 no faster";
    }
};

TEST_F(FactorHalves, AreCloseToTheFactors) {
    for (const bool dora : {false, true})
        for (const int64_t rank : {1, 4, 8, 16, 33}) {
            const auto lora = adapter(model(), rank, dora);
            const Scores halves = scores(lora), floats = exact(lora);
            ASSERT_TRUE(lora->halves.buffer && lora->halves.fit);
            EXPECT_NE(halves, floats) << rank;
            EXPECT_LT(apart(halves, floats), 2e-3) << rank;
            EXPECT_EQ(halves, scores(lora));
        }
}

TEST_F(FactorHalves, AreNotTakenWhereExactnessWasAskedFor) {
    const auto lora = adapter(model(qlora::Compute::f32));
    EXPECT_EQ(scores(lora), exact(lora));
    EXPECT_FALSE(lora->halves.buffer);
}

TEST_F(FactorHalves, FactorsThatDoNotFitStayFloats) {
    const auto lora = adapter(model());
    qlora::SessionImpl session(lora->base, lora, {.context = 64, .cache = qlora::DType::f32});
    const Scores fitting = scores(session);
    EXPECT_NE(fitting, exact(lora));
    for (const float size : {1e-6f, 1e6f}) {           // a session that has begun with halves goes on with floats
        fill(*lora, size, true);
        session.cached.clear();
        EXPECT_EQ(scores(session), exact(lora)) << size;
        EXPECT_FALSE(lora->halves.fit);
        EXPECT_EQ(scores(lora), exact(lora));
    }
    fill(*lora, 0, true);                              // zeros are exact
    session.cached.clear();
    (void)scores(session);
    EXPECT_TRUE(lora->halves.fit);
    fill(*lora, 0.1f);
    session.cached.clear();
    EXPECT_EQ(scores(session), fitting);
    for (const float bad : {std::nanf(""), INFINITY}) {
        lora->base->backend->upload(*lora->values, lora->targets.back().b * 4, &bad, 4);
        ++lora->version;
        EXPECT_EQ(qlora::refresh_halves(*lora), nullptr);
    }
}

TEST_F(FactorHalves, AreNotMadeWhileSomebodyTrains) {
    const qlora::Model base = model();
    const auto lora = adapter(base);
    qlora::SessionImpl session(lora->base, lora, {.context = 64, .cache = qlora::DType::f32});
    const Scores before = scores(session);
    {
        const qlora::TrainerImpl trainer(lora, impl_of(run_support::dataset(run_support::random_rows(4))),
                                         run_support::options());
        EXPECT_EQ(lora->trainers, 1);
        session.cached.clear();
        EXPECT_EQ(scores(session), exact(lora));
    }
    EXPECT_EQ(lora->trainers, 0);
    session.cached.clear();
    EXPECT_EQ(scores(session), before);
}

}  // namespace factor_halves_test
