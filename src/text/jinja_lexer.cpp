// jinja_lexer.cpp - cuts a template into texts and tags, and tags into names, numbers, strings and operators; one pass, no recursion.
#include "src/text/jinja_lexer.h"

#include <charconv>

namespace qlora::inline v0_1 {
namespace jinja_lexer_room {

inline bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v'; }
inline bool is_name(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_'; }

struct Lexer {
    std::string_view src;
    std::string_view where;
    size_t at = 0;
    int line = 1;
    bool trim_newline = false, trim_all = false;       // what the tag before asks of the text that follows
    std::vector<JinjaLexeme> out;

    [[noreturn]] void error(std::string_view what) const { fail(Errc::format, where, ": line ", line, " of the chat template: ", what); }

    void advance(size_t n) {
        for (size_t i = 0; i < n; ++i) line += src[at + i] == '\n';
        at += n;
    }

    void run() {
        while (at < src.size()) {
            size_t tag = at;
            while ((tag = src.find('{', tag)) != src.npos && !(tag + 1 < src.size() && (src[tag + 1] == '%' || src[tag + 1] == '{' || src[tag + 1] == '#'))) ++tag;
            text(tag == src.npos ? src.size() : tag);
            if (at < src.size()) tag_at();
        }
        out.push_back({JinjaLexeme::Type::end, "", line});
    }

    void text(size_t end) {
        std::string_view body = src.substr(at, end - at);
        const int first_line = line;
        size_t begin = 0, stop = body.size();
        if (trim_all) while (begin < stop && is_space(body[begin])) ++begin;
        else if (trim_newline && begin < stop && body[begin] == '\n') ++begin;
        else if (trim_newline && body.substr(begin, 2) == "\r\n") begin += 2;
        trim_all = trim_newline = false;
        if (end < src.size()) {                        // what the tag that follows asks of this text
            const char kind = src[end + 1], mark = end + 2 < src.size() ? src[end + 2] : ' ';
            if (mark == '-') while (stop > begin && is_space(body[stop - 1])) --stop;
            else if (kind != '{' && mark != '+') {     // lstrip_blocks: blanks between the start of the line and the tag
                size_t s = stop;
                while (s > begin && (body[s - 1] == ' ' || body[s - 1] == '\t')) --s;
                if (s > begin ? body[s - 1] == '\n' : (begin > 0 ? body[begin - 1] == '\n' : at == 0)) stop = s;
            }
        }
        if (stop > begin) out.push_back({JinjaLexeme::Type::text, std::string(body.substr(begin, stop - begin)), first_line});
        advance(end - at);
    }

    void tag_at() {
        const char kind = src[at + 1];
        if (kind == '#') {
            const size_t close = src.find("#}", at + 2);
            if (close == src.npos) error("comment without '#}'");
            trim_all = src[close - 1] == '-';
            trim_newline = src[close - 1] != '+';
            advance(close + 2 - at);
            return;
        }
        const bool print = kind == '{';
        out.push_back({print ? JinjaLexeme::Type::print_begin : JinjaLexeme::Type::block_begin, "", line});
        advance(2);
        if (at < src.size() && (src[at] == '-' || src[at] == '+')) advance(1);
        const size_t first = out.size();
        inside(print);
        if (!print && out.size() == first + 2 && out[first].type == JinjaLexeme::Type::name && out[first].value == "raw") raw(first - 1);
    }

    void inside(bool print) {
        const std::string_view close = print ? "}}" : "%}";
        constexpr size_t max_lexemes = 4000;           // bounds the depth of chains such as a.b.b.b or a + b + c
        const size_t first = out.size();
        int nesting = 0;                               // a "}}" inside a dict literal does not close the tag
        while (true) {
            while (at < src.size() && is_space(src[at])) advance(1);
            if (at >= src.size()) error(print ? "'{{' without '}}'" : "'{%' without '%}'");
            if (nesting == 0) {
                const bool dash = (src[at] == '-' || src[at] == '+') && src.substr(at + 1, 2) == close;
                if (dash || src.substr(at, 2) == close) {
                    trim_all = dash && src[at] == '-';
                    trim_newline = !print && !(dash && src[at] == '+');
                    out.push_back({print ? JinjaLexeme::Type::print_end : JinjaLexeme::Type::block_end, "", line});
                    advance(dash ? 3 : 2);
                    return;
                }
            }
            const char c = src[at];
            if (out.size() - first > max_lexemes) error(str("more than ", max_lexemes, " symbols in one tag"));
            if (c == '{' || c == '(' || c == '[') ++nesting;
            if (c == '}' || c == ')' || c == ']') --nesting;
            lexeme(c);
        }
    }

    void lexeme(char c) {
        const int start = line;
        if (c == '\'' || c == '"') return string(c);
        if (c >= '0' && c <= '9') return number();
        if (is_name(c)) {
            size_t e = at;
            while (e < src.size() && is_name(src[e])) ++e;
            out.push_back({JinjaLexeme::Type::name, std::string(src.substr(at, e - at)), start});
            return advance(e - at);
        }
        for (std::string_view op : {"==", "!=", "<=", ">=", "//", "**"})
            if (src.substr(at, 2) == op) { out.push_back({JinjaLexeme::Type::op, std::string(op), start}); return advance(2); }
        if (std::string_view("+-*/%~<>=()[]{}.,:|").find(c) == std::string_view::npos) error(str("unexpected character '", c, "'"));
        out.push_back({JinjaLexeme::Type::op, std::string(1, c), start});
        advance(1);
    }

    void number() {
        size_t e = at;
        while (e < src.size() && src[e] >= '0' && src[e] <= '9') ++e;
        const bool real = e + 1 < src.size() && src[e] == '.' && src[e + 1] >= '0' && src[e + 1] <= '9';
        if (real) { ++e; while (e < src.size() && src[e] >= '0' && src[e] <= '9') ++e; }
        out.push_back({real ? JinjaLexeme::Type::number : JinjaLexeme::Type::integer, std::string(src.substr(at, e - at)), line});
        advance(e - at);
    }

    void string(char quote) {
        std::string value;
        size_t e = at + 1;
        for (; e < src.size() && src[e] != quote; ++e) {
            if (src[e] != '\\' || e + 1 >= src.size()) { value += src[e]; continue; }
            switch (const char c = src[++e]) {
                case 'n': value += '\n'; break;
                case 't': value += '\t'; break;
                case 'r': value += '\r'; break;
                case '\\': case '\'': case '"': value += c; break;
                case 'u': case 'x': {
                    const size_t digits = c == 'u' ? 4 : 2;
                    uint32_t point = 0;
                    const std::string_view hex = src.substr(e + 1, digits);
                    const auto [end, bad] = std::from_chars(hex.data(), hex.data() + hex.size(), point, 16);
                    if (bad != std::errc{} || end != hex.data() + digits) error("bad escape in a string");
                    if (point < 0x80) value += char(point);
                    else if (point < 0x800) { value += char(0xc0 | point >> 6); value += char(0x80 | (point & 63)); }
                    else { value += char(0xe0 | point >> 12); value += char(0x80 | (point >> 6 & 63)); value += char(0x80 | (point & 63)); }
                    e += digits;
                    break;
                }
                default: value += '\\'; value += c;
            }
        }
        if (e >= src.size()) error("string without its closing quote");
        out.push_back({JinjaLexeme::Type::string, std::move(value), line});
        advance(e + 1 - at);
    }

    // {% raw %}: the lexemes of the tag give way to the text up to {% endraw %}.
    void raw(size_t tag) {
        size_t open = at;
        while ((open = src.find("{%", open)) != src.npos) {
            size_t e = open + 2;
            if (e < src.size() && src[e] == '-') ++e;
            while (e < src.size() && is_space(src[e])) ++e;
            if (src.substr(e, 6) == "endraw") break;
            open += 2;
        }
        const size_t close = open == src.npos ? open : src.find("%}", open);
        if (close == src.npos) error("'raw' without 'endraw'");
        out.resize(tag);
        text(open);
        trim_all = src[close - 1] == '-';
        trim_newline = true;
        advance(close + 2 - at);
    }
};

}  // namespace jinja_lexer_room

std::vector<JinjaLexeme> lex_jinja(std::string_view source, std::string_view where) {
    // The last newline of a template is not printed (keep_trailing_newline is off).
    if (!source.empty() && source.back() == '\n') source.remove_suffix(source.size() > 1 && source[source.size() - 2] == '\r' ? 2 : 1);
    jinja_lexer_room::Lexer lexer;
    lexer.src = source;
    lexer.where = where;
    lexer.run();
    return std::move(lexer.out);
}

}  // namespace qlora
