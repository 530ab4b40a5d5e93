// jinja_lexer.cpp - cuts a template into texts and tags, and tags into names, numbers, strings and operators; one pass,
// no recursion.
//
// The rules are those of the reference's lexer with trim_blocks and lstrip_blocks: line breaks are "\n" before anything
// is read, white space is Python's, and what "-" and "+" beside a tag do to the text around it.
#include "src/text/jinja_lexer.h"

#include "src/text/unicode.h"

#include <algorithm>
#include <charconv>

namespace qlora { inline namespace QLORA_ABI {
namespace jinja_lexer_room {

using Type = JinjaLexeme::Type;

inline bool is_digit(char c) { return c >= '0' && c <= '9'; }
inline bool is_name(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || is_digit(c) || c == '_'; }

// Bytes of the white space character at `at`; 0 where there is none.
inline size_t space_at(std::string_view s, size_t at) {
    if (at >= s.size()) return 0;
    const Utf8Char c = utf8_at(s, at);
    return c.valid && python_space(c.code) ? size_t(c.bytes) : 0;
}
inline size_t after_spaces(std::string_view s, size_t at) {
    while (const size_t n = space_at(s, at)) at += n;
    return at;
}
// The end of s[begin, end) without the white space that it ends with.
inline size_t before_spaces(std::string_view s, size_t begin, size_t end) {
    while (end > begin) {
        size_t start = end - 1;
        while (start > begin && (s[start] & 0xC0) == 0x80) --start;
        const size_t n = space_at(s, start);
        if (!n || start + n != end) break;
        end = start;
    }
    return end;
}

struct Lexer {
    std::string_view src;
    std::string_view where;
    size_t at = 0;
    int line = 1;
    bool line_starts = true;                           // what was read last ended a line
    std::vector<JinjaLexeme> out;

    [[noreturn]] void error(std::string_view what) const {
        fail(Errc::format, where, ": line ", line, " of the chat template: ", jinja_one_line(what));
    }

    void advance(size_t n) {
        for (size_t i = 0; i < n; ++i) line += src[at + i] == '\n';
        at += n;
    }
    void push(Type type, std::string_view value) { out.push_back({type, std::string(value), line}); }
    char at_or(size_t k, char other) const { return k < src.size() ? src[k] : other; }

    void run() {
        while (at < src.size()) {
            size_t tag = at;
            const auto opens = [&](size_t k) {
                return at_or(k + 1, ' ') == '%' || at_or(k + 1, ' ') == '{' || at_or(k + 1, ' ') == '#';
            };
            while ((tag = src.find('{', tag)) != src.npos && !opens(tag)) ++tag;
            text(std::min(tag, src.size()));
            if (at < src.size()) tag_at();
        }
        push(Type::end, "");
    }

    // The text up to the tag at `end`, without what that tag strips from it.
    void text(size_t end) {
        size_t stop = end;
        const char kind = at_or(end + 1, ' '), mark = at_or(end + 2, ' ');
        if (end < src.size() && mark == '-') stop = before_spaces(src, at, end);
        else if (end < src.size() && kind != '{' &&
                 mark != '+') {    // lstrip_blocks: white space between the start of the line and the tag
            const size_t newline = src.substr(at, end - at).rfind('\n');
            const size_t start = newline == src.npos ? at : at + newline + 1;
            if ((start > at || line_starts) && after_spaces(src, start) >= end) stop = start;
        }
        if (stop > at) push(Type::text, src.substr(at, stop - at));
        advance(end - at);
    }

    // Past the end of a tag, which may be marked: "-" takes all white space that follows, otherwise a block takes one
    // line break.
    void close(size_t mark_and_close, char mark, bool print) {
        size_t next = at + mark_and_close;
        if (mark == '-') next = after_spaces(src, next);
        else if (mark != '+' && !print && at_or(next, ' ') == '\n') ++next;
        advance(next - at);
        line_starts = src[at - 1] == '\n';
    }

    void tag_at() {
        const char kind = src[at + 1];
        if (kind == '%' && raw()) return;
        const bool print = kind == '{';
        if (kind != '#') push(print ? Type::print_begin : Type::block_begin, "");
        advance(at_or(at + 2, ' ') == '-' || at_or(at + 2, ' ') == '+' ? 3 : 2);
        if (kind == '#') return comment();
        inside(print);
    }

    void comment() {
        const size_t hash = src.find("#}", at);
        if (hash == src.npos) error("comment without '#}'");
        const char mark = hash > at && (src[hash - 1] == '-' || src[hash - 1] == '+') ? src[hash - 1] : ' ';
        advance(hash - at);
        close(2, mark, false);
    }

    void inside(bool print) {
        const std::string_view end = print ? "}}" : "%}";
        constexpr size_t max_lexemes = 4000;           // bounds the depth of chains such as a.b.b.b or a + b + c
        const size_t first = out.size();
        std::string open;                              // brackets: a "}}" inside a dict literal does not close the tag
        while (true) {
            advance(after_spaces(src, at) - at);
            if (at >= src.size()) error(print ? "'{{' without '}}'" : "'{%' without '%}'");
            const bool marked = (src[at] == '-' || (!print && src[at] == '+')) && src.substr(at + 1, 2) == end;
            if (open.empty() && (marked || src.substr(at, 2) == end)) {
                push(print ? Type::print_end : Type::block_end, "");
                return close(marked ? 3 : 2, marked ? src[at] : ' ', print);
            }
            if (out.size() - first > max_lexemes) error(str("more than ", max_lexemes, " symbols in one tag"));
            const char c = src[at];
            if (c == '{' || c == '(' || c == '[') open += c == '{' ? '}' : c == '(' ? ')' : ']';
            if (c == '}' || c == ')' || c == ']') {
                if (open.empty() || open.back() != c) error(str("unexpected '", c, "'"));
                open.pop_back();
            }
            lexeme(c);
        }
    }

    void lexeme(char c) {
        if (c == '\'' || c == '"') return string(c);
        if (is_digit(c)) return number();
        if (is_name(c)) {
            size_t e = at;
            while (e < src.size() && is_name(src[e])) ++e;
            push(Type::name, src.substr(at, e - at));
            return advance(e - at);
        }
        for (std::string_view op : {"==", "!=", "<=", ">=", "//", "**"})
            if (src.substr(at, 2) == op) { push(Type::op, op); return advance(2); }
        if (std::string_view("+-*/%~<>=()[]{}.,:|;").find(c) == std::string_view::npos)
            error(str("unexpected character '", src.substr(at, size_t(utf8_at(src, at).bytes)), "'"));
        push(Type::op, src.substr(at, 1));
        advance(1);
    }

    // Digits with single underscores between them; `at` itself must be a digit that `digit` accepts.
    template <class Digit>
    size_t digits(size_t e, Digit digit) const {
        if (!digit(at_or(e, ' '))) return e;
        ++e;
        while (digit(at_or(e, ' ')) || (at_or(e, ' ') == '_' && digit(at_or(e + 1, ' ')))) ++e;
        return e;
    }
    void number() {
        size_t e = digits(at, is_digit), real = 0;
        const bool after_dot = at > 0 && src[at - 1] == '.';             // x.1.5 is an element of an element
        if (at_or(e, ' ') == '.' && is_digit(at_or(e + 1, ' '))) real = digits(e + 1, is_digit);
        if (const size_t mantissa = real ? real : e; at_or(mantissa, ' ') == 'e' || at_or(mantissa, ' ') == 'E') {
            const size_t sign = mantissa + 1 + (at_or(mantissa + 1, ' ') == '+' || at_or(mantissa + 1, ' ') == '-');
            if (is_digit(at_or(sign, ' '))) real = digits(sign, is_digit);
        }
        if (real && !after_dot) return number_lexeme(Type::number, real, 0);
        if (src[at] != '0') return number_lexeme(Type::integer, e, 10);
        const char base = char(at_or(at + 1, ' ') | 0x20);
        const size_t start = at + 2 + (at_or(at + 2, ' ') == '_');
        size_t stop = start;
        if (base == 'x')
            stop = digits(start, [](char c) { return is_digit(c) || ((c | 0x20) >= 'a' && (c | 0x20) <= 'f'); });
        if (base == 'o') stop = digits(start, [](char c) { return c >= '0' && c <= '7'; });
        if (base == 'b') stop = digits(start, [](char c) { return c == '0' || c == '1'; });
        if (stop > start) return number_lexeme(Type::integer, stop, base == 'x' ? 16 : base == 'o' ? 8 : 2);
        number_lexeme(Type::integer, digits(at, [](char c) { return c == '0'; }), 10);
    }
    void number_lexeme(Type type, size_t end, int base) {
        std::string value(src.substr(at, end - at));
        value.erase(std::remove(value.begin(), value.end(), '_'), value.end());
        if (type == Type::integer && base != 10) {
            uint64_t n = 0;
            const auto [last, bad] = std::from_chars(value.data() + 2, value.data() + value.size(), n, base);
            if (bad != std::errc{} || last != value.data() + value.size())
                error(str("number ", value, " is too large"));
            value = std::to_string(n);
        }
        push(type, value);
        advance(end - at);
    }

    void string(char quote) {
        std::string value;
        size_t e = at + 1;
        while (e < src.size() && src[e] != quote) {
            if (src[e] != '\\') value += src[e++];
            else e = escape(e + 1, value);
        }
        if (e >= src.size()) error("string without its closing quote");
        push(Type::string, value);
        advance(e + 1 - at);
    }
    // What stands after a backslash, as in Python's strings; returns where the text goes on.
    size_t escape(size_t e, std::string& value) const {
        const char c = at_or(e, ' ');
        static constexpr std::string_view names = "abfnrtv\\'\"", codes = "\a\b\f\n\r\t\v\\'\"";
        if (const size_t known = names.find(c); known != names.npos) { value += codes[known]; return e + 1; }
        if (c == '\n') return e + 1;
        if (c == 'N') error("\\N{...} in a string is not supported");
        const bool octal = c >= '0' && c <= '7';
        size_t first = octal ? e : e + 1, last = first + (octal ? 3 : c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0);
        if (last == first) { value += '\\'; return e; }                  // no escape: the backslash stays
        if (octal) for (last = first; last < first + 3 && at_or(last, ' ') >= '0' && at_or(last, ' ') <= '7';) ++last;
        uint32_t point = 0;
        const std::string_view digits = src.substr(std::min(first, src.size()), last - first);
        const auto [end, bad] = std::from_chars(digits.data(), digits.data() + digits.size(), point, octal ? 8 : 16);
        if (digits.size() != last - first || bad != std::errc{} || end != digits.data() + digits.size())
            error("bad escape in a string");
        if (point > 0x10FFFF || (point >= 0xD800 && point < 0xE000)) error("an escape in a string is no character");
        utf8_append(value, point);
        return last;
    }

    // {% raw %}: no lexemes but the text up to {% endraw %}. False where the tag is another.
    bool raw() {
        size_t e = at + 2 + (at_or(at + 2, ' ') == '-' || at_or(at + 2, ' ') == '+');
        e = after_spaces(src, e);
        if (src.substr(e, 3) != "raw") return false;
        e = after_spaces(src, e + 3);
        const bool dash = src.substr(e, 3) == "-%}";
        if (!dash && src.substr(e, 2) != "%}") return false;
        advance((dash ? after_spaces(src, e + 3) : e + 2) - at);
        line_starts = src[at - 1] == '\n';
        for (size_t open = at; (open = src.find("{%", open)) != src.npos; open += 2) {
            e = after_spaces(src, open + 2 + (at_or(open + 2, ' ') == '-' || at_or(open + 2, ' ') == '+'));
            if (src.substr(e, 6) != "endraw") continue;
            e = after_spaces(src, e + 6);
            const bool marked = (at_or(e, ' ') == '-' || at_or(e, ' ') == '+') && src.substr(e + 1, 2) == "%}";
            if (!marked && src.substr(e, 2) != "%}") continue;
            text(open);
            advance(e - at);
            close(marked ? 3 : 2, marked ? src[e] : ' ', false);
            return true;
        }
        error("'raw' without 'endraw'");
    }
};

// "\r\n" and "\r" become "\n"; the last line break of a template is not printed (keep_trailing_newline is off).
inline std::string lines_of(std::string_view source) {
    std::string out;
    out.reserve(source.size());
    for (size_t i = 0; i < source.size(); ++i) {
        if (source[i] != '\r') out += source[i];
        else if (i + 1 == source.size() || source[i + 1] != '\n') out += '\n';
    }
    if (!out.empty() && out.back() == '\n') out.pop_back();
    return out;
}

}  // namespace jinja_lexer_room

std::string jinja_one_line(std::string_view text) {
    constexpr size_t longest = 300;
    std::string out = utf8_sanitize(text.substr(0, std::min(text.size(), longest)));
    if (text.size() > longest) out = utf8_sanitize(text.substr(0, utf8_whole(text.substr(0, longest)))) + " [...]";
    for (char& c : out) if (uint8_t(c) < 0x20 || c == 0x7F) c = ' ';
    return out;
}

std::vector<JinjaLexeme> lex_jinja(std::string_view source, std::string_view where) {
    const std::string lines = jinja_lexer_room::lines_of(source);
    jinja_lexer_room::Lexer lexer;
    lexer.src = lines;
    lexer.where = where;
    lexer.run();
    return std::move(lexer.out);
}

}}  // namespace qlora
