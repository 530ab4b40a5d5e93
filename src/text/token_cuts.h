// token_cuts.h - every way to cut a token into two tokens: lists of merges for vocabularies that have none.
#pragma once
#include "src/base/stop.h"
#include "src/text/utf8.h"

namespace qlora { inline namespace QLORA_ABI {

// A real vocabulary has some five of a token. Of a, aa, aaa, ... every cut is one: a file of 11 MB would become merges
// of 17 GB. Error{format} there.
class TokenCuts {
public:
    TokenCuts(const std::vector<std::string>& tokens, std::string_view where) : where_(where) {
        for (const std::string& token : tokens) left_ += 32 * token.size();
    }
    template <class F>                                 // bool(std::string_view left, std::string_view right): both are
    void each(std::string_view token, const F& f) {
        check_stop();
        if (token.size() > longest)
            fail(Errc::format, where_, ": a token of ", token.size(), " bytes (", utf8_sanitize(token.substr(0, 40)),
                 "...); ", longest, " are the most");
        for (size_t at = size_t(utf8_at(token, 0).bytes); at < token.size(); at += size_t(utf8_at(token, at).bytes))
            if (f(token.substr(0, at), token.substr(at))) count(token.size());
    }
private:
    void count(size_t bytes) {
        if (bytes > left_)
            fail(Errc::format, where_, ": its tokens are made of each other in far more ways than those of any real "
                 "vocabulary; fetch the tokenizer again from where it was published");
        left_ -= bytes;
    }
    static constexpr size_t longest = 4096;
    size_t left_ = size_t(1) << 24;                    // bytes of merges
    std::string_view where_;
};

}}  // namespace qlora
