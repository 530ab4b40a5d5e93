// drop_test.cpp - the dropout mask of every instruction set is the counter's, element for element, wherever a run
// begins and ends.
#include "src/base/rng.h"

#include "tests/support/every_set.h"

#include <gtest/gtest.h>

#include <cstring>

namespace drop_test {

TEST(Drop, EveryInstructionSetDrawsTheSameMask) {
    const int64_t most = 300;
    std::vector<float> x(size_t(most), 0.0f);
    for (int64_t i = 0; i < most; ++i) x[size_t(i)] = float(i + 1);
    const int64_t far = int64_t(1) << 34;              // elements whose counter no longer fits 32 bits
    for (const qlora::Kernels& set : every_set_support::every_set()) {
        for (float p : {0.0f, 0.1f, 0.5f, 0.999f}) {
            for (int64_t first : {int64_t(0), int64_t(1), int64_t(3), int64_t(64), far - 130, far, 3 * far + 2}) {
                for (int64_t count :
                     {int64_t(0), int64_t(1), int64_t(2), int64_t(31), int64_t(65), int64_t(131), most}) {
                    const uint64_t seed = 0x123456789abcdef0u, stream = (uint64_t(5) << 32) | 77;
                    std::vector<float> y(size_t(most + 1), -1), in_place = x;
                    qlora::drop(set, x.data(), y.data(), first, count, p, seed, stream);
                    qlora::drop(set, in_place.data(), in_place.data(), first, count, p, seed, stream);
                    for (int64_t i = 0; i < count; ++i) {
                        const uint64_t e = uint64_t(first + i);
                        const bool keep = qlora::uniform01(qlora::philox(seed, stream, e >> 2).v[e & 3]) >= p;
                        ASSERT_EQ(y[size_t(i)], keep ? x[size_t(i)] * (1 / (1 - p)) : 0)
                            << set.name << ", p " << p << ", element " << e;
                    }
                    ASSERT_EQ(y[size_t(count)], -1) << "wrote past the end";
                    ASSERT_EQ(std::memcmp(in_place.data(), y.data(), size_t(count) * 4), 0);
                }
            }
        }
    }
}

TEST(Drop, ProbabilityBetweenTwoDraws) {               // p a little above k / 2^24: k must be dropped, k + 1 kept
    const float p = 0x1.000002p-1f;                    // 2^23 / 2^24 plus half a draw
    int64_t wrong = 0;
    std::vector<float> x(1 << 16, 1.0f), y(x.size());
    qlora::drop(qlora::best_kernels(), x.data(), y.data(), 0, int64_t(x.size()), p, 9, 9);
    for (size_t e = 0; e < x.size(); ++e)
        wrong += (y[e] != 0) != (qlora::uniform01(qlora::philox(9, 9, e >> 2).v[e & 3]) >= p);
    EXPECT_EQ(wrong, 0);
}

}  // namespace drop_test
