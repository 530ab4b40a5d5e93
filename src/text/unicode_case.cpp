// unicode_case.cpp - upper, lower and title case of characters, and which of them have a case, as Python's str has it.
#include "src/text/unicode.h"
#include "src/text/unicode_packed.h"

#include <algorithm>
#include <unordered_map>

namespace qlora { inline namespace QLORA_ABI {
namespace unicode_case_room {

using unicode_packed_room::PackedReader;
using Letters = std::unordered_map<char32_t, char32_t>;

inline Letters unpack_shifts(const char* packed) {
    Letters letters;
    PackedReader in{packed};
    uint32_t number = 0, count = 0;
    char32_t code = 0;
    for (char letter = 0; in.next(number, letter);) {
        if (letter == 'D') code += number;
        else if (letter == 'N') count = number;
        else {                                         // A, B: the shift, stride 1 or 2; P, Q: the same downwards
            const char32_t stride = letter == 'B' || letter == 'Q' ? 2 : 1;
            for (char32_t i = 0, c = code; i < count; ++i, c += stride)
                letters[c] = letter < 'P' ? c + number : c - number;
        }
    }
    return letters;
}

struct Several { std::string upper, title; };          // of a letter whose upper case is more than one character

inline std::unordered_map<char32_t, Several> unpack_special() {
    std::unordered_map<char32_t, Several> special;
    PackedReader in{unicode_special_case};
    uint32_t number = 0;
    char32_t code = 0;
    for (char letter = 0; in.next(number, letter);) {
        if (letter == 'C') code += number;
        else utf8_append(letter == 'U' ? special[code].upper : special[code].title, number);
    }
    return special;
}

struct Ranges {                                        // sorted, [first, last)
    std::vector<std::pair<char32_t, char32_t>> runs;
    explicit Ranges(const char* packed) {
        PackedReader in{packed};
        uint32_t number = 0;
        char32_t code = 0;
        for (char letter = 0; in.next(number, letter);) {
            if (letter == 'D') code += number;
            else runs.emplace_back(code, code + number);
        }
    }
    bool has(char32_t code) const {
        const auto after = std::upper_bound(runs.begin(), runs.end(), code,
                                            [](char32_t c, const auto& run) { return c < run.first; });
        return after != runs.begin() && code < std::prev(after)->second;
    }
};

inline const Letters& lower_letters() {
    static const Letters letters = unpack_shifts(unicode_lowercase_runs);
    return letters;
}
inline const Letters& upper_letters() {
    static const Letters letters = unpack_shifts(unicode_uppercase_runs);
    return letters;
}
inline const Letters& title_letters() {
    static const Letters letters = unpack_shifts(unicode_titlecase_runs);
    return letters;
}

}  // namespace unicode_case_room

void append_cased(std::string& out, char32_t code, CharCase how) {
    using namespace unicode_case_room;
    if (how == CharCase::lower) {
        if (code == 0x130) { out += "i\xCC\x87"; return; }    // the one letter whose lower case is two characters
        const auto lower = lower_letters().find(code);
        return utf8_append(out, lower == lower_letters().end() ? code : lower->second);
    }
    static const std::unordered_map<char32_t, Several> special = unpack_special();
    if (const auto several = special.find(code); several != special.end()) {
        out += how == CharCase::upper ? several->second.upper : several->second.title;
        return;
    }
    if (how == CharCase::title)
        if (const auto title = title_letters().find(code); title != title_letters().end())
            return utf8_append(out, title->second);
    const auto upper = upper_letters().find(code);
    utf8_append(out, upper == upper_letters().end() ? code : upper->second);
}

std::string lowercase(std::string_view text) {
    std::string out;
    out.reserve(text.size());
    for (size_t at = 0; at < text.size();) {
        const Utf8Char c = utf8_at(text, at);
        if (c.valid) append_cased(out, c.code, CharCase::lower);
        else out.append(text.substr(at, size_t(c.bytes)));
        at += size_t(c.bytes);
    }
    return out;
}

bool python_space(char32_t code) { return (code >= 0x1C && code <= 0x1F) || (char_class(code) & char_space); }
bool python_upper(char32_t code) {
    static const unicode_case_room::Ranges others(unicode_other_uppercase);
    return (char_class(code) & char_upper) || others.has(code);
}
bool python_lower(char32_t code) {
    static const unicode_case_room::Ranges others(unicode_other_lowercase);
    return (char_class(code) & char_lower) || others.has(code);
}
bool python_cased(char32_t code) { return (char_class(code) & char_title) || python_upper(code) || python_lower(code); }
bool case_ignorable(char32_t code) {
    static const unicode_case_room::Ranges ranges(unicode_case_ignorable);
    return ranges.has(code);
}
bool python_printable(char32_t code) { return code == ' ' || !(char_class(code) & char_none); }

}}  // namespace qlora
