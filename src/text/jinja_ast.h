// jinja_ast.h - the syntax tree of a chat template, and the parser that makes it.
#pragma once
#include "src/base/error.h"

namespace qlora::inline v0_1 {

struct JinjaNode;
using JinjaNodePtr = std::unique_ptr<JinjaNode>;

struct JinjaNode {
    enum class Kind : uint8_t {
        // expressions
        literal_none, literal_bool, literal_int, literal_float, literal_string, list, tuple, dict, name,
        attribute, subscript, slice, call, filter, test, unary, binary, ternary,
        // statements
        text, print, if_block, for_block, set, set_block, macro, call_block, filter_block, generation, break_loop, continue_loop, body
    };
    Kind kind;
    int line = 0;
    std::string text;                                  // name, operator, string, attribute, filter or test name
    int64_t integer = 0;
    double number = 0;
    bool flag = false;                                 // boolean literal; test: negated
    // Children by kind: attribute [object]; subscript [object, key]; slice [object, start?, stop?, step?]; call [callee, args...];
    // filter and test [operand, args...]; unary [x]; binary [a, b]; ternary [condition, then, else?]; dict [k, v, k, v, ...];
    // if_block [condition, body, else?]; for_block [target, iterable, filter?, body, else?]; set [target, value]; set_block [target, body];
    // macro [defaults..., body]; call_block [call, body]; filter_block [filter on an empty operand, body]
    std::vector<JinjaNodePtr> kids;                    // null = absent
    std::vector<std::string> names;                    // call, filter, test: keyword of each argument, "" = positional; macro: parameters
};

// Parses with trim_blocks and lstrip_blocks, as Hugging Face renders chat templates. Errors name `where` and the line.
JinjaNodePtr parse_jinja(std::string_view source, std::string_view where);

}  // namespace qlora
