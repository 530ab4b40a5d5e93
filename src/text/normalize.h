// normalize.h - a text on its way through normalizers, which remembers where each of its bytes came from.
#pragma once
#include "src/text/split.h"

namespace qlora { inline namespace QLORA_ABI {

// How much the steps of a tokenizer may make of a text: NFKC makes 11 bytes of one at most, a mark in the place of a
// space has 3. Without an end, forty steps that double a letter make a terabyte of it. Error{format} beyond.
constexpr size_t most_grown(size_t bytes) { return 4096 + 64 * bytes; }
void check_grown(size_t bytes, size_t most);

class NormalText {
public:
    explicit NormalText(std::string_view original) : text_(original), size_(original.size()) {}
    const std::string& text() const { return text_; }
    // The bytes of the original that [begin, end) stands for: all that had a part in it.
    size_t from(size_t begin) const {
        return origin_.empty() ? begin : begin < origin_.size() ? origin_[begin] : size_;
    }
    size_t until(size_t end) const;

    void bring_into(Form);
    void lower();
    void replace(std::string_view from, std::string_view to);
    void replace(const Matcher& from, std::string_view to);
    void prepend(std::string_view front);              // to a text that is not empty
    void strip(bool left, bool right);                 // white space off the ends
    void keep(size_t begin, size_t end);               // and nothing else of the text
    // appends what stands for the text from `at` and returns how much that was
    using Piece = std::function<size_t(size_t at, std::string& out)>;
    void rewrite(const Piece& piece);
private:
    std::string text_;
    std::vector<uint32_t> origin_;                     // by byte of text_, rising; empty: nothing has moved
    size_t size_;                                      // of the original
};

}}  // namespace qlora
