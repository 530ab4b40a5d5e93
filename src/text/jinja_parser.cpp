// jinja_parser.cpp - lexemes to syntax tree: recursive descent with a depth limit.
#include "src/text/jinja_ast.h"
#include "src/text/jinja_lexer.h"

#include <charconv>

namespace qlora::inline v0_1 {
namespace jinja_parser_room {

using Kind = JinjaNode::Kind;
using Lexeme = JinjaLexeme;

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
    Parser parser{lex_jinja(source, where), where};
    JinjaNodePtr root = parser.body({});
    if (parser.peek().type != Lexeme::Type::end) parser.error(str("unexpected '", parser.peek(1).value, "'"));
    return root;
}

}  // namespace qlora
