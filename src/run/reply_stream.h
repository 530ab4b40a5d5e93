// reply_stream.h - the text of a reply as it is handed out while it is made.
#pragma once
#include "src/base/error.h"

namespace qlora { inline namespace QLORA_ABI {

// Cuts a stream of token pieces into whole UTF-8 characters and ends it before a stop text. Text that may still become
// either is held back.
class ReplyStream {
public:
    ReplyStream(const std::vector<std::string>& stop, const OnText& on_text) : stop_(stop), on_text_(on_text) {}
    bool add(std::string_view piece);                  // false: a stop text came, or the callback wants no more
    void finish();                                     // hands out what was held back
    std::string& text() { return text_; }
    bool stopped() const { return stopped_; }          // by a stop text
private:
    bool emit(size_t end);
    const std::vector<std::string>& stop_;
    const OnText& on_text_;
    std::string text_;                                 // the reply so far
    size_t sent_ = 0;                                  // bytes handed out
    bool done_ = false, stopped_ = false;
};

}}  // namespace qlora
