// reply_stream.cpp - pieces of tokens to whole characters, up to a stop text.
#include "src/run/reply_stream.h"

#include <algorithm>

namespace qlora { inline namespace QLORA_ABI {
namespace reply_stream_room {

// Bytes of an unfinished UTF-8 character at the end. Bytes that no character can begin with are passed on as they are.
size_t unfinished(std::string_view s) {
    for (size_t back = 1; back <= std::min<size_t>(3, s.size()); ++back) {
        const unsigned char c = static_cast<unsigned char>(s[s.size() - back]);
        if ((c & 0xC0) == 0x80) continue;
        const size_t length = c >= 0xF0 && c < 0xF8 ? 4 : c >= 0xE0 && c < 0xF0 ? 3 : c >= 0xC2 && c < 0xE0 ? 2 : 1;
        return length > back ? back : 0;
    }
    return 0;
}

// Length of the longest end of `text` that begins `stop`.
size_t overlap(std::string_view text, std::string_view stop) {
    for (size_t n = std::min(text.size(), stop.size()); n > 0; --n)
        if (text.ends_with(stop.substr(0, n))) return n;
    return 0;
}

}  // namespace reply_stream_room

bool ReplyStream::emit(size_t end) {
    if (end <= sent_) return true;
    const std::string_view part = std::string_view(text_).substr(sent_, end - sent_);
    sent_ = end;
    return !on_text_ || on_text_(part);
}

bool ReplyStream::add(std::string_view piece) {
    // A stop text may begin in what was held back, never in what was handed out.
    text_ += piece;
    size_t stop_at = text_.npos;
    for (const std::string& stop : stop_)
        if (!stop.empty()) stop_at = std::min(stop_at, text_.find(stop, sent_));
    if (stop_at != text_.npos) {
        text_.resize(stop_at);
        done_ = stopped_ = true;
        emit(stop_at);
        return false;
    }
    const std::string_view fresh = std::string_view(text_).substr(sent_);
    size_t held = reply_stream_room::unfinished(fresh);
    for (const std::string& stop : stop_) held = std::max(held, reply_stream_room::overlap(fresh, stop));
    size_t end = text_.size() - held;
    // a stop text may begin inside a character
    end -= reply_stream_room::unfinished(std::string_view(text_).substr(sent_, end - sent_));
    if (emit(end)) return true;
    text_.resize(sent_);
    done_ = true;
    return false;
}

void ReplyStream::finish() {
    if (!done_) {
        // cut off in the middle of a character by max_tokens
        text_.resize(text_.size() - reply_stream_room::unfinished(text_));
        emit(text_.size());
    }
    done_ = true;
}

}}  // namespace qlora
