// schedule_test.cpp - learning rates against those of Hugging Face's schedulers (transformers get_scheduler, 12 steps,
// 3 of warm-up).
#include "src/run/schedule.h"

#include <gtest/gtest.h>

namespace schedule_test {

void expect_rates(const qlora::TrainOptions& options, const std::vector<double>& expected) {
    for (size_t i = 0; i < expected.size(); ++i)
        EXPECT_NEAR(qlora::learning_rate(options, int64_t(i) + 1, int64_t(expected.size())), expected[i], 2e-11)
            << "step " << i + 1;
}

// The same schedules from the second step of a warm-up that is one step longer: no step of a run has rate 0.
TEST(Schedule, WarmUpStartsAboveZero) {
    qlora::TrainOptions o;
    o.learning_rate = 4e-4f;
    o.warmup_steps = 3;
    expect_rates(o, {1e-4, 2e-4, 3e-4, 4e-4, 4e-4, 4e-4});
    o.warmup_start = 0.5f;
    expect_rates(o, {2e-4, 8e-4 / 3, 1e-3 / 3, 4e-4, 4e-4});
    o = {};
    o.learning_rate = 4e-4f;
    for (int64_t steps = 1; steps < 100; ++steps) EXPECT_GT(qlora::learning_rate(o, 1, steps), 0) << steps;
    EXPECT_NEAR(qlora::learning_rate(o, 1, 1), 2e-4, 1e-10);            // a run of one step
}

TEST(Schedule, MatchesHuggingFace) {
    qlora::TrainOptions o;
    o.learning_rate = 2e-4f;
    o.warmup_steps = 3;
    o.warmup_start = 0;
    expect_rates(
        o, {0, 6.66666667e-05, 0.000133333333, 0.0002, 0.0002, 0.0002, 0.0002, 0.0002, 0.0002, 0.0002, 0.0002, 0.0002});
    o.schedule = qlora::Schedule::linear;
    expect_rates(o, {0, 6.66666667e-05, 0.000133333333, 0.0002, 0.000177777778, 0.000155555556, 0.000133333333,
                     0.000111111111, 8.88888889e-05, 6.66666667e-05, 4.44444444e-05, 2.22222222e-05});
    o.schedule = qlora::Schedule::cosine;
    expect_rates(o, {0, 6.66666667e-05, 0.000133333333, 0.0002, 0.000193969262, 0.000176604444, 0.00015, 0.000117364818,
                     8.26351822e-05, 5e-05, 2.33955557e-05, 6.03073792e-06});
    o.min_learning_rate = 2e-5f;
    expect_rates(o, {0, 6.66666667e-05, 0.000133333333, 0.0002, 0.000194572336, 0.000178944, 0.000155, 0.000125628336,
                     9.4371664e-05, 6.5e-05, 4.10560001e-05, 2.54276641e-05});
}

TEST(Schedule, WarmupRatioRoundsUp) {
    qlora::TrainOptions o;
    o.warmup_ratio = 0.03f;
    EXPECT_EQ(qlora::warmup_steps(o, 100), 3);
    EXPECT_EQ(qlora::warmup_steps(o, 101), 4);
    EXPECT_EQ(qlora::warmup_steps(o, 1), 1);
    o.warmup_ratio = 0.1f;
    EXPECT_EQ(qlora::warmup_steps(o, 10), 1);
    o.warmup_ratio = 0;
    EXPECT_EQ(qlora::warmup_steps(o, 1000), 0);
    o.warmup_steps = 7;
    EXPECT_EQ(qlora::warmup_steps(o, 10), 7);
}

}  // namespace schedule_test
