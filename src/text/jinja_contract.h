// jinja_contract.h - what filters, tests, methods, globals and macros may be called with: one rule for all of them.
//
// A signature is a list of names: "width=, first=, blank=" are optional, "old, new" required; what stands before "/"
// cannot be given by name; "*" takes further positional arguments, "**" further keywords. "style!" is a parameter that
// the reference reads and this interpreter does not: giving it is an error that names it, as is everything else that a
// signature does not list.
#pragma once
#include "src/text/jinja_value.h"

namespace qlora { inline namespace QLORA_ABI {

struct JinjaSignature {
    struct Parameter { std::string name; bool required = false, by_name = true, unread = false; };
    std::vector<Parameter> parameters;
    bool rest = false, keywords = false;
    JinjaSignature() = default;
    JinjaSignature(const char* text);                  // the notation above
};

// A call whose arguments fit the signature.
struct JinjaCall {
    JinjaContext& cx;
    const JinjaValue& self;                            // a filter's or test's operand; whose method it is
    std::string what;                                  // "filter 'indent'", for errors
    std::vector<std::optional<JinjaValue>> values;     // one a parameter
    std::vector<JinjaValue> rest;
    std::vector<std::pair<std::string, JinjaValue>> keywords;

    [[noreturn]] void error(std::string_view problem) const { cx.error(str(what, ": ", problem)); }
    bool has(size_t k) const { return values[k].has_value(); }
    // where none means "not given"
    bool given(size_t k) const { return values[k] && !values[k]->is(JinjaValue::Kind::none); }
    const JinjaValue& at(size_t k) const { return *values[k]; }
    bool flag(size_t k) const { return values[k] && values[k]->truthy(); }
    int64_t whole(size_t k, int64_t otherwise) const;  // an integer
    const std::string& string(size_t k) const;         // a text
    JinjaText text() const { return jinja_text(cx, self); }              // str() of self
};

void jinja_bind(JinjaCall&, const JinjaSignature&, const JinjaArgs&);

// A row of one of the tables. Without `run`: the reference has it, this interpreter does not.
struct JinjaBuiltin {
    std::string_view name;
    JinjaSignature signature;
    JinjaValue (*run)(JinjaCall&);
};
using JinjaTable = std::vector<JinjaBuiltin>;

const JinjaBuiltin* jinja_row(const JinjaTable&, std::string_view name);        // null: not in it
JinjaValue jinja_run_row(JinjaContext&, const JinjaBuiltin&, std::string_view kind, const JinjaValue& self,
                         const JinjaArgs&);

// The tables; a lambda of no captures is a row's code.
const JinjaTable& jinja_text_filters();
const JinjaTable& jinja_list_filters();
const JinjaTable& jinja_value_filters();
const JinjaTable& jinja_tests();
const JinjaTable& jinja_methods(const JinjaValue& self);               // of its type; empty for types without
// a method that changes a list or dict: the sandbox hides it
bool jinja_changes(const JinjaValue& self, std::string_view name);

}}  // namespace qlora
