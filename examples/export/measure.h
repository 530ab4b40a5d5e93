// measure.h - what the result of an export is measured on.
#pragma once
#include "qlora.h"

namespace program {

// Rows or running text, cut to what a small machine reads in seconds: two losses on the same tokens are compared, so
// few of them decide.
class Measure {
public:
    // FILE (rows or text) if it is named; else the held-out rows that the adapter's run recorded; else, without an
    // adapter, a short built-in text. Nothing where there is nothing to measure on: `reason` then says why.
    static std::optional<Measure> choose(const std::string& file, const std::string& adapter, const qlora::Tokenizer&,
                                         std::string& reason);

    template <class M>
    double loss(const M& model) const {
        return rows_ ? qlora::evaluate(model, *rows_) : qlora::perplexity(model, tokens_).nll;
    }
    const std::string& name() const { return name_; }  // "20 held-out rows of the run (/data/chats.jsonl)"
    const qlora::Tokens& tokens() const { return tokens_; }            // of a text; empty: rows
private:
    std::optional<qlora::Dataset> rows_;
    qlora::Tokens tokens_;
    std::string name_;
    void take_rows(qlora::Dataset rows, const std::string& what, const std::string& path);
};

}  // namespace program
