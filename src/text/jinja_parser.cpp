// jinja_parser.cpp - the statements of a template: lexemes to syntax tree.
#include "src/text/jinja_parser.h"

namespace qlora { inline namespace QLORA_ABI {
namespace jinja_parser_room {

// Whether `n` reads a variable before anything in it, in the order of the text, assigns to it: the reference decides by
// this whether a macro takes more arguments than it names.
inline bool reads(const JinjaNode& n, const std::string& name, bool& assigned) {
    if (n.kind == JinjaNode::Kind::name && n.text == name) {
        if (n.flag) assigned = true;
        return !n.flag && !assigned;
    }
    if (n.kind == JinjaNode::Kind::macro || n.kind == JinjaNode::Kind::call_block)
        for (const std::string& p : n.names) assigned |= p == name;
    for (const JinjaNodePtr& kid : n.kids) if (kid && reads(*kid, name, assigned)) return true;
    return false;
}
inline bool reads(const JinjaNode& n, const std::string& name) {
    bool assigned = false;
    return reads(n, name, assigned);
}
inline bool assigns(const JinjaNode& n, std::string_view name) {
    if (n.kind == JinjaNode::Kind::name && n.text == name && n.flag) return true;
    return std::any_of(n.kids.begin(), n.kids.end(),
                       [&](const JinjaNodePtr& kid) { return kid && assigns(*kid, name); });
}

JinjaNodePtr JinjaParser::body(Words ends) {
    Deeper deeper(*this);
    JinjaNodePtr n = make(Kind::body);
    while (peek().type != Type::end) {
        if (peek().type == Type::text) { n->kids.push_back(make(Kind::text, peek().value)); ++at; continue; }
        if (peek().type == Type::print_begin) {
            ++at;
            JinjaNodePtr print = make(Kind::print);
            print->kids.push_back(tuple());
            if (peek().type != Type::print_end) expected("'}}'");
            ++at;
            n->kids.push_back(std::move(print));
            continue;
        }
        for (std::string_view end : ends) if (is_word(end, 1)) { ++at; return n; }
        ++at;
        n->kids.push_back(statement());
        close_block();
    }
    if (ends.size()) error(str("the template ends before '", *std::prev(ends.end()), "'"));
    return n;
}
JinjaNodePtr JinjaParser::body_and_end(std::string_view end) {
    take_op(":");
    close_block();
    JinjaNodePtr n = body({end});
    ++at;
    return n;
}
// A body that the reference compiles to a function: loops outside of it cannot be left from inside.
JinjaNodePtr JinjaParser::function_body(std::string_view end) {
    const int outer = loops;
    loops = 0;
    JinjaNodePtr n = body_and_end(end);
    loops = outer;
    return n;
}

JinjaNodePtr JinjaParser::statement() {                // its '%}' is left to body()
    const std::string word = need_name();
    if (word == "if") return if_statement();
    if (word == "break" || word == "continue") return jump_statement(word);
    if (word == "print") return print_statement();
    if (word == "set") return set_statement();
    Soft hard(*this, false);
    if (word == "for") return for_statement();
    if (word == "with") return with_statement();
    if (word == "macro") return macro_statement();
    if (word == "call") return call_statement();
    if (word == "generation") return make(Kind::generation, function_body("endgeneration"));
    if (word == "filter") {
        JinjaNodePtr n = make(Kind::filter_block, filters(nullptr, true));
        n->kids.push_back(function_body("endfilter"));
        return n;
    }
    error(str("unsupported statement '", word, "'"));
}
JinjaNodePtr JinjaParser::jump_statement(std::string_view word) {
    if (!loops)
        error(str("'", word, "' outside of a loop, or in a macro, call, generation, filter or set block inside it"));
    return make(word == "break" ? Kind::break_loop : Kind::continue_loop);
}
JinjaNodePtr JinjaParser::print_statement() {
    JinjaNodePtr n = make(Kind::print);
    while (peek().type != Type::block_end) {
        if (!n->kids.empty()) need_op(",");
        n->kids.push_back(expression());
    }
    return n;
}
JinjaNodePtr JinjaParser::if_statement() {
    Deeper deeper(*this);
    Soft soft(*this, true);
    JinjaNodePtr n = make(Kind::if_block, tuple(false));
    take_op(":");
    close_block();
    n->kids.push_back(body({"elif", "else", "endif"}));
    if (take_word("elif")) n->kids.push_back(if_statement());
    else if (take_word("else")) n->kids.push_back(body_and_end("endif"));
    else { need_word("endif"); n->kids.push_back(nullptr); }
    return n;
}
JinjaNodePtr JinjaParser::for_statement() {
    JinjaNodePtr n = make(Kind::for_block, target(false, {"in"}));
    need_word("in");
    n->kids.push_back(tuple(false, {"recursive"}));
    n->kids.push_back(take_word("if") ? expression() : nullptr);
    if (is_word("recursive")) error("recursive loops are not supported");
    take_op(":");
    close_block();
    ++loops;
    n->kids.push_back(body({"endfor", "else"}));
    --loops;
    n->kids.push_back(take_word("else") ? body_and_end("endfor") : nullptr);
    if (!n->kids.back()) need_word("endfor");
    n->flag = reads(*n->kids[3], "loop");
    if (assigns(*n, "loop")) error("cannot assign to the special variable 'loop' inside a loop");
    return n;
}
JinjaNodePtr JinjaParser::set_statement() {
    JinjaNodePtr to = target(true);
    if (take_op("=")) {
        JinjaNodePtr n = make(Kind::set, std::move(to));
        n->kids.push_back(tuple());
        return n;
    }
    Soft hard(*this, false);
    JinjaNodePtr n = make(Kind::set_block, std::move(to));
    n->kids.push_back(filters(nullptr));
    n->kids.push_back(function_body("endset"));
    return n;
}
JinjaNodePtr JinjaParser::with_statement() {
    JinjaNodePtr n = make(Kind::with_block);
    while (peek().type != Type::block_end) {
        if (!n->kids.empty()) need_op(",");
        n->kids.push_back(target(false));
        need_op("=");
        n->kids.push_back(expression());
    }
    n->kids.push_back(body_and_end("endwith"));
    return n;
}
void JinjaParser::signature(JinjaNode& n) {
    need_op("(");
    bool defaults = false;
    while (!is_op(")")) {
        if (!n.names.empty()) need_op(",");
        n.names.push_back(target_name());
        if (n.names.back() == "caller") error("a parameter named 'caller' is not supported");
        if (std::count(n.names.begin(), n.names.end(), n.names.back()) > 1)
            error(str("parameter '", n.names.back(), "' is declared twice"));
        n.kids.push_back(take_op("=") ? expression() : nullptr);
        if (defaults && !n.kids.back()) error("a parameter without default follows one with a default");
        defaults = n.kids.back() != nullptr;
    }
    ++at;
}
inline void note_uses(JinjaNode& n) {
    const JinjaNode& body = *n.kids.back();
    n.uses_caller = reads(body, "caller");
    n.uses_varargs = reads(body, "varargs");
    n.uses_kwargs = reads(body, "kwargs");
}
JinjaNodePtr JinjaParser::macro_statement() {
    JinjaNodePtr n = make(Kind::macro, target_name());
    signature(*n);
    n->kids.push_back(function_body("endmacro"));
    note_uses(*n);
    return n;
}
JinjaNodePtr JinjaParser::call_statement() {
    JinjaNodePtr n = make(Kind::call_block, JinjaNodePtr());
    if (is_op("(")) signature(*n);
    n->kids[0] = expression();
    if (n->kids[0]->kind != Kind::call) error("'call' needs a macro call");
    n->kids.push_back(function_body("endcall"));
    note_uses(*n);
    return n;
}

}  // namespace jinja_parser_room

JinjaNodePtr parse_jinja(std::string_view source, std::string_view where) {
    jinja_parser_room::JinjaParser parser{lex_jinja(source, where), where};
    JinjaNodePtr root = parser.body({});
    if (parser.peek().type != JinjaLexeme::Type::end) parser.error(str("unexpected '", parser.peek(1).value, "'"));
    return root;
}

}}  // namespace qlora
