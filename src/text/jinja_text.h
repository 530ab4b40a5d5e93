// jinja_text.h - what Python's str does, on texts that remember what came from the messages.
#pragma once
#include "src/text/jinja_value.h"

namespace qlora { inline namespace QLORA_ABI {

// Builds a text out of another, piece by piece: what stands in the place of a piece came from where the piece came.
class JinjaRewriter {
public:
    explicit JinjaRewriter(const JinjaText& from) : from_(from) { out_.markup = from.markup; }
    // as it is
    void keep(size_t begin, size_t end) { if (begin < end) out_.append(from_.part(int64_t(begin), int64_t(end))); }
    void put(size_t begin, size_t end, std::string now) {
        out_.append(from_.part(int64_t(begin), int64_t(end)).made_over(std::move(now)));
    }
    void insert(const JinjaText& other) { out_.append(other); }
    std::vector<size_t> borders() const;    // where what is known of the source changes, sorted; its end is the last
    JinjaText take() { return std::move(out_); }
    const JinjaText& made() const { return out_; }
private:
    const JinjaText& from_;
    JinjaText out_;
};

// Finds a text in another in time proportional to both.
class JinjaFinder {
public:
    explicit JinjaFinder(std::string_view needle);     // borrowed, not empty
    size_t find(std::string_view text, size_t from) const;             // npos: not there
private:
    std::string_view needle_;
    std::vector<uint32_t> fallback_;                   // Knuth, Morris, Pratt; empty for short needles
};

enum class JinjaCase : uint8_t { upper, lower, title, capitalize, filter_title, swap };

// null: white space
JinjaText text_strip(const JinjaText&, bool left, bool right, const std::string* chars = nullptr);
JinjaText text_cased(const JinjaText&, JinjaCase);
JinjaText text_replace(JinjaContext&, const JinjaText&, const std::string& from, const JinjaText& to, int64_t count);
std::vector<JinjaValue> text_split(JinjaContext&, const JinjaText&, const std::string* separator, int64_t limit);
std::vector<JinjaValue> text_rsplit(JinjaContext&, const JinjaText&, const std::string* separator, int64_t limit);
std::vector<JinjaText> text_lines(JinjaContext&, const JinjaText&, bool keep_ends);
JinjaText text_join(JinjaContext&, const std::vector<JinjaValue>& items, const JinjaText& glue, bool only_texts);
JinjaText text_padded(JinjaContext&, const JinjaText&, int64_t left, int64_t right, std::string_view fill = " ");
JinjaText text_escaped(const JinjaText&);              // markupsafe.escape
int64_t text_length(std::string_view);                 // characters
// byte where the character of that number begins, or the end
size_t text_offset(std::string_view, int64_t characters);
int64_t text_count(std::string_view text, std::string_view of);        // str.count
bool text_is(std::string_view text, std::string_view method);          // isalpha, islower, ...

}}  // namespace qlora
