// reply_stream_test.cpp - streamed text: whole characters, stop texts that never show, cancelling.
#include "src/run/session.h"

#include <gtest/gtest.h>

namespace reply_stream_test {

struct Streamed { std::string seen, text; int calls = 0; bool ended = false; };

Streamed stream(const std::vector<std::string>& pieces, const std::vector<std::string>& stop, int cancel_after = -1) {
    Streamed out;
    const qlora::OnText on_text = [&](std::string_view part) {
        out.seen += part;
        return ++out.calls != cancel_after;
    };
    qlora::ReplyStream s(stop, on_text);
    for (const std::string& piece : pieces)
        if (!s.add(piece)) {
            out.ended = true;
            break;
        }
    s.finish();
    out.text = s.text();
    return out;
}

TEST(ReplyStream, WholeCharacters) {
    const std::string smile = "\xF0\x9F\x98\x80";
    const Streamed s = stream({"a" + smile.substr(0, 1), smile.substr(1, 2), smile.substr(3) + "b"}, {});
    EXPECT_EQ(s.seen, "a" + smile + "b");
    EXPECT_EQ(s.calls, 2);                             // "a", then the rest
    EXPECT_EQ(stream({"x\xE2\x82"}, {}).text, "x");    // an unfinished character at the end is no text
    EXPECT_EQ(stream({"x\xFF\xFEy"}, {}).text, "x\xFF\xFEy");
}

TEST(ReplyStream, StopTextNeverShows) {
    const Streamed s = stream({"one ", "<", "e", "nd", "> two"}, {"<end>"});
    EXPECT_EQ(s.seen, "one ");
    EXPECT_EQ(s.text, "one ");
    EXPECT_TRUE(s.ended);
    const Streamed near = stream({"one <", "en", "ough"}, {"<end>"});
    EXPECT_EQ(near.seen, "one <enough");
    EXPECT_FALSE(near.ended);
    EXPECT_EQ(stream({"aab", "ab x"}, {"x", "abab"}).seen, "a");
    EXPECT_EQ(stream({"held <e"}, {"<end>"}).seen, "held <e");    // what might have become a stop text comes at the end
}

TEST(ReplyStream, CancelKeepsWhatWasSeen) {
    const Streamed s = stream({"a", "b", "c"}, {}, 2);
    EXPECT_EQ(s.seen, "ab");
    EXPECT_EQ(s.text, "ab");
    EXPECT_TRUE(s.ended);
}

}  // namespace reply_stream_test
