// error_test.cpp - what an error says of foreign bytes: one line, of a bounded length, that no terminal obeys.
#include "src/base/error.h"

#include <gtest/gtest.h>

namespace error_test {

using namespace qlora;

std::string message(const std::string& foreign) {
    try {
        fail(Errc::format, "model.gguf: the name \"", foreign, "\" is too long");
    } catch (const Error& e) {
        return e.what();
    }
}

TEST(Error, QuotesForeignBytesInOneLine) {
    EXPECT_EQ(message("a\nb\r\nc\td"), "model.gguf: the name \"a b  c d\" is too long");
    EXPECT_EQ(message("\x1B[2J\x07\x7F"), "model.gguf: the name \"?[2J??\" is too long");
    EXPECT_EQ(message("\xC2\x9B" "31m"), "model.gguf: the name \"??31m\" is too long");  // CSI
    EXPECT_EQ(message("a\xE2\x80\xA8" "b\xE2\x80\xA9" "c"), "model.gguf: the name \"a   b   c\" is too long");
    EXPECT_EQ(message("\xC3\xA9 \xE2\x80\xA6"), "model.gguf: the name \"\xC3\xA9 \xE2\x80\xA6\" is too long");
    EXPECT_EQ(message("\xE2"), "model.gguf: the name \"\xE2\" is too long");        // a cut character
}

TEST(Error, IsNeverEndless) {
    const std::string long_one = message(std::string(1 << 20, 'x'));
    EXPECT_LE(long_one.size(), 2048u);
    EXPECT_EQ(long_one.substr(0, 12), "model.gguf: ");                 // which file, and what is wrong with it, stay
    EXPECT_EQ(long_one.substr(long_one.size() - 13), "\" is too long");
}

}  // namespace error_test
