// jinja_parser.h - the two halves of the parser: expressions (jinja_expressions.cpp) and statements (jinja_parser.cpp).
#pragma once
#include "src/text/jinja_ast.h"
#include "src/text/jinja_lexer.h"

#include <algorithm>

namespace qlora { inline namespace QLORA_ABI { namespace jinja_parser_room {

// Recursive descent with a depth limit; the grammar is the reference's, function for function.
struct JinjaParser {
    using Kind = JinjaNode::Kind;
    using Type = JinjaLexeme::Type;
    using Words = std::initializer_list<std::string_view>;

    std::vector<JinjaLexeme> lex;
    std::string_view where;
    size_t at = 0;
    int depth = 0;
    int loops = 0;                                     // that a break here would leave
    bool optional = false;    // inside an if: an unknown filter is an error only where it is reached
    static constexpr int max_depth = 200;              // real templates stay below 20; the C++ stack holds thousands

    const JinjaLexeme& peek(size_t k = 0) const { return lex[std::min(at + k, lex.size() - 1)]; }
    [[noreturn]] void error(std::string_view what) const {
        fail(Errc::format, where, ": line ", peek().line, " of the chat template: ", jinja_one_line(what));
    }
    [[noreturn]] void expected(std::string_view what) const {
        error(str("expected ", what, ", found '", peek().value, "'"));
    }
    bool is_op(std::string_view v, size_t k = 0) const { return peek(k).type == Type::op && peek(k).value == v; }
    bool is_word(std::string_view v, size_t k = 0) const { return peek(k).type == Type::name && peek(k).value == v; }
    bool is_any(Words words) const {
        return std::any_of(words.begin(), words.end(), [&](std::string_view w) { return is_word(w); });
    }
    bool take_op(std::string_view v) { return is_op(v) && ++at; }
    bool take_word(std::string_view v) { return is_word(v) && ++at; }
    void need_op(std::string_view v) { if (!take_op(v)) expected(str("'", v, "'")); }
    void need_word(std::string_view v) { if (!take_word(v)) expected(str("'", v, "'")); }
    std::string need_name() { if (peek().type != Type::name) expected("a name"); return lex[at++].value; }
    JinjaNodePtr make(Kind kind, std::string text = {}) const;
    JinjaNodePtr make(Kind kind, JinjaNodePtr kid, std::string text = {}) const;

    struct Deeper {
        JinjaParser& p;
        explicit Deeper(JinjaParser& parser) : p(parser) {
            if (++p.depth > max_depth) p.error(str("nested deeper than ", max_depth));
        }
        ~Deeper() { --p.depth; }
    };
    struct Soft {    // while this lives: inside an if (or, with false, no longer directly inside one)
        JinjaParser& p;
        bool outer;
        Soft(JinjaParser& parser, bool soft) : p(parser), outer(parser.optional) { p.optional = soft; }
        ~Soft() { p.optional = outer; }
    };

    // expressions
    JinjaNodePtr expression(bool with_condition = true);
    // or the one expression there is
    JinjaNodePtr tuple(bool with_condition = true, Words ends = {}, bool parenthesized = false);
    JinjaNodePtr primary(bool namespace_target = false);
    JinjaNodePtr filters(JinjaNodePtr operand, bool first_without_bar = false);    // operand null: what a block printed
    JinjaNodePtr target(bool with_namespace, Words ends = {});                         // what can be assigned to
    std::string target_name();

    // statements
    JinjaNodePtr body(Words ends);                     // up to, not including, the tag that ends it
    JinjaNodePtr body_and_end(std::string_view end);   // the '%}' before it and the end tag included

private:
    JinjaNodePtr binary(std::string op, JinjaNodePtr a, JinjaNodePtr b) const;
    JinjaNodePtr logical_or();
    JinjaNodePtr logical_and();
    JinjaNodePtr logical_not();
    JinjaNodePtr comparison();
    JinjaNodePtr sum();
    JinjaNodePtr concat();
    JinjaNodePtr product();
    JinjaNodePtr power();
    JinjaNodePtr unary(bool with_filters = true);
    JinjaNodePtr postfix(JinjaNodePtr value);
    JinjaNodePtr filters_and_tests(JinjaNodePtr value);
    JinjaNodePtr test(JinjaNodePtr operand);
    JinjaNodePtr call(JinjaNodePtr callee);
    void arguments(JinjaNode& call);
    JinjaNodePtr subscript(JinjaNodePtr object);
    JinjaNodePtr subscript_part();
    bool is_tuple_end(Words ends) const;
    std::string dotted_name();

    void close_block() { if (peek().type != Type::block_end) expected("'%}'"); ++at; }
    JinjaNodePtr statement();
    JinjaNodePtr if_statement();
    JinjaNodePtr for_statement();
    JinjaNodePtr set_statement();
    JinjaNodePtr with_statement();
    JinjaNodePtr macro_statement();
    JinjaNodePtr call_statement();
    JinjaNodePtr print_statement();
    JinjaNodePtr jump_statement(std::string_view word);
    void signature(JinjaNode& n);
    JinjaNodePtr function_body(std::string_view end);
};

}}}  // namespace qlora
