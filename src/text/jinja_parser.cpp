// jinja_parser.cpp - template text to syntax tree: a lexer for the three kinds of tags, then recursive descent with a depth limit.
#include "src/text/jinja_ast.h"

#include <charconv>

namespace qlora::inline v0_1 {
namespace jinja_parser_room {

using Kind = JinjaNode::Kind;

struct Lexeme {
    enum class Type : uint8_t { text, block_begin, block_end, print_begin, print_end, name, integer, number, string, op, end } type;
    std::string value;
    int line;
};

inline bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v'; }
inline bool is_name(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_'; }

struct Lexer {
    std::string_view src;
    std::string_view where;
    size_t at = 0;
    int line = 1;
    bool trim_newline = false, trim_all = false;       // what the tag before asks of the text that follows
    std::vector<Lexeme> out;

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
        out.push_back({Lexeme::Type::end, "", line});
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
        if (stop > begin) out.push_back({Lexeme::Type::text, std::string(body.substr(begin, stop - begin)), first_line});
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
        out.push_back({print ? Lexeme::Type::print_begin : Lexeme::Type::block_begin, "", line});
        advance(2);
        if (at < src.size() && (src[at] == '-' || src[at] == '+')) advance(1);
        const size_t first = out.size();
        inside(print);
        if (!print && out.size() == first + 2 && out[first].type == Lexeme::Type::name && out[first].value == "raw") raw(first - 1);
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
                    out.push_back({print ? Lexeme::Type::print_end : Lexeme::Type::block_end, "", line});
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
            out.push_back({Lexeme::Type::name, std::string(src.substr(at, e - at)), start});
            return advance(e - at);
        }
        for (std::string_view op : {"==", "!=", "<=", ">=", "//", "**"})
            if (src.substr(at, 2) == op) { out.push_back({Lexeme::Type::op, std::string(op), start}); return advance(2); }
        if (std::string_view("+-*/%~<>=()[]{}.,:|").find(c) == std::string_view::npos) error(str("unexpected character '", c, "'"));
        out.push_back({Lexeme::Type::op, std::string(1, c), start});
        advance(1);
    }

    void number() {
        size_t e = at;
        while (e < src.size() && src[e] >= '0' && src[e] <= '9') ++e;
        const bool real = e + 1 < src.size() && src[e] == '.' && src[e + 1] >= '0' && src[e + 1] <= '9';
        if (real) { ++e; while (e < src.size() && src[e] >= '0' && src[e] <= '9') ++e; }
        out.push_back({real ? Lexeme::Type::number : Lexeme::Type::integer, std::string(src.substr(at, e - at)), line});
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
        out.push_back({Lexeme::Type::string, std::move(value), line});
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

struct Parser {
    std::vector<Lexeme> lex;
    std::string_view where;
    size_t at = 0;
    int depth = 0;
    static constexpr int max_depth = 200;              // real templates stay below 20; the C++ stack holds thousands

    using Type = Lexeme::Type;
    const Lexeme& peek(size_t k = 0) const { return lex[std::min(at + k, lex.size() - 1)]; }
    [[noreturn]] void error(std::string_view what) const { fail(Errc::format, where, ": line ", peek().line, " of the chat template: ", what); }
    bool is_op(std::string_view v, size_t k = 0) const { return peek(k).type == Type::op && peek(k).value == v; }
    bool is_word(std::string_view v, size_t k = 0) const { return peek(k).type == Type::name && peek(k).value == v; }
    bool take_op(std::string_view v) { return is_op(v) && ++at; }
    bool take_word(std::string_view v) { return is_word(v) && ++at; }
    void need_op(std::string_view v) { if (!take_op(v)) error(str("expected '", v, "', found '", peek().value, "'")); }
    void need_word(std::string_view v) { if (!take_word(v)) error(str("expected '", v, "', found '", peek().value, "'")); }
    std::string need_name() { if (peek().type != Type::name) error(str("expected a name, found '", peek().value, "'")); return lex[at++].value; }
    JinjaNodePtr make(Kind kind, std::string text = {}) const { auto n = std::make_unique<JinjaNode>(); n->kind = kind; n->line = peek().line; n->text = std::move(text); return n; }

    struct Deeper {
        Parser& p;
        explicit Deeper(Parser& parser) : p(parser) { if (++p.depth > max_depth) p.error(str("nested deeper than ", max_depth)); }
        ~Deeper() { --p.depth; }
    };

    // ---- expressions, loosest first
    JinjaNodePtr expression() {
        Deeper deeper(*this);
        JinjaNodePtr value = logical_or();
        while (take_word("if")) {
            JinjaNodePtr n = make(Kind::ternary);
            n->kids.push_back(logical_or());
            n->kids.push_back(std::move(value));
            n->kids.push_back(take_word("else") ? expression() : nullptr);
            value = std::move(n);
        }
        return value;
    }
    JinjaNodePtr binary(std::string op, JinjaNodePtr a, JinjaNodePtr b) {
        JinjaNodePtr n = make(Kind::binary, std::move(op));
        n->kids.push_back(std::move(a));
        n->kids.push_back(std::move(b));
        return n;
    }
    JinjaNodePtr logical_or() {
        JinjaNodePtr a = logical_and();
        while (take_word("or")) a = binary("or", std::move(a), logical_and());
        return a;
    }
    JinjaNodePtr logical_and() {
        JinjaNodePtr a = logical_not();
        while (take_word("and")) a = binary("and", std::move(a), logical_not());
        return a;
    }
    JinjaNodePtr logical_not() {
        Deeper deeper(*this);
        if (!take_word("not")) return comparison();
        JinjaNodePtr n = make(Kind::unary, "not");
        n->kids.push_back(logical_not());
        return n;
    }
    JinjaNodePtr comparison() {                        // a < b < c means a < b and b < c; chains of one are all that templates use
        JinjaNodePtr a = sum();
        while (true) {
            std::string op;
            if (peek().type == Type::op && (is_op("==") || is_op("!=") || is_op("<") || is_op(">") || is_op("<=") || is_op(">="))) op = lex[at++].value;
            else if (take_word("in")) op = "in";
            else if (is_word("not") && is_word("in", 1)) { at += 2; op = "not in"; }
            else return a;
            a = binary(op, std::move(a), sum());
        }
    }
    JinjaNodePtr sum() {
        JinjaNodePtr a = concat();
        while (is_op("+") || is_op("-")) { std::string op = lex[at++].value; a = binary(op, std::move(a), concat()); }
        return a;
    }
    JinjaNodePtr concat() {
        JinjaNodePtr a = product();
        while (take_op("~")) a = binary("~", std::move(a), product());
        return a;
    }
    JinjaNodePtr product() {
        JinjaNodePtr a = unary();
        while (is_op("*") || is_op("/") || is_op("//") || is_op("%")) { std::string op = lex[at++].value; a = binary(op, std::move(a), unary()); }
        return a;
    }
    JinjaNodePtr unary() {
        Deeper deeper(*this);
        if (is_op("-") || is_op("+")) {
            JinjaNodePtr n = make(Kind::unary, lex[at++].value);
            n->kids.push_back(unary());
            return n;
        }
        JinjaNodePtr a = postfix(primary());
        if (take_op("**")) a = binary("**", std::move(a), unary());
        return filters_and_tests(std::move(a));
    }
    JinjaNodePtr filters_and_tests(JinjaNodePtr value) {
        while (true) {
            if (take_op("|")) {
                JinjaNodePtr n = make(Kind::filter, need_name());
                n->kids.push_back(std::move(value));
                n->names.emplace_back();
                if (take_op("(")) arguments(*n);
                value = postfix(std::move(n));
            } else if (take_word("is")) {
                const bool negated = take_word("not");
                JinjaNodePtr n = make(Kind::test, need_name());
                n->flag = negated;
                n->kids.push_back(std::move(value));
                n->names.emplace_back();
                if (take_op("(")) arguments(*n);
                else if (starts_test_argument()) { n->kids.push_back(postfix(primary())); n->names.emplace_back(); }
                value = std::move(n);
            } else return value;
        }
    }
    bool starts_test_argument() const {                // "x is divisibleby 3": a bare argument
        const Type t = peek().type;
        if (t == Type::string || t == Type::integer || t == Type::number) return true;
        if (t == Type::op) return is_op("[") || is_op("{");
        if (t != Type::name) return false;
        for (std::string_view word : {"and", "or", "not", "if", "else", "is", "in"}) if (is_word(word)) return false;
        return true;
    }
    void arguments(JinjaNode& call) {                  // after '('
        while (!take_op(")")) {
            std::string keyword;
            if (peek().type == Type::name && is_op("=", 1)) { keyword = need_name(); ++at; }
            call.kids.push_back(expression());
            call.names.push_back(std::move(keyword));
            if (!is_op(")")) need_op(",");
        }
    }
    JinjaNodePtr postfix(JinjaNodePtr value) {
        while (true) {
            if (take_op(".")) {
                JinjaNodePtr n;
                if (peek().type == Type::integer) { n = make(Kind::subscript); n->kids.push_back(std::move(value)); n->kids.push_back(primary()); }
                else { n = make(Kind::attribute, need_name()); n->kids.push_back(std::move(value)); }
                value = std::move(n);
            } else if (take_op("[")) {
                value = subscript(std::move(value));
            } else if (take_op("(")) {
                JinjaNodePtr n = make(Kind::call);
                n->kids.push_back(std::move(value));
                n->names.emplace_back();
                arguments(*n);
                value = std::move(n);
            } else return value;
        }
    }
    JinjaNodePtr subscript(JinjaNodePtr object) {
        JinjaNodePtr part[3];
        int colons = 0;
        while (!is_op("]")) {
            if (take_op(":")) { if (++colons > 2) error("a slice has at most three parts"); }
            else if (part[colons]) error(str("expected ']', found '", peek().value, "'"));
            else part[colons] = expression();
        }
        need_op("]");
        JinjaNodePtr n = make(colons ? Kind::slice : Kind::subscript);
        n->kids.push_back(std::move(object));
        if (!colons && !part[0]) error("empty subscript");
        for (int i = 0; i < (colons ? 3 : 1); ++i) n->kids.push_back(std::move(part[i]));
        return n;
    }
    JinjaNodePtr primary() {
        Deeper deeper(*this);
        const Lexeme& t = peek();
        JinjaNodePtr n;
        switch (t.type) {
            case Type::string:
                n = make(Kind::literal_string, t.value);
                while (peek(1).type == Type::string) n->text += lex[++at].value;
                ++at;
                return n;
            case Type::integer:
                n = make(Kind::literal_int);
                if (std::from_chars(t.value.data(), t.value.data() + t.value.size(), n->integer).ec != std::errc{}) error(str("number ", t.value, " is too large"));
                ++at;
                return n;
            case Type::number:
                n = make(Kind::literal_float);
                n->number = std::stod(t.value);
                ++at;
                return n;
            case Type::name:
                if (t.value == "true" || t.value == "True" || t.value == "false" || t.value == "False") {
                    n = make(Kind::literal_bool);
                    n->flag = t.value[0] == 't' || t.value[0] == 'T';
                } else if (t.value == "none" || t.value == "None") n = make(Kind::literal_none);
                else n = make(Kind::name, t.value);
                ++at;
                return n;
            default: break;
        }
        if (take_op("(")) return parenthesis();
        if (take_op("[")) { n = make(Kind::list); elements(*n, "]"); return n; }
        if (take_op("{")) {
            n = make(Kind::dict);
            while (!take_op("}")) {
                n->kids.push_back(expression());
                need_op(":");
                n->kids.push_back(expression());
                if (!is_op("}")) need_op(",");
            }
            return n;
        }
        error(str("expected a value, found '", t.value, "'"));
    }
    void elements(JinjaNode& n, std::string_view close) {
        while (!take_op(close)) {
            n.kids.push_back(expression());
            if (!is_op(close)) need_op(",");
        }
    }
    JinjaNodePtr parenthesis() {                       // after '(': a grouped expression or a tuple
        JinjaNodePtr n = make(Kind::tuple);
        if (take_op(")")) return n;
        JinjaNodePtr first = expression();
        if (take_op(")")) return first;
        need_op(",");
        n->kids.push_back(std::move(first));
        elements(*n, ")");
        return n;
    }

    // ---- statements
    JinjaNodePtr body(std::initializer_list<std::string_view> ends) {
        Deeper deeper(*this);
        JinjaNodePtr n = make(Kind::body);
        while (peek().type != Type::end) {
            if (peek().type == Type::text) { n->kids.push_back(make(Kind::text, peek().value)); ++at; continue; }
            if (peek().type == Type::print_begin) {
                ++at;
                JinjaNodePtr print = make(Kind::print);
                print->kids.push_back(expression_or_tuple());
                if (peek().type != Type::print_end) error(str("expected '}}', found '", peek().value, "'"));
                ++at;
                n->kids.push_back(std::move(print));
                continue;
            }
            for (std::string_view end : ends) if (is_word(end, 1)) return n;
            ++at;
            n->kids.push_back(statement());
        }
        if (ends.size()) error(str("the template ends before '", *ends.begin(), "'"));
        return n;
    }
    void close_block() { if (peek().type != Type::block_end) error(str("expected '%}', found '", peek().value, "'")); ++at; }
    void end_of(std::string_view word) { ++at; need_word(word); close_block(); }       // at the block_begin before `word`
    JinjaNodePtr expression_or_tuple() {
        JinjaNodePtr first = expression();
        if (!is_op(",")) return first;
        JinjaNodePtr n = make(Kind::tuple);
        n->kids.push_back(std::move(first));
        while (take_op(",")) n->kids.push_back(expression());
        return n;
    }
    JinjaNodePtr target() {                            // a name, ns.attr, or names separated by commas
        JinjaNodePtr first = postfix(primary());
        if (!is_op(",")) return first;
        JinjaNodePtr n = make(Kind::tuple);
        n->kids.push_back(std::move(first));
        while (take_op(",")) n->kids.push_back(primary());
        return n;
    }

    JinjaNodePtr statement() {
        const std::string word = need_name();
        if (word == "if") return if_statement("endif");
        if (word == "for") return for_statement();
        if (word == "set") return set_statement();
        if (word == "macro") return macro_statement();
        JinjaNodePtr n;
        if (word == "break" || word == "continue") {
            n = make(word == "break" ? Kind::break_loop : Kind::continue_loop);
            close_block();
        } else if (word == "generation") {
            n = make(Kind::generation);
            close_block();
            n->kids.push_back(body({"endgeneration"}));
            end_of("endgeneration");
        } else if (word == "filter") {
            n = make(Kind::filter_block);
            JinjaNodePtr empty = make(Kind::literal_string);
            JinjaNodePtr filter = make(Kind::filter, need_name());
            filter->kids.push_back(std::move(empty));
            filter->names.emplace_back();
            if (take_op("(")) arguments(*filter);
            n->kids.push_back(std::move(filter));
            close_block();
            n->kids.push_back(body({"endfilter"}));
            end_of("endfilter");
        } else if (word == "call") {
            n = make(Kind::call_block);
            n->kids.push_back(expression());
            close_block();
            n->kids.push_back(body({"endcall"}));
            end_of("endcall");
        } else error(str("unsupported statement '", word, "'"));
        return n;
    }
    JinjaNodePtr if_statement(std::string_view end) {
        Deeper deeper(*this);
        JinjaNodePtr n = make(Kind::if_block);
        n->kids.push_back(expression());
        close_block();
        n->kids.push_back(body({"elif", "else", end}));
        ++at;
        if (take_word("elif")) n->kids.push_back(if_statement(end));
        else if (take_word("else")) {
            close_block();
            n->kids.push_back(body({end}));
            end_of(end);
        } else { need_word(end); close_block(); n->kids.push_back(nullptr); }
        return n;
    }
    JinjaNodePtr for_statement() {
        JinjaNodePtr n = make(Kind::for_block);
        n->kids.push_back(target());
        need_word("in");
        n->kids.push_back(logical_or());
        n->kids.push_back(take_word("if") ? expression() : nullptr);
        if (is_word("recursive")) error("recursive loops are not supported");
        close_block();
        n->kids.push_back(body({"else", "endfor"}));
        ++at;
        if (take_word("else")) { close_block(); n->kids.push_back(body({"endfor"})); end_of("endfor"); }
        else { need_word("endfor"); close_block(); n->kids.push_back(nullptr); }
        return n;
    }
    JinjaNodePtr set_statement() {
        JinjaNodePtr to = target();
        if (take_op("=")) {
            JinjaNodePtr n = make(Kind::set);
            n->kids.push_back(std::move(to));
            n->kids.push_back(expression_or_tuple());
            close_block();
            return n;
        }
        JinjaNodePtr n = make(Kind::set_block);
        n->kids.push_back(std::move(to));
        close_block();
        n->kids.push_back(body({"endset"}));
        end_of("endset");
        return n;
    }
    JinjaNodePtr macro_statement() {
        JinjaNodePtr n = make(Kind::macro, need_name());
        need_op("(");
        while (!take_op(")")) {
            n->names.push_back(need_name());
            n->kids.push_back(take_op("=") ? expression() : nullptr);
            if (!is_op(")")) need_op(",");
        }
        close_block();
        n->kids.push_back(body({"endmacro"}));
        end_of("endmacro");
        return n;
    }
};

}  // namespace jinja_parser_room

JinjaNodePtr parse_jinja(std::string_view source, std::string_view where) {
    using namespace jinja_parser_room;
    // The last newline of a template is not printed (keep_trailing_newline is off).
    if (!source.empty() && source.back() == '\n') source.remove_suffix(source.size() > 1 && source[source.size() - 2] == '\r' ? 2 : 1);
    Lexer lexer;
    lexer.src = source;
    lexer.where = where;
    lexer.run();
    Parser parser{std::move(lexer.out), where};
    JinjaNodePtr root = parser.body({});
    if (parser.peek().type != Lexeme::Type::end) parser.error(str("unexpected '", parser.peek(1).value, "'"));
    return root;
}

}  // namespace qlora
