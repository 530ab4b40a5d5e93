// jinja_ast.h - the syntax tree of a chat template, and the parser that makes it.
#pragma once
#include "src/base/error.h"

namespace qlora { inline namespace QLORA_ABI {

struct JinjaNode;
using JinjaNodePtr = std::unique_ptr<JinjaNode>;

struct JinjaNode {
    enum class Kind : uint8_t {
        // expressions
        literal_none,
        literal_bool,
        literal_int,
        literal_float,
        literal_string,
        list,
        tuple,
        dict,
        name,
        namespace_target,
        attribute,
        subscript,
        slice,
        call,
        filter,
        test,
        unary,
        binary,
        compare,
        concat,
        ternary,
        // statements
        text,
        print,
        if_block,
        for_block,
        set,
        set_block,
        with_block,
        macro,
        call_block,
        filter_block,
        generation,
        break_loop,
        continue_loop,
        body
    };
    Kind kind;
    int line = 0;
    std::string text;                                  // name, operator, string, attribute, filter or test name
    int64_t integer = 0;
    double number = 0;
    // boolean literal; name: assigned to; for_block: the body reads "loop"; **: only the right side reads names
    bool flag = false;
    bool uses_caller = false, uses_varargs = false, uses_kwargs = false;       // macro, call_block: what the body reads
    // Children by kind: attribute [object]; subscript [object, key]; slice [start?, stop?, step?], only as the key of a
    // subscript; call [callee, args...]; filter and test [operand?, args...], without operand: the printed body; unary
    // [x]; binary [a, b]; compare [first, others...], operators in names; concat [parts...]; ternary [condition, then,
    // else?]; dict [k, v, k, v, ...]; print [values...]; if_block [condition, body, else?]; for_block [target,
    // iterable, filter?, body, else?]; set [target, value]; set_block [target, filter?, body]; with_block [target,
    // value, ..., body]; macro [defaults..., body]; call_block [call, defaults..., body]; filter_block [filter, body];
    // generation [body]
    std::vector<JinjaNodePtr> kids;                    // null = absent
    // call, filter, test: keyword of each argument, "" = positional, "*" and "**" = unpacked; macro, call_block:
    // parameters; compare: operators
    std::vector<std::string> names;
};

// Parses with trim_blocks and lstrip_blocks, as Hugging Face renders chat templates. Errors name `where` and the line.
JinjaNodePtr parse_jinja(std::string_view source, std::string_view where);

}}  // namespace qlora
