// planted.h - what the tests of the emulation share: mistakes are planted, and each must be seen.
#pragma once
#include "tests/cuda-emulation/cuda_emulation.h"

#include <gtest/gtest.h>

namespace cuda_emulation_tests {

using cuda_emulation::Order;

constexpr Order orders[] = {Order::forward, Order::reverse, Order::random};
#if defined(__SANITIZE_THREAD__)
constexpr bool thread_sanitizer = true;                // reports planted races and abandoned threads itself
#else
constexpr bool thread_sanitizer = false;
#endif

struct Emulation : testing::Test {
    Emulation() { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
    void TearDown() override {
        cuda_emulation::options = {};
        EXPECT_EQ(cuda_emulation::queued_work(), 0);
        EXPECT_EQ(cuda_emulation::memory().error, "");
    }
};

template <class Action> std::string failure(const Action& action) {
    try {
        action();
    } catch (const cuda_emulation::Failure& e) {
        return e.what();
    }
    return "none";
}
inline std::string mistake(unsigned threads, const std::function<void()>& kernel, size_t shared = 0) {
    return failure([&] { cuda_emulation::run(dim3(1), threads, shared, kernel); });
}
#define EXPECT_SAYS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

}  // namespace cuda_emulation_tests
