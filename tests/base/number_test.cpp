// number_test.cpp - doubles are read as std::strtod reads them in the C locale, whatever locale the program is in.
#include "src/base/number.h"

#include <gtest/gtest.h>

#include <clocale>
#include <cmath>
#include <cstdlib>
#include <cstring>

namespace number_test {

struct Read { double value; size_t used; std::errc problem; };

Read read(const std::string& text) {
    double value = -7;
    const auto [end, problem] = qlora::parse_double(text.data(), text.data() + text.size(), value);
    return {value, size_t(end - text.data()), problem};
}

TEST(Number, IsTheNearestDouble) {
    for (const char* text : {"0", "-0", "1", "0.1", "-2.5e-3", "1e22", "123456789.123456789", "4.9e-324",
                             "1.7976931348623157e308", ".5", "5."}) {
        const Read r = read(text);
        const double expected = std::strtod(text, nullptr);
        EXPECT_EQ(r.problem, std::errc()) << text;
        EXPECT_EQ(std::memcmp(&r.value, &expected, 8), 0) << text << " is " << r.value;
        EXPECT_EQ(r.used, std::strlen(text)) << text;
    }
}

TEST(Number, EndsWhereTheNumberEnds) {
    EXPECT_EQ(read("1.5x").used, 3u);
    EXPECT_EQ(read("1e").used, 1u);
    EXPECT_EQ(read("1e+").used, 1u);
    EXPECT_EQ(read("1,5").used, 1u);
    for (const char* none : {"", "-", ".", "x", "+1", " 1", "-e5"}) {
        EXPECT_EQ(read(none).problem, std::errc::invalid_argument) << none;
        EXPECT_EQ(read(none).value, -7) << none;
    }
}

TEST(Number, OutOfRangeIsTheNearestOfZeroAndInfinity) {
    for (const auto& [text, expected] : {std::pair("1e999", HUGE_VAL), {"-1e999", -HUGE_VAL}, {"1e-999", 0.0},
                                         {"-1e-999", -0.0},
                                         {"0.0000001e-330", 0.0}, {"1e99999999999999999999", HUGE_VAL}}) {
        const Read r = read(text);
        EXPECT_EQ(r.problem, std::errc::result_out_of_range) << text;
        EXPECT_EQ(r.value, expected) << text;
        EXPECT_EQ(std::signbit(r.value), std::signbit(expected)) << text;
        EXPECT_EQ(r.used, std::strlen(text)) << text;
    }
}

TEST(Number, NoLocaleChangesIt) {
    const std::string before = std::setlocale(LC_ALL, nullptr);
    bool found = false;
    for (const char* name : {"de_DE.UTF-8", "de_DE", "fr_FR.UTF-8"}) found = found || std::setlocale(LC_ALL, name);
    EXPECT_EQ(read("2.5e3").value, 2500);
    EXPECT_EQ(read("2.5e999").value, HUGE_VAL);
    std::setlocale(LC_ALL, before.c_str());
    if (!found) GTEST_SKIP() << "no locale with a comma is installed";
}

}  // namespace number_test
