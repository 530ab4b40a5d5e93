// pretokenize.cpp - the regular expressions of the model families, each written out as a scanner that reads a character
// at most a few times.
//
// Notation as in the expressions: L letters, N numbers, M marks, P punctuation, s white space, C = 's 't 're 've 'm 'll
// 'd.
#include "src/text/pretokenize.h"

#include <array>

namespace qlora { inline namespace QLORA_ABI {
namespace pretokenize_room {

constexpr std::array<uint16_t, 128> make_ascii_classes() {
    std::array<uint16_t, 128> classes{};
    for (int c = 0; c < 128; ++c) {
        uint16_t k = c < 32 || c == 127 ? char_none : char_punctuation;
        if (c >= 'A' && c <= 'Z') k = char_upper;
        if (c >= 'a' && c <= 'z') k = char_lower;
        if (c >= '0' && c <= '9') k = char_number;
        if (c == '$' || c == '+' || c == '<' || c == '=' || c == '>' || c == '^' || c == '`' || c == '|' || c == '~')
            k = char_symbol;
        if (c == ' ') k = char_none | char_space;
        if (c >= 9 && c <= 13) k = char_none | char_space;
        classes[size_t(c)] = k;
    }
    return classes;
}
constexpr std::array<uint16_t, 128> ascii_classes = make_ascii_classes();

struct Char {
    char32_t code = 0;
    uint16_t mask = 0;                                 // CharClass bits; 0 at the end of the text, where bytes is 0 too
    size_t bytes = 0;
    bool is(unsigned any) const { return (mask & any) != 0; }
    bool newline() const { return code == '\r' || code == '\n'; }
};

inline Char read(std::string_view text, size_t at) {
    if (at >= text.size()) return {};
    const uint8_t first = uint8_t(text[at]);
    if (first < 0x80) return {first, ascii_classes[first], 1};
    const Utf8Char c = utf8_at(text, at);
    return {c.code, c.valid ? char_class(c.code) : uint16_t(char_none), size_t(c.bytes)};
}

template <class Test>
size_t skip_while(std::string_view text, size_t at, Test test, int64_t most = INT64_MAX) {
    for (; most > 0 && at < text.size(); --most) {
        const Char c = read(text, at);
        if (!test(c)) break;
        at += c.bytes;
    }
    return at;
}
inline size_t skip(std::string_view text, size_t at, unsigned any, int64_t most = INT64_MAX) {
    return skip_while(text, at, [any](Char c) { return c.is(any); }, most);
}
inline size_t skip_others(std::string_view text, size_t at, unsigned none_of) {
    return skip_while(text, at, [none_of](Char c) { return !c.is(none_of); });
}
inline size_t skip_newlines(std::string_view text, size_t at) {
    return skip_while(text, at, [](Char c) { return c.newline(); });
}

// C at `at`, where text[at] is an apostrophe; `at` if there is none. Ignoring case, the long s (U+017F) is an s too.
inline size_t contraction(std::string_view text, size_t at, bool any_case) {
    const auto letter = [&](size_t i) -> char {
        if (i >= text.size()) return 0;
        return any_case && text[i] >= 'A' && text[i] <= 'Z' ? char(text[i] + 32) : text[i];
    };
    const char a = letter(at + 1), b = letter(at + 2);
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return at + 2;
    if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')) return at + 3;
    if (any_case && text.substr(at + 1, 2) == "\xC5\xBF") return at + 3;
    return at;
}

// White space at `at`: s*[\r\n]+ up to the last line end (if newlines), else s+ without the last one when text follows
// it.
inline size_t scan_space(std::string_view text, size_t at, bool newlines) {
    size_t end = at, last = at, after_newline = at;
    for (Char c = read(text, at); c.is(char_space); c = read(text, end)) {
        last = end;
        end += c.bytes;
        if (c.newline()) after_newline = end;
    }
    if (newlines && after_newline > at) return after_newline;
    if (end == text.size() || last == at) return end;
    return last;
}

// C | [^\r\n L N]? L+ | N{1,digits} | " "? [^s L N]+ [\r\n]* | s*[\r\n]+ | s+(?!S) | s+      (letters: L, or L and M)
inline size_t scan_words(std::string_view text, size_t at, int64_t digits, unsigned letters) {
    const Char c = read(text, at);
    if (c.code == '\'') {
        if (const size_t end = contraction(text, at, true); end > at) return end;
    }
    if (c.is(letters)) return skip(text, at, letters);
    if (c.is(char_number)) return skip(text, at, char_number, digits);
    if (!c.newline() && read(text, at + c.bytes).is(letters)) return skip(text, at + c.bytes, letters);
    const size_t from = at + (c.code == ' ');
    const size_t end = skip_others(text, from, char_space | letters | char_number);
    if (end > from) return skip_newlines(text, end);
    return scan_space(text, at, true);
}

inline size_t scan_llama3(std::string_view text, size_t at) { return scan_words(text, at, 3, char_letter); }
// tiktoken's cl100k_base: as scan_llama3, but white space at the end of the text is one word, line ends or not.
inline size_t scan_cl100k(std::string_view text, size_t at) {
    const size_t end = scan_llama3(text, at);
    if (!read(text, at).is(char_space)) return end;
    return skip(text, at, char_space) == text.size() ? text.size() : end;
}
inline size_t scan_qwen2(std::string_view text, size_t at) { return scan_words(text, at, 1, char_letter); }
inline size_t scan_qwen35(std::string_view text, size_t at) { return scan_words(text, at, 1, char_letter | char_mark); }

// C | " "? L+ | " "? N+ | " "? [^s L N]+ | s+(?!S) | s+
inline size_t gpt2_word(std::string_view text, size_t at) {
    const Char c = read(text, at);
    if (c.code == '\'') {
        if (const size_t end = contraction(text, at, false); end > at) return end;
    }
    const size_t from = at + (c.code == ' ');
    const Char d = read(text, from);
    if (d.is(char_letter)) return skip(text, from, char_letter);
    if (d.is(char_number)) return skip(text, from, char_number);
    if (d.bytes && !d.is(char_space)) return skip_others(text, from, char_space | char_letter | char_number);
    return scan_space(text, at, false);
}

// The case-aware words of tekken and gpt-4o at `at`: where U* D+ and U+ D* end, with U = Lu Lt Lm Lo M and D = Ll Lm Lo
// M; `at` for no match.
struct CasedWord { size_t lower, upper; };
inline CasedWord cased_word(std::string_view text, size_t at) {
    constexpr unsigned upper = char_upper | char_title | char_modifier | char_other_letter | char_mark;
    constexpr unsigned lower = char_lower | char_modifier | char_other_letter | char_mark;
    size_t end = at, both = at;    // both: after the last character of the run of U that is in D too:
    for (Char c = read(text, at); c.is(upper); c = read(text, end)) {
        end += c.bytes;    // if no D follows the run, U* gives characters back until D+ has that one
        if (c.is(lower)) both = end;
    }
    const size_t after = skip(text, end, lower);
    return {after > end ? after : both, end > at ? after : at};
}

// F? U* D+ | F? U+ D* (F = [^\r\n L N], C? after both for gpt-4o) | N{1,digits} | " "? [^s L N]+ [\r\n/]* | s*[\r\n]+ |
// s+(?!S) | s+
inline size_t scan_cased(std::string_view text, size_t at, int64_t digits, bool contractions) {
    const Char c = read(text, at);
    const size_t next = at + c.bytes;
    const bool front = !c.newline() && !c.is(char_letter | char_number);
    const CasedWord here = cased_word(text, at), behind = front ? cased_word(text, next) : CasedWord{next, next};
    // A mark may be F or U: each alternative is tried with F first.
    const size_t end = behind.lower > next   ? behind.lower
                       : here.lower > at     ? here.lower
                       : behind.upper > next ? behind.upper
                                             : here.upper;
    if (end > at) return contractions && end < text.size() && text[end] == '\'' ? contraction(text, end, true) : end;
    if (c.is(char_number)) return skip(text, at, char_number, digits);
    const size_t from = at + (c.code == ' ');
    const size_t other = skip_others(text, from, char_space | char_letter | char_number);
    if (other > from) return skip_while(text, other, [](Char d) { return d.newline() || d.code == '/'; });
    return scan_space(text, at, true);
}

inline size_t scan_tekken(std::string_view text, size_t at) { return scan_cased(text, at, 1, false); }
inline size_t scan_gpt4o(std::string_view text, size_t at) { return scan_cased(text, at, 3, true); }

// For expressions that do not cover the text: the match at `at`, else the gap up to the next match. Match: end, or `at`
// for none.
template <class Match>
size_t isolate(std::string_view text, size_t at, Match match) {
    if (const size_t end = match(at); end > at) return end;
    do at += read(text, at).bytes;
    while (at < text.size() && match(at) == at);
    return at;
}

template <class Test>                                  // s? [test]+
size_t spaced(std::string_view text, size_t at, Test test) {
    const Char c = read(text, at);
    if (test(c)) return skip_while(text, at, test);
    if (!c.is(char_space) || !test(read(text, at + c.bytes))) return at;
    return skip_while(text, at + c.bytes, test);
}

// isolate() asks every position of a gap, so a match must be cheap to refuse and is cut short by nothing else: all of
// these are.
inline size_t scan_newline(std::string_view text, size_t at) {
    return isolate(text, at, [&](size_t i) { return i + (read(text, i).newline() ? 1 : 0); });
}
inline size_t scan_spaced_letters(std::string_view text, size_t at) {
    return isolate(text, at, [&](size_t i) { return spaced(text, i, [](Char c) { return c.is(char_letter); }); });
}
// deepseek-llm spells out the letters that have case
inline size_t scan_spaced_cased_letters(std::string_view text, size_t at) {
    return isolate(text, at, [&](size_t i) {
        return spaced(text, i, [](Char c) { return c.is(char_upper | char_lower | char_title); });
    });
}
inline size_t scan_spaced_punctuation(std::string_view text, size_t at) {
    return isolate(text, at, [&](size_t i) { return spaced(text, i, [](Char c) { return c.is(char_punctuation); }); });
}
inline bool east_asian_or_ascii_sign(Char c) {
    const char32_t u = c.code;
    return c.bytes && ((u >= 0x21 && u <= 0x2F) || (u >= 0x3A && u <= 0x7E) || (u >= 0xFF01 && u <= 0xFF0F) ||
                       (u >= 0xFF1A && u <= 0xFF5E) || (u >= 0x2018 && u <= 0x201F) || (u >= 0x3000 && u <= 0x3002));
}
inline size_t scan_spaced_signs(std::string_view text, size_t at) {
    return isolate(text, at, [&](size_t i) { return spaced(text, i, east_asian_or_ascii_sign); });
}
inline size_t scan_space_at_end(std::string_view text, size_t at) {            // s+$
    size_t gap = at;
    for (size_t i = at; i < text.size();) {
        const Char c = read(text, i);
        i += c.bytes;
        if (!c.is(char_space)) gap = i;
    }
    return gap > at ? gap : text.size();
}
inline size_t scan_east_asian(std::string_view text, size_t at) {
    const auto test = [](Char c) {
        return (c.code >= 0x800 && c.code <= 0x9FA5) || (c.code >= 0xAC00 && c.code <= 0xD7FF);
    };
    return isolate(text, at, [&](size_t i) { return skip_while(text, i, test); });
}
inline size_t scan_signs(std::string_view text, size_t at) {                   // [P $ + < = > ^ ~ |]+
    const auto test = [](Char c) {
        return c.is(char_punctuation) || (c.code < 128 && c.code != '`' && c.is(char_symbol));
    };
    return isolate(text, at, [&](size_t i) { return skip_while(text, i, test); });
}
inline size_t scan_signs_backtick(std::string_view text, size_t at) {
    const auto test = [](Char c) { return c.is(char_punctuation) || (c.code < 128 && c.is(char_symbol)); };
    return isolate(text, at, [&](size_t i) { return skip_while(text, i, test); });
}
inline size_t numbers(std::string_view text, size_t at, int64_t most) {
    return isolate(text, at, [&](size_t i) { return skip(text, i, char_number, most); });
}
inline size_t scan_three_digits(std::string_view text, size_t at) {
    return isolate(text, at, [&](size_t i) {
        const size_t end = skip_while(text, i, [](Char c) { return c.code >= '0' && c.code <= '9'; }, 3);
        return end == i + 3 ? end : i;
    });
}

struct Family {
    WordScanners passes;
    std::vector<std::string_view> names;               // tokenizer.ggml.pre
    std::vector<std::string_view> regexes;             // tokenizer.json, spelled exactly so
};

inline const std::vector<Family>& families() {
    static const std::vector<Family> all = {
        {{scan_llama3},
         {"llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "smaug-bpe", "dbrx", "glm4", "chatglm-bpe"},
         {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
          R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+)"}},
        {{scan_qwen2},
         {"qwen2", "deepseek-r1-qwen", "stablelm2", "hunyuan", "megrez", "grok-2"},
         {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"}},
        {{scan_cl100k}, {"cl100k"}, {}},
        {{scan_qwen35},
         {"qwen35"},
         {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"}},
        {{scan_gpt2},
         {"gpt-2", "gpt2", "phi-2", "mpt", "olmo", "jais", "exaone4", "granite-docling"},
         {R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)",
          R"('(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)"}},
        {{scan_digit, scan_gpt2},
         {"smollm", "starcoder", "refact", "command-r", "codeshell", "minerva-7b", "exaone"},
         {}},
        {{scan_tekken},
         {"tekken"},
         {R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)"}},
        {{scan_gpt4o},
         {"gpt-4o", "llama4"},
         {R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)"}},
        {{scan_newline, scan_spaced_cased_letters, scan_spaced_signs, scan_space_at_end, scan_east_asian, scan_digits},
         {"deepseek-llm"},
         {}},
        {{scan_newline, scan_spaced_letters, scan_spaced_punctuation, scan_east_asian, scan_digit},
         {"deepseek-coder"},
         {}},
        {{scan_signs, scan_gpt2, scan_digits, scan_three_digits}, {"default"}, {}},
        {{scan_signs_backtick, scan_gpt2, scan_three_digits}, {"falcon"}, {}},
        {{scan_newline}, {}, {R"([\r\n])"}},
        {{scan_spaced_letters}, {}, {R"(\s?\p{L}+)"}},
        {{scan_spaced_punctuation}, {}, {R"(\s?\p{P}+)"}},
        {{scan_east_asian}, {}, {"[一-龥ࠀ-一가-퟿]+"}},
        {{scan_digit}, {}, {R"(\p{N})"}},
        {{scan_digits}, {}, {R"(\p{N}+)"}},
        {{scan_space_at_end}, {}, {R"(\s+$)"}},
        {{scan_three_digits}, {}, {"[0-9][0-9][0-9]"}},
    };
    return all;
}

}  // namespace pretokenize_room

size_t scan_gpt2(std::string_view text, size_t at) { return pretokenize_room::gpt2_word(text, at); }
size_t scan_digit(std::string_view text, size_t at) { return pretokenize_room::numbers(text, at, 1); }
size_t scan_digits(std::string_view text, size_t at) { return pretokenize_room::numbers(text, at, INT64_MAX); }

WordScanners word_scanners(std::string_view pre, std::string_view where) {
    const std::string_view wanted = pre.empty() ? "default" : pre.substr(0, 5) == "jina-" ? "gpt-2" : pre;
    for (const pretokenize_room::Family& family : pretokenize_room::families())
        for (std::string_view name : family.names)
            if (name == wanted) return family.passes;
    fail(Errc::unsupported, where, ": pre-tokenizer \"", pre,
         "\" (tokenizer.ggml.pre) is not one of those built in; "
         "use a model of a known family (llama-bpe, qwen2, gpt-2, smollm, tekken, ...) or teach "
         "src/text/pretokenize.cpp this one");
}

bool whole_words_first(std::string_view pre) {
    for (std::string_view name : {"llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "tekken"})
        if (name == pre) return true;
    return false;
}

WordScanners word_scanners_of_regex(std::string_view regex) {
    for (const pretokenize_room::Family& family : pretokenize_room::families())
        for (std::string_view known : family.regexes)
            if (known == regex) return family.passes;
    return {};
}

std::string_view pre_of_regex(std::string_view regex, bool whole_words) {
    for (const pretokenize_room::Family& family : pretokenize_room::families())
        for (std::string_view known : family.regexes)
            if (known == regex)
                for (std::string_view name : family.names)
                    if (whole_words_first(name) == whole_words) return name;
    return {};
}

std::string_view regex_of_pre(std::string_view pre) {
    for (const pretokenize_room::Family& family : pretokenize_room::families())
        for (std::string_view name : family.names)
            if (name == pre && !family.regexes.empty()) return family.regexes[0];
    return {};
}

std::string_view family_of_pre(std::string_view pre) {
    for (const pretokenize_room::Family& family : pretokenize_room::families())
        for (std::string_view name : family.names)
            if (name == pre) return family.names[0];
    return {};
}

}}  // namespace qlora
