// linear.h - whether work grows with its input as it should. A ratio of processor times: the same on a slow machine, on
// a busy one and under a sanitizer, where a limit in seconds is not.
#pragma once
#include <gtest/gtest.h>

#include <ctime>
#include <string>

// work(text) for `text` and for its first sixteenth: 16 times the time or a little more where it is linear, 256 times
// where it is quadratic.
template <class Work>
void expect_linear(const std::string& text, const Work& work, const std::string& name) {
    const auto time_of = [&](const std::string& part) {
        const std::clock_t start = std::clock();
        work(part);
        return double(std::clock() - start);
    };
    const std::string part = text.substr(0, text.size() / 16);
    double ratio = 0;
    for (int attempt = 0; attempt < 3; ++attempt) {    // a sixteenth takes milliseconds: what disturbs one is no growth
        const double once = time_of(part);
        ratio = time_of(text) / (once > 0 ? once : 1);
        if (ratio < 64) return;
    }
    ADD_FAILURE() << name << ": 16 times the text takes " << ratio << " times the time";
}
